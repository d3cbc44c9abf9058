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
template <class T>
inline constexpr T sqrt_2 = T(1.41421356237309504880168872420969808);

namespace detail {

/// ln 2 in two parts; the product of the first with an exponent is exact.
template <class T>
inline constexpr T ln_2_high = sizeof(T) == 4 ? T(0x1.62e4p-1) : T(0x1.62e42fefa38p-1);
template <class T>
inline constexpr T ln_2_low = sizeof(T) == 4 ? T(0x1.7f7d1cf79abcap-20) : T(0x1.ef35793c7673p-45);

/// Horner's rule, highest coefficient first.
template <class P, class... C>
HEED_INLINE P polynomial(const P& x, double highest, C... rest) {
    using T = typename P::value_type;
    P y(static_cast<T>(highest));
    ((y = fma(y, x, P(static_cast<T>(rest)))), ...);
    return y;
}

/// (2^f - 1) / f for |f| <= 1/2: minimax in relative error, float degree 5 (1.1e-8), double degree 10 (1.8e-17).
template <class P>
HEED_INLINE P exp2_slope(const P& f) {
    if constexpr (sizeof(typename P::value_type) == 4)
        return polynomial(f, 1.540351159e-4, 1.339073549e-3, 9.618237497e-3, 5.550357434e-2, 2.402264979e-1,
                          6.931471879e-1);
    else
        return polynomial(f, 4.445537067263057e-10, 7.0725617790878113e-9, 1.0178121299864724e-7, 1.3215442723823033e-6,
                          1.5252733701213866e-5, 1.5403530441481381e-4, 1.3333558146531633e-3, 9.6181291076070652e-3,
                          5.5504108664821237e-2, 2.4022650695910098e-1, 6.9314718055994531e-1);
}

/// The same polynomial in pairs, lowest coefficient first: more operations in shorter chains.
template <class P, std::size_t n>
HEED_INLINE P paired_polynomial(const P& x, const std::array<P, n>& c) {
    if constexpr (n == 1) {
        return c[0];
    } else {
        std::array<P, (n + 1) / 2> d;
        unroll<static_cast<int>(n / 2)>([&](auto i) HEED_INLINE_LAMBDA { d[i] = fma(c[2 * i + 1], x, c[2 * i]); });
        if constexpr (n % 2) d[n / 2] = c[n - 1];
        return paired_polynomial(x * x, d);
    }
}
template <class P, class... C>
HEED_INLINE P in_pairs(const P& x, C... lowest_first) {
    return paired_polynomial(x, std::array{P(static_cast<typename P::value_type>(lowest_first))...});
}

/// (e^x - 1) / x for |x| <= ln 2 / 2: exp2_slope in other units.
template <class P>
HEED_INLINE P exp_slope(const P& x) {
    if constexpr (sizeof(typename P::value_type) == 4)
        return in_pairs(x, 1.000000011, 0.4999999811, 0.1666650622, 0.04166713622, 0.008369068571, 0.001388887193);
    else
        return in_pairs(x, 1, 0.50000000000000056, 0.16666666666666563, 0.041666666666573905, 0.008333333333397825,
                        0.0013888888932258971, 0.00019841269707484335, 2.4801504602044595e-05, 2.7557414773877934e-06,
                        2.7626262829859851e-07, 2.5052101597070508e-08);
}

/// 2^f for |f| <= 1/2, with 2^0 = 1 exactly. The float has one degree less than the slope: minimax in relative error,
/// degree 5 (9.2e-8).
template <class P>
HEED_INLINE P exp2_fraction(const P& f) {
    if constexpr (sizeof(typename P::value_type) == 4)
        return polynomial(f, 1.326473333e-3, 9.671512643e-3, 5.550733724e-2, 2.402224209e-1, 6.931469776e-1, 1.0);
    else
        return fma(exp2_slope(f), f, P(1));
}

/// erf(x) / x in t = x^2 <= 1: minimax in relative error, float degree 6 (1.2e-9), double degree 12 (1.3e-19).
template <class P>
HEED_INLINE P erf_near(const P& t) {
    if constexpr (sizeof(typename P::value_type) == 4)
        return polynomial(t, 7.853860632e-5, -8.010193659e-4, 5.188327729e-3, -2.685381199e-2, 0.1128358515,
                          -0.3761262582, 1.128379166);
    else
        return polynomial(t, 5.9452626407539554e-11, -1.1365666624567702e-9, 1.465788005199366e-8,
                          -1.6350025260055096e-7, 1.6460972821184673e-6, -1.4925593507190662e-5, 1.2055331036913794e-4,
                          -8.5483269787426325e-4, 5.2239776247808746e-3, -2.6866170645072896e-2, 0.11283791670954857,
                          -0.37612638903183748, 1.1283791670955126);
}

/// log2(1 - erf(a)) for a in [1, 4] (float degree 6) or [1, 6] (double degree 17), where erf reaches 1: minimax in the
/// relative error this leaves in erf (1.1e-9, 7e-18).
template <class P>
HEED_INLINE P log2_erfc_far(const P& a) {
    if constexpr (sizeof(typename P::value_type) == 4)
        return polynomial(a, 2.688877613e-4, -4.252567115e-3, 3.150565004e-2, -0.1487515749, -0.9206484118,
                          -1.626045973, -4.927156633e-4);
    else
        return polynomial(a, -7.11018091200114295e-12, 2.95013922845879398e-10, -5.67573489409407188e-9,
                          6.69719619226343408e-8, -5.38547116873533601e-7, 3.08105169557425084e-6,
                          -1.25037550070286652e-5, 3.29249145704958174e-5, -2.92361788442407917e-5,
                          -1.94841176332753935e-4, 1.11181028259509358e-3, -2.76413063663070421e-3,
                          5.92419161321930785e-4, 2.73970307127018321e-2, -0.148169739519213154, -0.918482606326358506,
                          -1.62789970285801842, -7.2549109366275422e-7);
}

/// (log((1 + s) / (1 - s)) - 2 s) / s^3 in z = s^2 <= (3 - sqrt(8))^2: minimax in the relative error this leaves in the
/// logarithm, float degree 2 (8e-10), double degree 6 (1.2e-18).
template <class P>
HEED_INLINE P log_tail(const P& z) {
    if constexpr (sizeof(typename P::value_type) == 4)
        return polynomial(z, 0.298709373, 0.399775740, 0.666667761);
    else
        return polynomial(z, 0.14795500187669302, 0.15314095998739100, 0.18183562532852423, 0.22222198607894102,
                          0.28571428742049574, 0.39999999999416179, 0.66666666666667342);
}

/// log(2^n (1 + f)), sqrt(1/2) < 1 + f <= sqrt(2).
template <class P>
HEED_INLINE P log_by_parts(const P& n, const P& f) {
    using T = typename P::value_type;
    // log(1 + f) = f - h + s (h + s^2 tail), h = f^2/2, s = f/(2 + f).
    const P s = f / (P(2) + f), z = s * s, half_square = P(0.5) * f * f;
    const P bend = s * fma(z, log_tail(z), half_square) - half_square;
    // The sum of n ln 2 and f is kept with its error, since they may cancel by half.
    const P power = n * P(ln_2_high<T>);
    const P sum = power + f, error = (power - sum) + f;
    return sum + (error + (n * P(ln_2_low<T>) + bend));
}

/// x, but at least `least`, where powers of it are 0, if 0 does not come of itself there; NaN stays NaN.
template <class T, class A>
HEED_INLINE pack<T, A> bounded_below(const pack<T, A>& x, T least) {
    if constexpr (scales_to_zero<A>)
        return x;
    else  // not max(x, least): the x86 instruction returns its second operand when one is NaN
        return max(pack<T, A>(least), x);
}
}  // namespace detail

