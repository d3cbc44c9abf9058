// The delta rule in chunks by plain loops, in the arithmetic of Real: what a kernel of that form is measured by. Within
// a chunk nothing is folded into the state, so where keys repeat, or are few numbers wide, its terms are larger than
// what they sum to and every arithmetic loses digits that token by token it would keep.
//
//   u_i = beta_i (v_i - S^T (f_i k_i) - sum_{j < i} (k_i . P_ij k_j) u_j),   o_i = S^T (f_i q_i) + sum_{j <= i} (q_i .
//   P_ij k_j) u_j S' = f_n S + sum_j (P_nj k_j) u_j^T,    P_ij = a_{j+1} ... a_i,  f_i = P_i,start
#pragma once

#include <heed/ref/recurrence.hpp>

namespace test {

using namespace heed;

template <class Real, class Q, class K, class V, class O, class S>
void naive_chunks(view<Q> q, view<K> k, view<V> v, view<O> o, const ref::recurrence_options<Real>& with, view<S> state,
                  index_t chunk) {
    using namespace ref::detail;
    using vector = std::vector<Real>;
    const index_t B = q.shape[0], Hq = q.shape[1], N = q.shape[2], D = q.shape[3], E = v.shape[3];
    const index_t Hk = k.shape[1], Hv = v.shape[1], Hs = std::max(Hk, Hv), Ho = std::max(Hq, Hs);
    const Real scale = 1 / std::sqrt(static_cast<Real>(D));
    const auto scaled_by = [](const vector& x, vector y) {
        for (std::size_t d = 0; d < y.size(); ++d) y[d] *= x[d];
        return y;
    };
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < Hs; ++h) {
            matrix<Real> S_{D, E};
            S_.load(state, b, h);
            for (index_t first = 0; first < N; first += chunk) {
                vector f(static_cast<std::size_t>(D), Real(1));
                std::vector<vector> keys, u;  // keys decayed to the present
                for (index_t i = first; i < std::min(first + chunk, N); ++i) {
                    vector a(static_cast<std::size_t>(D), Real(1));
                    for (index_t d = 0; with.key_decay && d < D; ++d)
                        a[static_cast<std::size_t>(d)] = std::exp(with.key_decay(b, h, i, d));
                    f = scaled_by(a, f);
                    for (auto& key : keys) key = scaled_by(a, key);
                    const vector key = row<Real>(k, b, h * Hk / Hs, i);
                    vector w = row<Real>(v, b, h * Hv / Hs, i);
                    const auto take = [&](vector& from, const vector& row, Real by) {
                        const vector held = S_.read(scaled_by(f, row));
                        for (std::size_t e = 0; e < from.size(); ++e) from[e] += by * held[e];
                        for (std::size_t j = 0; j < u.size(); ++j) {
                            const Real p = by * dot(row, keys[j]);
                            for (std::size_t e = 0; e < from.size(); ++e) from[e] += p * u[j][e];
                        }
                    };
                    take(w, key, -1);
                    u.push_back(times(with.beta(b, h, i), w));
                    keys.push_back(key);
                    for (index_t g = h * (Ho / Hs); g < (h + 1) * (Ho / Hs); ++g) {
                        vector y(static_cast<std::size_t>(E));
                        take(y, row<Real>(q, b, g * Hq / Ho, i), scale);
                        write(o, b, g, i, y);
                    }
                }
                for (index_t d = 0; d < D; ++d)
                    for (index_t e = 0; e < E; ++e) S_(d, e) *= f[static_cast<std::size_t>(d)];
                for (std::size_t j = 0; j < u.size(); ++j) S_.add(keys[j], u[j]);
            }
            S_.store(state, b, h);
        }
}

}  // namespace test
