// Rows element by element: widths around the pieces and packs they go by, types, strides, outputs that are inputs, and
// who runs them.
#include <heed/core/threads.hpp>
#include <heed/ops/row_maps.hpp>

#include "compare.hpp"
#include "random.hpp"
#include "sequence.hpp"

using namespace test;

namespace {

using detail::map_rows;

const index_t widths[] = {0, 1, 15, 16, 17, 127, 128, 129, 300};

template <class T, class X>
void expect_rows(index_t C, const layout& l) {
    const auto x = normal<X>({2, 1, 3, C}, 1, 1, l), z = normal<X>(x.shape(), 2, 1, layout::strided());
    tensor<X> y(x.shape(), l);
    map_rows<default_arch, T>(detail::calling_thread{}, seq(y), detail::times_plus, seq(x), seq(z), seq(x));
    y.each([&](index_t b, index_t h, index_t n, index_t c) {
        const auto a = static_cast<T>(x(b, h, n, c)), s = static_cast<T>(z(b, h, n, c));
        ASSERT_EQ(static_cast<T>(y(b, h, n, c)), static_cast<T>(static_cast<X>(std::fma(a, s, a)))) << C << " " << c;
    });
    EXPECT_TRUE(y.poisoned_outside());
    auto same = x;
    map_rows<default_arch, T>(detail::calling_thread{}, seq(same), detail::times_plus, seq(std::as_const(same)), seq(z),
                              seq(std::as_const(same)));
    EXPECT_TRUE(same_values(same, y));
}

TEST(row_maps, rows_of_any_width_type_and_stride) {
    for (index_t C : widths)
        for (const layout& l : {layout::heads(), layout::padded(), layout::strided(), layout::channels_first()}) {
            expect_rows<float, float>(C, l);
            expect_rows<float, bf16>(C, l);
            expect_rows<float, f16>(C, l);
            expect_rows<double, double>(C, l);
        }
}

TEST(row_maps, every_token_is_met_once) {
    threads pool(3);
    for (index_t B : {0, 1, 3})
        for (index_t N : {0, 1, 7, 500})
            for (index_t C : {0, 1, 100, 40000}) {
                std::vector<std::atomic<int>> met(static_cast<std::size_t>(B * N));
                detail::each_token(on(pool), B, N, C, [&](index_t b, index_t n) { ++met[b * N + n]; });
                for (const auto& times : met) ASSERT_EQ(times, 1);
            }
    std::size_t bytes = 3;
    detail::each_token(scratch_size(pool, bytes), 2, 2, 2, [](index_t, index_t) { FAIL() << "a size is only told"; });
    EXPECT_EQ(bytes, 0u);
}

TEST(row_maps, what_rows_are_put_through) {
    const auto x = normal<double>({1, 1, 5, 70}, 1, 3), g = normal<double>(x.shape(), 2, 3);
    const auto expect = [&](const auto& f, const auto& exactly) {
        tensor<double> y(x.shape());
        map_rows<default_arch, double>(detail::calling_thread{}, seq(y), f, seq(x), seq(g));
        y.each([&](index_t b, index_t h, index_t n, index_t c) {
            const double want = exactly(x(b, h, n, c), g(b, h, n, c));
            ASSERT_NEAR(y(b, h, n, c), want, 4e-15 * (1 + std::abs(want)));
        });
    };
    const auto silu_of = [](double v) { return v / (1 + std::exp(-v)); };
    expect(detail::sum_of, [](double a, double b) { return a + b; });
    expect(detail::product_of, [](double a, double b) { return a * b; });
    expect(detail::silu_of_sum, [&](double a, double b) { return silu_of(a + b); });
    expect(detail::silu_gated, [&](double a, double b) { return a * silu_of(b); });
    expect(detail::gelu_gated, [](double a, double b) {
        return a * b / 2 * (1 + std::tanh(0.79788456080286535588 * (b + 0.044715 * b * b * b)));
    });
}

TEST(row_maps, biases_and_sums) {
    const auto x = normal<float>({2, 1, 4, 33}, 1), bias = normal<float>({1, 1, 1, 33}, 2);
    auto y = x, sum = constant<float>(x.shape(), 1), moved = sum;
    detail::add_bias<default_arch>(detail::calling_thread{}, seq(y), vec(bias));
    x.each([&](index_t b, index_t h, index_t n, index_t c) {
        ASSERT_EQ(y(b, h, n, c), x(b, h, n, c) + bias(0, 0, 0, c));
    });
    const auto before = y;
    detail::add_bias<default_arch>(detail::calling_thread{}, seq(y), view<const float, 1>{});
    EXPECT_TRUE(same_values(y, before));
    detail::hand_over<default_arch>(detail::calling_thread{}, seq(y), seq(sum), true);
    detail::hand_over<default_arch>(detail::calling_thread{}, seq(y), seq(moved), false);
    EXPECT_TRUE(same_values(moved, y));
    y.each([&](index_t b, index_t h, index_t n, index_t c) { ASSERT_EQ(sum(b, h, n, c), 1 + y(b, h, n, c)); });
}

}  // namespace
