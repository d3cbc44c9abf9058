// Attention to quantised keys, LongVQ [46]: with keys from a codebook of S rows, tokens of one code have one weight, so
// all of them are one key. Exactly softmax attention over the quantised keys, in O(N (S + 2 L) D).
//
//   code_j = argmin_s |k_j - C_s|^2;  n_s tokens of code s with values that sum to U_s
//   all tokens: keys C_s, values U_s / n_s, bias log n_s.  Causal, blocks of L: block b attends token by token to
//   blocks b - 1 and b, and to the (n_s, U_s) of all before; the parts merge by their log-sum-exps.
// A causal sequence leaves behind the tokens of two blocks and a codebook of means, whatever its length.
#pragma once

#include "../policy/score_bias.hpp"
#include "partials.hpp"
#include "row_maps.hpp"

namespace heed::inline HEED_ABI {

namespace detail {

/// The nearest codes of the keys of a head: lanes are codes, which lie by channel, and some keys share what is loaded.
template <class A, class T>
struct nearest_codes {
    using P = pack<T, A>;
    static constexpr auto L = static_cast<index_t>(P::size);
    static constexpr int R = 4;  // keys

    index_t S, D;
    T *panel, *keys;  // (packs of S, D, L), (R, D)
    nearest_codes(carver from, index_t codes, index_t width)
        : S(codes), D(width), panel(from.take<T>(round_up(S, L) * D)), keys(from.take<T>(R * D)), size(from.used()) {}
    std::size_t size;

    template <class C>
    void set(const view<const C, 2>& codebook) const {
        for (index_t s = 0; s < round_up(S, L); ++s)
            for (index_t d = 0; d < D; ++d)  // what is no code is infinitely far
                panel[(s / L * D + d) * L + s % L] =
                    s < S ? static_cast<T>(codebook(s, d)) : std::numeric_limits<T>::infinity();
    }
    /// of(r, code) for the rows of k (n, D), n <= R.
    template <class K, class Of>
    void find(const view<const K, 2>& k, const Of& of) const {
        for (index_t r = 0; r < R; ++r)
            if (D > 0) widen_row<A>(&k(std::min(r, k.shape[0] - 1), 0), k.strides[1], D, keys + r * D);
        P least[R], pack_of[R];
        unroll<R>([&](auto r)
                      HEED_INLINE_LAMBDA { least[r] = P(std::numeric_limits<T>::infinity()), pack_of[r] = P(0); });
        for (index_t s = 0; s < S; s += L) {
            P far[R];
            unroll<R>([&](auto r) HEED_INLINE_LAMBDA { far[r] = P(0); });
            for (index_t d = 0; d < D; ++d) {
                const P code = load<P>(panel + s * D + d * L);
                unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
                    const P off = P(keys[r * D + d]) - code;
                    far[r] = fma(off, off, far[r]);
                });
            }
            unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
                const auto nearer = far[r] < least[r];
                least[r] = select(nearer, far[r], least[r]);
                pack_of[r] = select(nearer, P(static_cast<T>(s / L)), pack_of[r]);
            });
        }
        for (index_t r = 0; r < k.shape[0]; ++r) {
            alignas(64) T far[P::size], packs[P::size];
            store_aligned(far, least[r]), store_aligned(packs, pack_of[r]);
            index_t best = 0;
            const auto code = [&](index_t l) { return static_cast<index_t>(packs[l]) * L + l; };
            for (index_t l = 1; l < L; ++l)
                if (far[l] < far[best] || (far[l] == far[best] && code(l) < code(best))) best = l;
            of(r, code(best));
        }
    }
};

}  // namespace detail

