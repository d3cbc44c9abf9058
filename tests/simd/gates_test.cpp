// heed_test: AS_USED BUSY LABELS sanitize
// The functions of gates: the error bounds and ranges that simd/gates.hpp states, and special values.
#include <heed/simd/gates.hpp>

#include "../support/ulps.hpp"

using namespace heed;

namespace {

using test::expect_within;
using test::single;
using test::through;
using test::wide;

constexpr auto log1p_of = [](auto x) { return log1p_unit(x); };
constexpr auto exp_of = [](auto x) { return exp_nonpositive(x); };
constexpr auto exp_beside_of = [](auto x) { return exp_both_nonpositive(x).exp; };
constexpr auto expm1_of = [](auto x) { return exp_both_nonpositive(x).expm1; };
constexpr auto sigmoid_of = [](auto x) { return sigmoid(x); };
constexpr auto silu_of = [](auto x) { return silu(x); };
constexpr auto gelu_of = [](auto x) { return gelu_tanh(x); };
constexpr auto softplus_of = [](auto x) { return softplus(x); };
constexpr auto log_sigmoid_of = [](auto x) { return log_sigmoid(x); };

template <class T>
class gates : public testing::Test {
public:
    static constexpr T inf = std::numeric_limits<T>::infinity();
    static constexpr T nan = std::numeric_limits<T>::quiet_NaN();
    static constexpr T least = std::numeric_limits<T>::min();
    static constexpr T largest = std::numeric_limits<T>::max();
    static constexpr T low = single<T> ? -87 : -708;  // e^x is normal from here on
};
using arithmetics = testing::Types<float, double>;
TYPED_TEST_SUITE(gates, arithmetics);

wide sigmoid_exactly(wide x) { return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x)); }

/// f of a number and of a pack agree on every special value; f(nan) is NaN.
template <class T, class F>
void expect_at(F f, T x, T want) {
    EXPECT_EQ(through<T>(f, x), want) << x;
    EXPECT_EQ(f(x), want) << x;
    EXPECT_TRUE(std::isnan(through<T>(f, std::numeric_limits<T>::quiet_NaN())));
    EXPECT_TRUE(std::isnan(f(std::numeric_limits<T>::quiet_NaN())));
}

TYPED_TEST(gates, parts) {
    using T = TypeParam;
    expect_within<T>(3, 0, 1, log1p_of, [](wide x) { return std::log1p(x); });
    expect_at<T>(log1p_of, 0, 0);
    expect_within<T>(2, this->low, 0, exp_of, [](wide x) { return std::exp(x); });
    expect_at<T>(exp_of, -this->inf, 0);
    expect_at<T>(exp_of, 0, 1);
    expect_within<T>(3, -60, 0, expm1_of, [](wide x) { return std::expm1(x); });
    expect_within<T>(3, T(-1e-3), 0, expm1_of, [](wide x) { return std::expm1(x); });
    expect_within<T>(3, this->low, 0, exp_beside_of, [](wide x) { return std::exp(x); });
    expect_at<T>(exp_beside_of, -this->inf, 0);
    expect_at<T>(expm1_of, -this->inf, -1);
    expect_at<T>(expm1_of, -this->largest, -1);
    expect_at<T>(expm1_of, 0, 0);
}

/// f is the logistic function to so many ULP.
template <class T, class F>
void expect_sigmoid(F f, double ulps) {
    using these = gates<T>;
    expect_within<T>(ulps, these::low, -these::low, f, sigmoid_exactly);
    for (T x : {these::inf, these::largest, T(1e4)}) {
        expect_at<T>(f, x, 1);
        expect_at<T>(f, -x, 0);
    }
    for (T x : {T(0), T(-0.0), these::least, -these::least}) expect_at<T>(f, x, T(0.5));
    for (T x = 2 * these::low; x < these::low; x += T(0.37)) ASSERT_NEAR(through<T>(f, x), 0, 2 * these::least);
}

TYPED_TEST(gates, sigmoid) {
    expect_sigmoid<TypeParam>(sigmoid_of, 4);
    expect_sigmoid<TypeParam>([](auto x) { return sigmoid_both_signs(x)[0]; }, 5);
    expect_sigmoid<TypeParam>([](auto x) { return sigmoid_both_signs(-x)[1]; }, 5);
    expect_sigmoid<TypeParam>([](auto x) { return sigmoids(x, decltype(x)(2) - x)[0]; }, 6);
    expect_sigmoid<TypeParam>([](auto x) { return sigmoids(x * x, x)[1]; }, 6);
}

