// heed_test: O1 LABELS sanitize
// Triangles of a causal map by prefix sums, the greatest that do not overlap, and the spans they make.
#include <heed/ref/retrieval.hpp>
#include <heed/select/triangles.hpp>

#include "random.hpp"
#include "refuses.hpp"

namespace {

using namespace heed;
using test::refuses;

/// A causal map whose rows sum to 1: uniform, then normalised; NaN above the diagonal, which must not be read.
std::vector<double> random_map(index_t n, std::uint64_t seed) {
    const counter_random random(seed);
    std::vector<double> a(static_cast<std::size_t>(n * n), std::nan(""));
    for (index_t i = 0; i < n; ++i) {
        double sum = 0;
        for (index_t j = 0; j <= i; ++j)
            sum += a[static_cast<std::size_t>(i * n + j)] = std::exp(2 * random.normal(test::number(i * n + j)));
        for (index_t j = 0; j <= i; ++j) a[static_cast<std::size_t>(i * n + j)] /= sum;
    }
    return a;
}

TEST(triangles, by_prefix_sums_are_those_of_two_loops) {
    for (index_t n : {0, 1, 2, 13, 40})
        for (double c : {0.0, 0.05}) {
            const auto a = random_map(n, 1);
            const auto map = dense(a.data(), {n, n});
            const triangle_sums sums(map, c);
            for (index_t first = 0; first <= n; ++first)
                for (index_t last = first; last <= n; ++last)
                    EXPECT_NEAR(sums({first, last}), ref::triangle(map, {first, last}, c), 1e-12);
        }
}

TEST(triangles, the_greatest_do_not_overlap_and_no_greater_one_was_left) {
    for (std::uint64_t seed = 0; seed < 6; ++seed) {
        const index_t n = 30;
        const auto a = random_map(n, seed);
        const auto map = dense(a.data(), {n, n});
        const span_rule rule(0.08, 100, 12);
        const auto kept = greatest_triangles(triangle_sums(map, rule.threshold), rule);
        std::vector<double> owner(static_cast<std::size_t>(n), -1);  // score of the span that holds a token
        for (std::size_t s = 0; s < kept.size(); ++s) {
            EXPECT_GT(kept[s].score, 0);
            EXPECT_LE(kept[s].tokens.size(), 12);
            EXPECT_TRUE(s == 0 || kept[s - 1].score >= kept[s].score);
            for (index_t j = kept[s].tokens.first; j < kept[s].tokens.last; ++j) {
                EXPECT_EQ(owner[static_cast<std::size_t>(j)], -1);
                owner[static_cast<std::size_t>(j)] = kept[s].score;
            }
        }
        // Every span of the rule with T > 0 is kept or overlaps one that is no smaller.
        for (index_t b = 0; b < n; ++b)
            for (index_t e = b + 1; e <= std::min(n, b + 12); ++e) {
                const double score = ref::triangle(map, {b, e}, rule.threshold);
                if (score <= 1e-12) continue;
                const double most = *std::max_element(owner.begin() + b, owner.begin() + e);
                EXPECT_GE(most, score - 1e-12) << b << " to " << e;
            }
    }
}

TEST(triangles, known_blocks_are_recovered) {
    const index_t edges[] = {0, 5, 6, 15, 23, 40};
    const index_t n = 40;
    std::vector<float> a(n * n);
    for (std::size_t s = 1; s < std::size(edges); ++s)
        for (index_t i = edges[s - 1]; i < edges[s]; ++i)
            for (index_t j = edges[s - 1]; j <= i; ++j) a[static_cast<std::size_t>(i * n + j)] = 1 / float(i + 1 - edges[s - 1]);
    const auto spans = find_spans(triangle_sums(dense(a.data(), {n, n}), 0.01), {0.01, 100, n});
    ASSERT_EQ(spans.size(), std::size(edges) - 1);
    for (std::size_t s = 0; s < spans.size(); ++s) EXPECT_EQ(spans[s].tokens, (range{edges[s], edges[s + 1]}));
}

TEST(triangles, spans_cover_the_tokens_in_order) {
    for (index_t n : {0, 1, 7, 50})
        for (const span_rule& rule : {span_rule(0.1, 3, 6), span_rule(0, 0, 4), span_rule(2, 9, 50), span_rule(-1, 9, 8)}) {
            const auto a = random_map(n, 9);
            index_t next = 0, found = 0;
            for (const auto& span : find_spans(triangle_sums(dense(a.data(), {n, n}), rule.threshold), rule)) {
                EXPECT_EQ(span.tokens.first, next);
                EXPECT_TRUE(0 < span.tokens.size() && span.tokens.size() <= rule.longest);
                next = span.tokens.last;
                found += span.score > 0;
            }
            EXPECT_EQ(next, n);
            EXPECT_LE(found, rule.most);
        }
}

TEST(triangles, bad_arguments_are_named) {
    const std::vector<double> a(6);
    refuses<shape_error>([&] { triangle_sums(dense(a.data(), {2, 3}), 0); }, "triangle_sums: the map is (2, 3)");
    const triangle_sums sums(dense(a.data(), {2, 2}), 0);
    refuses<argument_error>([&] { find_spans(sums, {std::nan(""), 1, 1}); }, "find_spans: the threshold is");
    refuses<argument_error>([&] { find_spans(sums, {0, -1, 1}); }, "find_spans: -1 spans are found");
    refuses<argument_error>([&] { find_spans(sums, {0, 1, 0}); }, "find_spans: spans are 0 tokens long");
}

}  // namespace