/// codes (B, H, N) of keys k (B, H, N, D) in a codebook (H, S, D), S >= 1; the lowest of equally near ones. Policies:
/// on{pool, arena}.
template <class A = default_arch, class K, class C, class... P>
void vq_codes(const view<K>& k, const view<C, 3>& codebook, const view<index_t, 3>& codes, const P&... policies) {
    static constexpr const char* op = "vq_codes";
    static_assert((has_role<P, roles::context> && ...), "heed: an argument is not a policy of vq_codes");
    const index_t B = k.shape[0], H = k.shape[1], N = k.shape[2], D = k.shape[3], S = codebook.shape[1];
    require_shape(codebook.shape[0] == H && codebook.shape[2] == D, op, "the codebook is of ", codebook.shape[0],
                  " heads, width ", codebook.shape[2], ", k of ", H, ", ", D);
    require_shape(codes.shape == extents<3>{B, H, N}, op, "codes are (", codes.shape[0], ", ", codes.shape[1], ", ",
                  codes.shape[2], "), k has (", B, ", ", H, ", ", N, ")");
    require_shape(S >= 1 || B * H * N == 0, op, "the codebook is empty");
    using T = accumulator<std::remove_const_t<K>, std::remove_const_t<C>>;
    using search = detail::nearest_codes<A, T>;
    constexpr index_t some = 256;  // keys a task, for which a codebook is laid out
    const index_t blocks = ceil_div(N, some), tasks = B * H * blocks;
    detail::in_scratch(
        op, [&](auto& pool) { return static_cast<std::size_t>(workers(pool, tasks)) * search(carver(), S, D).size; },
        [&](auto& pool, std::byte* memory) {
            for_tasks(pool, tasks, [&](index_t task, index_t worker) {
                const index_t b = task / blocks / H, h = task / blocks % H;
                const auto size = search(carver(), S, D).size;
                const search own(carver(memory + static_cast<std::size_t>(worker) * size), S, D);
                own.set(view<const std::remove_const_t<C>, 2>{
                    codebook.data + h * codebook.strides[0], {S, D}, {codebook.strides[1], codebook.strides[2]}});
                const range keys{task % blocks * some, std::min(N, (task % blocks + 1) * some)};
                for (index_t n = keys.first; n < keys.last; n += search::R) {
                    const view<const std::remove_const_t<K>, 2> rows{
                        k.data + b * k.strides[0] + h * k.strides[1] + n * k.strides[2],
                        {std::min<index_t>(search::R, keys.last - n), D},
                        {k.strides[2], k.strides[3]}};
                    own.find(rows, [&](index_t r, index_t code) { codes(b, h, n + r) = code; });
                }
            });
        },
        policies...);
}

namespace detail {

/// Channels of a row of a head.
template <class T>
view<T, 1> row_of(const view<T>& x, index_t b, index_t h, index_t n) {
    return {x.data + b * x.strides[0] + h * x.strides[1] + n * x.strides[2], {x.shape[3]}, {x.strides[3]}};
}

/// The tokens of each code met: its key, how many there are, and the mean of their values, in the order of first sight.
/// In memory of a carver.
template <class T>
class code_means {
public:
    code_means(carver& from, index_t B, index_t H, index_t S, index_t D, index_t E)
        : H_(H),
          met_(dense(from.take<index_t>(B * H), {B, H})),
          place_(dense(from.take<index_t>(B * H * S), {B, H, S})),
          counts_(dense(from.take<index_t>(B * H * S), {B, H, S})),
          logs_(dense(from.take<T>(B * H * S), {B, H, 1, S})),
          keys_(heads(from.take<T>(B * H * S * D), {B, H, S, D})),
          means_(heads(from.take<T>(B * H * S * E), {B, H, S, E})) {}
    void clear() const {
        std::fill_n(met_.data, met_.size(), index_t(0));
        std::fill_n(place_.data, place_.size(), index_t(-1));
    }

