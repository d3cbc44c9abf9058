// One call of convolution: its operands, and the loops over channels, sequences and chunks of tokens.
//
//   for each task (some channels, sequence b, chunk [s, e) of outputs)    cut by shape alone
//     inputs s + ahead - K + 1 ... e - 1 + ahead, gated                   convolution_rows.hpp, unless rows of x do
//     enter, transform, product, transform back, leave; or direct sums    tile/fft.hpp
//     outputs, gated
// Modulo x^(2P) + 1 the first K - 1 outputs of a window are spoilt, unless it starts where the sequence does.
#pragma once

#include "convolution_filter.hpp"
#include "convolution_rows.hpp"
#include "scratch.hpp"

namespace heed::inline HEED_ABI::detail {

/// Some channels as rows that start at a position of theirs.
template <class T>
struct row_pointers {
    T* data = nullptr;
    index_t stride = 0;  // between channels

    T* of(index_t c) const { return data ? data + c * stride : nullptr; }
};

/// The direct form: y[t] = bias + sum_j h[j] x[t + j] for t < n, the last j first, to whole packs; x is read as far as
/// they need.
template <class A, class T>
void sum_directly(const T* h, index_t K, const T* x, T bias, T* y, index_t n) {
    using P = pack<T, A>;
    constexpr index_t L = P::size;
    constexpr int R = 8;  // sums in flight hide the latency of the multiply-add
    const auto block = [&](auto count, index_t t) HEED_INLINE_LAMBDA {
        P sum[count];
        unroll<count>([&](auto r) HEED_INLINE_LAMBDA { sum[r] = P(bias); });
        for (index_t j = K; j-- > 0;) {
            const P tap(h[j]);
            unroll<count>([&](auto r) HEED_INLINE_LAMBDA { sum[r] = fma(tap, load<P>(x + t + j + r * L), sum[r]); });
        }
        unroll<count>([&](auto r) HEED_INLINE_LAMBDA { store(y + t + r * L, sum[r]); });
    };
    index_t t = 0;
    for (; t + R * L <= n; t += R * L) block(std::integral_constant<int, R>{}, t);
    for (; t < n; t += L) block(std::integral_constant<int, 1>{}, t);
}

/// The same for many taps and a few tokens: lanes along the taps. x is read to the end of a pack.
template <class A, class T>
void sum_along_taps(const T* h, index_t K, const T* x, T bias, T* y, index_t n) {
    using P = pack<T, A>;
    constexpr index_t L = P::size;
    constexpr int R = 4;  // outputs that share a load of taps
    const index_t whole = K / L * L;
    alignas(64) T rest[L] = {};
    std::copy(h + whole, h + K, rest);
    const auto kept = mask_of_bits<T, A>((std::uint32_t(1) << (K - whole)) - 1);  // later inputs may be NaN
    const auto block = [&](auto outputs, auto at_once, index_t t) HEED_INLINE_LAMBDA {
        P sum[outputs][at_once];
        unroll<outputs>([&](auto r) HEED_INLINE_LAMBDA {
            unroll<at_once>([&](auto u) HEED_INLINE_LAMBDA { sum[r][u] = P(0); });
        });
        const auto add = [&](index_t j, auto u) HEED_INLINE_LAMBDA {
            const P tap = load<P>(h + j);
            unroll<outputs>(
                [&](auto r) HEED_INLINE_LAMBDA { sum[r][u] = fma(tap, load<P>(x + t + r + j), sum[r][u]); });
        };
        index_t j = 0;
        for (; j + at_once * L <= whole; j += at_once * L)
            unroll<at_once>([&](auto u) HEED_INLINE_LAMBDA { add(j + u * L, u); });
        for (; j < whole; j += L) add(j, std::integral_constant<int, 0>{});
        unroll<outputs>([&](auto r) HEED_INLINE_LAMBDA {
            P all = fma(load_aligned<P>(rest), select(kept, load<P>(x + t + r + whole), P(0)), sum[r][0]);
            for (int u = 1; u < at_once; ++u) all += sum[r][u];
            y[t + r] = reduce_add(all) + bias;
        });
    };
    index_t t = 0;
    for (; t + R <= n; t += R) block(std::integral_constant<int, R>{}, std::integral_constant<int, 2>{}, t);
    for (; t < n; ++t) block(std::integral_constant<int, 1>{}, std::integral_constant<int, 8>{}, t);
}

template <class A, class T, class X, class Y, class GI, class GO>
struct convolution_call {
    using plan_type = fft_plan<T, A>;
    using P = pack<T, A>;
    static constexpr index_t L = lanes<T, A>, G = plan_type::sequences;
    static constexpr index_t direct_chunk = 1024;

