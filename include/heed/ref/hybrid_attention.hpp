// The definition of hybrid attention [61]: some keys are met by softmax, the others by a feature map, in one
// normaliser. Not causal.
//
//   o_i = (sum_{j in T} e_ij v_j + sum_{j not in T} p_ij v_j) / (the same with v = 1)
//   e_ij = exp(x_ij - c_i),  x_ij = q_i.k_j / sqrt(D),  c_i = max_{j in T} x_ij,   p_ij = phi(q_i).phi(k_j)
// c_i does not cancel: it is part of the definition. The denominator is at least eps. Ghafoorian et al.,
// arXiv:2509.24899.
#pragma once

#include <functional>
#include <limits>
#include <optional>

#include "recurrence.hpp"

namespace heed::inline HEED_ABI::ref {

/// q (B, H, N, D), k (B, H, M, D), v (B, H, M, E), o (B, H, N, E); exact(j): key j is one of T; c, if it is not to be
/// the largest logit.
template <class Real = double, class Q, class K, class V, class O>
void hybrid_attention(view<Q> q, view<K> k, view<V> v, view<O> o, const std::function<bool(index_t j)>& exact,
                      const std::function<std::vector<Real>(const std::vector<Real>&)>& phi, Real eps = Real(1e-6),
                      std::optional<Real> c = {}) {
    using namespace detail;
    const auto [B, H, N, D] = q.shape;
    const index_t M = k.shape[2], E = v.shape[3];
    const Real scale = 1 / std::sqrt(static_cast<Real>(D));
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h)
            for (index_t i = 0; i < N; ++i) {
                const auto query = row<Real>(q, b, h, i), mapped = phi(query);
                const auto logit = [&](index_t j) { return scale * dot(query, row<Real>(k, b, h, j)); };
                Real top = -std::numeric_limits<Real>::infinity(), weight = 0;
                for (index_t j = 0; j < M; ++j)
                    if (exact(j)) top = c.value_or(std::max(top, logit(j)));
                std::vector<Real> sum(E);
                for (index_t j = 0; j < M; ++j) {
                    const Real a = exact(j) ? std::exp(logit(j) - top) : dot(mapped, phi(row<Real>(k, b, h, j)));
                    for (index_t e = 0; e < E; ++e) sum[e] += a * static_cast<Real>(v(b, h, j, e));
                    weight += a;
                }
                write(o, b, h, i, times(1 / std::max(weight, eps), sum));
            }
}

}  // namespace heed::inline HEED_ABI::ref
