#include <gtest/gtest.h>

#include <cmath>

#include <heed/policy/weight.hpp>

namespace {

using namespace heed;

/// Every lane of f on packs, at x; the lanes must agree.
template <class T, class F>
T through_pack(F&& f, T x) {
    using P = pack<T>;
    T at[P::size];
    store(at, f(P(x)));
    for (std::size_t l = 1; l < P::size; ++l) EXPECT_TRUE(at[l] == at[0] || std::isnan(at[0]));
    return at[0];
}

template <class T>
void relu_squared_is_its_formula() {
    for (double x = -3; x <= 3; x += 0.125) {
        const double want = x > 0 ? x * x : 0;
        EXPECT_EQ(relu_squared{}(T(x)), want);
        EXPECT_EQ(through_pack(relu_squared{}, T(x)), want);
    }
}

TEST(weight, relu_squared) {
    relu_squared_is_its_formula<float>();
    relu_squared_is_its_formula<double>();
    EXPECT_EQ(through_pack(relu_squared{}, -std::numeric_limits<float>::infinity()), 0);
}

TEST(weight, linear_is_the_logit) {
    for (float x : {-3.f, 0.f, 0.7f}) EXPECT_EQ(through_pack(linear{}, x), x);
}

template <class T>
void laplace_is_its_formula(double tolerance) {
    const double mean = 0.707107, deviation = 0.282095;
    for (double x = -6; x <= 6; x += 0.01) {
        const double want = 0.5 * (1 + std::erf((double(T(x)) - mean) / (deviation * std::sqrt(2.0))));
        EXPECT_NEAR(laplace{}(T(x)), want, tolerance) << x;
        EXPECT_NEAR(through_pack(laplace{}, T(x)), want, tolerance) << x;
    }
}

TEST(weight, laplace) {
    laplace_is_its_formula<float>(2e-7);
    laplace_is_its_formula<double>(2e-16);
    EXPECT_NEAR(laplace{}(0.707107f), 0.5f, 1e-7);
    EXPECT_NEAR(through_pack(laplace{}, 0.707107f), 0.5f, 1e-7);
    const float far = std::numeric_limits<float>::infinity();
    EXPECT_EQ(through_pack(laplace{}, -far), 0);
    EXPECT_EQ(through_pack(laplace{}, far), 1);
    EXPECT_TRUE(std::isnan(through_pack(laplace{}, std::nanf(""))));
}

TEST(weight, laplace_wants_a_deviation) {
    const double inf = std::numeric_limits<double>::infinity();
    const auto message = [](const laplace& weight) -> std::string {
        try {
            weight.check("attention");
        } catch (const argument_error& e) {
            return e.what();
        }
        return "";
    };
    EXPECT_EQ(message({}), "");
    EXPECT_EQ(message({0, 0.5}), "");
    EXPECT_EQ(message({0, 0}), "attention: laplace has deviation 0, must be above 0 and finite");
    EXPECT_EQ(message({0, -1}), "attention: laplace has deviation -1, must be above 0 and finite");
    EXPECT_EQ(message({0, inf}), "attention: laplace has deviation inf, must be above 0 and finite");
    EXPECT_EQ(message({inf, 1}), "attention: laplace has mean inf, must be finite");
    EXPECT_NE(message({0, std::nan("")}), "");
}

TEST(weight, sink_wants_a_logit_a_head) {
    const std::vector<float> two{0, 1};
    try {
        sink{two}.check("attention", {1, 4, 10, 10});
        FAIL();
    } catch (const shape_error& e) {
        EXPECT_STREQ(e.what(), "attention: sink holds 2 logits, q has 4 heads");
    }
    EXPECT_NO_THROW(sink{two}.check("attention", {1, 2, 10, 10}));
}

}  // namespace
