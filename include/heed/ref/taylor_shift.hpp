// The definition of TaylorShift [110], its direct form, O(N M D).
//
//   x_ij = tau_h q_i.k_j / (|q_i| |k_j|),   a_ij = 1 + x + x^2 / 2,   o_i = sqrt(N / D) sum_j a_ij v_j / sum_j a_ij
// or a_ij = c0 + c1 x + c2 x^2. A zero row stays zero. The factor sqrt(N / D) of N keys is optional. Causal: j <= i (an
// extension of the paper's). Nauen et al., arXiv:2403.02920.
#pragma once

#include <array>

#include "recurrence.hpp"

namespace heed::inline HEED_ABI::ref {

template <class Real>
std::vector<Real> unit(std::vector<Real> x) {
    const Real length = std::sqrt(detail::dot(x, x));
    return length > 0 ? detail::times(1 / length, std::move(x)) : x;
}

/// q (B, H, N, D), k (B, H, M, D), v (B, H, M, E), o (B, H, N, E); tau a number per head.
template <class Real = double, class Q, class K, class V, class O>
void taylor_shift(view<Q> q, view<K> k, view<V> v, view<O> o, const std::vector<Real>& tau, bool sized = true,
                  bool causal = false, const std::array<Real, 3>& c = {1, 1, Real(0.5)}) {
    using namespace detail;
    const auto [B, H, N, D] = q.shape;
    const index_t M = k.shape[2], E = v.shape[3];
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h)
            for (index_t i = 0; i < N; ++i) {
                const auto query = times(tau[h], unit(row<Real>(q, b, h, i)));
                std::vector<Real> sum(E);
                Real weight = 0;
                for (index_t j = 0; j < (causal ? i + 1 : M); ++j) {
                    const Real x = dot(query, unit(row<Real>(k, b, h, j))), a = c[0] + c[1] * x + c[2] * x * x;
                    for (index_t e = 0; e < E; ++e) sum[e] += a * static_cast<Real>(v(b, h, j, e));
                    weight += a;
                }
                const Real size = sized ? std::sqrt(static_cast<Real>(M) / static_cast<Real>(D)) : Real(1);
                write(o, b, h, i, times(size / weight, sum));
            }
}

}  // namespace heed::inline HEED_ABI::ref