    /// Takes in tokens of codes (B, H, n) with keys and values (B, H, n, ..), key(b, h, n) being a row.
    template <class A, class Context, class C, class Key, class V>
    void add(const Context& with, const view<C, 3>& codes, const Key& key, const view<V>& v, range tokens) const {
        for_tasks(*with.pool, met_.size(), [&](index_t head, index_t) {
            const index_t b = head / H_, h = head % H_;
            for (index_t n = tokens.first; n < tokens.last; ++n) {
                index_t& at = place_(b, h, codes(b, h, n));
                if (at < 0) {
                    at = met_(b, h)++;
                    counts_(b, h, at) = 0;
                    map_row<A, T>(row_of(keys_, b, h, at), as_it_is, key(b, h, n));
                    std::fill_n(&means_(b, h, at, 0), means_.shape[3], T(0));
                }
                const T share = 1 / static_cast<T>(++counts_(b, h, at));
                const auto moved = [share](const auto& mean, const auto& x) {
                    return fma(x - mean, std::remove_cvref_t<decltype(x)>(share),
                               mean);  // by its share of the difference
                };
                const auto mean = row_of(means_, b, h, at);
                map_row<A, T>(mean, moved, mean, row_of(v, b, h, n));
            }
            for (index_t s = 0; s < met_(b, h); ++s) logs_(b, h, 0, s) = std::log(static_cast<T>(counts_(b, h, s)));
        });
    }
    view<const T> keys() const { return keys_; }
    view<const T> means() const { return means_; }
    /// log n of each.
    view<const T> logs() const { return logs_; }
    /// The codes met, which come first.
    struct met_codes {
        using role = roles::mask;
        static constexpr bool monotone = true;
        view<index_t, 2> met;
        range keys(const where& w) const { return {0, met(w.b, w.h)}; }
    };
    met_codes met() const { return {met_}; }

private:
    index_t H_;
    view<index_t, 2> met_;
    view<index_t, 3> place_, counts_;
    view<T> logs_, keys_, means_;
};

/// What a causal sequence leaves behind, in memory of a carver: the tokens of two blocks of L, and the means of those
/// before.
template <class T>
struct vq_memory {
    code_means<T> before;
    view<index_t, 3> codes;  // (B, H, 2 L)
    view<T> keys, values;    // (B, H, 2 L, D), (B, H, 2 L, E)

    vq_memory(carver& from, index_t B, index_t H, index_t S, index_t D, index_t E, index_t L)
        : before(from, B, H, S, D, E),
          codes(dense(from.take<index_t>(B * H * 2 * L), {B, H, 2 * L})),
          keys(heads(from.take<T>(B * H * 2 * L * D), {B, H, 2 * L, D})),
          values(heads(from.take<T>(B * H * 2 * L * E), {B, H, 2 * L, E})) {}

    /// Rows `to` become some tokens of an operand.
    template <class A, class Context, class C, class V>
    void write(const Context& with, range to, const view<C, 3>& codebook, const view<const index_t, 3>& code,
               const view<V>& v) const {
        const index_t H = codes.shape[1];
        for_tasks(*with.pool, codes.shape[0] * H, [&](index_t head, index_t) {
            const index_t b = head / H, h = head % H;
            for (index_t n = 0; n < to.size(); ++n) {
                const index_t s = codes(b, h, to.first + n) = code(b, h, n);
                map_row<A, T>(row_of(keys, b, h, to.first + n), as_it_is, row_of(codebook, h, s));
                map_row<A, T>(row_of(values, b, h, to.first + n), as_it_is, row_of(v, b, h, n));
            }
        });
    }
    /// The first block joins the means, the second takes its place.
    template <class A, class Context>
    void fold(const Context& with) const {
        const index_t L = codes.shape[2] / 2;
        const auto key = [&](index_t b, index_t h, index_t n) { return row_of(keys, b, h, n); };
        before.template add<A>(with, codes, key, values, {0, L});
        for (index_t b = 0; b < codes.shape[0]; ++b)
            for (index_t h = 0; h < codes.shape[1]; ++h) {
                std::copy_n(&codes(b, h, L), L, &codes(b, h, 0));
                for (const auto& rows : {keys, values})
                    std::copy_n(row_of(rows, b, h, L).data, L * rows.shape[3], row_of(rows, b, h, 0).data);
            }
    }
};
/// How far a sequence has come: tokens of the two blocks that are there, and whether there are any before.
struct vq_place {
    index_t held = 0;
    bool early = false;
};

template <class Q, class C, class V, class O>
void check_vq(const char* op, const view<Q>& q, const view<C, 3>& codebook, const view<const index_t, 3>& codes,
              const view<V>& v, const view<O>& o) {
    const auto [B, H, N, E] = o.shape;
    const index_t D = q.shape[3], S = codebook.shape[1], M = v.shape[2];
    require_shape(q.shape == extents<4>{B, H, N, D}, op, "q has ", q.shape[1], " heads of ", q.shape[2],
                  " rows, o has ", H, " of ", N);
    require_shape(codebook.shape == extents<3>{H, S, D}, op, "the codebook is (", codebook.shape[0], ", ",
                  codebook.shape[1], ", ", codebook.shape[2], "), q asks for (", H, ", ", S, ", ", D, ")");
    require_shape(v.shape == extents<4>{B, H, M, E}, op, "v has ", v.shape[1], " heads of width ", v.shape[3],
                  ", o has ", H, " of ", E);
    require_shape(codes.shape == extents<3>{B, H, M}, op, "there are codes of ", codes.shape[2], " tokens, v has ", M);
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h)
            for (index_t n = 0; n < M; ++n)
                require_argument(codes(b, h, n) >= 0 && codes(b, h, n) < S, op, "code ", codes(b, h, n), " of ", S);
    require_shape(!overlap(o, q) && !overlap(o, v) && !overlap(o, codebook) && !overlap(o, codes), op,
                  "o overlaps an input");
}

}  // namespace detail

