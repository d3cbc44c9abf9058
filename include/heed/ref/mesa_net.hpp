// The definition of the Mesa layer: each query meets the least-squares fit of all values so far.
//
//   H_t = exp(g_t) H_{t-1} + beta_t k_t k_t^T (D, D),   G_t = exp(g_t) G_{t-1} + beta_t k_t v_t^T (D, E)
//   o_t = G_t^T (H_t + diag lambda)^{-1} q_t            by Gaussian elimination with partial pivots; no scale
// von Oswald et al., MesaNet, arXiv:2506.05233.
#pragma once

#include <utility>

#include "recurrence.hpp"

namespace heed::inline HEED_ABI::ref {

/// x with M x = y.
template <class Real>
std::vector<Real> solved(detail::matrix<Real> M, std::vector<Real> y) {
    const index_t D = M.D;
    for (index_t c = 0; c < D; ++c) {
        index_t pivot = c;
        for (index_t r = c + 1; r < D; ++r)
            if (std::abs(M(r, c)) > std::abs(M(pivot, c))) pivot = r;
        for (index_t d = 0; d < D; ++d) std::swap(M(c, d), M(pivot, d));
        std::swap(y[c], y[pivot]);
        for (index_t r = c + 1; r < D; ++r) {
            const Real part = M(r, c) / M(c, c);
            for (index_t d = c; d < D; ++d) M(r, d) -= part * M(c, d);
            y[r] -= part * y[c];
        }
    }
    for (index_t r = D - 1; r >= 0; --r) {
        for (index_t d = r + 1; d < D; ++d) y[r] -= M(r, d) * y[d];
        y[r] /= M(r, r);
    }
    return y;
}

/// q, k (B, H, N, D), v, o (B, H, N, E); lambda (H, D), positive; g = key_decay and beta of `with`. The states keys
/// (B, H, D, D) and values (B, H, D, E) are read and updated; without data they start at 0.
template <class Real = double, class Q, class K, class V, class L, class O, class S = Real>
void mesa_net(view<Q> q, view<K> k, view<V> v, view<L, 2> lambda, view<O> o, const recurrence_options<Real>& with,
              view<S> keys = {}, view<S> values = {}) {
    using namespace detail;
    const auto [B, H, N, D] = q.shape;
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h) {
            matrix<Real> kk{D, D}, kv{D, v.shape[3]};
            if (keys.data) kk.load(keys, b, h);
            if (values.data) kv.load(values, b, h);
            for (index_t t = 0; t < N; ++t) {
                const Real a = std::exp(with.key_decay(b, h, t, 0)), beta = with.beta(b, h, t);
                const auto key = row<Real>(k, b, h, t);
                kk.scale(a);
                kv.scale(a);
                kk.add(times(beta, key), key);
                kv.add(times(beta, key), row<Real>(v, b, h, t));
                auto regular = kk;
                for (index_t d = 0; d < D; ++d) regular(d, d) += static_cast<Real>(lambda(h, d));
                write(o, b, h, t, kv.read(solved(regular, row<Real>(q, b, h, t))));
            }
            if (keys.data) kk.store(keys, b, h);
            if (values.data) kv.store(values, b, h);
        }
}

}  // namespace heed::inline HEED_ABI::ref
