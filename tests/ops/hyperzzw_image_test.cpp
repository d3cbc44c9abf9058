// The parts of HyperZ.Z.W over images against their definitions.
#include <heed/core/threads.hpp>
#include <heed/ops/hyperzzw_image.hpp>

#include "../support/compare.hpp"
#include "../support/random.hpp"
#include "../support/refuses.hpp"

namespace {

using namespace heed;
using test::refuses;
using test::tensor;

constexpr index_t B = 2, H = 11, W = 21;

/// Images (b, row, column, channel) in every layout; channels first is how the published code has them.
std::vector<test::layout> layouts() {
    return {test::layout::heads(), test::layout::padded(), test::layout::strided(), {{0, 3, 1, 2}, {}, 1, 0}};
}
/// (1, C, n, m) as (C, n, m).
view<const float, 3> tables(const tensor<float>& x) {
    const auto v = x.v();
    return {v.data, {v.shape[1], v.shape[2], v.shape[3]}, {v.strides[1], v.strides[2], v.strides[3]}};
}
/// define(Real, x) against run(x, y).
template <class Define, class Run>
void expect_defined(index_t C, const Define& define, const Run& run) {
    for (const auto& l : layouts()) {
        const auto x = test::normal<float>({B, H, W, C}, 1, 1, l);
        tensor<float> y(x.shape(), l), shared(x.shape(), l);
        tensor<double> exact(x.shape());
        tensor<float> naive(x.shape());
        define(x, exact), define(x, naive);
        run(x, y);
        EXPECT_TRUE(test::within_rule<float>(y, naive, exact)) << C;
        EXPECT_TRUE(y.poisoned_outside());
        threads pool(3);
        run(x, shared, on(pool));
        EXPECT_TRUE(test::same_values(y, shared));
        std::size_t need = 0;
        tensor<float> again(x.shape(), l);
        run(x, again, scratch_size(pool, need));
        arena enough(need);
        run(x, again, on(pool, enough));
        EXPECT_TRUE(test::same_values(y, again));
    }
}

TEST(hyperzzw_global, is_a_product_for_each_channel) {
    for (index_t C : {1, 5, 16}) {
        const auto w = test::normal<float>({1, C, H, H}, 2);
        expect_defined(
            C,
            [&](const tensor<float>& x, auto& y) {
                using Real = std::remove_cvref_t<decltype(y(0, 0, 0, 0))>;
                y.each([&](index_t b, index_t i, index_t j, index_t c) {
                    Real sum = 0;
                    for (index_t k = 0; k < H; ++k) sum += Real(w(0, c, i, k)) * Real(x(b, k, j, c));
                    y(b, i, j, c) = sum;
                });
            },
            [&](const auto& x, auto& y, const auto&... context) {
                hyperzzw_global(tables(w), x.v(), y.v(), context...);
            });
    }
}

TEST(hyperzzw_local, is_a_convolution_of_each_sample) {
    for (index_t C : {1, 7, 16, 33})
        for (index_t k : {1, 3, 7, 23}) {
            const auto w = test::normal<float>({B, C, k, k}, 2);
            const index_t p = (k - 1) / 2;
            expect_defined(
                C,
                [&](const tensor<float>& x, auto& y) {
                    using Real = std::remove_cvref_t<decltype(y(0, 0, 0, 0))>;
                    y.each([&](index_t b, index_t i, index_t j, index_t c) {
                        Real sum = 0;
                        for (index_t r = std::max<index_t>(0, p - i); r < std::min(k, H + p - i); ++r)
                            for (index_t s = std::max<index_t>(0, p - j); s < std::min(k, W + p - j); ++s)
                                sum += Real(w(b, c, r, s)) * Real(x(b, i + r - p, j + s - p, c));
                        y(b, i, j, c) = sum;
                    });
                },
                [&](const auto& x, auto& y, const auto&... context) {
                    hyperzzw_local(w.v(), x.v(), y.v(), context...);
                });
        }
}

TEST(hyperzzw_square, is_the_square_by_a_table) {
    const auto w = test::normal<float>({1, 17, H, W}, 2);
    expect_defined(
        17,
        [&](const tensor<float>& x, auto& y) {
            using Real = std::remove_cvref_t<decltype(y(0, 0, 0, 0))>;
            y.each([&](index_t b, index_t i, index_t j, index_t c) {
                const Real at = x(b, i, j, c);
                y(b, i, j, c) = at * Real(w(0, c, i, j)) * at;
            });
        },
        [&](const auto& x, auto& y, const auto&... context) { hyperzzw_square(tables(w), x.v(), y.v(), context...); });
}

TEST(hyperzzw_channels, are_gated_by_their_means) {
    const auto w = test::normal<float>({1, 1, 1, 17}, 2, 50);
    const view<const float, 1> gates{w.v().data, {17}, {1}};
    expect_defined(
        17,
        [&](const tensor<float>& x, auto& y) {
            using Real = std::remove_cvref_t<decltype(y(0, 0, 0, 0))>;
            for (index_t b = 0; b < B; ++b)
                for (index_t c = 0; c < 17; ++c) {
                    Real mean = 0;
                    for (index_t i = 0; i < H; ++i)
                        for (index_t j = 0; j < W; ++j) mean += Real(x(b, i, j, c)) / Real(H * W);
                    const Real open = 1 / (1 + std::exp(-Real(gates(c)) * mean * mean));
                    for (index_t i = 0; i < H; ++i)
                        for (index_t j = 0; j < W; ++j) y(b, i, j, c) = Real(x(b, i, j, c)) * open;
                }
        },
        [&](const auto& x, auto& y, const auto&... context) { hyperzzw_channels(gates, x.v(), y.v(), context...); });
}

TEST(hyperzzw_image, refuses_what_does_not_fit) {
    auto x = test::normal<float>({1, 4, 6, 3}, 1);
    auto y = test::constant<float>({1, 4, 6, 3}, -1);
    const auto w = test::normal<float>({1, 3, 4, 5}, 2), even = test::normal<float>({1, 3, 4, 4}, 2);
    refuses<shape_error>([&] { hyperzzw_global(tables(w), x.v(), y.v()); },
                         "hyperzzw_global: W has extent 5 on axis 2, y asks for 4");
    refuses<argument_error>([&] { hyperzzw_local(even.v(), x.v(), y.v()); }, "hyperzzw_local: kernels have 4 rows");
    refuses<shape_error>([&] { hyperzzw_square(tables(w), x.v(), y.v()); },
                         "hyperzzw_square: W has extent 5 on axis 2, y asks for 6");
    refuses<shape_error>(
        [&] {
            hyperzzw_local(test::normal<float>({1, 3, 3, 3}, 1).v(), x.v(), x.v());
        },
        "hyperzzw_local: y overlaps x");
    y.each([&](index_t b, index_t i, index_t j, index_t c) { EXPECT_EQ(y(b, i, j, c), -1); });
    tensor<float> none({0, 4, 6, 3}), flat({1, 0, 6, 3});
    hyperzzw_local(test::normal<float>({0, 3, 3, 3}, 1).v(), none.v(), none.v());
    hyperzzw_channels(view<const float, 1>{w.v().data, {3}, {1}}, flat.v(), flat.v());
}

}  // namespace