/// Every query sees every token: q (B, H, N, D), codebook (H, S, D), codes (B, H, M), v (B, H, M, E), o (B, H, N, E).
/// Policies: scale, lse, on{pool, arena}.
template <class A = default_arch, class Q, class C, class V, class O, class... P>
void vq_attention(const view<Q>& q, const view<C, 3>& codebook, const view<const index_t, 3>& codes, const view<V>& v,
                  const view<O>& o, const P&... policies) {
    using namespace detail;
    static constexpr const char* op = "vq_attention";
    check_vq(op, q, codebook, codes, v, o);
    using T = accumulator<std::remove_const_t<Q>, std::remove_const_t<C>, std::remove_const_t<V>, O>;
    const auto run = [&](carver& from, const auto&... with) {
        code_means<T> all(from, q.shape[0], q.shape[1], codebook.shape[1], q.shape[3], v.shape[3]);
        if (!from.counts()) {
            const auto key = [&](index_t b, index_t h, index_t n) { return row_of(codebook, h, codes(b, h, n)); };
            all.clear();
            all.template add<A>(pick<roles::context>(calling_thread{}, with...), codes, key, v, {0, v.shape[2]});
        }
        attention<A>(q, all.keys(), all.means(), o, all.met(), bias(all.logs()), with...);
    };
    in_shared_scratch(op, run, policies...);
}

/// What B sequences of H heads leave behind of causal attention in blocks of L tokens. Copies are snapshots.
template <std::floating_point T>
class vq_state {
public:
    vq_state(index_t B, index_t H, index_t S, index_t D, index_t E, index_t L) : shape_{B, H, S, D, E, L} {
        require_argument(L >= 1, "vq_state", "blocks have ", L, " tokens, the least is 1");
        carver count;
        memory(count);
        bytes_.resize(count.used());
        tokens().before.clear();
    }
    detail::vq_memory<T> tokens() {
        carver from(bytes_.data());
        return memory(from);
    }
    detail::vq_place& place() { return place_; }
    std::size_t bytes() const { return bytes_.size(); }
    void check(const char* op, const std::array<index_t, 5>& asked) const {
        static constexpr const char* names[] = {"sequences", "heads", "codes", "channels of keys",
                                                "channels of values"};
        for (std::size_t i = 0; i < asked.size(); ++i)
            require_shape(shape_[i] == asked[i], op, "the state is of ", shape_[i], " ", names[i], ", the call of ",
                          asked[i]);
    }

private:
    detail::vq_memory<T> memory(carver& from) const {
        const auto [B, H, S, D, E, L] = shape_;
        return {from, B, H, S, D, E, L};
    }
    std::array<index_t, 6> shape_;
    std::vector<std::byte> bytes_;
    detail::vq_place place_;
};

