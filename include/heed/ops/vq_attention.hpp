// Attention to quantised keys, LongVQ [46]: with keys from a codebook of S rows, tokens of one code have one weight, so
// all of them are one key. Exactly softmax attention over the quantised keys, in O(N (S + 2 L) D).
//
//   code_j = argmin_s |k_j - C_s|^2;  n_s tokens of code s with values that sum to U_s
//   all tokens: keys C_s, values U_s / n_s, bias log n_s.  Causal, blocks of L: block b attends token by token to
//   blocks b - 1 and b, and to the (n_s, U_s) of all before; the parts merge by their log-sum-exps.
// Scratch: quantised keys of two blocks, and a codebook of means.
#pragma once

#include "../policy/score_bias.hpp"
#include "partials.hpp"

namespace heed::inline HEED_ABI {

/// codes (B, H, N) of keys k (B, H, N, D) in a codebook (H, S, D), S >= 1; the lowest of equally near ones.
template <class K, class C>
void vq_codes(const view<K>& k, const view<C, 3>& codebook, const view<index_t, 3>& codes) {
    static constexpr const char* op = "vq_codes";
    const auto [B, H, N, D] = k.shape;
    require_shape(codebook.shape[0] == H && codebook.shape[2] == D, op, "the codebook is of ", codebook.shape[0],
                  " heads, width ", codebook.shape[2], ", k of ", H, ", ", D);
    require_shape(codes.shape == extents<3>{B, H, N}, op, "codes are (", codes.shape[0], ", ", codes.shape[1], ", ",
                  codes.shape[2], "), k has (", B, ", ", H, ", ", N, ")");
    require_shape(codebook.shape[1] >= 1 || B * H * N == 0, op, "the codebook is empty");
    detail::each_row(k.shape, [&](index_t b, index_t h, index_t n) {
        double least = std::numeric_limits<double>::infinity();
        index_t best = 0;
        for (index_t s = 0; s < codebook.shape[1]; ++s) {
            double far = 0;
            for (index_t d = 0; d < codebook.shape[2]; ++d) {
                const double off = static_cast<double>(k(b, h, n, d)) - static_cast<double>(codebook(h, s, d));
                far += off * off;
            }
            if (far < least) least = far, best = s;
        }
        codes(b, h, n) = best;
    });
}

namespace detail {

/// The tokens of each code: how many, and the mean of their values. In memory of a carver.
template <class T>
class code_means {
public:
    code_means(carver& from, index_t B, index_t H, index_t S, index_t E)
        : B_(B),
          H_(H),
          S_(S),
          E_(E),
          counts_(from.take<index_t>(B * H * S)),
          means_(from.take<T>(B * H * S * E)),
          logs_(from.take<T>(B * H * S)) {
        if (from.counts()) return;
        std::fill_n(counts_, B * H * S, index_t(0));
        std::fill_n(means_, B * H * S * E, T(0));
        std::fill_n(logs_, B * H * S, T(0));
    }

    /// Takes in tokens; a mean moves by its share of the difference.
    template <class V>
    void add(const view<const index_t, 3>& codes, const view<V>& v, range tokens) {
        for (index_t b = 0; b < B_; ++b)
            for (index_t h = 0; h < H_; ++h)
                for (index_t n = tokens.first; n < tokens.last; ++n) {
                    const index_t at = (b * H_ + h) * S_ + codes(b, h, n);
                    const auto count = static_cast<T>(++counts_[at]);
                    logs_[at] = std::log(count);
                    for (index_t e = 0; e < E_; ++e) {
                        T& mean = means_[at * E_ + e];
                        mean += (static_cast<T>(v(b, h, n, e)) - mean) / count;
                    }
                }
    }
    view<const T> means() const { return heads(means_, {B_, H_, S_, E_}); }
    /// log n of each code, 0 where there is none, which `present` hides.
    view<const T, 4> logs() const { return {logs_, {B_, H_, 1, S_}, {H_ * S_, S_, 0, 1}}; }
    auto present() const {
        return [this](const where& w) { return counts_[(w.b * H_ + w.h) * S_ + w.j] > 0; };
    }

private:
    index_t B_, H_, S_, E_;
    index_t* counts_;
    T *means_, *logs_;
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

/// The codebook as keys of every sequence.
template <class C>
view<const C> keys_of(const view<C, 3>& codebook, index_t B) {
    return {codebook.data,
            {B, codebook.shape[0], codebook.shape[1], codebook.shape[2]},
            {0, codebook.strides[0], codebook.strides[1], codebook.strides[2]}};
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
        code_means<T> all(from, q.shape[0], q.shape[1], codebook.shape[1], v.shape[3]);
        if (!from.counts()) all.add(codes, v, {0, v.shape[2]});
        attention<A>(q, keys_of(codebook, q.shape[0]), all.means(), o, all.present(), bias(all.logs()), with...);
    };
    in_shared_scratch(op, run, policies...);
}

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
    require_shape(q.shape[2] == v.shape[2], op, "q has ", q.shape[2], " rows, v has ", v.shape[2]);
    using T = accumulator<std::remove_const_t<Q>, std::remove_const_t<C>, std::remove_const_t<V>, O>;
    const auto [B, H, N, D] = q.shape;
    const index_t E = v.shape[3];
    const auto run = [&, B = B, H = H, N = N, D = D](carver& from, const auto&... with) {
        code_means<T> before(from, B, H, codebook.shape[1], E);
        const index_t most = std::min(L, N);
        T* const keys = from.take<T>(B * H * std::min(2 * L, N) * D);
        T* const outputs[] = {from.take<T>(B * H * most * E), from.take<T>(B * H * most * E)};
        double* const sums[] = {from.take<double>(B * H * most), from.take<double>(B * H * most)};
        for (index_t first = 0; first < N; first += L) {
            const range block{first, std::min(N, first + L)}, seen{std::max<index_t>(0, first - L), block.last};
            // The first three blocks and the last need what any other does.
            if (from.counts() && first > 2 * L && block.last < N) continue;
            const auto khat = heads(keys, {B, H, seen.size(), D});
            const auto part = [&](int i) {
                return partial(heads(outputs[i], {B, H, block.size(), E}), dense(sums[i], {B, H, block.size()}));
            };
            const auto close = part(0), far = part(1);
            if (!from.counts()) {
                each_row(khat.shape, [&](index_t b, index_t h, index_t n) {
                    for (index_t d = 0; d < D; ++d)
                        khat(b, h, n, d) = static_cast<T>(codebook(h, codes(b, h, seen.first + n), d));
                });
                if (seen.first > 0) before.add(codes, v, {seen.first - L, seen.first});
            }
            const auto queries = slice(q, 2, block);
            attention<A>(queries, khat, slice(v, 2, seen), close.o, causal{}, score_of(near), lse{close.lse}, with...);
            if (seen.first > 0)
                attention<A>(queries, keys_of(codebook, B), before.means(), far.o, before.present(),
                             bias(before.logs()), lse{far.lse}, with...);
            if (from.counts()) continue;
            const partial to(slice(o, 2, block), close.lse);
            if (seen.first > 0)
                merge(to, close, far);
            else
                merge(to, close);
        }
    };
    in_shared_scratch(op, run, policies...);
}

}  // namespace heed::inline HEED_ABI
