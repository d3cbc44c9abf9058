// The definition of gated slot attention (GSA) and of attention with bounded memory control (ABC): M slots hold keys
// and values, and a softmax over the slots reads them.
//
//   K_t = K_{t-1} diag(exp g_t) + k_t s_t^T  (D, M),   V_t = diag(exp g_t) V_{t-1} + s_t v_t^T  (M, E)
//   o_t = V_t^T softmax(scale K_t^T q_t)
//   ABC: s_t = exp(x_t - z_t), g_t = z_{t-1} - z_t, z_t = logsumexp of x up to t (g_0 = 0)
// Zhang et al., arXiv:2409.07146; Peng et al., arXiv:2110.02488.
#pragma once

#include <limits>

#include "recurrence.hpp"

namespace heed::inline HEED_ABI::ref {

template <class Real>
std::vector<Real> softmax(std::vector<Real> x) {
    Real top = -std::numeric_limits<Real>::infinity(), sum = 0;
    for (const Real one : x) top = one > top || std::isnan(one) ? one : top;
    for (Real& one : x) sum += one = std::exp(one - top);
    return detail::times(1 / sum, std::move(x));
}

/// q (B, Hq, N, D), k (B, H, N, D), v (B, H, N, E), H dividing Hq; s, g (B, H, N, M): writing weights and log decays of
/// the slots; o (B, Hq, N, E). The states keys (B, H, D, M) and values (B, H, M, E) are read and updated; without data
/// they start at 0.
template <class Real = double, class Q, class K, class V, class W, class G, class O, class S = Real>
void gated_slot_attention(view<Q> q, view<K> k, view<V> v, view<W> s, view<G> g, view<O> o,
                          std::optional<Real> scale = {}, view<S> keys = {}, view<S> values = {}) {
    using namespace detail;
    const auto [B, Hq, N, D] = q.shape;
    const index_t H = k.shape[1], M = s.shape[3], E = v.shape[3];
    const Real factor = scale.value_or(1 / std::sqrt(static_cast<Real>(D)));
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h) {
            matrix<Real> K_t{D, M}, V_t{M, E};
            if (keys.data) K_t.load(keys, b, h);
            if (values.data) V_t.load(values, b, h);
            for (index_t t = 0; t < N; ++t) {
                const auto gate = row<Real>(g, b, h, t), slot = row<Real>(s, b, h, t);
                for (index_t m = 0; m < M; ++m) {
                    for (index_t d = 0; d < D; ++d) K_t(d, m) *= std::exp(gate[m]);
                    for (index_t e = 0; e < E; ++e) V_t(m, e) *= std::exp(gate[m]);
                }
                K_t.add(row<Real>(k, b, h, t), slot);
                V_t.add(slot, row<Real>(v, b, h, t));
                for (index_t x = h * (Hq / H); x < (h + 1) * (Hq / H); ++x)
                    write(o, b, x, t, V_t.read(softmax(times(factor, K_t.read(row<Real>(q, b, x, t))))));
            }
            if (keys.data) K_t.store(keys, b, h);
            if (values.data) V_t.store(values, b, h);
        }
}

/// The s and g of ABC from its logits x, all (B, H, N, M).
template <class Real = double, class X, class W, class G>
void abc_gates(view<X> x, view<W> s, view<G> g) {
    const auto [B, H, N, M] = x.shape;
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h)
            for (index_t m = 0; m < M; ++m) {
                Real z = -std::numeric_limits<Real>::infinity();
                for (index_t t = 0; t < N; ++t) {
                    const Real one = static_cast<Real>(x(b, h, t, m)), top = std::max(z, one), before = z;
                    z = top + std::log(std::exp(before - top) + std::exp(one - top));
                    s(b, h, t, m) = static_cast<W>(std::exp(one - z));
                    g(b, h, t, m) = static_cast<G>(t == 0 ? Real(0) : before - z);
                }
            }
}

}  // namespace heed::inline HEED_ABI::ref
