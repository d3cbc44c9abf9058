// The definitions of Hyena [55] and of the filters of positions it uses, in double precision and plain loops.
//
//   v <- h_o conv (x_(p-1-o) v) + beta_o (x_(p-1-o) v) for o = 0 ... p - 2;  y = x_0 v
#pragma once

#include <cmath>
#include <numbers>
#include <vector>

#include "../core/view.hpp"

namespace heed::inline HEED_ABI::ref {

/// u (n, (p + 1) C), h[o] (c, k), beta[o] (c), y (n, c).
template <class Real = double, class U, class H, class Y>
void hyena(const view<U, 2>& u, const std::vector<view<H, 2>>& h, const std::vector<std::vector<double>>& beta,
           const view<Y, 2>& y) {
    const auto [N, C] = y.shape;
    const auto p = static_cast<index_t>(h.size()) + 1;
    std::vector<Real> v(static_cast<std::size_t>(N)), gated(v);
    for (index_t c = 0; c < C; ++c) {
        for (index_t n = 0; n < N; ++n) v[n] = static_cast<Real>(u(n, p * C + c));
        for (index_t o = 0; o < p - 1; ++o) {
            for (index_t n = 0; n < N; ++n) gated[n] = static_cast<Real>(u(n, (p - 1 - o) * C + c)) * v[n];
            for (index_t n = 0; n < N; ++n) {
                v[n] = static_cast<Real>(beta[o][c]) * gated[n];
                for (index_t k = 0; k <= std::min(n, h[o].shape[1] - 1); ++k)
                    v[n] += static_cast<Real>(h[o](c, k)) * gated[n - k];
            }
        }
        for (index_t n = 0; n < N; ++n) y(n, c) = static_cast<Y>(static_cast<Real>(u(n, c)) * v[n]);
    }
}

/// A layer of the network of positions: weights (out, in), bias (out).
struct dense_layer {
    std::vector<std::vector<double>> weight;
    std::vector<double> bias;
};

/// Tap l of every channel, computed in Real. `last` (C, W) has no bias.
template <class Real = double>
std::vector<Real> implicit_taps(const std::vector<dense_layer>& layers, const std::vector<std::vector<double>>& last,
                                const std::vector<double>& frequency, const std::vector<double>& decay, double shift,
                                index_t longest, index_t l) {
    const auto E = static_cast<index_t>(layers[0].weight[0].size()), bands = (E - 1) / 2;
    const Real t = static_cast<Real>(l) / static_cast<Real>(longest - 1);
    const Real w = 2 * std::numbers::pi_v<Real> * static_cast<Real>(l) / static_cast<Real>(longest);
    std::vector<Real> a(static_cast<std::size_t>(E));
    a[0] = t;
    for (index_t j = 0; j < bands; ++j) {
        const Real part = bands == 1 ? 0 : static_cast<Real>(j) / static_cast<Real>(bands - 1);
        const Real f = Real(1e-4) + part * (static_cast<Real>(bands - 1) - Real(1e-4));
        a[1 + j] = std::cos(f * w);
        a[1 + bands + j] = -std::sin(f * w);
    }
    for (const dense_layer& layer : layers) {
        std::vector<Real> next(layer.bias.begin(), layer.bias.end());
        for (std::size_t r = 0; r < next.size(); ++r) {
            for (std::size_t i = 0; i < a.size(); ++i) next[r] += static_cast<Real>(layer.weight[r][i]) * a[i];
            next[r] = std::sin(static_cast<Real>(frequency[r]) * next[r]);
        }
        a = next;
    }
    std::vector<Real> k(last.size());
    for (std::size_t c = 0; c < k.size(); ++c) {
        for (std::size_t i = 0; i < a.size(); ++i) k[c] += static_cast<Real>(last[c][i]) * a[i];
        k[c] *= std::exp(-t * static_cast<Real>(std::abs(decay[c]))) + static_cast<Real>(shift);
    }
    return k;
}

}  // namespace heed::inline HEED_ABI::ref
