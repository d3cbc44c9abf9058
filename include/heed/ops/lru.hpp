// Complex diagonal recurrences of given eigenvalues: the LRU (arXiv:2303.06349) and the core of S5 (arXiv:2208.04933).
//
//   h_t = lambda h_{t-1} + s x_t, complex, per channel; x, h: (B, N, C) as real and imaginary parts, lambda, s: (C)
// LRU: lambda = exp(-exp(nu) + i exp(theta)), s = sqrt(1 - |lambda|^2) (lru_mode). S5: a and b of zero_order_hold or
// bilinear. x is the product of B and the input, y = Re(C h) + D u: both are matrix products of the caller.
#pragma once

#include <complex>

#include "../engine/scan.hpp"

namespace heed::inline HEED_ABI {

/// lambda and s of a channel of the LRU. 1 - |lambda|^2 = -expm1(-2 e^nu): no digits are lost where |lambda| is near 1.
struct lru_mode {
    std::complex<double> lambda;
    double s;
    lru_mode(double nu, double theta)
        : lambda(std::polar(std::exp(-std::exp(nu)), std::exp(theta))), s(std::sqrt(-std::expm1(-2 * std::exp(nu)))) {}
};

/// Real and imaginary parts of one operand.
template <class Re, class Im>
struct complex_view {
    const Re& re;
    const Im& im;
    complex_view(const Re& real, const Im& imaginary) : re(real), im(imaginary) {}
};

namespace detail {
/// Constants lambda and s, real and imaginary parts.
struct complex_cell {
    using carried = complex_affine;
    static constexpr int inputs = 2, constants = 4, outputs = 2;
    template <class X>
    HEED_INLINE void prepare(numbers<X, 4>&) const {}
    template <class X>
    HEED_INLINE numbers<X, 4> leaf(const numbers<X, 2>& x, const numbers<X, 4>& k) const {
        return {k[0], k[1], fma(k[2], x[0], -k[3] * x[1]), fma(k[2], x[1], k[3] * x[0])};
    }
    template <class X>
    HEED_INLINE numbers<X, 2> read(const numbers<X, 2>& h, const numbers<X, 2>&, const numbers<X, 4>&) const {
        return h;
    }
};
}  // namespace detail

/// Policies as in scan; carry is (sequences, C, 2).
template <class A = default_arch, class Xr, class Xi, class Lr, class Li, class Sr, class Si, class Hr, class Hi,
          class... P>
void complex_diagonal(const complex_view<Xr, Xi>& x, const complex_view<Lr, Li>& lambda, const complex_view<Sr, Si>& s,
                      const complex_view<Hr, Hi>& h, const P&... policies) {
    using namespace detail;
    run_scan<A>("complex_diagonal", complex_cell{}, std::tuple(reads("Re x", x.re), reads("Im x", x.im)),
                std::tuple(reads("Re lambda", lambda.re), reads("Im lambda", lambda.im), reads("Re s", s.re),
                           reads("Im s", s.im)),
                std::tuple(writes("Re h", h.re), writes("Im h", h.im)), policies...);
}

}  // namespace heed::inline HEED_ABI
