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
#include "vq_codes.hpp"
#include "vq_memory.hpp"

namespace heed::inline HEED_ABI {

namespace detail {

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
