// heed_test: LABELS sanitize
// Accumulated mass with a forgetting factor [20], and heavy hitters: their recursion, limits, and the two simulations.
#include <gtest/gtest.h>

#include <heed/cache/evict_mass.hpp>
#include <heed/policy/probe_decay.hpp>

#include "defined.hpp"
#include "random.hpp"

using namespace test;

namespace {

using kept = std::vector<index_t>;

/// One head of queries, keys and values.
struct one_head {
    tensor<double> q, k, v;
    explicit one_head(index_t N, std::uint64_t seed, double spread = 1.5)
        : q(normal<double>({1, 1, N, 8}, seed, spread)),
          k(normal<double>({1, 1, N, 8}, seed + 1)),
          v(normal<double>({1, 1, N, 3}, seed + 2)) {}
};

view<const double, 2> weights(const defined& x) {
    return {x.p.v().data, {x.p.shape()[2], x.p.shape()[3]}, {x.p.v().strides[2], x.p.v().strides[3]}};
}

/// sum_i factor[i] P_ij by plain loops.
std::vector<double> column_sums(const view<const double, 2>& P, const std::vector<double>& factor) {
    std::vector<double> sum(static_cast<std::size_t>(P.shape[1]));
    for (index_t i = 0; i < P.shape[0]; ++i)
        for (index_t j = 0; j < P.shape[1]; ++j)
            sum[static_cast<std::size_t>(j)] += factor[static_cast<std::size_t>(i)] * P(i, j);
    return sum;
}

/// A decode loop: each query attends to the keys held, then the rule lets go. Outputs, and last[j] as lifetime reads
/// it.
struct decoded {
    tensor<double> o;
    std::vector<index_t> last, held;

