// heed_test: LABELS sanitize
#include "score_lanes.hpp"

namespace {

using namespace heed;
using test::agrees;

std::vector<float> numbers(std::size_t n) {
    std::vector<float> v(n);
    for (std::size_t x = 0; x < n; ++x) v[x] = static_cast<float>((x * 37 % 101) * 0.03 - 1.5);
    return v;
}

TEST(score_distance, relative_clips) {
    const auto table = numbers(3 * 12);
    for (index_t ahead : {0, 4, 11}) {
        agrees(relative(dense(table.data(), {3, 12}), ahead),
               [&](double x, const where& w) {
                   const index_t t = std::clamp<index_t>(w.i - w.j + ahead, 0, 11);
                   return x + double(table[static_cast<std::size_t>(w.h * 12 + t)]);
               },
               "relative");
        // The same table over j - i, Shaw's direction: a view with a negative stride.
        agrees(relative(view<const float, 2>{table.data() + 11, {3, 12}, {12, -1}}, 11 - ahead),
               [&](double x, const where& w) {
                   const index_t t = std::clamp<index_t>(w.j - w.i + ahead, 0, 11);
                   return x + double(table[static_cast<std::size_t>(w.h * 12 + t)]);
               },
               "relative, turned");
    }
    agrees(relative(dense(table.data(), {1, 1})), [&](double x, const where&) { return x + double(table[0]); }, "one");
}

/// The published definition, in float as published.
index_t t5_by_definition(index_t memory_minus_query, bool bidirectional, index_t buckets, index_t max_distance) {
    index_t n = memory_minus_query, base = 0;
    if (bidirectional) {
        buckets /= 2;
        base = n > 0 ? buckets : 0;
        n = std::abs(n);
    } else {
        n = -std::min<index_t>(n, 0);
    }
    const index_t exact = buckets / 2;
    if (n < exact) return base + n;
    const float large = std::log(float(n) / float(exact)) / float(std::log(double(max_distance) / double(exact))) *
                        float(buckets - exact);
    return base + std::min(buckets - 1, exact + static_cast<index_t>(large));
}

TEST(score_distance, t5_buckets) {
    for (bool both_ways : {false, true})
        for (auto [buckets, most] : {std::pair<index_t, index_t>{32, 128}, {32, 64}, {16, 20}, {8, 1000}})
            for (index_t d = -300; d <= 300; ++d)
                EXPECT_EQ(t5_bucket(d, both_ways, buckets, most), t5_by_definition(d, both_ways, buckets, most)) << d;
    // Known values of the 32-bucket, 128-distance, two-way table.
    for (auto [d, bucket] : {std::pair<index_t, index_t>{0, 0}, {-1, 1}, {1, 17}, {-8, 8}, {-11, 8}, {-12, 9}, {-16, 10},
                             {-32, 12}, {-64, 14}, {-91, 15}, {-5000, 15}, {5000, 31}})
        EXPECT_EQ(t5_bucket(d, true), bucket) << d;
    EXPECT_EQ(t5_bucket(5, false), 0);
    EXPECT_EQ(t5_bucket(-5000, false), 31);
}

TEST(score_distance, t5_table_is_its_buckets) {
    const auto learned = numbers(32 * 3);  // (buckets, heads)
    for (bool both_ways : {false, true}) {
        const auto table = t5_table(dense(learned.data(), {32, 3}), both_ways, 40);
        agrees(table.score(),
               [&](double x, const where& w) {
                   const index_t bucket = t5_bucket(w.j - w.i, both_ways, 32, 40);
                   return x + double(learned[static_cast<std::size_t>(bucket * 3 + w.h)]);
               },
               "t5", {90, 70, -10});
    }
}

TEST(score_distance, prior_by_formula) {
    const std::vector<float> log_scale{-1, 0.3f, -2}, shape{1.5f, 0.5f, 2}, location{0, 0.7f, -0.4f};
    const auto formula = [&](double x, const where& w) {
        const double mu = 2 * std::sinh(double(location[w.h])), d = double(w.j - w.i);
        return x - std::exp(double(log_scale[w.h])) * std::pow(std::abs(d - mu) + 1e-5, double(shape[w.h]));
    };
    agrees(prior{log_scale, shape, location}, formula, "prior");
    const auto table = prior_table(prior{log_scale, shape, location}, 40, 40);
    agrees(table.score(), formula, "prior by table");
}

TEST(score_distance, limits_of_the_prior) {
    const auto slopes = alibi_slopes(3);
    std::vector<float> log_slopes;
    for (float s : slopes) log_slopes.push_back(std::log(s));
    const std::vector<float> one(3, 1.0f), zero(3, 0.0f), two(3, 2.0f), negative(3, -20.0f),
        none(3, -std::numeric_limits<float>::infinity());
    // Shape 1 is ALiBi but for eps times the slope.
    agrees(prior{log_slopes, one},
           [&](double x, const where& w) { return alibi{slopes}(x, w) - double(slopes[w.h]) * 1e-5; }, "alibi");
    agrees(prior{zero, zero}, [](double x, const where&) { return x - 1; }, "a constant");
    agrees(prior{none, one}, [](double x, const where&) { return x; }, "no scale, no prior");
    agrees(prior{none, negative}, [](double x, const where&) { return x; }, "no scale, negative shape");
    agrees(prior{log_slopes, two},
           [&](double x, const where& w) {
               const double d = std::abs(double(w.i - w.j)) + 1e-5;
               return x - double(slopes[w.h]) * d * d;
           },
           "gaussian");
    // A negative shape hides the query's own key, without a NaN.
    const float own = prior{zero, negative}(0.0f, where{0, 0, 5, 5, 5});
    EXPECT_LT(own, -1e30f);
    EXPECT_FALSE(std::isnan(own));
    // Only the distance counts.
    EXPECT_EQ((prior{zero, two}(0.5f, where{0, 0, 3, 3, 1})), (prior{zero, two}(0.5f, where{0, 0, 90, 90, 88})));
}

}  // namespace
