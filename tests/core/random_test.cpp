// heed_test: LABELS sanitize
#include <gtest/gtest.h>

#include <heed/core/random.hpp>

namespace {

using namespace heed;
using words = std::array<std::uint32_t, 4>;

TEST(random, philox_known_answers) {
    constexpr std::uint32_t f = 0xffffffff;
    EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
    EXPECT_EQ(philox({f, f, f, f}, {f, f}), (words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
    EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
              (words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(random, a_number_depends_on_seed_stream_and_index_only) {
    const counter_random a(7), b(8), c(7, 1);
    EXPECT_EQ(a.bits(3), counter_random(7).bits(3));
    EXPECT_NE(a.bits(3), a.bits(4));
    EXPECT_NE(a.bits(3), b.bits(3));
    EXPECT_NE(a.bits(3), c.bits(3));
}

TEST(random, moments) {
    const counter_random r(1);
    constexpr int n = 100000;
    double u = 0, u2 = 0, x = 0, x2 = 0, x4 = 0;
    for (int i = 0; i < n; ++i) {
        u += r.uniform(i), u2 += r.uniform(i) * r.uniform(i);
        const double y = r.normal(i);
        x += y, x2 += y * y, x4 += y * y * y * y;
    }
    // Five standard errors of each moment.
    EXPECT_NEAR(u / n, 0.5, 5 * 0.289 / std::sqrt(n));
    EXPECT_NEAR(u2 / n, 1 / 3.0, 5 * 0.298 / std::sqrt(n));
    EXPECT_NEAR(x / n, 0, 5 / std::sqrt(n));
    EXPECT_NEAR(x2 / n, 1, 5 * 1.42 / std::sqrt(n));
    EXPECT_NEAR(x4 / n, 3, 5 * 9.8 / std::sqrt(n));
}

TEST(random, integers_cover_their_range_evenly) {
    const counter_random r(2);
    std::array<int, 7> count{};
    for (int i = 0; i < 70000; ++i) {
        const index_t at = r.integer(i, -3, 4);
        ASSERT_GE(at, -3);
        ASSERT_LT(at, 4);
        ++count[static_cast<std::size_t>(at + 3)];
    }
    for (int c : count) EXPECT_NEAR(c, 10000, 500);
    const index_t far = index_t{1} << 62;
    for (int i = 0; i < 1000; ++i) {
        const index_t at = r.integer(i, -far, far);
        EXPECT_TRUE(at >= -far && at < far);
    }
}

}  // namespace
