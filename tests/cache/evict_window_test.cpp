// heed_test: LABELS sanitize
// SnapKV and Ada-SnapKV [65]: scores by their definition, budgets, limits, and the mass that is kept.
#include <gtest/gtest.h>

#include <heed/cache/evict_mass.hpp>
#include <heed/cache/evict_window.hpp>
#include <heed/policy/probe_decay.hpp>
#include <set>

#include "defined.hpp"
#include "random.hpp"

using namespace test;

namespace {

using kept = std::vector<index_t>;

kept all_of(index_t n) {
    kept all(static_cast<std::size_t>(n));
    std::iota(all.begin(), all.end(), index_t(0));
    return all;
}
/// Random masses, some of them equal.
std::vector<double> masses(index_t n, std::uint64_t seed) {
    const counter_random r(seed);
    std::vector<double> out;
    for (index_t j = 0; j < n; ++j) out.push_back(static_cast<double>(r.integer(number(j), 0, 30)) / 8);
    return out;
}
double sum_of(const std::vector<double>& mass, const kept& stay) {
    double sum = 0;
    for (index_t j : stay) sum += mass[static_cast<std::size_t>(j)];
    return sum;
}

TEST(snap_kv, scores_are_pooled_masses) {
    for (index_t n : {0, 1, 3, 8, 20})
        for (index_t window : {0, 1, 5})
            for (index_t kernel : {1, 3, 7})
                for (pooling pool : {pooling::average, pooling::maximum}) {
                    const auto mass = masses(n, 1);
                    const auto score = snap_kv{20, window, kernel, pool}.pooled(mass);
                    for (index_t j = 0; j < n; ++j) {
                        double sum = 0, top = 0;  // masses are not negative; beyond the ends there is none
                        for (index_t d = -(kernel / 2); d <= kernel / 2; ++d)
                            if (0 <= j + d && j + d < n - window) {
                                sum += mass[static_cast<std::size_t>(j + d)];
                                top = std::max(top, mass[static_cast<std::size_t>(j + d)]);
                            }
                        const double want = j >= n - window            ? 0
                                            : pool == pooling::average ? sum / static_cast<double>(kernel)
                                                                       : top;
                        ASSERT_NEAR(score[static_cast<std::size_t>(j)], want, 1e-15);
                    }
                }
}

TEST(snap_kv, keeps_the_window_and_the_highest) {
    for (index_t n : {0, 1, 7, 40})
        for (index_t window : {0, 1, 6})
            for (index_t budget : {6, 7, 20, 40, 50}) {
                const auto mass = masses(n, 2);
                const snap_kv rule{budget, window, 3, pooling::average};
                const auto stay = rule.kept(mass);
                ASSERT_EQ(static_cast<index_t>(stay.size()), std::min(n, budget));
                ASSERT_TRUE(std::is_sorted(stay.begin(), stay.end()));
                const std::set<index_t> in(stay.begin(), stay.end());
                for (index_t j = std::max<index_t>(0, n - window); j < n; ++j) ASSERT_TRUE(in.count(j));
                const auto score = rule.pooled(mass);
                for (index_t i = 0; i < n - window; ++i)
                    for (index_t j = 0; j < n - window; ++j)
                        if (in.count(i) && !in.count(j)) {
                            const double a = score[static_cast<std::size_t>(i)], b = score[static_cast<std::size_t>(j)];
                            ASSERT_TRUE(a > b || (a == b && i < j));
                        }
            }
}

TEST(snap_kv, the_whole_budget_is_dense_and_less_keeps_less) {
    const index_t N = 48, window = 8;
    const auto q = normal<double>({1, 2, N, 8}, 3, 2), k = normal<double>({1, 1, N, 8}, 4),
               v = normal<double>({1, 1, N, 4}, 5);
    const defined full(q, k, v, causally());
    const auto voters = last_rows(N, window);
    std::vector<double> mass(static_cast<std::size_t>(N));  // summed over the group
    for (index_t h = 0; h < 2; ++h)
        for (index_t i = 0; i < N; ++i)
            for (index_t j = 0; j < N; ++j)
                mass[static_cast<std::size_t>(j)] += voters[static_cast<std::size_t>(i)] * full.p(0, h, i, j);
    EXPECT_EQ((snap_kv{N, window}.kept(mass)), all_of(N));
    double before = 0;
    for (index_t budget = window; budget <= N; ++budget) {
        const double now = sum_of(mass, snap_kv{budget, window, 1}.kept(mass));
        EXPECT_GE(now, before);
        before = now;
    }
    EXPECT_NEAR(before, 2.0 * window, 1e-12);
}

/// Ada-SnapKV by plain sorting.
std::vector<kept> sorted_budgets(const snap_kv& rule, const view<const double, 2>& mass, double share) {
    const auto [G, M] = mass.shape;
    const auto voted = std::max<index_t>(0, M - rule.window), room = rule.budget - rule.window;
    std::vector<std::set<index_t>> in(static_cast<std::size_t>(G));
    std::vector<std::tuple<double, index_t, index_t>> rest;
    for (index_t g = 0; g < G; ++g) {
        auto& own = in[static_cast<std::size_t>(g)];
        for (index_t j = voted; j < M; ++j) own.insert(j);
        const auto score = rule.pooled(std::vector<double>(&mass(g, 0), &mass(g, 0) + M));
        std::vector<std::tuple<double, index_t, index_t>> row;
        for (index_t j = 0; j < voted; ++j) row.emplace_back(-score[static_cast<std::size_t>(j)], g, j);
        std::sort(row.begin(), row.end());
        const auto floor =
            static_cast<std::size_t>(std::min(voted, static_cast<index_t>(share * static_cast<double>(room))));
        for (std::size_t x = 0; x < row.size(); ++x)
            if (x < floor)
                own.insert(std::get<2>(row[x]));
            else
                rest.push_back(row[x]);
    }
    std::sort(rest.begin(), rest.end());
    index_t held = 0;
    for (const auto& own : in) held += static_cast<index_t>(own.size());
    for (const auto& [score, g, j] : rest)
        if (held < G * rule.budget) in[static_cast<std::size_t>(g)].insert(j), ++held;
    std::vector<kept> out;
    for (const auto& own : in) out.emplace_back(own.begin(), own.end());
    return out;
}

TEST(ada_snap_kv, is_floors_and_one_ranking) {
    for (index_t G : {1, 3})
        for (index_t M : {1, 5, 30, 61})
            for (index_t budget : {4, 13, 30, 70})
                for (double share : {0.0, 0.2, 0.5, 1.0}) {
                    const auto mass = masses(G * M, 6);
                    const auto table = view<const double, 2>{mass.data(), {G, M}, {M, 1}};
                    const snap_kv rule{budget, 4, 3, pooling::maximum};
                    const auto stay = rule.kept(table, share);
                    ASSERT_EQ(stay, sorted_budgets(rule, table, share))
                        << G << " " << M << " " << budget << " " << share;
                    index_t held = 0;
                    for (index_t g = 0; g < G; ++g) {
                        held += static_cast<index_t>(stay[static_cast<std::size_t>(g)].size());
                        if (share == 1) {
                            const std::vector<double> row(&table(g, 0), &table(g, 0) + M);
                            ASSERT_EQ(stay[static_cast<std::size_t>(g)], rule.kept(row));
                        }
                    }
                    ASSERT_EQ(held, std::min(G * M, G * budget));
                }
}

/// With the scores themselves as the measure, no other choice of as many keys holds more of them.
TEST(ada_snap_kv, one_ranking_holds_the_most) {
    const index_t G = 4, M = 50;
    auto mass = masses(G * M, 7);
    for (index_t j = 0; j < M; ++j) mass[static_cast<std::size_t>(j)] *= 5;  // head 0 looks at more keys than others
    const auto table = view<const double, 2>{mass.data(), {G, M}, {M, 1}};
    const snap_kv rule{10, 0, 1};
    const auto held = [&](double share) {
        double sum = 0;
        const auto stay = rule.kept(table, share);
        for (index_t g = 0; g < G; ++g)
            for (index_t j : stay[static_cast<std::size_t>(g)]) sum += table(g, j);
        return sum;
    };
    double before = held(0);
    for (double share : {0.2, 0.5, 0.8, 1.0}) {
        const double now = held(share);
        EXPECT_LE(now, before);
        before = now;
    }
    EXPECT_LT(held(1), held(0));
    const counter_random r(8);
    for (std::uint64_t trial = 0; trial < 50; ++trial) {
        std::set<index_t> any;
        for (std::uint64_t draw = 0; static_cast<index_t>(any.size()) < G * 10; ++draw)
            any.insert(r.integer(1000 * trial + draw, 0, G * M));
        double sum = 0;
        for (index_t x : any) sum += mass[static_cast<std::size_t>(x)];
        EXPECT_LE(sum, held(0));
    }
}

TEST(snap_kv, errors) {
    const std::vector<double> mass(9);
    const view<const double, 2> table{mass.data(), {1, 9}, {9, 1}};
    EXPECT_THROW((snap_kv{3, 4}.kept(mass)), argument_error);
    EXPECT_THROW((snap_kv{3, -1}.kept(mass)), argument_error);
    EXPECT_THROW((snap_kv{3, 1, 2}.kept(mass)), argument_error);
    EXPECT_THROW((snap_kv{3, 1, -1}.kept(mass)), argument_error);
    EXPECT_THROW((snap_kv{3, 1, 1}.kept(table, 1.1)), argument_error);
    EXPECT_THROW((snap_kv{3, 4}.kept(table, 0.5)), argument_error);
}

}  // namespace