/// 2^x for x <= 127 (float) or 1023 (double), wrong above; -inf and everything below the normal range give 0 or a
/// denormal, NaN stays NaN, 2^0 is 1. At most 3 ULP where the result is normal.
template <class T, class A>
HEED_INLINE pack<T, A> exp2_nonpositive(const pack<T, A>& x) {
    using P = pack<T, A>;
    const P bounded = detail::bounded_below(x, sizeof(T) == 4 ? T(-160) : T(-1100));
    const P n = round_even(bounded);
    return scale_by_power(detail::exp2_fraction(bounded - n), n);
}

/// 2^x, any x: as exp2_nonpositive up to 127 (float) or 1023 (double), and from 127.5 (1023.5) on maybe inf.
template <class T, class A>
HEED_INLINE pack<T, A> exp2(const pack<T, A>& x) {
    return exp2_nonpositive(min(pack<T, A>(sizeof(T) == 4 ? T(128) : T(1024)), x));
}

/// e^x for x <= 89 (float) or 710 (double), wrong above: at most 2 ULP where the result is normal, below that 0 or a
/// denormal; e^0 = 1, e^-inf = 0, NaN stays NaN.
template <class T, class A>
HEED_INLINE pack<T, A> exp_nonpositive(const pack<T, A>& x) {
    using P = pack<T, A>;
    const P bounded = detail::bounded_below(x, sizeof(T) == 4 ? T(-110) : T(-760));
    const P n = round_even(bounded * P(log2_e<T>));
    const P rest = fma(n, P(-detail::ln_2_low<T>), fma(n, P(-detail::ln_2_high<T>), bounded));
    return scale_by_power(fma(detail::exp_slope(rest), rest, P(1)), n);
}

