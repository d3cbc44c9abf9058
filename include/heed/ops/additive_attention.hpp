// Additive attention of a decoder, one step at a time [1]: by content, by location too, and penalised for what earlier
// steps have looked at. arXiv:1409.0473, arXiv:1506.07503.
//
//   e_j = w . tanh(q + k_j + sum_f U_f F_jf),  F_jf = sum_r taps_fr before_(j + r - (R - 1) / 2), zeros around the keys
//   a_j = e_j, or e_j - log(sum of exp(e_j) over earlier steps);  alpha = softmax(a), c = sum_j alpha_j v_j
// q (B, D), k (B, M, D): products of the decoder's state and of the encoder's, bias included, are the caller's; v
// (B, M, E). Cost a key: D hyperbolic tangents, F (R + D) + D + E multiply-adds. A key of energy -inf has no weight.
#pragma once

#include "../engine/scan_operands.hpp"
#include "../engine/scan_tile.hpp"
#include "../engine/scratch.hpp"
#include "../simd/gates.hpp"

namespace heed::inline HEED_ABI {

/// Policy: features of the alignment before, (B, M): F filters of R taps, an odd number, each mapped to D channels by
/// its row of U; taps (F, R), U (F, D). At the first step the alignment before is of the caller's choice, often zeros.
template <class S, class W, class U>
struct location {
    using role = roles::location;
    view<const S, 2> before;
    view<const W, 2> taps;
    view<const U, 2> mix;
    template <class V0, class V1, class V2>
    location(const V0& alignment, const V1& filters, const V2& u)
        : before(as_view(alignment)), taps(as_view(filters)), mix(as_view(u)) {}
};
template <class V0, class V1, class V2>
location(const V0&, const V1&, const V2&)
    -> location<typename decltype(as_view(std::declval<const V0&>()))::value_type,
                typename decltype(as_view(std::declval<const V1&>()))::value_type,
                typename decltype(as_view(std::declval<const V2&>()))::value_type>;

/// Policy: log of the sum of exp(e) of the steps before, (B, M), -inf before the first; it is read, and holds this step
/// too afterwards.
template <class S>
struct penalty {
    using role = roles::penalty;
    view<S, 2> x;
    explicit penalty(const view<S, 2>& history) : x(history) {}
};

/// Policy: how many keys of each sequence count, (B); the others have no weight.
struct key_counts {
    using role = roles::lengths;
    view<const index_t, 1> x;
    explicit key_counts(const view<const index_t, 1>& counts) : x(counts) {}
};

namespace detail {

/// One step; operands as views, of those that may be left out without data.
template <class A, class T, class Q, class K, class V, class W, class Location, class History, class Alpha, class O>
struct additive_call {
    using P = pack<T, A>;
    static constexpr auto L = static_cast<index_t>(P::size);
    static constexpr index_t keys_of_a_task = 64, values_of_a_task = 256;

    view<const Q, 2> q;
    view<const K, 3> k;
    view<const V, 3> v;
    view<const W, 1> w;
    Location local;
    view<History, 2> history;
    view<const index_t, 1> counts;
    view<Alpha, 2> alpha;
    view<O, 2> context;

    index_t B() const { return k.shape[0]; }
    index_t M() const { return k.shape[1]; }
    index_t E() const { return context.shape[1]; }
    index_t F() const { return local.before.data ? local.taps.shape[0] : 0; }
    index_t width() const { return round_up(k.shape[2], L); }
    index_t keys(index_t b) const { return counts.data ? counts(b) : M(); }

