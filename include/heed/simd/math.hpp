// Elementary functions on packs, each with its range and error bound (tests/simd/math_test.cpp repeats the bounds).
//
// Scalars take the same names through <cmath>, so a functor written as `tanh(x)` works on both.
#pragma once

#include <cmath>
#include <limits>

#include "pack.hpp"

namespace heed::inline HEED_ABI {

using std::abs;
using std::erf;
using std::exp;
using std::fma;
using std::log;
using std::max;
using std::min;
using std::sqrt;
using std::tanh;

template <class T>
inline constexpr T log2_e = T(1.44269504088896340735992468100189214);
template <class T>
inline constexpr T ln_2 = T(0.693147180559945309417232121458176568);

namespace detail {

/// Horner's rule, highest coefficient first.
template <class P, class... C>
HEED_INLINE P polynomial(const P& x, double highest, C... rest) {
    using T = typename P::value_type;
    P y(static_cast<T>(highest));
    ((y = fma(y, x, P(static_cast<T>(rest)))), ...);
    return y;
}

/// 2^f for |f| <= 1/2: minimax in relative error with 2^0 = 1 exactly, float degree 5 (9.2e-8), double degree 11
/// (3e-18).
template <class P>
HEED_INLINE P exp2_fraction(const P& f) {
    if constexpr (sizeof(typename P::value_type) == 4)
        return polynomial(f, 1.326473333e-3, 9.671512643e-3, 5.550733724e-2, 2.402224209e-1, 6.931469776e-1, 1.0);
    else
        return polynomial(f, 4.4353523518648836e-10, 7.0741043418275163e-09, 1.0178197558846429e-07,
                          1.3215433097307574e-06, 1.525273349109609e-05, 1.540353046249882e-4, 1.3333558146788774e-3,
                          9.6181291075883475e-3, 5.5504108664819925e-2, 2.4022650695910155e-1, 6.9314718055994529e-1,
                          1.0);
}

}  // namespace detail

/// 2^x for x <= 127 (float) or 1023 (double); -inf and everything below the normal range give 0 or a denormal, NaN
/// stays NaN. At most 3 ULP where the result is normal.
template <class T, class A>
HEED_INLINE pack<T, A> exp2_nonpositive(const pack<T, A>& x) {
    using P = pack<T, A>;
    // max(bound, x) and not max(x, bound): the x86 instruction returns its second operand when one is NaN.
    const P bounded = max(P(sizeof(T) == 4 ? T(-160) : T(-1100)), x);
    const P n = round_even(bounded);
    return scale_by_power(detail::exp2_fraction(bounded - n), n);
}

/// e^x, any x; overflow gives inf. At most 4 ULP where the result is normal.
template <class T, class A>
HEED_INLINE pack<T, A> exp(const pack<T, A>& x) {
    return pack<T, A>(xsimd::exp(x.raw));
}

/// Natural logarithm, xsimd's (1 ULP on normal numbers); log(0) = -inf, log(x < 0) = NaN.
template <class T, class A>
HEED_INLINE pack<T, A> log(const pack<T, A>& x) {
    return pack<T, A>(xsimd::log(x.raw));
}

/// Hyperbolic tangent, any x.
template <class T, class A>
HEED_INLINE pack<T, A> tanh(const pack<T, A>& x) {
    return pack<T, A>(xsimd::tanh(x.raw));
}

/// Error function, any x.
template <class T, class A>
HEED_INLINE pack<T, A> erf(const pack<T, A>& x) {
    return pack<T, A>(xsimd::erf(x.raw));
}

}  // namespace heed::inline HEED_ABI
