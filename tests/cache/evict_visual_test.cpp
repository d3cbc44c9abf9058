// heed_test: LABELS sanitize
// Pruning of visual tokens [11]: what stays, schedules, and the pruned run as the dense run on the rest.
#include <gtest/gtest.h>

#include <heed/cache/evict_visual.hpp>

#include "defined.hpp"
#include "random.hpp"

using namespace test;

namespace {

using kept = std::vector<index_t>;
constexpr index_t text = 4, visual_tokens = 12, answer = 4, N = text + visual_tokens + answer;

/// A sequence of text, an image and an answer, without causal mask.
struct sequence {
    std::array<bool, N> visual{};
    tensor<double> q = normal<double>({1, 2, N, 8}, 1, 1.5), k = normal<double>({1, 2, N, 8}, 2),
                   v = normal<double>({1, 2, N, 8}, 3);

    sequence() { std::fill_n(visual.begin() + text, visual_tokens, true); }
    /// Mean weight over heads and answer queries.
    std::vector<double> importance(const defined& full) const {
        std::vector<double> m(N);
        for (index_t h = 0; h < 2; ++h)
            for (index_t i = N - answer; i < N; ++i)
                for (index_t j = 0; j < N; ++j) m[static_cast<std::size_t>(j)] += full.p(0, h, i, j) / (2 * answer);
        return m;
    }
};

TEST(visual_budget, rounds_up) {
    EXPECT_EQ(visual_budget(12, 0), 12);
    EXPECT_EQ(visual_budget(12, 1), 0);
    EXPECT_EQ(visual_budget(12, 0.5), 6);
    EXPECT_EQ(visual_budget(13, 0.5), 7);
    EXPECT_EQ(visual_budget(0, 0.3), 0);
    EXPECT_THROW(visual_budget(3, -0.1), argument_error);
    EXPECT_THROW(visual_budget(3, 1.1), argument_error);
}

TEST(keep_visual, keeps_text_and_the_most_important) {
    const bool visual[] = {false, true, true, true, false, true};
    const std::vector<float> m{0, 0.25f, 0.5f, 0.25f, 0, 0.75f};
    EXPECT_EQ(keep_visual(m, visual, 0), (kept{0, 4}));
    EXPECT_EQ(keep_visual(m, visual, 2), (kept{0, 2, 4, 5}));
    EXPECT_EQ(keep_visual(m, visual, 3), (kept{0, 1, 2, 4, 5}));  // ties to the lower index
    EXPECT_EQ(keep_visual(m, visual, 4), (kept{0, 1, 2, 3, 4, 5}));
    EXPECT_EQ(keep_visual(m, visual, 9), (kept{0, 1, 2, 3, 4, 5}));
    EXPECT_TRUE(keep_visual(std::vector<float>{}, {}, 3).empty());
    EXPECT_THROW(keep_visual(m, std::span(visual).first(3), 1), shape_error);
}

TEST(keep_visual, nothing_pruned_is_the_identity) {
    const sequence x;
    const defined full(x.q, x.k, x.v);
    const auto m = x.importance(full);
    double total = 0;
    for (double w : m) total += w;
    EXPECT_NEAR(total, 1, 1e-12);  // of each answer query
    const auto stay = keep_visual(m, x.visual, visual_budget(visual_tokens, 0));
    EXPECT_EQ(distance(defined(rows_at(x.q, stay), rows_at(x.k, stay), rows_at(x.v, stay)).o, full.o), 0);
}

/// With the original positions in the scores, pruning is hiding.
TEST(keep_visual, a_pruned_run_is_the_dense_run_on_the_rest) {
    const sequence x;
    const auto m = x.importance(defined(x.q, x.k, x.v));
    for (double rho : {0.25, 0.5, 0.9, 1.0}) {
        const auto stay = keep_visual(m, x.visual, visual_budget(visual_tokens, rho));
        ASSERT_EQ(static_cast<index_t>(stay.size()), text + answer + visual_budget(visual_tokens, rho));
        const auto by_distance = [](double logit, index_t i, index_t j) {
            return logit - 0.3 * std::abs(static_cast<double>(i - j));
        };
        ref::options<double> dense, pruned;
        dense.visible = [&](index_t, index_t, index_t, index_t, index_t j) {
            return std::binary_search(stay.begin(), stay.end(), j);
        };
        dense.score = [&](double s, index_t, index_t, index_t, index_t i, index_t j) { return by_distance(s, i, j); };
        pruned.score = [&](double s, index_t, index_t, index_t, index_t i, index_t j) {
            return by_distance(s, stay[static_cast<std::size_t>(i)], stay[static_cast<std::size_t>(j)]);
        };
        const defined all(x.q, x.k, x.v, dense);
        const defined rest(rows_at(x.q, stay), rows_at(x.k, stay), rows_at(x.v, stay), pruned);
        EXPECT_LT(distance(rows_at(all.o, stay), rest.o), 1e-13);
    }
}

TEST(keep_visual, keys_nobody_looks_at_are_free) {
    sequence x;
    for (index_t j : {5, 6, 9, 14})
        for (index_t h = 0; h < 2; ++h)
            for (index_t d = 0; d < 8; ++d) x.k(0, h, j, d) = d == 0 ? -1e6 : 0;
    for (index_t h = 0; h < 2; ++h)
        for (index_t i = 0; i < N; ++i) x.q(0, h, i, 0) = 1 + std::abs(x.q(0, h, i, 0));
    const defined full(x.q, x.k, x.v);
    const auto m = x.importance(full);
    EXPECT_EQ(m[5] + m[6] + m[9] + m[14], 0);
    const auto stay = keep_visual(m, x.visual, visual_tokens - 4);
    EXPECT_EQ(std::count_if(stay.begin(), stay.end(), [](index_t j) { return j == 5 || j == 6 || j == 9 || j == 14; }),
              0);
    const defined rest(rows_at(x.q, stay), rows_at(x.k, stay), rows_at(x.v, stay));
    EXPECT_LT(distance(rows_at(full.o, stay), rest.o), 1e-14);
}

/// Layers x <- x + attention(x) over denoising steps; tokens once pruned are skipped for the rest of the step.
struct denoised {
    tensor<double> x;
    double pairs = 0;  // what attention costs