TYPED_TEST(gates, silu) {
    using T = TypeParam;
    const auto exactly = [](wide x) { return x * sigmoid_exactly(x); };
    expect_within<T>(5, this->low, -this->low, silu_of, exactly);
    for (T x = 2 * this->low; x < this->low; x += T(0.37))
        ASSERT_NEAR(through<T>(silu_of, x), exactly(x), -x * this->least) << x;
    expect_at<T>(silu_of, this->inf, this->inf);
    for (T x : {this->inf, this->largest, T(1e4)}) expect_at<T>(silu_of, -x, 0);
    expect_at<T>(silu_of, 0, 0);
}

TYPED_TEST(gates, gelu_tanh) {
    using T = TypeParam;
    constexpr wide slope = 1.5957691216057307117597842397375274L;
    const auto exactly = [](wide x) { return x * sigmoid_exactly(slope * (x + 0.044715L * x * x * x)); };
    expect_within<T>(4, -1, -this->low, gelu_of, exactly);
    for (T x : test::sweep<T>(-100, -1))
        ASSERT_NEAR(through<T>(gelu_of, x), exactly(x), std::numeric_limits<T>::epsilon() / 2) << x;
    for (T x = -6; x < 6; x += T(0.01))
        ASSERT_NEAR(through<T>(gelu_of, x), x * std::erfc(-x * std::sqrt(0.5)) / 2, 5e-4) << x;
    for (T x : {this->inf, this->largest, T(1e4)}) {
        expect_at<T>(gelu_of, x, x);
        expect_at<T>(gelu_of, -x, 0);
    }
    expect_at<T>(gelu_of, 0, 0);
}

TYPED_TEST(gates, softplus) {
    using T = TypeParam;
    expect_within<T>(4, this->low, this->largest, softplus_of,
                     [](wide x) { return x > 50 ? x + std::exp(-x) : std::log1p(std::exp(x)); });
    expect_within<T>(4, -30, 30, softplus_of, [](wide x) { return std::log1p(std::exp(x)); });
    for (T x : {this->inf, this->largest, T(1e4)}) {
        expect_at<T>(softplus_of, x, x);
        expect_at<T>(softplus_of, -x, 0);
    }
}

TYPED_TEST(gates, log_sigmoid) {
    using T = TypeParam;
    expect_within<T>(4, -this->largest, -this->low, log_sigmoid_of,
                     [](wide x) { return x < -50 ? x - std::exp(x) : -std::log1p(std::exp(-x)); });
    expect_within<T>(4, -30, 30, log_sigmoid_of, [](wide x) { return -std::log1p(std::exp(-x)); });
    for (T x : {this->inf, this->largest, T(1e4)}) {
        expect_at<T>(log_sigmoid_of, x, 0);
        expect_at<T>(log_sigmoid_of, -x, -x);
    }
}

TYPED_TEST(gates, log_add) {
    using T = TypeParam;
    const auto sum = [](T a, T b) {
        const T got = through<T>([b](auto x) { return log_add(x, decltype(x)(b)); }, a);
        const T scalar = log_add(a, b);
        EXPECT_TRUE(got == scalar || std::abs(got - scalar) <= 4e-7 * std::max(T(1), std::abs(got))) << scalar;
        return got;
    };
    EXPECT_EQ(sum(-this->inf, -this->inf), -this->inf);
    EXPECT_EQ(sum(this->inf, this->inf), this->inf);
    EXPECT_EQ(sum(-this->inf, this->inf), this->inf);
    for (T x : {T(-3), T(0), this->largest, -this->largest, T(1e-30)}) {
        EXPECT_EQ(sum(x, -this->inf), x);
        EXPECT_EQ(sum(-this->inf, x), x);
        EXPECT_EQ(sum(x, this->inf), this->inf);
        EXPECT_TRUE(std::isnan(through<T>([](auto y) { return log_add(y, decltype(y)(1)); }, this->nan)));
        EXPECT_TRUE(std::isnan(through<T>([](auto y) { return log_add(decltype(y)(1), y); }, this->nan)));
    }
    const counter_random r(5);
    for (std::uint64_t i = 0; i < 20000; ++i) {
        const T a = T(8 * r.normal(2 * i)), b = T(8 * r.normal(2 * i + 1));
        const wide exact = std::log(std::exp(wide(a)) + std::exp(wide(b)));
        const double unit = std::numeric_limits<T>::epsilon() *
                            std::max({std::abs(double(a)), std::abs(double(b)), std::abs(double(exact))});
        ASSERT_LE(std::abs(double(through<T>([b](auto x) { return log_add(x, decltype(x)(b)); }, a) - exact)), 3 * unit)
            << a << " " << b;
    }
}

}  // namespace
