// The definition of the mLSTM [17]: a recurrence with exponential gates, kept in range by a running maximum m.
//
//   m_t = max(log f_t + m_{t-1}, log i_t),   f' = exp(log f_t + m_{t-1} - m_t),   i' = exp(log i_t - m_t)
//   S_t = f' S_{t-1} + i' k_t v_t^T,   n_t = f' n_{t-1} + i' k_t,   o_t = S_t^T q_t / max(|n_t.q_t|, exp(-m_t))
// q is scaled by 1 / sqrt(D) (the paper scales k). m_{-1} = -inf, where S and n are 0. Beck et al., arXiv:2405.04517.
#pragma once

#include <limits>

#include "recurrence.hpp"

namespace heed::inline HEED_ABI::ref {

/// q, k (B, H, N, D), v, o (B, H, N, E); log_i, log_f (B, H, N), log_f <= 0.
template <class Real = double, class Q, class K, class V, class I, class G, class O>
void mlstm(view<Q> q, view<K> k, view<V> v, view<I, 3> log_i, view<G, 3> log_f, view<O> o) {
    using namespace detail;
    const auto [B, H, N, D] = q.shape;
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h) {
            matrix<Real> S{D, v.shape[3]}, n{D, 1};
            Real m = -std::numeric_limits<Real>::infinity();
            for (index_t t = 0; t < N; ++t) {
                const Real f = static_cast<Real>(log_f(b, h, t)) + m, i = static_cast<Real>(log_i(b, h, t));
                m = std::max(f, i);
                const auto key = times(std::exp(i - m), row<Real>(k, b, h, t));
                S.scale(std::exp(f - m));
                n.scale(std::exp(f - m));
                S.add(key, row<Real>(v, b, h, t));
                n.add(key, {1});
                const auto query = times(1 / std::sqrt(static_cast<Real>(D)), row<Real>(q, b, h, t));
                const Real norm = std::max(std::abs(n.read(query)[0]), std::exp(-m));
                write(o, b, h, t, times(1 / norm, S.read(query)));
            }
        }
}

}  // namespace heed::inline HEED_ABI::ref