/// e^x, any x: at most 2 ULP in [-87, 88] (float) or [-708, 709] (double); inf from 88.73 (709.79) on, and maybe from
/// 88.38 (709.44); 0 or a denormal where the result is below the normal range; NaN stays NaN. Not xsimd's, which casts
/// infinities to integers.
template <class T, class A>
HEED_INLINE pack<T, A> exp(const pack<T, A>& x) {
    return exp_nonpositive(min(pack<T, A>(sizeof(T) == 4 ? T(89) : T(710)), x));
}

/// Natural logarithm: at most 1 ULP for x > 0, denormals included; log(0) = -inf, log(inf) = inf, log(x < 0) = NaN,
/// NaN stays NaN. Not xsimd's, which in version 8 is off by two for denormals and needs -O1 to compile on AVX-512.
template <class T, class A>
HEED_INLINE pack<T, A> log(const pack<T, A>& x) {
    using P = pack<T, A>;
    const auto [significand, exponent] = split_by_power(x);
    const auto upper = significand > P(sqrt_2<T>);
    const P n = select(upper, exponent + P(1), exponent);
    const P f = select(upper, significand * P(0.5), significand) - P(1);
    const P finite = detail::log_by_parts(n, f);
    constexpr T inf = std::numeric_limits<T>::infinity();
    const P other = select(x == P(0), P(-inf), select(x > P(0), x, P(std::numeric_limits<T>::quiet_NaN())));
    return select((x > P(0)) & (x < P(inf)), finite, other);
}

/// Hyperbolic tangent, any x; odd, NaN stays NaN. At most 4 ULP where x is normal. xsimd's is as accurate, but
/// branches.
template <class T, class A>
HEED_INLINE pack<T, A> tanh(const pack<T, A>& x) {
    using P = pack<T, A>;
    // tanh |x| = u / (u + 2), u = e^(2 |x|) - 1 = 2^n (2^f - 1) + (2^n - 1): no cancellation. It is 1 long before 2^60.
    const P y = min(P(60), abs(x) * P(2 * log2_e<T>));  // min(60, y) and not min(y, 60), see above
    const P n = round_even(y), f = y - n, power = scale_by_power(P(1), n);
    const P u = fma(power, f * detail::exp2_slope(f), power - P(1));
    return copysign(u / (u + P(2)), x);
}

/// Error function, any x; odd, NaN stays NaN. At most 3 ULP where x is normal (xsimd's double is off by 70 at 2.2).
template <class T, class A>
HEED_INLINE pack<T, A> erf(const pack<T, A>& x) {
    using P = pack<T, A>;
    const P a = min(P(sizeof(T) == 4 ? 4 : 6), abs(x));
    const P far = P(1) - exp2_nonpositive(detail::log2_erfc_far(a));
    return select(a < P(1), x * detail::erf_near(x * x), copysign(far, x));
}

}  // namespace heed::inline HEED_ABI
