// heed_test: AS_USED LABELS sanitize
// Rows from one storage type to another, at every length around the lanes, contiguous and strided.
#include <gtest/gtest.h>

#include <heed/simd/convert.hpp>

#include "random.hpp"

using namespace test;

namespace {

template <class S, class R>
void expect_converts(index_t n, index_t stride) {
    auto from = normal<S>({1, 1, 1, n * stride}, number(n), 100);
    if (n > 3) from(0, 0, 0, 3 * stride) = static_cast<S>(-std::numeric_limits<float>::infinity());
    std::vector<R> to(static_cast<std::size_t>(n + 1), static_cast<R>(7.0f));
    convert_row<default_arch>(from.v().data, stride, n, to.data());
    for (index_t i = 0; i < n; ++i) {
        const auto want = static_cast<R>(static_cast<accumulator<S, R>>(from(0, 0, 0, i * stride)));
        ASSERT_EQ(static_cast<double>(to[static_cast<std::size_t>(i)]), static_cast<double>(want)) << i << " of " << n;
    }
    ASSERT_EQ(static_cast<double>(to.back()), 7);
}

TEST(convert_row, rounds_each_element_and_writes_no_other) {
    for (index_t n : {0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 128, 131})
        for (index_t stride : {1, 3}) {
            const auto from = [&]<class S>(S) {
                expect_converts<S, float>(n, stride);
                expect_converts<S, double>(n, stride);
                expect_converts<S, bf16>(n, stride);
                expect_converts<S, f16>(n, stride);
            };
            from(float{}), from(double{}), from(bf16{}), from(f16{});
        }
}

TEST(convert_row, keeps_nan) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> from(19, nan);
    std::vector<bf16> to(19);
    convert_row<default_arch>(from.data(), 1, 19, to.data());
    for (bf16 x : to) EXPECT_TRUE((Eigen::numext::isnan)(x));
}

}  // namespace
