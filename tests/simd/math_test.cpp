// heed_test: O1 LABELS sanitize
// Elementary functions on packs: the error bounds and ranges that simd/math.hpp states, and special values.
#include <gtest/gtest.h>

#include <bit>
#include <heed/core/random.hpp>
#include <heed/simd/math.hpp>
#include <vector>

using namespace heed;

namespace {

using wide = long double;

template <class T>
constexpr bool single = sizeof(T) == 4;

/// |got - exact| in units of the last place of a normal exact.
template <class T>
double ulps(T got, wide exact) {
    const T nearest = static_cast<T>(exact);
    if (std::isnan(nearest) || std::isinf(nearest)) return std::isnan(nearest) ? !std::isnan(got) : got != nearest;
    const int exponent = std::max(std::ilogb(std::abs(nearest)), std::numeric_limits<T>::min_exponent - 1);
    const wide unit = std::ldexp(wide(1), nearest == 0 ? std::numeric_limits<T>::min_exponent - std::numeric_limits<T>::digits
                                                       : exponent + 1 - std::numeric_limits<T>::digits);
    return static_cast<double>(std::abs(wide(got) - exact) / unit);
}

/// Arguments in [first, last]: even steps, every exponent of either sign, and for float a stride through all patterns.
template <class T>
std::vector<T> sweep(T first, T last) {
    std::vector<T> at{first, last};
    const auto add = [&](T x) {
        if (x >= first && x <= last) at.push_back(x);
    };
    const counter_random r(7);
    for (std::uint64_t i = 0; i < 200000; ++i) {
        add(static_cast<T>(double(first) + (double(last) - double(first)) * r.uniform(3 * i)));
        const T x = static_cast<T>(std::exp2(-40 + 52 * r.uniform(3 * i + 1)));
        add(r.bits(3 * i + 2) & 1 ? x : -x);
    }
    if constexpr (single<T>)
        for (std::uint64_t bits = 0; bits < std::uint64_t(1) << 32; bits += 4099)
            if (const T x = std::bit_cast<T>(static_cast<std::uint32_t>(bits)); std::isnormal(x)) add(x);
    while (at.size() % pack<T>::size) at.push_back(first);
    return at;
}

template <class T, class F, class Exact>
void expect_within(double bound, T first, T last, F f, Exact exact) {
    using P = pack<T>;
    const auto at = sweep(first, last);
    double worst = 0;
    std::size_t where = 0;
    for (std::size_t i = 0; i < at.size(); i += P::size) {
        T got[P::size];
        store(got, f(load<P>(&at[i])));
        for (std::size_t l = 0; l < P::size; ++l)
            if (const double u = ulps(got[l], exact(wide(at[i + l]))); !(u <= worst)) worst = u, where = i + l;
    }
    EXPECT_LE(worst, bound) << "at " << std::hexfloat << at[where];
}

/// f on one number, through every lane.
template <class T, class F>
T through(F f, T x) {
    using P = pack<T>;
    T got[P::size];
    store(got, f(P(x)));
    for (T y : got) EXPECT_EQ(std::isnan(y) ? 0 : y, std::isnan(got[0]) ? 0 : got[0]);
    return got[0];
}

constexpr auto exp2_of = [](auto x) { return exp2_nonpositive(x); };
constexpr auto exp_of = [](auto x) { return heed::exp(x); };
constexpr auto log_of = [](auto x) { return heed::log(x); };
constexpr auto tanh_of = [](auto x) { return heed::tanh(x); };
constexpr auto erf_of = [](auto x) { return heed::erf(x); };

template <class T>
class math : public testing::Test {
public:
    static constexpr T inf = std::numeric_limits<T>::infinity();
    static constexpr T nan = std::numeric_limits<T>::quiet_NaN();
    static constexpr T least = std::numeric_limits<T>::min();
    static constexpr T denormal = std::numeric_limits<T>::denorm_min();
    static constexpr T largest = std::numeric_limits<T>::max();
};
using arithmetics = testing::Types<float, double>;
TYPED_TEST_SUITE(math, arithmetics);

TYPED_TEST(math, exp2_nonpositive) {
    using T = TypeParam;
    const T bias = single<T> ? 127 : 1023;
    expect_within<T>(3, -bias + 1, bias, exp2_of, [](wide x) { return std::exp2(x); });
    for (T n = -bias + 1; n <= bias; ++n) ASSERT_EQ(through<T>(exp2_of, n), std::exp2(n)) << n;
    EXPECT_EQ(through<T>(exp2_of, -this->inf), 0);
    EXPECT_EQ(through<T>(exp2_of, -this->largest), 0);
    EXPECT_TRUE(std::isnan(through<T>(exp2_of, this->nan)));
    for (T x : {T(0), T(-0.0), this->denormal, -this->denormal, this->least}) EXPECT_EQ(through<T>(exp2_of, x), 1);
    for (T x = -bias - 60; x < -bias + 1; x += T(0.37)) {  // gradual or flushed, never negative or above the range
        const T y = through<T>(exp2_of, x);
        ASSERT_TRUE(y >= 0 && y <= std::exp2(-bias + 1)) << x;
    }
}

TYPED_TEST(math, exp) {
    using T = TypeParam;
    expect_within<T>(2, single<T> ? -87 : -708, single<T> ? 88 : 709, exp_of, [](wide x) { return std::exp(x); });
    EXPECT_EQ(through<T>(exp_of, T(0)), 1);
    EXPECT_EQ(through<T>(exp_of, -this->inf), 0);
    EXPECT_EQ(through<T>(exp_of, this->inf), this->inf);
    EXPECT_EQ(through<T>(exp_of, T(single<T> ? 89 : 710)), this->inf);
    EXPECT_TRUE(std::isnan(through<T>(exp_of, this->nan)));
    for (T x = single<T> ? -110 : -760; x < (single<T> ? -88 : -709); x += T(0.37))
        ASSERT_NEAR(through<T>(exp_of, x), 0, this->least) << x;
}

TYPED_TEST(math, log) {
    using T = TypeParam;
    expect_within<T>(1, this->least, this->largest, log_of, [](wide x) { return std::log(x); });
    expect_within<T>(1, T(0.25), T(4), log_of, [](wide x) { return std::log(x); });
    for (int n = std::numeric_limits<T>::min_exponent; n < std::numeric_limits<T>::max_exponent; ++n) {
        const T x = T(1.2345) * std::ldexp(T(1), n - 1);
        ASSERT_LE(ulps(through<T>(log_of, x), std::log(wide(x))), 1) << x;
    }
    for (T x = this->denormal; x < this->least; x *= T(3.1))
        ASSERT_LE(ulps(through<T>(log_of, x), std::log(wide(x))), 1) << x;
    EXPECT_EQ(through<T>(log_of, T(1)), 0);
    EXPECT_EQ(through<T>(log_of, T(0)), -this->inf);
    EXPECT_EQ(through<T>(log_of, this->inf), this->inf);
    for (T x : {T(-1), -this->least, -this->inf, this->nan}) EXPECT_TRUE(std::isnan(through<T>(log_of, x))) << x;
}

template <class T, class F>
void expect_odd_and_saturating(F f) {
    constexpr T inf = std::numeric_limits<T>::infinity(), largest = std::numeric_limits<T>::max();
    const counter_random r(3);
    for (std::uint64_t i = 0; i < 2000; ++i) {
        const T x = static_cast<T>(std::exp2(-60 + 70 * r.uniform(i)));
        const T y = through<T>(f, x);
        ASSERT_EQ(through<T>(f, -x), -y) << x;
        ASSERT_LE(y, 1) << x;
    }
    for (T x : {T(20), largest, inf}) {
        EXPECT_EQ(through<T>(f, x), 1) << x;
        EXPECT_EQ(through<T>(f, -x), -1) << x;
    }
    EXPECT_EQ(through<T>(f, T(0)), 0);
    EXPECT_TRUE(std::signbit(through<T>(f, T(-0.0))));
    EXPECT_TRUE(std::isnan(through<T>(f, std::numeric_limits<T>::quiet_NaN())));
    EXPECT_LE(through<T>(f, std::numeric_limits<T>::denorm_min()), 4 * std::numeric_limits<T>::denorm_min());
}

TYPED_TEST(math, tanh) {
    using T = TypeParam;
    expect_within<T>(4, -25, 25, tanh_of, [](wide x) { return std::tanh(x); });
    expect_within<T>(4, -1e-3, 1e-3, tanh_of, [](wide x) { return std::tanh(x); });
    expect_odd_and_saturating<T>(tanh_of);
}

TYPED_TEST(math, erf) {
    using T = TypeParam;
    expect_within<T>(3, -7, 7, erf_of, [](wide x) { return std::erf(x); });
    expect_within<T>(3, -1e-3, 1e-3, erf_of, [](wide x) { return std::erf(x); });
    expect_odd_and_saturating<T>(erf_of);
}

TYPED_TEST(math, a_functor_reads_the_same_for_numbers_and_packs) {
    using T = TypeParam;
    const auto f = [](auto x) { return 2 * tanh(x * 0.5f) + max(x, decltype(x)(0)) - exp(-abs(x)); };
    for (T x : {T(-3), T(0), T(0.7), T(9)}) EXPECT_NEAR(through<T>(f, x), f(x), 1e-6) << x;
}

}  // namespace