    view<const X, 3> x;
    const convolution_filter<T, A>& filter;
    view<Y, 3> y;
    view<const GI, 3> input_gate;  // none: no data, as of those below
    view<const GO, 3> output_gate;
    view<const T, 1> bias;  // (c)
    view<T, 3> past;        // (b, c, K - 1) inputs before the first token

    index_t B() const { return x.shape[0]; }
    index_t N() const { return x.shape[1]; }
    index_t C() const { return x.shape[2]; }
    bool has_past() const { return past.data != nullptr; }
    /// Taps that meet an input, if sums are direct; the last of the filter's rows.
    index_t met() const { return has_past() ? filter.taps() : std::min(filter.taps(), N() + filter.ahead()); }
    /// Null where sums are direct.
    const plan_type* plan() const { return filter.is_brief(N(), met()) ? nullptr : filter.plan(); }
    index_t taps() const { return plan() ? filter.taps() : met(); }

    /// Whether rows of x (or y) serve as they are.
    template <class S>
    static bool is_row(const view<S, 3>& v) {
        return !v.data || (std::is_same_v<std::remove_const_t<S>, T> && v.strides[1] == 1);
    }
    bool reads_rows() const { return is_row(x) && is_row(input_gate); }
    bool writes_rows() const { return is_row(y) && is_row(output_gate); }
    /// Direct sums work on copies: they read zeros around a sequence and write whole packs.
    bool reads_in_place() const { return plan() && !has_past() && reads_rows(); }
    bool writes_in_place() const { return plan() && writes_rows(); }
    /// Channels of a task: those of a transform, or those of a pack where tokens do not lie channel by channel.
    index_t width() const { return reads_rows() && writes_rows() ? G : std::max(L, G); }
    index_t chunk() const {
        if (!plan()) return direct_chunk;
        return !has_past() && filter.at_once(N()) ? N() : filter.chunk();
    }
    index_t chunks() const { return N() > 0 ? ceil_div(N(), chunk()) : 0; }
    index_t tasks() const { return ceil_div(C(), width()) * B() * chunks(); }
    /// Numbers of a staged row: a chunk of outputs and a pack beyond; the inputs these meet.
    index_t out_size() const {
        return round_up(std::min(N(), chunk()) + L, static_cast<index_t>(arena::alignment / sizeof(T)));
    }
    index_t in_size() const {
        return round_up(std::min(N(), chunk()) + taps() + L, static_cast<index_t>(arena::alignment / sizeof(T)));
    }

    /// Scratch of one worker.
    struct space {
        T *z, *in, *out;
        space(carver& from, const convolution_call& call) {
            z = from.template take<T>(call.plan() ? call.plan()->block() * 2 * L : 0);
            in = from.template take<T>(call.reads_in_place() ? 0 : call.width() * call.in_size());
            out = from.template take<T>(call.writes_in_place() ? 0 : call.width() * call.out_size());
        }
    };
    std::size_t worker_bytes() const {
        carver count;
        space(count, *this);
        return count.used();
    }
    template <executor E>
    std::size_t scratch_bytes(E& pool) const {
        return static_cast<std::size_t>(workers(pool, tasks())) * worker_bytes();
    }

