// The functions gates are made of, on packs and on numbers, each with its range and error bound
// (tests/simd/gates_test.cpp repeats the bounds). None computes e^x of a positive x; NaN stays NaN.
#pragma once

#include <array>
#include <concepts>

#include "math.hpp"

namespace heed::inline HEED_ABI {

/// log(1 + x) for 0 <= x <= 1: at most 3 ULP.
template <class T, class A>
HEED_INLINE pack<T, A> log1p_unit(const pack<T, A>& x) {
    using P = pack<T, A>;
    if constexpr (sizeof(T) == 4) {  // log(1 + x) / x, minimax in relative error, degree 9 (4.7e-9): no division
        return x * detail::polynomial(x, -0.003244024608, 0.01985145982, -0.05695952952, 0.1060365441, -0.153055923,
                                      0.1967593917, -0.2495413364, 0.3332996242, -0.4999990242, 0.9999999953);
    } else {
        const auto upper = x > P(sqrt_2<T> - 1);
        return detail::log_by_parts(select(upper, P(1), P(0)), select(upper, P(0.5) * (x - P(1)), x));
    }
}
template <std::floating_point T>
T log1p_unit(T x) {
    return std::log1p(x);
}

/// The twin of math.hpp's for numbers.
template <std::floating_point T>
T exp_nonpositive(T x) {
    return std::exp(x);
}

/// e^x and e^x - 1 of one x.
template <class X>
struct exp_pair {
    X exp, expm1;
};
/// For x <= 0: at most 3 ULP where the results are normal.
template <class T, class A>
HEED_INLINE exp_pair<pack<T, A>> exp_both_nonpositive(const pack<T, A>& x) {
    using P = pack<T, A>;
    const P bounded = max(P(sizeof(T) == 4 ? T(-110) : T(-760)), x);
    const P n = round_even(bounded * P(log2_e<T>));
    const P rest = fma(n, P(-detail::ln_2_low<T>), fma(n, P(-detail::ln_2_high<T>), bounded));
    const P grown = rest * detail::exp_slope(rest);  // e^x = 2^n (1 + grown)
    const P power = scale_by_power(P(1), n);
    return {fma(power, grown, power), fma(power, grown, power - P(1))};
}
template <std::floating_point T>
exp_pair<T> exp_both_nonpositive(T x) {
    return {std::exp(x), std::expm1(x)};
}

/// The logistic function 1 / (1 + e^-x), any x: at most 4 ULP where the result is normal.
template <class X>
HEED_INLINE X sigmoid(const X& x) {
    const X e = exp_nonpositive(-abs(x));
    return select(x >= X(0), X(1), e) / (X(1) + e);
}

/// sigmoid(x) and sigmoid(-x) for one exponential and one division: at most 5 ULP where they are normal.
template <class X>
HEED_INLINE std::array<X, 2> sigmoid_both_signs(const X& x) {
    const X e = exp_nonpositive(-abs(x)), greater = X(1) / (X(1) + e), less = e * greater;
    return {select(x >= X(0), greater, less), select(x >= X(0), less, greater)};
}

/// sigmoid(x) and sigmoid(y) for one division, which costs as much as an exponential: at most 6 ULP where they are normal.
template <class X>
HEED_INLINE std::array<X, 2> sigmoids(const X& x, const X& y) {
    const X ex = exp_nonpositive(-abs(x)), ey = exp_nonpositive(-abs(y));
    const X dx = X(1) + ex, dy = X(1) + ey, by = X(1) / (dx * dy);  // from 1/4 to 1
    return {select(x >= X(0), X(1), ex) * (dy * by), select(y >= X(0), X(1), ey) * (dx * by)};
}

/// x sigmoid(x), any x: at most 5 ULP where sigmoid(x) is normal, from -87 (float) or -708 (double) on; off by at most
/// |x| times the least normal number below; 0 at -inf.
template <class X>
HEED_INLINE X silu(const X& x) {
    return max(X(-1000), x) * sigmoid(x);  // a product with 0 from here on, and never with -inf
}

/// GeLU in the form that released weights have been trained with, x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)), any x;
/// within 5e-4 of x (1 + erf(x / sqrt 2)) / 2. At most 4 ULP for x >= -1, off by at most half the machine epsilon
/// below; 0 at -inf, inf at inf.
template <class X>
HEED_INLINE X gelu_tanh(const X& x) {
    return max(X(-1000), x) * sigmoid(x * fma(X(0.07135481627260025), x * x, X(1.5957691216057308)));  // as in silu
}

/// log(1 + e^x), any x: at most 4 ULP where the result is normal; 0 at -inf, inf at inf.
template <class X>
HEED_INLINE X softplus(const X& x) {
    return max(X(0), x) + log1p_unit(exp_nonpositive(-abs(x)));
}

/// log sigmoid(x), any x: at most 4 ULP where the result is normal; -inf at -inf, 0 at inf.
template <class X>
HEED_INLINE X log_sigmoid(const X& x) {
    return -softplus(-x);
}

/// log(e^a + e^b), any a and b; -inf is its zero, inf absorbs. At most 3 units in the last place of the larger of |a|,
/// |b| and the result.
template <class X>
HEED_INLINE X log_add(const X& a, const X& b) {
    const X apart = select(a == b, X(0), -abs(a - b));  // infinities of one sign are not apart
    return max(a, b) + log1p_unit(exp_nonpositive(apart));
}

}  // namespace heed::inline HEED_ABI
