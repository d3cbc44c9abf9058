// heed_test: AS_USED LABELS sanitize
// Sines and cosines of packs: the bound that simd/sin_cos.hpp states, and special values.
#include <gtest/gtest.h>

#include <heed/core/random.hpp>
#include <heed/simd/sin_cos.hpp>
#include <numbers>

using namespace heed;

namespace {

template <class T>
void check(double reach, double bound) {
    using P = pack<T>;
    const counter_random r(3);
    double worst = 0;
    for (std::uint64_t i = 0; i < 400000; i += P::size) {
        T x[P::size], s[P::size], c[P::size];
        for (std::size_t l = 0; l < P::size; ++l) {
            const double spread = i % 3 == 0 ? reach : i % 3 == 1 ? 10 : std::exp2(-30 * r.uniform(2 * (i + l) + 1));
            x[l] = static_cast<T>(spread * (2 * r.uniform(2 * (i + l)) - 1));
            if (i % 5 == 0)
                x[l] = static_cast<T>(std::round(double(x[l])) * std::numbers::pi / 4);  // near the edges of quarters
            if (std::abs(double(x[l])) > reach) x[l] = static_cast<T>(reach);
        }
        const auto both = sin_cos(load<P>(x));
        store(s, both.sin), store(c, both.cos);
        for (std::size_t l = 0; l < P::size; ++l) {
            const auto exact = static_cast<long double>(x[l]);
            worst = std::max({worst, std::abs(static_cast<double>(s[l] - std::sin(exact))),
                              std::abs(static_cast<double>(c[l] - std::cos(exact)))});
            ASSERT_LE(worst, bound) << std::hexfloat << x[l];
        }
    }
}

TEST(sin_cos, float_within_its_bound) { check<float>(8192, 1.2e-7); }
TEST(sin_cos, double_within_its_bound) { check<double>(1 << 20, 2.3e-16); }

TEST(sin_cos, special_values) {
    using P = pack<float>;
    for (float x : {std::nanf(""), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
        float s[P::size], c[P::size];
        const auto both = sin_cos(P(x));
        store(s, both.sin), store(c, both.cos);
        EXPECT_TRUE(std::isnan(s[0]) && std::isnan(c[0])) << x;
    }
    float s[P::size], c[P::size];
    const auto both = sin_cos(P(0));
    store(s, both.sin), store(c, both.cos);
    EXPECT_EQ(s[0], 0);
    EXPECT_EQ(c[0], 1);
}

}  // namespace
