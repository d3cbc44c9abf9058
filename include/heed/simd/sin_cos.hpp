// Sine and cosine of packs (tests/simd/sin_cos_test.cpp repeats the bound).
//
//   x = n pi/2 + r, |r| <= pi/4, pi/2 in three parts; the series of sin r and cos r, which n exchanges and signs
#pragma once

#include "math.hpp"

namespace heed::inline HEED_ABI {

template <class P>
struct sin_cos_pair {
    P sin, cos;
};

/// The largest |x| of sin_cos.
template <class T>
inline constexpr T sin_cos_reach = sizeof(T) == 4 ? T(8192) : T(1 << 20);

/// For |x| <= sin_cos_reach, 8192 (float) or 2^20 (double): off by at most 1.2e-7 (float) or 2.3e-16 (double); wrong
/// beyond. NaN of inf and NaN. Not xsimd's, which branches to another range reduction for the sake of one lane.
template <class T, class A>
HEED_INLINE sin_cos_pair<pack<T, A>> sin_cos(const pack<T, A>& x) {
    using P = pack<T, A>;
    constexpr bool single = sizeof(T) == 4;
    // The first two parts have few bits, so that their products with n are exact.
    constexpr double part[] = {single ? 0x1.92p0 : 0x1.921fb544p0, single ? 0x1.fb4p-12 : 0x1.0b4611a6p-34,
                               single ? 7.5497899548918821e-8 : 2.0222662487959506e-21};
    const P n = round_even(x * P(static_cast<T>(0.63661977236758134)));
    P r = x;
    for (double p : part) r = fma(n, P(static_cast<T>(-p)), r);
    const P z = r * r;
    P s, c;
    if constexpr (single) {
        s = detail::polynomial(z, 1 / 362880.0, -1 / 5040.0, 1 / 120.0, -1 / 6.0);
        c = detail::polynomial(z, -1 / 3628800.0, 1 / 40320.0, -1 / 720.0, 1 / 24.0);
    } else {
        s = detail::polynomial(z, 1 / 355687428096000.0, -1 / 1307674368000.0, 1 / 6227020800.0, -1 / 39916800.0,
                               1 / 362880.0, -1 / 5040.0, 1 / 120.0, -1 / 6.0);
        c = detail::polynomial(z, 1 / 20922789888000.0, -1 / 87178291200.0, 1 / 479001600.0, -1 / 3628800.0,
                               1 / 40320.0, -1 / 720.0, 1 / 24.0);
    }
    s = fma(z * r, s, r);
    c = fma(z * z, c, fma(z, P(T(-0.5)), P(1)));
    const P turn = n - P(4) * round_even(n * P(T(0.25)));  // -2 ... 2 quarters
    const auto odd = abs(turn) == P(1);
    const P sine = select(odd, c, s), cosine = select(odd, s, c);
    return {select((turn < P(T(-0.5))) | (turn > P(T(1.5))), -sine, sine),
            select((turn > P(T(0.5))) | (turn < P(T(-1.5))), -cosine, cosine)};
}

}  // namespace heed::inline HEED_ABI