    template <executor E>
    void run(E& pool, std::byte* memory) const {
        for_tasks(pool, tasks(), [&](index_t task, index_t worker) {
            carver from(memory + static_cast<std::size_t>(worker) * worker_bytes());
            const index_t block = task / (chunks() * B()), rest = task % (chunks() * B());
            const range some{block * width(), std::min(C(), (block + 1) * width())};
            const index_t s = rest % chunks() * chunk();
            run_task(space(from, *this), some, rest / chunks(), {s, std::min(N(), s + chunk())});
        });
        if (has_past() && filter.taps() > 1)
            for_tasks(pool, B() * C(), [&](index_t task, index_t) { remember(task / C(), task % C()); });
    }

private:
    void run_task(const space& own, range some, index_t b, range outputs) const {
        const index_t K = taps(), first = outputs.first + filter.ahead() - (K - 1);
        const range all{has_past() ? -(K - 1) : 0, N()};
        // Direct sums want the zeros around a sequence, a transform does not.
        const range wanted{plan() ? std::max(all.first, first) : first, outputs.last + filter.ahead()};
        row_pointers<const T> in{own.in, in_size()}, gate{};
        range inputs = wanted & all;
        if (reads_in_place()) {
            in = rows_of(x, b, some.first, inputs.first);
            gate = rows_of(input_gate, b, some.first, inputs.first);
        } else {
            stage(own.in, some, b, wanted);
            if (!plan()) inputs = wanted;
        }
        row_pointers<T> out{own.out, out_size()};
        row_pointers<const T> out_gate{};
        if (writes_in_place()) {
            out = rows_of(y, b, some.first, outputs.first);
            out_gate = rows_of(output_gate, b, some.first, outputs.first);
        }
        if (plan()) {
            for (index_t c = some.first; c < some.last; c += G) {
                const index_t at = c - some.first;
                group_rows group{{in.of(at), in.stride},
                                 {gate.of(at), gate.stride},
                                 {out.of(at), out.stride},
                                 {out_gate.of(at), out_gate.stride},
                                 {},
                                 std::min(G, some.last - c),
                                 inputs,
                                 outputs};
                for (index_t s = 0; s < group.channels; ++s) group.bias[s] = bias_of(c + s);
                transform_group(own.z, c, group);
            }
        } else {
            // A filter with a plan has many taps.
            const auto sum = filter.plan() ? sum_along_taps<A, T> : sum_directly<A, T>;
            for (index_t c = some.first; c < some.last; ++c)
                sum(filter.taps_of(c) + filter.taps() - K, K, in.of(c - some.first), bias_of(c),
                    out.of(c - some.first), outputs.size());
        }
        if (writes_in_place()) return;
        if (output_gate.data) rows_from<A, true>(output_gate, b, some, outputs, own.out, out_size());
        rows_to<A>(own.out, out_size(), y, b, some, outputs);
    }

    T bias_of(index_t c) const { return bias.data ? bias(c) : T(0); }

    /// Rows of a view of T with neighbouring tokens, from a channel and a token on; null where there is none.
    template <class S>
    static auto rows_of(const view<S, 3>& v, index_t b, index_t c, index_t n) {
        using U = std::conditional_t<std::is_const_v<S>, const T, T>;
        if constexpr (std::is_same_v<std::remove_const_t<S>, T>) {
            if (v.data) return row_pointers<U>{&v(b, n, c), v.strides[2]};
        }
        return row_pointers<U>{};
    }

    /// The inputs of some channels as rows: what came before, x times its gate, zeros around them.
    void stage(T* rows, range some, index_t b, range wanted) const {
        const range inside = wanted & range{0, N()}, before = wanted & range{-(filter.taps() - 1), 0};
        for (index_t c = 0; c < some.size(); ++c) {
            T* row = rows + c * in_size();
            index_t j = wanted.first;
            const auto zeros = [&](index_t end) {
                for (; j < end; ++j) *row++ = 0;
            };
            if (has_past()) {
                zeros(before.first);
                if (!before.empty())
                    widen_row<A>(&past(b, some.first + c, before.first + filter.taps() - 1), past.strides[2],
                                 before.size(), row);
                row += before.size(), j = std::max(j, before.last);
            }
            zeros(std::min(wanted.last, inside.first));
            row += inside.size(), j += inside.size();
            zeros(wanted.last + L);
        }
        if (inside.empty()) return;
        T* const at = rows + (inside.first - wanted.first);
        rows_from<A, false>(x, b, some, inside, at, in_size());
        if (input_gate.data) rows_from<A, true>(input_gate, b, some, inside, at, in_size());
    }

