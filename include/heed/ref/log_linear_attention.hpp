// The definition of log-linear attention [85], O(N^2 D): every key is carried along the sequence by itself.
//
//   o_t = sum_{s <= t} lambda_t[level(t, s)] (q_t^T A_t ... A_{s+1} k_s) w_s,   A = exp(g) or exp(g) (I - beta k k^T)
//   w = v, or beta v. Levels are those of a Fenwick tree over the prefix: 0 is the token itself, level l > 0 holds
//   2^(l-1) tokens. No scale, no normaliser. Guo et al., arXiv:2506.04761.
#pragma once

#include <bit>
#include <functional>

#include "recurrence.hpp"

namespace heed::inline HEED_ABI::ref {

/// The level of the key s <= t for the query t: the prefix of t is cut at the set bits of t, from the highest.
inline index_t fenwick_level(index_t t, index_t s) {
    if (s == t) return 0;
    const auto v = static_cast<index_t>(std::bit_floor(static_cast<std::size_t>(t)));
    if (s < v) return std::bit_width(static_cast<std::size_t>(v));
    return fenwick_level(t - v, s - v);
}

/// q (B, Hq, N, D), k (B, Hk, N, D), v (B, Hv, N, E), o (B, H, N, E), all dividing H; level_scales (B, H, N, L); g =
/// key_decay and beta of `with`, asked with heads of v.
template <class Real = double, class Q, class K, class V, class L, class O>
void log_linear_attention(view<Q> q, view<K> k, view<V> v, view<L> level_scales, view<O> o,
                          const recurrence_options<Real>& with = {}) {
    using namespace detail;
    const auto [B, H, N, E] = o.shape;
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h) {
            const index_t hq = h * q.shape[1] / H, hk = h * k.shape[1] / H, hv = h * v.shape[1] / H;
            matrix<Real> out{N, E};
            for (index_t s = 0; s < N; ++s) {
                std::vector<Real> carried = row<Real>(k, b, hk, s);
                const auto w = times(with.beta ? with.beta(b, hv, s) : Real(1), row<Real>(v, b, hv, s));
                for (index_t t = s; t < N; ++t) {
                    if (t > s) {
                        const auto key = row<Real>(k, b, hk, t);
                        const Real erased = with.beta ? with.beta(b, hv, t) * dot(key, carried) : Real(0);
                        const Real kept = with.key_decay ? std::exp(with.key_decay(b, hv, t, 0)) : Real(1);
                        for (std::size_t d = 0; d < key.size(); ++d) carried[d] = kept * (carried[d] - erased * key[d]);
                    }
                    const Real p = static_cast<Real>(level_scales(b, h, t, fenwick_level(t, s))) *
                                   dot(row<Real>(q, b, hq, t), carried);
                    for (index_t e = 0; e < E; ++e) out(t, e) += p * w[e];
                }
            }
            out.store(o, b, h);
        }
}

}  // namespace heed::inline HEED_ABI::ref