    /// What a worker works in.
    struct memory {
        T *query, *read, *mix, *window, *features, *row, *sums;
        std::size_t size;
        memory(carver from, const additive_call& x)
            : query(from.take<T>(x.width())),
              read(from.take<T>(x.width())),
              mix(from.take<T>(x.F() * x.width())),
              window(from.take<T>(x.F() > 0 ? keys_of_a_task + x.local.taps.shape[1] : 0)),
              features(from.take<T>(x.F() * keys_of_a_task)),
              row(from.take<T>(std::max(x.width(), values_of_a_task))),
              sums(from.take<T>(values_of_a_task)),
              size(from.used()) {}
    };
    T* weights(carver& from) const { return from.take<T>(B() * M()); }
    template <class Pool>
    std::size_t scratch_bytes(Pool& pool) const {
        carver from;
        weights(from);
        return from.used() + static_cast<std::size_t>(pool.width()) * memory(carver(), *this).size;
    }
    template <class Pool>
    void run(Pool& pool, std::byte* scratch) const {
        carver from(scratch);
        T* const all = weights(from);
        const auto own = [&, first = scratch + from.used(), size = memory(carver(), *this).size](index_t worker) {
            return memory(carver(first + static_cast<std::size_t>(worker) * size), *this);
        };
        const index_t blocks = ceil_div(M(), keys_of_a_task), columns = ceil_div(E(), values_of_a_task);
        for_tasks(pool, B() * blocks, [&](index_t task, index_t worker) {
            const index_t b = task / blocks, first = task % blocks * keys_of_a_task;
            energies(b, {first, std::min(keys(b), first + keys_of_a_task)}, own(worker), all + b * M());
        });
        for_tasks(pool, B(), [&](index_t b, index_t) { weigh(b, all + b * M()); });
        for_tasks(pool, B() * columns, [&](index_t task, index_t worker) {
            const index_t b = task / columns, first = task % columns * values_of_a_task;
            sum_values(b, {first, std::min(E(), first + values_of_a_task)}, own(worker), all + b * M());
        });
    }

private:
    /// Row i of x (rows, n).
    template <class S>
    static view<const S, 1> row(const view<const S, 2>& x, index_t i) {
        return {x.data + i * x.strides[0], {x.shape[1]}, {x.strides[1]}};
    }
    template <class S>
    void load_row(const view<const S, 1>& x, T* to) const {
        fill_rows<A>(as_row(x), to, width());
    }