    template <class Schedule>
    explicit denoised(const Schedule& rate) : x(sequence().q) {
        const sequence s;
        for (index_t step = 0; step < 8; ++step) {
            kept stay(N);
            std::iota(stay.begin(), stay.end(), index_t(0));
            for (index_t layer = 0; layer < 3; ++layer) {
                const auto here = rows_at(x, stay);
                const defined run(here, here, here);
                pairs += static_cast<double>(stay.size() * stay.size());
                for (std::size_t n = 0; n < stay.size(); ++n)
                    for (index_t h = 0; h < 2; ++h)
                        for (index_t d = 0; d < 8; ++d)
                            x(0, h, stay[n], d) =
                                0.9 * x(0, h, stay[n], d) + 0.1 * run.o(0, h, static_cast<index_t>(n), d);
                std::vector<double> m(stay.size());
                std::array<bool, N> visual{};
                for (std::size_t n = 0; n < stay.size(); ++n) {
                    visual[n] = s.visual[static_cast<std::size_t>(stay[n])];
                    for (index_t h = 0; h < 2; ++h)
                        for (index_t i = 1; i <= answer; ++i)
                            m[n] += run.p(0, h, static_cast<index_t>(stay.size()) - i, static_cast<index_t>(n));
                }
                keep_entries(stay, keep_visual(m, std::span(visual).first(stay.size()),
                                               visual_budget(visual_tokens, rate(layer, step))));
            }
        }
    }
};

TEST(schedules, error_against_work) {
    const denoised dense(one_shot{0, 0});
    const double rising[] = {0.2, 0.5, 0.8};
    EXPECT_EQ(distance(denoised(late_step{8, 0.8}).x, dense.x), 0);
    EXPECT_EQ(distance(denoised(one_shot{3, 0.8}).x, dense.x), 0);
    double before = dense.pairs;
    for (double rho : {0.1, 0.3, 0.5, 0.7, 1.0}) {  // work falls as rho grows
        const double now = denoised(one_shot{0, rho}).pairs;
        EXPECT_LT(now, before);
        before = now;
    }
    const denoised at_once(one_shot{0, 0.8}), gradual(progressive{rising}), late(late_step{4, 0.8});
    for (const denoised* run : {&at_once, &gradual, &late}) {
        EXPECT_LT(run->pairs, dense.pairs);
        EXPECT_GT(distance(run->x, dense.x), 0);
        EXPECT_LT(distance(run->x, dense.x),
                  distance(dense.x, tensor<double>(dense.x.shape()).fill([](index_t) { return 0.0; })));
    }
    EXPECT_LT(at_once.pairs, late.pairs);  // the earlier, the cheaper,
    EXPECT_LT(at_once.pairs, gradual.pairs);
    EXPECT_LT(distance(late.x, dense.x), distance(at_once.x, dense.x));  // and the further off
}

TEST(schedules, rates) {
    const double rates[] = {0, 0.25, 0.25, 0.5};
    const progressive p{rates};
    EXPECT_EQ(p(0, 3), 0);
    EXPECT_EQ(p(3, 0), 0.5);
    EXPECT_EQ(p(9, 0), 0.5);
    EXPECT_EQ(progressive{{}}(2, 0), 0);
    const double falling[] = {0.5, 0.25};
    EXPECT_THROW(progressive{falling}, argument_error);
    EXPECT_EQ((one_shot{2, 0.5}(1, 7)), 0);
    EXPECT_EQ((one_shot{2, 0.5}(2, 0)), 0.5);
    EXPECT_EQ((late_step{2, 0.5}(9, 1)), 0);
    EXPECT_EQ((late_step{2, 0.5}(0, 2)), 0.5);
}

}  // namespace