    /// What a transform of up to G channels meets: rows from the first of `inputs` and of `outputs` on.
    struct group_rows {
        row_pointers<const T> in, in_gate;
        row_pointers<T> out;
        row_pointers<const T> out_gate;
        T bias[G];
        index_t channels;
        range inputs, outputs;
    };

    /// L numbers of a row of n from i on, zeros beyond, times those of a gate.
    static HEED_INLINE P loaded(const T* row, const T* gate, index_t i, index_t n) {
        if (i + L <= n) [[likely]]
            return gate ? load<P>(row + i) * load<P>(gate + i) : load<P>(row + i);
        alignas(64) T some[L] = {};
        for (index_t l = i; l < n; ++l) some[l - i] = gate ? row[l] * gate[l] : row[l];
        return load_aligned<P>(some);
    }
    static HEED_INLINE void stored(T* row, const T* gate, index_t i, index_t n, const P& x) {
        if (i >= 0 && i + L <= n) [[likely]]
            return store(row + i, gate ? x * load<P>(gate + i) : x);
        if (i <= -L || i >= n) return;
        alignas(64) T some[L];
        store_aligned(some, x);
        for (index_t l = std::max<index_t>(0, i); l < std::min(n, i + L); ++l)
            row[l] = gate ? some[l - i] * gate[l] : some[l - i];
    }

    void transform_group(T* z, index_t c, const group_rows& group) const {
        const plan_type& with = *filter.plan();
        const index_t inputs = group.inputs.size(), outputs = group.outputs.size();
        const index_t shift = group.outputs.first + filter.ahead() - group.inputs.first;  // output 0 in the window
        P spoilt(0);
        const auto read = [&](index_t s, index_t i) HEED_INLINE_LAMBDA {
            if (s >= group.channels) return P(0);
            const P all = loaded(group.in.of(s), group.in_gate.of(s), i, inputs);
            const P zero = all * P(0);  // NaN where inf or NaN
            spoilt += zero;
            return select(zero == P(0), all, P(0));
        };
        const auto write = [&](index_t s, index_t i, const P& value) HEED_INLINE_LAMBDA {
            if (s < group.channels)
                stored(group.out.of(s), group.out_gate.of(s), i - shift, outputs, value + P(group.bias[s]));
        };
        if (inputs > with.size())
            enter<true>(with, z, read);
        else
            enter<false>(with, z, read);
        transform<true>(with, z, filter.spectrum_of(c));
        if (shift + outputs > with.size())
            leave<true>(with, z, write);
        else
            leave<false>(with, z, write);
        if (any(spoilt != P(0)))
            for (index_t s = 0; s < group.channels; ++s) spoil(group, s);
    }

    /// Inputs that are not finite entered as zeros; what they reach is NaN.
    HEED_NOINLINE void spoil(const group_rows& group, index_t s) const {
        const T *row = group.in.of(s), *gate = group.in_gate.of(s);
        index_t next = group.inputs.first, last = next - filter.taps();  // the last that is not finite
        for (index_t t = group.outputs.first; t < group.outputs.last; ++t) {
            for (; next < std::min(group.inputs.last, t + filter.ahead() + 1); ++next) {
                const index_t i = next - group.inputs.first;
                if (!std::isfinite(gate ? row[i] * gate[i] : row[i])) last = next;
            }
            if (last > t + filter.ahead() - filter.taps())
                group.out.of(s)[t - group.outputs.first] = std::numeric_limits<T>::quiet_NaN();
        }
    }

    /// past = the last K - 1 inputs of one channel, those of this call with what came before.
    void remember(index_t b, index_t c) const {
        const index_t kept = filter.taps() - 1, fresh = std::min(kept, N());
        const auto at = [&](index_t i) -> T& { return past(b, c, i); };
        if (past.strides[2] == 1)
            std::copy(&at(0) + fresh, &at(0) + kept, &at(0));
        else
            for (index_t i = 0; i < kept - fresh; ++i) at(i) = at(i + fresh);
        for (index_t i = 0; i < fresh; ++i) {
            const index_t n = N() - fresh + i;
            const T value = static_cast<T>(x(b, n, c));
            at(kept - fresh + i) = input_gate.data ? value * static_cast<T>(input_gate(b, n, c)) : value;
        }
    }
};

}  // namespace heed::inline HEED_ABI::detail