    void energies(index_t b, range some, const memory& m, T* e) const {
        load_row(row(q, b), m.query);
        load_row(w, m.read);
        for (index_t f = 0; f < F(); ++f) load_row(row(local.mix, f), m.mix + f * width());
        if (F() > 0) find_features(b, some.first, m);
        for (index_t j = some.first; j < some.last; ++j) {
            load_row(view<const K, 1>{k.data + b * k.strides[0] + j * k.strides[1], {k.shape[2]}, {k.strides[2]}},
                     m.row);
            const T* const features = m.features + (j - some.first) * F();
            P sum(T(0));
            for (index_t d = 0; d < width(); d += L) {
                P x = load<P>(m.query + d) + load<P>(m.row + d);
                for (index_t f = 0; f < F(); ++f) x = fma(P(features[f]), load<P>(m.mix + f * width() + d), x);
                sum = fma(load<P>(m.read + d), tanh(x), sum);
            }
            e[j] = reduce_add(sum);
        }
    }
    /// F_jf of the keys of a task, from `first` on: (keys, F); lanes are keys.
    void find_features(index_t b, index_t first, const memory& m) const {
        const index_t R = local.taps.shape[1], back = (R - 1) / 2;
        for (index_t i = 0; i < keys_of_a_task + R - 1; ++i) {
            const index_t j = first - back + i;
            m.window[i] = j >= 0 && j < keys(b) ? static_cast<T>(local.before(b, j)) : T(0);
        }
        for (index_t f = 0; f < F(); ++f)
            for (index_t i = 0; i < keys_of_a_task; i += L) {
                P sum(T(0));
                for (index_t r = 0; r < R; ++r)
                    sum = fma(P(static_cast<T>(local.taps(f, r))), load<P>(m.window + i + r), sum);
                alignas(64) T at[P::size];
                store_aligned(at, sum);
                for (index_t l = 0; l < L; ++l) m.features[(i + l) * F() + f] = at[l];
            }
    }
    /// Energies become weights.
    void weigh(index_t b, T* e) const {
        constexpr T nothing = -std::numeric_limits<T>::infinity();
        T top = nothing, total = 0;
        for (index_t j = 0; j < keys(b); ++j) {
            if (history.data) {
                const T energy = e[j], before = static_cast<T>(history(b, j));
                if (before > nothing) e[j] -= before;
                history(b, j) = static_cast<History>(log_add(before, energy));
            }
            top = e[j] > top || e[j] != e[j] ? e[j] : top;
        }
        for (index_t j = 0; j < keys(b); ++j) total += e[j] = top == nothing ? T(0) : std::exp(e[j] - top);
        const T share = total == 0 ? T(0) : 1 / total;
        for (index_t j = 0; j < M(); ++j) alpha(b, j) = static_cast<Alpha>(j < keys(b) ? e[j] *= share : T(0));
    }
    void sum_values(index_t b, range some, const memory& m, const T* weight) const {
        std::fill_n(m.sums, values_of_a_task, T(0));
        std::fill_n(m.row, values_of_a_task, T(0));
        for (index_t j = 0; j < keys(b); ++j) {
            widen_row<A>(&v(b, j, some.first), v.strides[2], some.size(), m.row);
            for (index_t c = 0; c < some.size(); c += L)
                store(m.sums + c, fma(P(weight[j]), load<P>(m.row + c), load<P>(m.sums + c)));
        }
        narrow_row<A>(m.sums, some.size(), &context(b, some.first), context.strides[1]);
    }
};

}  // namespace detail

/// A step: alpha (B, M), context (B, E). Policies: location{before, taps, U}, penalty{history}, key_counts{n},
/// on{pool, arena}. Elements float, double, bf16 or f16, each operand its own; computed in float, or double if any
/// operand is. A sequence without keys has the context 0. Throws shape_error or argument_error before anything is
/// written.
template <class A = default_arch, class Q, class K, class V, class W, class Alpha, class O, class... P>
void additive_attention(const Q& q, const K& k, const V& v, const W& w, Alpha&& alpha, O&& context,
                        const P&... policies) {
    using namespace detail;
    static constexpr const char* op = "additive_attention";
    static_assert((has_one_of<P, roles::location, roles::penalty, roles::lengths, roles::context> && ...),
                  "heed: an argument is not a policy of additive_attention");
    static_assert(((count_of_role<typename P::role, P...> == 1) && ...), "heed: two policies of one kind");
    const view<const float, 2> none;
    const auto local = pick<roles::location>(location(none, none, none), policies...);
    const auto history = writes("the penalty", pick<roles::penalty>(penalty(view<float, 2>{}), policies...).x);
    const auto counts = pick<roles::lengths>(key_counts({}), policies...).x;
    const auto in =
        std::tuple(reads("q", q), reads("k", k), reads("v", v), reads("w", w),
                   reads("the alignment before", local.before), reads("the taps", local.taps), reads("U", local.mix));
    const auto out = std::tuple(writes("alpha", alpha), writes("the context", context));
    const auto& [qx, kx, vx, wx, before, taps, mix] = in;
    const auto& [weights, sums] = out;
    const index_t B = kx.v.shape[0], M = kx.v.shape[1], D = kx.v.shape[2], E = vx.v.shape[2];
    each_operand(std::tuple_cat(out, std::tuple(history)), [&](const auto& x) { check_written(op, x); });
    check_shape(op, qx, {B, D}, "k");
    check_shape(op, vx, {B, M, E}, "k");
    check_shape(op, wx, {D}, "k");
    check_shape(op, weights, {B, M}, "k");
    check_shape(op, sums, {B, E}, "k, v");
    check_given(op, history, {B, M}, "k");
    if (before.v.data) {
        const index_t F = taps.v.shape[0], R = taps.v.shape[1];
        check_shape(op, before, {B, M}, "k");
        check_shape(op, mix, {F, D}, "the taps, k");
        require_argument(R % 2 == 1, op, "filters of the alignment have ", R, " taps, an odd number is asked for");
    }
    require_shape(!counts.data || counts.shape[0] == B, op, "there are counts of ", counts.shape[0],
                  " sequences, k is of ", B);
    for (index_t b = 0; counts.data && b < B; ++b)
        require_argument(counts(b) >= 0 && counts(b) <= M, op, "sequence ", b, " has ", counts(b), " keys of ", M);
    check_apart_from_all(op, in, std::tuple_cat(out, std::tuple(history)));

    using T = accumulator_of<decltype(in), decltype(out), std::tuple<std::remove_const_t<decltype(history)>>>;
    const additive_call<
        A, T, typename std::remove_cvref_t<decltype(qx)>::element, typename std::remove_cvref_t<decltype(kx)>::element,
        typename std::remove_cvref_t<decltype(vx)>::element, typename std::remove_cvref_t<decltype(wx)>::element,
        std::remove_const_t<decltype(local)>, typename std::remove_cvref_t<decltype(history)>::element,
        typename std::remove_cvref_t<decltype(weights)>::element, typename std::remove_cvref_t<decltype(sums)>::element>
        call{qx.v, kx.v, vx.v, wx.v, local, history.v, counts, weights.v, sums.v};
    in_scratch(
        op, [&](auto& pool) { return call.scratch_bytes(pool); },
        [&](auto& pool, std::byte* memory) { call.run(pool, memory); }, policies...);
}

}  // namespace heed::inline HEED_ABI
