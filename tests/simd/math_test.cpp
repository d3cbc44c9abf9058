// heed_test: AS_USED BUSY LABELS sanitize
// Elementary functions on packs: the error bounds and ranges that simd/math.hpp states, and special values.
#include <gtest/gtest.h>

#include "../support/ulps.hpp"

using namespace heed;

namespace {

using test::expect_within;
using test::single;
using test::through;
using test::ulps;
using test::wide;

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