namespace detail {

/// The tokens of q, block by block, after those that `memory` holds and `place` counts.
template <class A, class T, class Q, class C, class V, class O, class Near, class... With>
void run_causal_vq(carver& from, vq_memory<T>& memory, vq_place& place, const view<Q>& q, const view<C, 3>& codebook,
                   const view<const index_t, 3>& codes, const view<V>& v, const view<O>& o, const Near& near,
                   const With&... with) {
    const auto [B, H, N, E] = o.shape;
    const index_t L = memory.codes.shape[2] / 2, most = std::min(L, N);
    T* const outputs[] = {from.take<T>(B * H * most * E), from.take<T>(B * H * most * E)};
    double* const sums[] = {from.take<double>(B * H * most), from.take<double>(B * H * most)};
    const auto context = pick<roles::context>(calling_thread{}, with...);
    vq_place at = place;
    index_t met = 0;
    for (index_t first = 0; first < N; ++met) {
        const range piece{first, std::min(N, first + L - at.held % L)};
        const range rows{at.held, at.held + piece.size()};
        first = piece.last;
        // The first three blocks and the last need what any other does.
        const bool known = from.counts() && met > 2 && piece.last < N;
        if (!from.counts())
            memory.template write<A>(context, rows, codebook, slice(codes, 2, piece), slice(v, 2, piece));
        const auto part = [&, B = B, H = H, E = E](std::size_t i) {
            return partial(heads(outputs[i], {B, H, piece.size(), E}), dense(sums[i], {B, H, piece.size()}));
        };
        const auto close = part(0), far = part(1);
        const auto queries = slice(q, 2, piece);
        const range seen{0, rows.last};
        if (!known)
            attention<A>(queries, slice(memory.keys, 2, seen), slice(memory.values, 2, seen), close.o, causal{},
                         score_of(near), lse{close.lse}, with...);
        if (!known && at.early)
            attention<A>(queries, memory.before.keys(), memory.before.means(), far.o, memory.before.met(),
                         bias(memory.before.logs()), lse{far.lse}, with...);
        if (!from.counts()) {
            const partial to(slice(o, 2, piece), close.lse);
            if (at.early)
                merge(to, close, far);
            else
                merge(to, close);
        }
        at.held = rows.last;
        if (at.held == 2 * L) {
            if (!from.counts()) memory.template fold<A>(context);
            at = {L, true};
        }
    }
    if (!from.counts()) place = at;
}

template <class Q, class V>
void check_causal_vq(const char* op, const view<Q>& q, const view<V>& v) {
    require_shape(q.shape[2] == v.shape[2], op, "q has ", q.shape[2], " rows, v has ", v.shape[2]);
}

}  // namespace detail

/// Causal, as many queries as tokens, in blocks of L >= 1. `near` is added to the logits of tokens of this block and
/// the one before (a bias of distances, whose positions are those inside the two blocks). Policies: scale, on{pool,
/// arena}. Throws shape_error or argument_error before o is touched.
template <class A = default_arch, class Q, class C, class V, class O, class Near = identity, class... P>
void causal_vq_attention(const view<Q>& q, const view<C, 3>& codebook, const view<const index_t, 3>& codes,
                         const view<V>& v, const view<O>& o, index_t L, const Near& near = {}, const P&... policies) {
    using namespace detail;
    static constexpr const char* op = "causal_vq_attention";
    check_vq(op, q, codebook, codes, v, o);
    require_argument(L >= 1, op, "blocks have ", L, " tokens, the least is 1");
    check_causal_vq(op, q, v);
    using T = accumulator<std::remove_const_t<Q>, std::remove_const_t<C>, std::remove_const_t<V>, O>;
    const auto run = [&](carver& from, const auto&... with) {
        vq_memory<T> memory(from, o.shape[0], o.shape[1], codebook.shape[1], q.shape[3], o.shape[3],
                            std::max<index_t>(1, std::min(L, o.shape[2])));
        vq_place start;
        if (!from.counts()) memory.before.clear();
        run_causal_vq<A>(from, memory, start, q, codebook, codes, v, o, near, with...);
    };
    in_shared_scratch(op, run, policies...);
}
/// The same for the tokens after those that s has seen, any number, in the blocks of s; with one, a step of decoding.
template <class A = default_arch, class T, class Q, class C, class V, class O, class Near = identity, class... P>
void causal_vq_attention(vq_state<T>& s, const view<Q>& q, const view<C, 3>& codebook,
                         const view<const index_t, 3>& codes, const view<V>& v, const view<O>& o, const Near& near = {},
                         const P&... policies) {
    using namespace detail;
    static constexpr const char* op = "causal_vq_attention";
    static_assert(
        std::is_same_v<T, accumulator<std::remove_const_t<Q>, std::remove_const_t<C>, std::remove_const_t<V>, O>>,
        "heed: a state is of the type that sums are of");
    check_vq(op, q, codebook, codes, v, o);
    check_causal_vq(op, q, v);
    s.check(op, {o.shape[0], o.shape[1], codebook.shape[1], q.shape[3], o.shape[3]});
    auto memory = s.tokens();
    const auto run = [&](carver& from, const auto&... with) {
        run_causal_vq<A>(from, memory, s.place(), q, codebook, codes, v, o, near, with...);
    };
    in_shared_scratch(op, run, policies...);
}

}  // namespace heed::inline HEED_ABI
