// heed_test: LABELS sanitize
// Selection by score against a stable sort.
#include <gtest/gtest.h>

#include <cmath>
#include <heed/cache/evict_select.hpp>
#include <limits>
#include <span>

#include "random.hpp"

using namespace test;

namespace {

/// Sorts all rows, takes the first ones.
std::vector<index_t> by_sorting(const std::vector<double>& score, index_t count, index_t recent, ties equal) {
    const auto n = static_cast<index_t>(score.size());
    std::vector<index_t> order;
    for (index_t i = n; i-- > std::max<index_t>(0, n - recent);) order.push_back(i);
    std::vector<index_t> rest;
    for (index_t i = 0; i < n - recent; ++i) rest.push_back(equal == ties::lower ? i : n - recent - 1 - i);
    std::stable_sort(rest.begin(), rest.end(), [&](index_t i, index_t j) {
        return score[static_cast<std::size_t>(i)] > score[static_cast<std::size_t>(j)];
    });
    order.insert(order.end(), rest.begin(), rest.end());
    order.resize(static_cast<std::size_t>(std::min(count, n)));
    std::sort(order.begin(), order.end());
    return order;
}

TEST(evict_select, is_a_stable_sort) {
    const counter_random r(1);
    std::uint64_t draws = 0;
    for (index_t n : {0, 1, 2, 3, 7, 8, 31, 64}) {
        std::vector<double> score(static_cast<std::size_t>(n)), negative;
        for (double& x : score) x = static_cast<double>(r.integer(draws++, 0, 6));  // many are equal
        for (double x : score) negative.push_back(-x);
        const std::vector<float> floats(score.begin(), score.end());
        for (index_t count = 0; count <= n + 1; ++count)
            for (index_t recent : {index_t(0), index_t(1), n / 2, n, n + 3})
                for (ties equal : {ties::lower, ties::higher}) {
                    const auto want = by_sorting(score, count, recent, equal);
                    ASSERT_EQ(keep_highest(score, count, recent, equal), want) << n << " " << count << " " << recent;
                    ASSERT_EQ(keep_highest(std::span(floats), count, recent, equal), want);
                    ASSERT_EQ(keep_lowest(negative, count, recent, equal), want);
                }
    }
}

TEST(evict_select, what_is_not_a_number_goes_first) {
    const double nan = std::nan(""), inf = std::numeric_limits<double>::infinity();
    const std::vector<double> score{nan, -inf, 3, nan, inf, -1};
    using kept = std::vector<index_t>;
    EXPECT_EQ(keep_highest(score, 1), (kept{4}));
    EXPECT_EQ(keep_highest(score, 4), (kept{1, 2, 4, 5}));
    EXPECT_EQ(keep_highest(score, 5), (kept{0, 1, 2, 4, 5}));
    EXPECT_EQ(keep_lowest(score, 1), (kept{1}));
    EXPECT_EQ(keep_lowest(score, 4), (kept{1, 2, 4, 5}));
    EXPECT_EQ(keep_lowest(score, 5, 0, ties::higher), (kept{1, 2, 3, 4, 5}));
    EXPECT_EQ(keep_highest(std::vector<float>(50, std::nanf("")), 2), (kept{0, 1}));
}

TEST(evict_select, entries_follow_their_rows) {
    std::vector<int> statistic{10, 11, 12, 13, 14};
    keep_entries(statistic, {0, 2, 4});
    EXPECT_EQ(statistic, (std::vector<int>{10, 12, 14}));
    keep_entries(statistic, {});
    EXPECT_TRUE(statistic.empty());
}

TEST(evict_select, errors) {
    const std::vector<double> score(3);
    EXPECT_THROW(keep_highest(score, -1), argument_error);
    EXPECT_THROW(keep_highest(score, 1, -1), argument_error);
    EXPECT_THROW(keep_lowest(score, -1), argument_error);
}

}  // namespace
