// heed_test: LABELS sanitize
#include "score_lanes.hpp"

namespace {

using namespace heed;
using test::agrees;
using test::slope_is_derivative;

const std::vector<float> per_head{0.5f, 0.25f, 2.0f};

TEST(score, softcap_and_temperature) {
    agrees(softcap{1.5}, [](double x, const where&) { return 1.5 * std::tanh(x / 1.5); }, "softcap");
    agrees(temperature{0.7}, [](double x, const where&) { return x / 0.7; }, "temperature");
    agrees(softcap{2} >> temperature{3}, [](double x, const where&) { return 2 * std::tanh(x / 2) / 3; }, "pipe");
    agrees(temperature{3} >> softcap{2}, [](double x, const where&) { return 2 * std::tanh(x / 6); }, "pipe, turned");
}

TEST(score, slopes) {
    slope_is_derivative(identity{});
    slope_is_derivative(softcap{1.5});
    slope_is_derivative(temperature{0.7});
    slope_is_derivative(softcap{1.5} >> temperature{0.3} >> softcap{4});
    slope_is_derivative(scale{2} >> softcap{1.5} >> alibi{per_head});
    slope_is_derivative(head_scale{per_head} >> softcap{1});
    slope_is_derivative(affinity([](auto x, const where& w) { return x - abs(w.gap(x)); }) >> softcap{2});
}

TEST(score, affinity_never_looks_at_the_product) {
    const auto minus_distance = affinity([](auto x, const where& w) { return x - abs(w.gap(x)); });
    agrees(minus_distance, [](double, const where& w) { return -std::abs(double(w.i - w.j)); }, "affinity");
    EXPECT_EQ(minus_distance(std::nan(""), where{0, 0, 3, 3, 1}), -2);
    EXPECT_EQ((minus_distance >> softcap{1})(std::nan(""), where{0, 0, 3, 3, 3}), 0);
}

TEST(score, alibi_is_linear) {
    agrees(alibi{per_head},
           [](double x, const where& w) { return x - double(per_head[w.h]) * std::abs(double(w.i - w.j)); }, "alibi");
}

TEST(score, alibi_slopes_of_the_paper) {
    const auto eight = alibi_slopes(8);
    for (int h = 0; h < 8; ++h) EXPECT_EQ(eight[h], std::ldexp(1.0f, -h - 1));
    const auto twelve = alibi_slopes(12), sixteen = alibi_slopes(16);
    for (int h = 0; h < 8; ++h) EXPECT_EQ(twelve[h], eight[h]);
    for (int h = 0; h < 4; ++h) EXPECT_EQ(twelve[8 + h], sixteen[2 * h]);
    EXPECT_EQ(alibi_slopes(1), std::vector<float>{std::ldexp(1.0f, -8)});
    EXPECT_TRUE(alibi_slopes(0).empty());
}

TEST(score, says_what_is_wrong) {
    const auto message = [](const auto& score) -> std::string {
        try {
            heed::detail::check_policy(score, "attention", {1, 2, 10, 10});
        } catch (const std::invalid_argument& e) {
            return e.what();
        }
        return "";
    };
    EXPECT_EQ(message(softcap{0}), "attention: softcap is 0, must be above 0 and finite");
    EXPECT_EQ(message(scale{1} >> softcap{-1}), "attention: softcap is -1, must be above 0 and finite");
    EXPECT_EQ(message(softcap{std::numeric_limits<double>::infinity()}),
              "attention: softcap is inf, must be above 0 and finite");
    EXPECT_NE(message(softcap{std::nan("")}), "");
    EXPECT_NE(message(softcap{1e39}), "");
    EXPECT_EQ(message(softcap{1e38}), "");
    EXPECT_EQ(message(temperature{0}), "attention: temperature is 0, must be above 0");
    EXPECT_EQ(message(softcap{1} >> alibi{per_head}), "attention: alibi holds 3 values, q has 2 heads");
    EXPECT_EQ(message(head_scale{per_head}), "attention: head_scale holds 3 values, q has 2 heads");
    EXPECT_EQ(message(prior{per_head, per_head}), "attention: prior (log_scale) holds 3 values, q has 2 heads");
    EXPECT_EQ(message(affinity(softcap{-2})), "attention: softcap is -2, must be above 0 and finite");
    const std::vector<float> table(100);
    EXPECT_EQ(message(relative(dense(table.data(), {3, 5}))), "attention: relative has 3 heads, q has 2");
    EXPECT_EQ(message(relative(dense(table.data(), {2, 5}), 5)), "attention: relative: 5 entries ahead of 5");
    EXPECT_EQ(message(bias(dense(table.data(), {1, 1, 9, 10}))), "attention: bias has rows 9, the logits have 10");
    EXPECT_EQ(message(rows_scale(dense(table.data(), {1, 2, 9}))),
              "attention: rows_scale has positions 9, the logits have 10");
    EXPECT_EQ(message(forget(dense(table.data(), {1, 2, 9}))), "attention: forget has 9 keys, k has 10");
    const std::vector<int> ids{0, 1, 2, 3, 4, 5, 0, 0, 0, 0};
    EXPECT_EQ(message(relation(dense(table.data(), {1, 1, 10, 5}), dense(ids.data(), {1, 1, 10}))),
              "attention: relation: id 5 of 5");
}

}  // namespace