    template <class Rule>
    decoded(const one_head& x, Rule rule, double constant = 0) : o({1, 1, x.q.shape()[2], 3}) {
        const index_t N = x.q.shape()[2];
        last.assign(static_cast<std::size_t>(N), no_key);
        ref::options<double> with;
        with.score = [constant](double logit, auto...) { return logit + constant; };
        for (index_t i = 0; i < N; ++i) {
            held.push_back(i);
            const defined step(rows_at(x.q, {i}), rows_at(x.k, held), rows_at(x.v, held), with);
            for (index_t e = 0; e < 3; ++e) o(0, 0, i, e) = step.o(0, 0, 0, e);
            for (index_t j : held) last[static_cast<std::size_t>(j)] = i;
            keep_entries(held, rule.step(std::vector<double>(step.p.v().data, step.p.v().data + held.size())));
            for (index_t j : held) last[static_cast<std::size_t>(j)] = no_key;
        }
    }
};

TEST(a2sf, recursion_is_a_weighted_column_sum) {
    const index_t N = 40;
    const one_head x(N, 1);
    const defined full(x.q, x.k, x.v, causally());
    const auto P = weights(full);
    for (double alpha : {0.0, 0.3, 0.9, 1.0}) {
        forgetting_mass<double> rule(N, alpha);
        for (index_t i = 0; i < N; ++i) {
            const auto stays = rule.step({&P(i, 0), static_cast<std::size_t>(i + 1)});
            ASSERT_EQ(static_cast<index_t>(stays.size()), i + 1);
        }
        const auto factor = forgetting(N, alpha);
        const auto sums = column_sums(P, factor);
        double total = 0, factors = 0;
        for (std::size_t j = 0; j < sums.size(); ++j) {
            EXPECT_NEAR(rule.values()[j], sums[j], 1e-13);
            total += rule.values()[j];
            factors += factor[j];
        }
        EXPECT_NEAR(total, factors, 1e-12);  // each row sums to 1
        // A prefill in one step: the same statistic, and the same keys stay.
        forgetting_mass<double> prefill(10, alpha), limited(10, alpha);
        EXPECT_EQ(prefill.step(sums), limited.step(rule.values()));
        EXPECT_EQ(prefill.values().size(), 10u);
    }
}

TEST(a2sf, room_for_all_is_dense) {
    const one_head x(30, 2);
    const defined dense(x.q, x.k, x.v, causally());
    for (double alpha : {0.0, 0.5, 1.0}) {
        const decoded run(x, forgetting_mass<double>(30, alpha));
        EXPECT_EQ(distance(run.o, dense.o), 0);
        EXPECT_EQ(run.held.size(), 30u);
    }
}

TEST(a2sf, decoding_is_the_simulation_and_a_lifetime_mask) {
    for (index_t budget : {1, 2, 7, 20, 33})
        for (double alpha : {0.0, 0.6, 1.0}) {
            const one_head x(34, 3 + static_cast<std::uint64_t>(budget));
            const defined dense(x.q, x.k, x.v, causally());
            const decoded run(x, forgetting_mass<double>(budget, alpha));
            std::vector<index_t> last(34);
            simulate_forgetting(weights(dense), budget, alpha, last);
            EXPECT_EQ(last, run.last) << budget << " " << alpha;
            EXPECT_EQ(std::count(last.begin(), last.end(), no_key), budget);
            const defined masked(x.q, x.k, x.v, seeing([&](index_t i, index_t j) {
                                     return j <= i && i <= last[static_cast<std::size_t>(j)];
                                 }));
            EXPECT_LT(distance(masked.o, run.o), 1e-12);
        }
}

TEST(a2sf, selecting_once_keeps_other_keys_than_the_simulation) {
    const one_head x(60, 4, 3);
    const defined dense(x.q, x.k, x.v, causally());
    std::vector<index_t> last(60);
    simulate_forgetting(weights(dense), 12, 0.8, last);
    kept simulated;
    for (index_t j = 0; j < 60; ++j)
        if (last[static_cast<std::size_t>(j)] == no_key) simulated.push_back(j);
    const auto at_once = forgetting_mass<double>(12).step(column_sums(weights(dense), forgetting(60, 0.8)));
    EXPECT_EQ(simulated.size(), at_once.size());
    EXPECT_NE(simulated, at_once);
}

TEST(a2sf, a_constant_added_to_all_scores_changes_nothing) {
    const one_head x(40, 5);
    for (double constant : {1.0, -8.0, 64.0})
        EXPECT_EQ(decoded(x, forgetting_mass<double>(9, 0.7), constant).last,
                  decoded(x, forgetting_mass<double>(9, 0.7)).last);
}

TEST(a2sf, limits_of_alpha) {
    const index_t N = 200;
    const one_head x(N, 6);
    const defined dense(x.q, x.k, x.v, causally());
    const auto P = weights(dense);
    const auto keeps = [&](double alpha) {
        return forgetting_mass<double>(20).step(column_sums(P, forgetting(N, alpha)));
    };
    const std::vector<double> last_row(&P(N - 1, 0), &P(N - 1, 0) + N);
    EXPECT_EQ(keeps(0), keep_highest(last_row, 20));
    EXPECT_EQ(keeps(1), keep_highest(column_sums(P, std::vector<double>(N, 1.0)), 20));
    EXPECT_EQ(keeps(1e-30), keeps(0));  // alpha^k underflows
    EXPECT_EQ(forgetting(N, 1e-30)[0], 0);
    forgetting_mass<float> small(20, 1e-30), none(20, 0);
    for (index_t i = 0; i < 20; ++i) {
        const std::vector<float> row(static_cast<std::size_t>(i + 1), 1.0f / static_cast<float>(i + 1));
        small.step(row), none.step(row);
    }
    for (std::size_t j = 0; j < 20; ++j) EXPECT_EQ(small.values()[j], none.values()[j]);
}

TEST(a2sf, of_equal_keys_the_oldest_goes) {
    forgetting_mass<float> rule(3);
    EXPECT_EQ(rule.step(std::vector<float>{1, 1, 1}), (kept{0, 1, 2}));
    EXPECT_EQ(rule.step(std::vector<float>{0, 0, 0, 1}), (kept{1, 2, 3}));
    EXPECT_EQ(rule.step(std::vector<float>{1, 0, 0, 0.5f}), (kept{0, 1, 2}));  // the newest may go too
    EXPECT_EQ(forgetting_mass<float>(0).step(std::vector<float>{1, 2}), kept{});
}

/// With a focus that moves on, a mass that forgets keeps more of what the queries look at than one that adds up.
TEST(a2sf, forgetting_helps_where_the_focus_moves) {
    const index_t N = 300, budget = N / 5;
    const auto row = [](index_t i, std::size_t n) {
        std::vector<double> p(n);
        double sum = 0;
        for (std::size_t j = 0; j < n; ++j)
            sum += p[j] = std::exp((static_cast<double>(j) - static_cast<double>(i)) / 20);
        for (double& x : p) x /= sum;
        return p;
    };
    const auto retained = [&](double alpha) {
        forgetting_mass<double> rule(budget, alpha);
        std::vector<index_t> held;
        double mass = 0;
        for (index_t i = 0; i < N; ++i) {
            held.push_back(i);
            const auto all = row(i, static_cast<std::size_t>(i + 1));
            std::vector<double> seen;
            for (index_t j : held) seen.push_back(all[static_cast<std::size_t>(j)]);
            mass += std::accumulate(seen.begin(), seen.end(), 0.0) / static_cast<double>(N);
            keep_entries(held, rule.step(seen));
        }
        return mass;
    };
    EXPECT_GT(retained(0.95), retained(1) + 0.1);
}

TEST(heavy_hitters, half_of_the_budget_is_recent) {
    const one_head x(50, 7);
    for (index_t budget : {1, 2, 9, 16}) {
        auto rule = heavy_hitters<double>(budget);
        std::vector<index_t> held;
        for (index_t i = 0; i < 50; ++i) {
            held.push_back(i);
            const defined step(rows_at(x.q, {i}), rows_at(x.k, held), rows_at(x.v, held));
            const std::vector<double> before(rule.values().begin(), rule.values().end());
            keep_entries(held, rule.step(std::vector<double>(step.p.v().data, step.p.v().data + held.size())));
            ASSERT_EQ(static_cast<index_t>(held.size()), std::min(budget, i + 1));
            for (index_t r = 0; r < std::min(budget / 2, i + 1); ++r)
                ASSERT_EQ(held[held.size() - 1 - static_cast<std::size_t>(r)], i - r);
        }
    }
    // The heaviest of the old ones stays for ever.
    auto rule = heavy_hitters<float>(4);
    rule.step(std::vector<float>{1, 100, 1, 1});
    for (int i = 0; i < 20; ++i) rule.step(std::vector<float>{0, 0, 0, 0, 1});
    EXPECT_EQ(rule.values()[0], 100);
}

TEST(group_mass, adds_the_heads_of_a_group) {
    const auto mass = uniform<float>({2, 6, 5, 1}, 8);
    std::vector<float> out(2 * 3 * 5);
    const view<const float, 3> flat{mass.v().data, {2, 6, 5}, {30, 5, 1}};
    group_mass(flat, dense(out.data(), {2, 3, 5}));
    for (index_t b = 0; b < 2; ++b)
        for (index_t g = 0; g < 3; ++g)
            for (index_t j = 0; j < 5; ++j)
                EXPECT_EQ(dense(out.data(), {2, 3, 5})(b, g, j), mass(b, 2 * g, j, 0) + mass(b, 2 * g + 1, j, 0));
    EXPECT_THROW(group_mass(flat, dense(out.data(), {2, 4, 5})), shape_error);
    EXPECT_THROW(group_mass(flat, dense(out.data(), {2, 3, 4})), shape_error);
    group_mass(view<const float, 3>{}, view<float, 3>{});
}

TEST(a2sf, errors) {
    EXPECT_THROW(forgetting_mass<float>(-1), argument_error);
    EXPECT_THROW(forgetting_mass<float>(4, 1.5), argument_error);
    EXPECT_THROW(forgetting_mass<float>(4, -0.1), argument_error);
    EXPECT_THROW(forgetting_mass<float>(4, std::nan("")), argument_error);
    EXPECT_THROW(forgetting_mass<float>(4, 1, 5), argument_error);
    forgetting_mass<float> rule(4);
    rule.step(std::vector<float>{1, 2, 3});
    EXPECT_THROW(rule.step(std::vector<float>{1, 2}), shape_error);
    EXPECT_EQ(rule.values().size(), 3u);
    std::vector<index_t> last(3);
    EXPECT_THROW(simulate_forgetting(view<const double, 2>{nullptr, {4, 4}, {4, 1}}, 2, 1, last), shape_error);
    EXPECT_THROW(simulate_forgetting(view<const double, 2>{nullptr, {3, 4}, {4, 1}}, 2, 1, last), shape_error);
}

}  // namespace
