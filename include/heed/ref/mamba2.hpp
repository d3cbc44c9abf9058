// The definition of Mamba-2's recurrence (state-space duality), in double precision and plain loops, element by
// element.
//
//   d = dt + bias, log(1 + e^d) if asked, clamped;  h_sp = exp(d A) h_sp + d B_s x_p;  y_p = sum_s C_s h_sp + D x_p
// Dao and Gu, arXiv:2405.21060.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "../core/view.hpp"

namespace heed::inline HEED_ABI::ref {

/// bias and skip (D) per head, left out without data.
template <class Real = double>
struct mamba2_options {
    view<const Real, 1> bias = {}, skip = {};
    bool softplus = false;
    Real least = 0, most = std::numeric_limits<Real>::infinity();
};

/// x, y (B, H, N, P), dt (B, H, N), A (H), in and out (B, G, N, S); head h reads group h G / H. The state (B, H, S, P)
/// is read and updated; without data it starts at 0.
template <class Real = double, class X, class DT, class Log, class In, class Out, class Y, class S = Real>
void mamba2(view<X> x, view<DT, 3> dt, view<Log, 1> A, view<In> in, view<Out> out, view<Y> y,
            const mamba2_options<Real>& with = {}, view<S> state = {}) {
    const index_t H = x.shape[1], N = x.shape[2], P = x.shape[3], G = in.shape[1], width = in.shape[3];
    for (index_t b = 0; b < x.shape[0]; ++b)
        for (index_t h = 0; h < H; ++h)
            for (index_t p = 0; p < P; ++p) {
                std::vector<Real> s(static_cast<std::size_t>(width));
                for (index_t i = 0; i < width && state.data; ++i) s[static_cast<std::size_t>(i)] = state(b, h, i, p);
                for (index_t n = 0; n < N; ++n) {
                    Real d = static_cast<Real>(dt(b, h, n)) + (with.bias.data ? with.bias(h) : Real(0));
                    if (with.softplus) d = d > 20 ? d : std::log1p(std::exp(d));
                    d = std::min(std::max(d, with.least), with.most);
                    Real sum = 0;
                    for (index_t i = 0; i < width; ++i) {
                        Real& one = s[static_cast<std::size_t>(i)];
                        one = std::exp(d * static_cast<Real>(A(h))) * one +
                              d * static_cast<Real>(in(b, h * G / H, n, i)) * static_cast<Real>(x(b, h, n, p));
                        sum += static_cast<Real>(out(b, h * G / H, n, i)) * one;
                    }
                    if (with.skip.data) sum += with.skip(h) * static_cast<Real>(x(b, h, n, p));
                    y(b, h, n, p) = static_cast<Y>(sum);
                }
                for (index_t i = 0; i < width && state.data; ++i)
                    state(b, h, i, p) = static_cast<S>(s[static_cast<std::size_t>(i)]);
            }
}

}  // namespace heed::inline HEED_ABI::ref
