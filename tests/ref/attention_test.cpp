// The definition itself, against values worked out by hand.
#include <gtest/gtest.h>

#include <heed/ref/attention.hpp>

#include "../support/compare.hpp"
#include "../support/random.hpp"

namespace {

using namespace heed;
using test::tensor;

constexpr double inf = std::numeric_limits<double>::infinity();

/// One batch, one head, D = E = 1: q (2), k (3), v (3).
struct small {
    tensor<double> q{{1, 1, 2, 1}}, k{{1, 1, 3, 1}}, v{{1, 1, 3, 1}}, o{{1, 1, 2, 1}};
    small() {
        q.fill([](index_t i) { return i + 1; });            // 1, 2
        k.fill([](index_t i) { return std::log(i + 1); });  // 0, ln 2, ln 3
        v.fill([](index_t i) { return 10 * (i + 1); });     // 10, 20, 30
    }
};

TEST(ref_attention, softmax_by_hand) {
    small s;
    std::array<double, 2> lse{}, top{}, entropy{};
    std::array<double, 3> mass{};
    ref::attention(s.q.v(), s.k.v(), s.v.v(), s.o.v(), {},
                   {.lse = dense(lse.data(), {1, 1, 2}),
                    .row_max = dense(top.data(), {1, 1, 2}),
                    .entropy = dense(entropy.data(), {1, 1, 2}),
                    .key_mass = dense(mass.data(), {1, 1, 3})});
    EXPECT_NEAR(s.o(0, 0, 0, 0), (1 * 10 + 2 * 20 + 3 * 30) / 6.0, 1e-12);   // weights 1, 2, 3
    EXPECT_NEAR(s.o(0, 0, 1, 0), (1 * 10 + 4 * 20 + 9 * 30) / 14.0, 1e-12);  // weights 1, 4, 9
    EXPECT_NEAR(lse[0], std::log(6.0), 1e-14);
    EXPECT_NEAR(lse[1], std::log(14.0), 1e-14);
    EXPECT_NEAR(top[1], 2 * std::log(3.0), 1e-14);
    EXPECT_NEAR(entropy[0], -(std::log(1 / 6.0) / 6 + std::log(2 / 6.0) / 3 + std::log(3 / 6.0) / 2), 1e-14);
    EXPECT_NEAR(mass[2], 3 / 6.0 + 9 / 14.0, 1e-14);
}

TEST(ref_attention, positions_count_from_the_offset) {
    small s;
    const auto causal = [](index_t, index_t, index_t, index_t i, index_t j) { return j <= i; };
    ref::attention(s.q.v(), s.k.v(), s.v.v(), s.o.v(), {.visible = causal});  // offset 1
    EXPECT_NEAR(s.o(0, 0, 0, 0), (1 * 10 + 2 * 20) / 3.0, 1e-12);
    EXPECT_NEAR(s.o(0, 0, 1, 0), (1 * 10 + 4 * 20 + 9 * 30) / 14.0, 1e-12);
    ref::attention(s.q.v(), s.k.v(), s.v.v(), s.o.v(), {.visible = causal, .offset = 0});
    EXPECT_NEAR(s.o(0, 0, 0, 0), 10, 1e-12);
    EXPECT_NEAR(s.o(0, 0, 1, 0), (1 * 10 + 4 * 20) / 5.0, 1e-12);
}

TEST(ref_attention, stages) {
    small s;
    std::array<std::array<double, 6>, 4> x{};
    const auto at = [&](int i) { return dense(x[static_cast<std::size_t>(i)].data(), {1, 1, 2, 3}); };
    ref::attention(s.q.v(), s.k.v(), s.v.v(), s.o.v(),
                   {.visible = [](index_t, index_t, index_t, index_t, index_t j) { return j != 1; },
                    .bias = [](index_t, index_t, index_t, index_t, index_t j) { return j == 0 ? 0.25 : 0; },
                    .score = [](double z, index_t, index_t, index_t, index_t, index_t) { return z + 1; },
                    .scale = 3},
                   {.raw = at(0), .scored = at(1), .masked = at(2), .probability = at(3)});
    EXPECT_NEAR(x[0][2], 3 * std::log(3.0), 1e-14);
    EXPECT_NEAR(x[1][2], 3 * std::log(3.0) + 1, 1e-14);
    EXPECT_NEAR(x[2][0], 1.25, 1e-14);
    EXPECT_EQ(x[2][1], -inf);
    EXPECT_EQ(x[3][1], 0);
    EXPECT_NEAR(x[3][0] + x[3][2], 1, 1e-14);
    EXPECT_NEAR(x[1][1], 3 * std::log(2.0) + 1, 1e-14);  // hidden pairs have raw and scored logits
}

TEST(ref_attention, sinks_take_mass) {
    small s;
    double lse[2];
    ref::attention(s.q.v(), s.k.v(), s.v.v(), s.o.v(), {.sink = {std::log(4.0)}}, {.lse = dense(lse, {1, 1, 2})});
    EXPECT_NEAR(s.o(0, 0, 0, 0), (1 * 10 + 2 * 20 + 3 * 30) / 10.0, 1e-12);
    EXPECT_NEAR(lse[0], std::log(10.0), 1e-14);
}

TEST(ref_attention, elementwise_weights) {
    small s;
    ref::attention(s.q.v(), s.k.v(), s.v.v(), s.o.v(), {.weight = [](double x) { return x * x; }, .scale = 1});
    const double a = std::log(2.0), b = std::log(3.0);
    EXPECT_NEAR(s.o(0, 0, 0, 0), a * a * 20 + b * b * 30, 1e-12);
}

TEST(ref_attention, the_mask_decides_what_is_empty) {
    small s;
    double lse[2], p[6];
    const auto none_for_row_0 = [](index_t, index_t, index_t row, index_t, index_t j) { return row == 1 && j > 0; };
    s.q(0, 0, 0, 0) = std::nan("");
    s.v(0, 0, 0, 0) = std::nan("");
    s.k(0, 0, 0, 0) = inf;
    ref::attention(s.q.v(), s.k.v(), s.v.v(), s.o.v(), {.visible = none_for_row_0},
                   {.lse = dense(lse, {1, 1, 2}), .probability = dense(p, {1, 1, 2, 3})});
    EXPECT_EQ(s.o(0, 0, 0, 0), 0);
    EXPECT_EQ(lse[0], -inf);
    EXPECT_EQ(p[0], 0);
    EXPECT_NEAR(s.o(0, 0, 1, 0), (4 * 20 + 9 * 30) / 13.0, 1e-12);
}

TEST(ref_attention, visible_nan_and_inf_propagate) {
    for (double bad : {std::nan(""), inf}) {
        small k_bad, v_bad;
        k_bad.k(0, 0, 1, 0) = bad;
        v_bad.v(0, 0, 1, 0) = bad;
        ref::attention(k_bad.q.v(), k_bad.k.v(), k_bad.v.v(), k_bad.o.v());
        ref::attention(v_bad.q.v(), v_bad.k.v(), v_bad.v.v(), v_bad.o.v());
        EXPECT_TRUE(std::isnan(k_bad.o(0, 0, 0, 0)));
        EXPECT_FALSE(std::isfinite(v_bad.o(0, 0, 0, 0)));
    }
}

/// Every number of a row that sees a NaN is NaN, but not the weights of keys it does not see.
TEST(ref_attention, hidden_keys_weigh_nothing_in_a_row_of_nan) {
    for (double bad : {std::nan(""), inf}) {
        small s;
        double p[6], mass[3];
        s.k(0, 0, 2, 0) = bad;
        const auto last_two = [](index_t, index_t, index_t, index_t, index_t j) { return j > 0; };
        ref::attention(s.q.v(), s.k.v(), s.v.v(), s.o.v(), {.visible = last_two},
                       {.key_mass = dense(mass, {1, 1, 3}), .probability = dense(p, {1, 1, 2, 3})});
        EXPECT_EQ(p[0], 0);
        EXPECT_EQ(p[3], 0);
        EXPECT_EQ(mass[0], 0);
        EXPECT_TRUE(std::isnan(p[2]) && std::isnan(s.o(0, 0, 0, 0)));
    }
}

TEST(ref_attention, query_heads_share_key_heads_in_runs) {
    const auto q = test::normal<double>({2, 6, 3, 4}, 1);
    const auto k = test::normal<double>({2, 2, 5, 4}, 2), v = test::normal<double>({2, 2, 5, 3}, 3);
    tensor<double> k6({2, 6, 5, 4}), v6({2, 6, 5, 3}), a({2, 6, 3, 3}), b({2, 6, 3, 3});
    k6.each([&](index_t n, index_t h, index_t j, index_t d) { k6(n, h, j, d) = k(n, h / 3, j, d); });
    v6.each([&](index_t n, index_t h, index_t j, index_t d) { v6(n, h, j, d) = v(n, h / 3, j, d); });
    ref::attention(q.v(), k.v(), v.v(), a.v());
    ref::attention(q.v(), k6.v(), v6.v(), b.v());
    EXPECT_TRUE(test::same_values(a, b));
}

TEST(ref_attention, storage_and_layout_do_not_matter) {
    const auto q = test::normal<bf16>({1, 2, 3, 5}, 1), k = test::normal<bf16>({1, 2, 4, 5}, 2);
    const auto v = test::normal<f16>({1, 2, 4, 3}, 3);
    tensor<double> a({1, 2, 3, 3}), b({1, 2, 3, 3}, test::layout::padded());
    ref::attention(q.v(), k.v(), v.v(), a.v());
    const auto q2 = test::normal<bf16>({1, 2, 3, 5}, 1, 1, test::layout::strided());
    const auto k2 = test::normal<bf16>({1, 2, 4, 5}, 2, 1, test::layout::channels_first());
    const auto v2 = test::normal<f16>({1, 2, 4, 3}, 3, 1, test::layout::tokens());
    ref::attention(q2.v(), k2.v(), v2.v(), b.v());
    EXPECT_TRUE(test::same_values(a, b));
    EXPECT_TRUE(b.poisoned_outside());
}

TEST(ref_attention, nothing_to_see) {
    tensor<double> q({1, 1, 2, 3}), k({1, 1, 0, 3}), v({1, 1, 0, 4}), o({1, 1, 2, 4});
    ref::attention(q.v(), k.v(), v.v(), o.v());
    o.each([&](index_t b, index_t h, index_t n, index_t d) { EXPECT_EQ(o(b, h, n, d), 0); });
}

}  // namespace
