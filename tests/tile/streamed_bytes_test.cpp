// heed_test: AS_USED
// Products in integers against sums in double: exact but for the rounding of q and the weights to 16 bits.
#include <heed/tile/streamed_bytes.hpp>

#include <gtest/gtest.h>

#include <random>
#include <vector>

#if defined(HEED_DOT_BYTES)

using namespace heed;

namespace {

using A = default_arch;
constexpr index_t padded(index_t n) { return (n + 63) / 64 * 64; }

template <class T>
struct aligned_rows {
    aligned_rows(index_t rows, index_t apart)
        : stride(apart), memory(static_cast<std::size_t>(rows * apart) + 64 / sizeof(T)) {
        const auto at = reinterpret_cast<std::uintptr_t>(memory.data());
        data = memory.data() + (64 - at % 64) % 64 / sizeof(T);
    }
    T* row(index_t r) const { return data + r * stride; }
    index_t stride;
    std::vector<T> memory;
    T* data;
};

/// The rows of a tile, of which each takes exactly `width` bytes.
struct byte_tile {
    byte_tile(index_t width, bool extreme, unsigned seed) {
        std::mt19937 random(seed);
        for (index_t k = 0; k < streamed_tile; ++k) {
            rows[k].resize(static_cast<std::size_t>(width));
            for (auto& x : rows[k]) x = static_cast<std::int8_t>(extreme ? 127 : static_cast<int>(random() % 255) - 127);
            names[k] = {{rows[k].data()}};
        }
        names.follow(names);
    }
    double at(index_t k, index_t d) const { return rows[k][static_cast<std::size_t>(d)]; }
    std::vector<std::int8_t> rows[streamed_tile];
    named_rows<byte_row> names;
};

aligned_rows<float> numbers(index_t rows, index_t n, index_t stride, bool extreme, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    aligned_rows<float> x(rows, stride);
    for (index_t r = 0; r < rows; ++r)
        for (index_t i = 0; i < n; ++i) x.row(r)[i] = extreme ? 3.f : normal(random) * (r % 3 == 1 ? 1e-20f : 1.f);
    return x;
}

void expect_dots(index_t rows, index_t D, bool extreme) {
    SCOPED_TRACE(testing::Message() << rows << " rows, D " << D);
    const byte_tile keys(D, extreme, 1);
    const auto q = numbers(rows, D, padded(D), extreme, 2);
    const aligned_rows<std::int16_t> whole(rows, padded(D));
    std::vector<float> scale(static_cast<std::size_t>(rows));
    round_queries<A>(q.data, rows, q.stride, D, whole.data, scale.data());
    const aligned_rows<float> s(rows, streamed_tile);
    dots_in_integers<A>(keys.names, false, streamed_run, D, whole.data, whole.stride, rows, s.data);
    const double half_step = 0.5 / (32767 * std::min(1.0, 8192.0 / static_cast<double>(D)) - 1);
    for (index_t r = 0; r < rows; ++r)
        for (index_t k = 0; k < streamed_tile; ++k) {
            double exact = 0, of_key = 0, most = 0;
            for (index_t d = 0; d < D; ++d) {
                exact += static_cast<double>(q.row(r)[d]) * keys.at(k, d);
                of_key += std::abs(keys.at(k, d));
                most = std::max(most, std::abs(static_cast<double>(q.row(r)[d])));
            }
            const double got = static_cast<double>(s.row(r)[k]) * static_cast<double>(scale[static_cast<std::size_t>(r)]);
            ASSERT_NEAR(got, exact, most * of_key * (half_step + 1e-6)) << r << ", " << k;
        }
}

TEST(streamed_bytes, dots) {
    for (index_t D : {1, 5, 31, 32, 33, 64, 80, 128, 129, 200})
        for (index_t rows : {1, 2, 4, 5, 8, 11}) expect_dots(rows, D, false);
}
TEST(streamed_bytes, no_sum_overflows) {
    for (index_t D : {8192, 8193, 20000}) expect_dots(4, D, true);
}

TEST(streamed_bytes, only_rows_that_are_not_finite_are_nan) {
    for (const float bad : {INFINITY, -INFINITY, NAN}) {
        const auto q = numbers(3, 100, 128, false, 3);
        q.row(2)[99] = bad;
        const aligned_rows<std::int16_t> whole(3, 128);
        float scale[3];
        round_queries<A>(q.data, 3, 128, 100, whole.data, scale);
        for (int r = 0; r < 3; ++r) EXPECT_EQ(std::isnan(scale[r]), r == 2) << r;
    }
}

void expect_sums(index_t rows, index_t E, std::uint64_t present, bool extreme) {
    SCOPED_TRACE(testing::Message() << rows << " rows, E " << E << ", present " << std::hex << present);
    const byte_tile values(E, extreme, 4);
    const auto p = numbers(rows, streamed_tile, streamed_tile, extreme, 5);
    for (index_t r = 0; r < rows; ++r)
        for (index_t k = 0; k < streamed_tile; ++k)
            if (!(present >> k & 1)) p.row(r)[k] = NAN;  // what is not there has no say
    const index_t stride = (E + 15) / 16 * 16;
    const auto before = numbers(rows, E, stride, false, 6);
    const aligned_rows<float> o(rows, stride);
    std::copy_n(before.data, rows * stride, o.data);
    accumulate_in_integers<A>(values.names, true, present, E, p.data, rows, o.data, stride);
    for (index_t r = 0; r < rows; ++r)
        for (index_t e = 0; e < stride; ++e) {
            double exact = static_cast<double>(before.row(r)[e]), of_value = 0, most = 0;
            for (index_t k = 0; k < streamed_tile && e < E; ++k) {
                if (!(present >> k & 1)) continue;
                exact += static_cast<double>(p.row(r)[k]) * values.at(k, e);
                of_value += std::abs(values.at(k, e));
                most = std::max(most, std::abs(static_cast<double>(p.row(r)[k])));
            }
            const double rounded = most * of_value * (0.5 / 32767 + 1e-6);
            ASSERT_NEAR(static_cast<double>(o.row(r)[e]), exact, rounded + 1e-6 * std::abs(exact)) << r << ", " << e;
        }
}

TEST(streamed_bytes, weighted_sums) {
    for (index_t E : {1, 15, 16, 31, 32, 33, 64, 65, 96, 100, 128, 200})
        for (index_t rows : {1, 3, 4, 6}) expect_sums(rows, E, ~std::uint64_t(0), false);
    for (std::uint64_t present : {std::uint64_t(1), std::uint64_t(0xffff), std::uint64_t(0x0007ffff00030000)})
        for (index_t rows : {1, 4}) expect_sums(rows, 70, present, false);
    expect_sums(4, 128, ~std::uint64_t(0), true);
}
TEST(streamed_bytes, weights_that_are_not_finite_reach_every_column) {
    const byte_tile values(40, true, 7);
    const auto p = numbers(1, streamed_tile, streamed_tile, false, 8);
    p.data[17] = NAN;
    const aligned_rows<float> o(1, 48);
    accumulate_in_integers<A>(values.names, false, ~std::uint64_t(0), 40, p.data, 1, o.data, 48);
    for (index_t e = 0; e < 40; ++e) EXPECT_TRUE(std::isnan(o.data[e]));
}

}  // namespace

#endif
