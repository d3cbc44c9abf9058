// heed_test: LABELS sanitize
// Products of a few rows with many against sums in double: every row format, widths around a pack and two, rows that are
// not met.
#include <heed/tile/streamed.hpp>

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include <heed/core/aligned.hpp>

using namespace heed;

namespace {

using A = default_arch;

/// Numbers of a storage type, rows of exactly `width`.
template <class S>
struct tile_of_rows {
    tile_of_rows(index_t width, unsigned seed) {
        std::mt19937 random(seed);
        std::normal_distribution<float> normal;
        for (index_t k = 0; k < streamed_tile; ++k) {
            for (index_t d = 0; d < width; ++d) rows[k].push_back(static_cast<S>(normal(random)));
            names[k] = {rows[k].data()};
        }
    }
    double at(index_t k, index_t d) const { return static_cast<double>(rows[k][static_cast<std::size_t>(d)]); }
    std::vector<S> rows[streamed_tile];
    named_rows<lone_row<S>> names;
};

/// (rows, n) in rows of whole operands, zero beyond n.
template <class Op>
struct few_rows {
    using T = typename Op::element;
    few_rows(index_t rows, index_t n, unsigned seed)
        : stride(round_up(n, Op::step)), memory(static_cast<std::size_t>(rows * stride)) {
        std::mt19937 random(seed);
        std::normal_distribution<T> normal;
        for (index_t r = 0; r < rows; ++r)
            for (index_t d = 0; d < n; ++d) row(r)[d] = normal(random);
    }
    T* row(index_t r) { return memory.data() + r * stride; }
    index_t stride;
    aligned_vector<T> memory;
};

template <class S, class T>
void expect_products(index_t rows, index_t D, std::uint64_t present) {
    SCOPED_TRACE(testing::Message() << rows << " rows, D " << D << ", present " << present);
    using Op = detail::products_of<lone_row<S>, T, A>;
    const double close = std::is_same_v<T, float> ? 1e-5 : 1e-13;
    tile_of_rows<S> tile(D, 1);
    const tile_of_rows<S> next(D, 2);
    tile.names.follow(next.names);
    few_rows<Op> q(rows, D, 3), p(rows, streamed_tile, 4), o(rows, D, 5);
    const auto plain_q = q.memory, before = o.memory;
    detail::arrange<Op>(q.memory.data(), rows * q.stride);
    detail::arrange<Op>(o.memory.data(), rows * o.stride);
    for (index_t d = 0; d < D; ++d) ASSERT_EQ(q.row(0)[Op::place(d)], plain_q[static_cast<std::size_t>(d)]);

    aligned_vector<T> s(static_cast<std::size_t>(rows * streamed_tile));
    dots<Op>(tile.names, true, streamed_run, D, q.memory.data(), q.stride, rows, s.data());
    accumulate<Op>(tile.names, true, present, D, p.memory.data(), rows, o.memory.data(), o.stride);
    detail::arrange_back<Op>(o.memory.data(), rows * o.stride);
    for (index_t r = 0; r < rows; ++r) {
        const auto at = [&](const auto& x, index_t stride, index_t i) {
            return static_cast<double>(x[static_cast<std::size_t>(r * stride + i)]);
        };
        for (index_t k = 0; k < streamed_tile; ++k) {
            double exact = 0, size = 1;
            for (index_t d = 0; d < D; ++d) {
                const double x = at(plain_q, q.stride, d) * tile.at(k, d);
                exact += x, size += std::abs(x);
            }
            ASSERT_NEAR(at(s, streamed_tile, k), exact, close * size) << r << ", " << k;
        }
        for (index_t d = 0; d < o.stride; ++d) {
            double exact = at(before, o.stride, d), size = 1;
            for (index_t k = 0; k < streamed_tile && d < D; ++k) {
                const double x = present >> k & 1 ? at(p.memory, p.stride, k) * tile.at(k, d) : 0;
                exact += x, size += std::abs(x);
            }
            ASSERT_NEAR(at(o.memory, o.stride, d), exact, close * size) << r << ", " << d;
        }
    }
}

template <class S, class T>
void every_width() {
    for (index_t D : {1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 47, 48, 63, 64, 65, 80, 100, 128})
        for (index_t rows : {1, 2, 3, 4, 5, 8, 9}) expect_products<S, T>(rows, D, ~std::uint64_t(0));
    for (std::uint64_t present : {std::uint64_t(0), std::uint64_t(1), std::uint64_t(1) << 63, std::uint64_t(0xff00ff0000010003)})
        for (index_t D : {5, 40}) expect_products<S, T>(6, D, present);
}
TEST(streamed, floats) { every_width<float, float>(); }
TEST(streamed, doubles) { every_width<double, double>(); }
TEST(streamed, bf16) { every_width<bf16, float>(); }
TEST(streamed, f16) { every_width<f16, float>(); }
TEST(streamed, bf16_in_double) { every_width<bf16, double>(); }

// Pairs are exact: every number, NaN and inf as they are.
TEST(streamed, pairs_are_widened_exactly) {
    using P = pack<float, A>;
    bf16 row[2 * P::size];
    for (std::uint32_t first = 0; first < 1u << 16; first += 2 * P::size) {
        for (std::size_t i = 0; i < 2 * P::size; ++i) row[i] = std::bit_cast<bf16>(static_cast<std::uint16_t>(first + i));
        P even, odd;
        widen_pairs(row, even, odd);
        alignas(64) float at[2][P::size];
        store_aligned(at[0], even), store_aligned(at[1], odd);
        for (std::size_t i = 0; i < 2 * P::size; ++i)
            ASSERT_EQ(std::bit_cast<std::uint32_t>(at[i % 2][i / 2]), (first + i) << 16);
    }
}

}  // namespace
