// heed_test: AS_USED LABELS sanitize
// The Walsh-Hadamard transform against its definition, and its laws.
#include <gtest/gtest.h>

#include <bit>
#include <heed/simd/hadamard.hpp>

#include "guarded.hpp"
#include "random.hpp"

using namespace test;

namespace {

const index_t widths[] = {0,  1,  2,  3,  4,  6,  7,  8,   12,  15,  16,  17,  24,
                          31, 32, 33, 48, 64, 80, 96, 127, 128, 160, 192, 1024};

template <class T>
std::vector<T> random_row(index_t n, std::uint64_t seed) {
    std::vector<T> x(number(n));
    for (index_t i = 0; i < n; ++i) x[number(i)] = static_cast<T>(counter_random(seed).normal(number(i)));
    return x;
}

template <class T>
double dot(const std::vector<T>& x, const std::vector<T>& y) {
    double sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) sum += static_cast<double>(x[i]) * static_cast<double>(y[i]);
    return sum;
}

template <class T>
class hadamard_of : public testing::Test {};
using reals = testing::Types<float, double>;
TYPED_TEST_SUITE(hadamard_of, reals);

TYPED_TEST(hadamard_of, matches_the_definition_and_stays_in_its_row) {
    using T = TypeParam;
    for (index_t n : widths)
        for (flush side : {flush::front, flush::back}) {
            const auto x = random_row<T>(n, 1);
            guarded<T> y(n, side);
            std::copy(x.begin(), x.end(), y.data());
            hadamard_transform(y.data(), n);
            const index_t block = n > 0 ? hadamard_block(n) : 1;
            ASSERT_EQ(n % block, 0);
            ASSERT_TRUE(n == 0 || n / block % 2 == 1) << "a longer block would fit";
            for (index_t i = 0; i < n; ++i) {
                double sum = 0, size = 0;
                for (index_t j = 0; j < block; ++j) {
                    const double at = x[number(i / block * block + j)];
                    sum += std::popcount(number(i % block & j)) % 2 ? -at : at;
                    size += std::abs(at);
                }
                const double root = std::sqrt(static_cast<double>(block));
                ASSERT_NEAR(y.data()[i], sum / root, 2 * epsilon<T> * (1 + std::log2(block)) * size / root)
                    << n << ", " << i;
            }
        }
}

TYPED_TEST(hadamard_of, is_its_own_inverse_and_keeps_dot_products) {
    using T = TypeParam;
    for (index_t n : widths) {
        auto x = random_row<T>(n, 2), y = random_row<T>(n, 3);
        const auto first = x;
        const double before = dot(x, y), size = std::sqrt(dot(x, x) * dot(y, y));
        hadamard_transform(x.data(), n);
        hadamard_transform(y.data(), n);
        EXPECT_NEAR(dot(x, y), before, 20 * epsilon<T> * size) << n;
        hadamard_transform(x.data(), n);
        for (index_t i = 0; i < n; ++i) ASSERT_NEAR(x[number(i)], first[number(i)], 40 * epsilon<T>) << n << ", " << i;
    }
}

TYPED_TEST(hadamard_of, spreads_an_outlier_evenly_and_leaves_odd_widths) {
    using T = TypeParam;
    std::vector<T> x(128);
    x[77] = 64;
    hadamard_transform(x.data(), 128);
    for (T at : x) EXPECT_NEAR(std::abs(at), 64 / std::sqrt(128.0), 1e-5);
    std::vector<T> odd{1, 2, 3, 4, 5};
    hadamard_transform(odd.data(), 5);
    EXPECT_EQ(odd, (std::vector<T>{1, 2, 3, 4, 5}));
}

}  // namespace
