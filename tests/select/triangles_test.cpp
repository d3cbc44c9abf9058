// heed_test: LABELS sanitize
// Triangles of a causal map by running sums, the greatest that do not overlap, and the spans they make.
#include <heed/ref/retrieval.hpp>
#include <heed/select/triangles.hpp>

#include <random>

#include "random.hpp"
#include "refuses.hpp"

namespace {

using namespace heed;
using test::refuses;

template <class T>
view<const T, 2> square(const std::vector<T>& a, index_t n) {
    return dense(a.data(), {n, n});
}

/// A causal map whose rows sum to 1; NaN above the diagonal, which must not be read.
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

/// weight(block, row in it, column in it) inside blocks between these edges, 0 elsewhere.
template <class F>
std::vector<double> block_diagonal(const std::vector<index_t>& edges, const F& weight) {
    const index_t n = edges.back();
    std::vector<double> a(static_cast<std::size_t>(n * n));
    for (std::size_t s = 1; s < edges.size(); ++s)
        for (index_t i = edges[s - 1]; i < edges[s]; ++i)
            for (index_t j = edges[s - 1]; j <= i; ++j)
                a[static_cast<std::size_t>(i * n + j)] =
                    weight(static_cast<index_t>(s - 1), i - edges[s - 1], j - edges[s - 1]);
    return a;
}

std::vector<range> ranges_of(const std::vector<token_span>& spans) {
    std::vector<range> all;
    for (const auto& span : spans) all.push_back(span.tokens);
    return all;
}
std::vector<range> between(const std::vector<index_t>& edges) {
    std::vector<range> all;
    for (std::size_t s = 1; s < edges.size(); ++s) all.push_back({edges[s - 1], edges[s]});
    return all;
}

TEST(triangles, by_running_sums_are_those_of_two_loops) {
    for (index_t n : {0, 1, 2, 13, 41})
        for (double c : {0.0, 0.05, 3.0, -1.0}) {
            const auto a = random_map(n, 1);
            const triangle_sums sums(square(a, n), c);
            for (index_t first = 0; first < n; ++first)
                for (index_t last = first; last <= n; ++last)
                    EXPECT_NEAR(sums({first, last}), ref::triangle(square(a, n), {first, last}, c),
                                1e-12 * (1 + n * n));
        }
}

TEST(triangles, what_is_not_a_number_is_in_the_spans_that_hold_it) {
    auto a = random_map(9, 3);
    a[5 * 9 + 2] = std::nan("");
    const triangle_sums sums(square(a, 9), 0.1);
    for (index_t first = 0; first < 9; ++first)
        for (index_t last = first + 1; last <= 9; ++last)
            EXPECT_EQ(std::isnan(sums({first, last})), first <= 2 && last > 5);
    EXPECT_EQ(find_spans(sums, {0.1, 9, 9}).back().tokens.last, 9);
}

TEST(triangles, spans_are_those_of_the_definition) {
    for (std::uint64_t seed = 0; seed < 4; ++seed)
        for (index_t n : {0, 1, 2, 7, 17})
            for (const span_rule& rule : {span_rule(0.08, 5, 100), span_rule(0.19, n + 1, 2), span_rule(n)}) {
                const auto a = random_map(n, seed);
                std::vector<range> kept;
                for (const auto& span : find_spans(triangle_sums(square(a, n), rule.threshold), rule))
                    if (span.score > 0) kept.push_back(span.tokens);
                EXPECT_EQ(kept, ref::triangle_spans(square(a, n), rule.threshold, rule.longest, rule.most)) << n;
            }
}

TEST(triangles, those_kept_do_not_overlap_and_do_not_depend_on_order) {
    const index_t n = 40;
    const auto a = random_map(n, 7);
    const triangle_sums sums(square(a, n), 0.06);
    std::vector<token_span> all;
    for (index_t first = 0; first < n; ++first)
        for (index_t last = first + 1; last <= n; ++last) all.push_back({{first, last}, sums({first, last})});
    const auto kept = greatest_apart(all, n, n);
    for (std::size_t s = 0; s < kept.size(); ++s)
        for (std::size_t r = 0; r < s; ++r) {
            EXPECT_TRUE((kept[s].tokens & kept[r].tokens).empty());
            EXPECT_GE(kept[r].score, kept[s].score);
        }
    std::mt19937 random(1);
    for (int round = 0; round < 5; ++round) {
        std::shuffle(all.begin(), all.end(), random);
        EXPECT_EQ(ranges_of(greatest_apart(all, n, n)), ranges_of(kept));
        EXPECT_EQ(greatest_apart(all, 3, n).size(), 3u);
    }
    // Equal scores: the earlier, then the shorter.
    const std::vector<token_span> ties{{{2, 4}, 1}, {{1, 3}, 1}, {{1, 2}, 1}, {{3, 4}, 1}};
    EXPECT_EQ(ranges_of(greatest_apart(ties, 9, 4)), (std::vector<range>{{1, 2}, {2, 4}}));
}

// Blocks of any lengths, each of an even weight in (c, 2 c): no union gains what the pairs between its parts cost.
TEST(triangles, even_blocks_are_recovered) {
    const counter_random random(4);
    for (std::uint64_t trial = 0; trial < 20; ++trial) {
        std::vector<index_t> edges{0};
        while (edges.back() < 50)
            edges.push_back(edges.back() + 1 + static_cast<index_t>(17 * random.uniform(100 * trial + edges.size())));
        const auto a = block_diagonal(edges, [&](index_t s, index_t, index_t) {
            return 0.1 * (1.01 + 0.98 * random.uniform(7777 + 100 * trial + test::number(s)));
        });
        const index_t n = edges.back();
        EXPECT_EQ(ranges_of(find_spans(triangle_sums(square(a, n), 0.1), {0.1, n, n})), between(edges)) << trial;
    }
}

// Blocks of equal length whose rows sum to 1, as those of softmax: the token that would join a block of n costs c (n +
// 1), and its last one c n. The usual rule is made for quarters of the map.
TEST(triangles, blocks_of_weights_are_recovered) {
    for (index_t length : {1, 2, 3, 8, 31}) {
        const std::vector<index_t> edges{0, length, 2 * length, 3 * length, 4 * length};
        const auto even =
            block_diagonal(edges, [](index_t, index_t i, index_t) { return 1 / static_cast<double>(i + 1); });
        const auto leaning = block_diagonal(edges, [](index_t, index_t i, index_t j) {
            return static_cast<double>(2 * (i + 1 - j)) / static_cast<double>((i + 1) * (i + 2));
        });
        for (const auto& a : {even, leaning}) {
            const index_t n = edges.back();
            const span_rule usual(n);
            EXPECT_LT(usual.threshold * static_cast<double>(length), 1);
            EXPECT_GT(usual.threshold * static_cast<double>(length + 1), 1);
            for (const span_rule& rule : {usual, span_rule(usual.threshold, n, n)})
                EXPECT_EQ(ranges_of(find_spans(triangle_sums(square(a, n), rule.threshold), rule)), between(edges))
                    << n;
        }
    }
}

// With a threshold too low blocks join: what the trap in the header says.
TEST(triangles, a_threshold_says_how_long_spans_of_weights_grow) {
    const auto a = block_diagonal({0, 5, 6, 15, 23, 40},
                                  [](index_t, index_t i, index_t) { return 1 / static_cast<double>(i + 1); });
    const auto spans = find_spans(triangle_sums(square(a, 40), 0.01), {0.01, 40, 40});
    EXPECT_EQ(ranges_of(spans), (std::vector<range>{{0, 40}}));
}

TEST(triangles, spans_cover_the_tokens_in_order) {
    for (index_t n : {0, 1, 7, 50})
        for (const span_rule& rule :
             {span_rule(0.1, 6, 3), span_rule(0, 4, 0), span_rule(2, 50, 9), span_rule(-1, 8, 9), span_rule(n)}) {
            const auto a = random_map(n, 9);
            index_t next = 0, found = 0;
            for (const auto& span : find_spans(triangle_sums(square(a, n), rule.threshold), rule)) {
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
    refuses<argument_error>([&] { find_spans(sums, {std::nan(""), 1, 1}); }, "find_spans: the threshold is nan");
    refuses<argument_error>(
        [&] {
            find_spans(sums, {0, 0, 1});
        },
        "find_spans: spans are 0 tokens long, the least is 1");
    refuses<argument_error>([&] { find_spans(sums, {0, 1, -1}); }, "find_spans: -1 spans are found, the least is 0");
}

}  // namespace
