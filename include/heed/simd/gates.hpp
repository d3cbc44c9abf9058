// The functions gates are made of, on packs and on numbers, each with its range and error bound
// (tests/simd/gates_test.cpp repeats the bounds). None computes e^x of a positive x; NaN stays NaN.
#pragma once

#include <concepts>

#include "math.hpp"

namespace heed::inline HEED_ABI {

/// log(1 + x) for 0 <= x <= 1: at most 2 ULP.
template <class T, class A>
HEED_INLINE pack<T, A> log1p_unit(const pack<T, A>& x) {
    using P = pack<T, A>;
    const auto upper = x > P(sqrt_2<T> - 1);
    return detail::log_by_parts(select(upper, P(1), P(0)), select(upper, P(0.5) * (x - P(1)), x));
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

/// e^x - 1 for x <= 0: at most 4 ULP where x is normal.
template <class T, class A>
HEED_INLINE pack<T, A> expm1_nonpositive(const pack<T, A>& x) {
    using P = pack<T, A>;
    const P y = max(P(-80), x * P(log2_e<T>));  // it is -1 long before
    const P n = round_even(y), f = y - n, power = scale_by_power(P(1), n);
    return fma(power, f * detail::exp2_slope(f), power - P(1));
}
template <std::floating_point T>
T expm1_nonpositive(T x) {
    return std::expm1(x);
}

/// The logistic function 1 / (1 + e^-x), any x: at most 4 ULP where the result is normal.
template <class X>
HEED_INLINE X sigmoid(const X& x) {
    const X e = exp_nonpositive(-abs(x));
    return select(x >= X(0), X(1), e) / (X(1) + e);
}

/// x sigmoid(x), any x: at most 5 ULP where the result is normal; 0 at -inf.
template <class X>
HEED_INLINE X silu(const X& x) {
    return max(X(-1000), x) * sigmoid(x);  // a product with 0 from here on, and never with -inf
}

/// log(1 + e^x), any x: at most 4 ULP where the result is normal; 0 at -inf, inf at inf.
template <class X>
HEED_INLINE X softplus(const X& x) {
    return max(X(0), x) + log1p_unit(exp_nonpositive(-abs(x)));
}

/// log sigmoid(x).
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
