// Products of tile registers against sums in double, for every shape a register can have.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include <heed/simd/amx.hpp>

#if defined(HEED_AMX)

using namespace heed;

namespace {

std::uint32_t pair_of(float low, float high) {
    std::uint32_t bits[2];
    std::memcpy(&bits[0], &low, 4), std::memcpy(&bits[1], &high, 4);
    return bits[0] >> 16 | (bits[1] & 0xffff0000u);
}

/// Small integers, so that every product and sum is exact.
template <int W, bool Fresh>
void expect_products(index_t m, index_t depth, std::uint64_t among) {
    SCOPED_TRACE(testing::Message() << W << " registers, " << m << " rows, depth " << depth << ", among " << among);
    std::mt19937 random(7);
    const auto draw = [&] { return static_cast<float>(static_cast<int>(random() % 15) - 7); };
    const index_t a_stride = depth + 3, b_stride = 16 * W + 16, c_stride = 16 * W + 5;
    std::vector<std::uint32_t> a(static_cast<std::size_t>(m * a_stride)), b(static_cast<std::size_t>(depth * b_stride));
    std::vector<float> c(static_cast<std::size_t>(m * c_stride)), want;
    std::vector<float> x(2 * a.size()), y(2 * b.size());
    for (std::size_t i = 0; i < a.size(); ++i) x[2 * i] = draw(), x[2 * i + 1] = draw(), a[i] = pair_of(x[2 * i], x[2 * i + 1]);
    for (std::size_t i = 0; i < b.size(); ++i) y[2 * i] = draw(), y[2 * i + 1] = draw(), b[i] = pair_of(y[2 * i], y[2 * i + 1]);
    for (float& z : c) z = draw();
    want = c;
    for (index_t i = 0; i < m; ++i)
        for (index_t j = 0; j < 16 * W; ++j) {
            float& sum = want[static_cast<std::size_t>(i * c_stride + j)];
            if (Fresh) sum = 0;
            for (index_t t = 0; t < depth; ++t)
                for (index_t h = 0; h < 2 && (Fresh || among >> t / 16 & 1); ++h)
                    sum += x[static_cast<std::size_t>(2 * (i * a_stride + t) + h)] *
                           y[static_cast<std::size_t>(2 * (t * b_stride + j) + h)];
        }
    amx_tiles registers;
    registers.multiply<W, Fresh>(a.data(), a_stride, m, b.data(), b_stride, depth, c.data(), c_stride, among);
    EXPECT_EQ(c, want);
}

TEST(amx, products_of_every_shape) {
    if (!amx_granted()) GTEST_SKIP() << "the system refuses the registers";
    for (index_t m : {1, 7, 16})
        for (index_t depth : {1, 15, 16, 17, 40, 64})
            for (std::uint64_t among : {~std::uint64_t(0), std::uint64_t(1), std::uint64_t(6)}) {
                expect_products<1, false>(m, depth, among);
                expect_products<2, true>(m, depth, among);
                expect_products<3, false>(m, depth, among);
                expect_products<3, true>(m, depth, among);
            }
}

TEST(amx, one_object_takes_shapes_in_any_order) {
    if (!amx_granted()) GTEST_SKIP() << "the system refuses the registers";
    amx_tiles registers;
    const std::vector<std::uint32_t> ones(40 * 16, pair_of(1, 1));
    for (const auto& [m, depth] : {std::pair<index_t, index_t>{16, 32}, {16, 20}, {3, 20}, {16, 32}, {1, 1}}) {
        std::vector<float> c(16 * 16, -1);
        registers.multiply<1, true>(ones.data(), depth, m, ones.data(), 16, depth, c.data(), 16);
        for (index_t i = 0; i < 16 * 16; ++i)
            EXPECT_EQ(c[static_cast<std::size_t>(i)], i < 16 * m ? static_cast<float>(2 * depth) : -1.f) << m << ", " << depth;
    }
}

}  // namespace

#endif
