// The definition of Infini-attention [108]: segments of C tokens attend causally within themselves, and read a
// compressive memory of all segments before.
//
//   o = g phi(q)^T S / phi(q).z + (1 - g) softmax(q.k / sqrt D) v,   g = sigmoid(gate_h); the read is 0 where z is 0
//   after a segment: S += sum_t phi(k_t) w_t^T,  z += sum_t phi(k_t);   w = v, or v - phi(k)^T S / phi(k).z (delta),
//   with S and z of before the segment; phi = 1 + elu. Munkhdalai et al., arXiv:2404.07143.
#pragma once

#include "slot_attention.hpp"

namespace heed::inline HEED_ABI::ref {

template <class Real>
std::vector<Real> elu_plus_one(std::vector<Real> x) {
    for (Real& one : x) one = one > 0 ? 1 + one : std::exp(one);
    return x;
}

namespace detail {
/// x^T S / x.z, S with z as its last column; 0 where that is 0 / 0.
template <class Real>
std::vector<Real> recalled(const matrix<Real>& S, const std::vector<Real>& x) {
    std::vector<Real> y = S.read(x);
    const Real z = y.back();
    y.pop_back();
    return z == 0 ? std::vector<Real>(y.size()) : times(1 / z, y);
}
}  // namespace detail

/// q, k (B, H, N, D), v, o (B, H, N, E); gate one number per head. The softmax is over local(x, t), the rows of q and k
/// at their positions.
template <class Real = double, class Q, class K, class V, class O>
void infini_attention(view<Q> q, view<K> k, view<V> v, view<O> o, index_t C, const std::vector<Real>& gate,
                      bool delta = false,
                      const std::function<std::vector<Real>(std::vector<Real>, index_t t)>& local = {}) {
    using namespace detail;
    const auto placed = [&](std::vector<Real> x, index_t t) { return local ? local(std::move(x), t) : x; };
    const auto [B, H, N, D] = q.shape;
    const index_t E = v.shape[3];
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h) {
            matrix<Real> S{D, E + 1};
            const Real g = 1 / (1 + std::exp(-gate[h]));
            for (index_t first = 0; first < N; first += C) {
                const index_t last = std::min(first + C, N);
                for (index_t t = first; t < last; ++t) {
                    const auto query = row<Real>(q, b, h, t);
                    std::vector<Real> x, y = times(g, recalled(S, elu_plus_one(query)));
                    for (index_t s = first; s <= t; ++s)
                        x.push_back(dot(placed(query, t), placed(row<Real>(k, b, h, s), s)) /
                                    std::sqrt(static_cast<Real>(D)));
                    const auto p = softmax(x);
                    for (index_t s = first; s <= t; ++s)
                        for (index_t e = 0; e < E; ++e)
                            y[e] += (1 - g) * p[s - first] * static_cast<Real>(v(b, h, s, e));
                    write(o, b, h, t, y);
                }
                const matrix<Real> before = S;
                for (index_t t = first; t < last; ++t) {
                    const auto key = elu_plus_one(row<Real>(k, b, h, t));
                    auto w = row<Real>(v, b, h, t);
                    const auto held = recalled(before, key);
                    for (index_t e = 0; delta && e < E; ++e) w[e] -= held[e];
                    w.push_back(1);
                    S.add(key, w);
                }
            }
        }
}

}  // namespace heed::inline HEED_ABI::ref
