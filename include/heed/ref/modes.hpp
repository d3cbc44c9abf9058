// Definitions of time-invariant diagonal state spaces and of the damped moving average, in plain loops.
//
//   h_t[n] = a[n] h_{t-1}[n] + b[n] u_t;  y_t = sum_n Re(c[n] h_t[n]) + D u_t
#pragma once

#include <complex>

#include "diagonal.hpp"

namespace heed::inline HEED_ABI::ref {

template <class Number>
struct mode {
    Number a, b, c;
};

/// u, y: (B, N, C); of(c, n) -> mode<Number> of S states; D(c); state (sequences, C, S) of Number, or no data. `late`
/// reads the states before the token.
template <class Number, class Real, class Mode, class Through>
void diagonal_ssm(view<const Real, 3> u, view<Real, 3> y, index_t S, const Mode& of, const Through& D,
                  view<Number, 3> state = {}, bool late = false, const token_order& order = {}) {
    using states = std::vector<Number>;
    const auto start = [&](index_t i, index_t c) {
        states h(static_cast<std::size_t>(S));
        for (index_t n = 0; n < S && state.data; ++n) h[static_cast<std::size_t>(n)] = state(i, c, n);
        return h;
    };
    const auto step = [&](states& h, index_t b, index_t t, index_t c) {
        Real sum = D(c) * u(b, t, c);
        for (index_t n = 0; n < S; ++n) {
            const mode<Number> m = of(c, n);
            Number& s = h[static_cast<std::size_t>(n)];
            if (late) sum += std::real(m.c * s);
            s = m.a * s + m.b * u(b, t, c);
            if (!late) sum += std::real(m.c * s);
        }
        y(b, t, c) = sum;
    };
    const auto finish = [&](const states& h, index_t i, index_t c) {
        for (index_t n = 0; n < S && state.data; ++n) state(i, c, n) = h[static_cast<std::size_t>(n)];
    };
    scan(u.shape, order, start, step, finish);
}

/// One state of Mega's average of S states, as a mode: logits p of alpha and a of delta, beta and gamma.
template <class Real>
mode<Real> ema_mode(Real p, Real a, Real beta, Real gamma, index_t S) {
    return {1 - sigmoid(p) * sigmoid(a), sigmoid(p) * beta, gamma / std::sqrt(static_cast<Real>(S))};
}

}  // namespace heed::inline HEED_ABI::ref
