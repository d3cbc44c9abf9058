// The definition of convolution along a sequence, in double precision and plain loops. It shares nothing with the
// engine.
//
//   y[b, t, c] = g'[b, t, c] sum_k h[c, k] (g x)[b, t + ahead - k, c],  x = 0 outside the sequence
// x, y and the gates (b, n, c), h (c, k); gates without data are 1.
#pragma once

#include "../core/view.hpp"

namespace heed::inline HEED_ABI::ref {

/// Real is the arithmetic, and the order of the sum is that of k.
template <class Real = double, class X, class H, class Y, class GI = float, class GO = float>
void convolution(const view<X, 3>& x, const view<H, 2>& h, const view<Y, 3>& y, index_t ahead = 0,
                 const view<GI, 3>& input_gate = {}, const view<GO, 3>& output_gate = {}) {
    const auto [B, N, C] = x.shape;
    for (index_t b = 0; b < B; ++b)
        for (index_t c = 0; c < C; ++c)
            for (index_t t = 0; t < N; ++t) {
                Real sum = 0;
                for (index_t k = 0; k < h.shape[1]; ++k) {
                    const index_t n = t + ahead - k;
                    if (n < 0 || n >= N) continue;
                    Real in = static_cast<Real>(x(b, n, c));
                    if (input_gate.data) in *= static_cast<Real>(input_gate(b, n, c));
                    sum += static_cast<Real>(h(c, k)) * in;
                }
                if (output_gate.data) sum *= static_cast<Real>(output_gate(b, t, c));
                y(b, t, c) = static_cast<std::remove_const_t<Y>>(sum);
            }
}

}  // namespace heed::inline HEED_ABI::ref
