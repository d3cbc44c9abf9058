// heed_test: LABELS sanitize
// Quest: bounds hold, choices and outputs are those of the definition, and an index follows its cache.
#include <heed/cache/contiguous.hpp>
#include <heed/cache/mapped.hpp>
#include <heed/cache/paged.hpp>
#include <heed/cache/quantised.hpp>
#include <heed/cache/stream.hpp>
#include <heed/core/threads.hpp>
#include <heed/ops/quest.hpp>
#include <heed/policy/scores.hpp>
#include <heed/ref/retrieval.hpp>

#include "compare.hpp"
#include "operands.hpp"
#include "refuses.hpp"
#include "scratch_folder.hpp"
#include "source_tokens.hpp"

namespace {

using namespace heed;
using test::refuses;
using test::tensor;

constexpr index_t B = 2, H = 4, G = 2, D = 19, E = 7;

template <class S>
struct step {
    tensor<S> q, k, v;
    contiguous_cache<S> cache{{B, G, D, E}};
    step(index_t N, index_t M)
        : q(test::normal<S>({B, H, N, D}, 1)), k(test::normal<S>({B, G, M, D}, 2)), v(test::normal<S>({B, G, M, E}, 3)) {
        cache.append(k, v);
    }
    extents<4> rows() const { return {B, H, q.shape()[2], E}; }
    view<const S, 1> query(index_t b, index_t h, index_t n) const { return {&q(b, h, n, 0), {D}, {1}}; }
    view<const S, 2> keys(index_t b, index_t g) const { return {&k(b, g, 0, 0), {k.shape()[2], D}, {D, 1}}; }
};

/// The definition's choice for one head: the pages of the greatest bound over the rows of its group.
template <class S>
std::vector<index_t> chosen_by_definition(const step<S>& x, index_t b, index_t g, index_t page, const quest& rule) {
    const index_t M = x.k.shape()[2], pages = ceil_div(M, page);
    std::vector<double> bounds;
    for (index_t p = 0; p < pages; ++p) {
        double most = -std::numeric_limits<double>::infinity();
        for (index_t h = g * (H / G); h < (g + 1) * (H / G); ++h)
            for (index_t n = 0; n < x.q.shape()[2]; ++n)
                most = std::max(most, ref::page_bound(x.query(b, h, n), x.keys(b, g), {p * page, std::min(M, (p + 1) * page)}));
        const index_t recent = std::min(rule.recent, rule.pages), first = std::min(rule.first, rule.pages - recent);
        bounds.push_back(p < first || p >= pages - recent ? std::numeric_limits<double>::infinity() : most);
    }
    std::vector<index_t> keys;
    for (index_t p : ref::greatest(bounds, rule.pages))
        for (index_t j = p * page; j < std::min(M, (p + 1) * page); ++j) keys.push_back(j);
    return keys;
}

TEST(quest, chooses_the_pages_of_the_greatest_bounds) {
    for (index_t M : {1, 16, 17, 160, 1100})
        for (index_t page : {1, 3, 16})
            for (const quest& rule : {quest(0), quest(1), quest(4), quest(9, 2, 3), quest(2, 5, 5), quest(2, 5, 1)}) {
                const step<double> x(2, M);
                page_bounds<double> index(page);
                const auto choice = index.choose(x.q.v(), x.cache, rule, 0.2);
                for (index_t b = 0; b < B; ++b)
                    for (index_t g = 0; g < G; ++g)
                        ASSERT_EQ(choice.keys(b, g), chosen_by_definition(x, b, g, page, rule))
                            << M << " keys, pages of " << page << ", " << rule.pages;
            }
}

/// From 1 to the next number.
template <class S>
constexpr double spacing = std::is_same_v<S, bf16> ? 0x1p-7 : 0x1p-10;

/// Whether y is the least number of S that is not below x.
template <class S>
void expect_rounded_up(double y, double x) {
    if constexpr (std::is_same_v<S, float>) {
        ASSERT_EQ(y, x);  // numbers of float, all of them
    } else {
        ASSERT_GE(y, x);
        const double ulp = std::ldexp(spacing<S>, std::max(std::ilogb(y), std::is_same_v<S, f16> ? -14 : -126));
        ASSERT_LT(y - ulp, x);
    }
}

// The bound of every page, from what the index keeps, is no less than the score of any of its keys; and no number of it is
// larger than need be.
template <class S, class R>
void expect_bounds(const step<S>& x, const page_bounds<R>& index, index_t page) {
    for (index_t b = 0; b < B; ++b)
        for (index_t g = 0; g < G; ++g) {
            const auto rows = index.of(b, g).rows();
            ASSERT_EQ(rows.keys, x.cache.keys(b, g));
            for (index_t p = 0; p < rows.pages(); ++p) {
                const range keys = rows.keys_of(p);
                ASSERT_EQ(keys.first, p * page);
                for (index_t d = 0; d < D; ++d) {
                    double low = 1e9, high = -1e9;
                    for (index_t j = keys.first; j < keys.last; ++j) {
                        const double y = x.cache.run(b, g, j).k.number(0, d);
                        low = std::min(low, y), high = std::max(high, y);
                    }
                    if constexpr (std::is_same_v<S, R>) {
                        ASSERT_EQ(rows.of(p).number(0, d), high);
                        ASSERT_EQ(rows.of(p).number(0, D + d), low);
                    } else {
                        expect_rounded_up<R>(rows.of(p).number(0, d), high);
                        expect_rounded_up<R>(-rows.of(p).number(0, D + d), -low);
                    }
                }
                for (index_t h = 2 * g; h < 2 * g + 2; ++h) {
                    double bound = 0, most = -1e9;
                    for (index_t d = 0; d < D; ++d)
                        bound += std::max(double(x.q(b, h, 0, d)) * rows.of(p).number(0, d),
                                          double(x.q(b, h, 0, d)) * rows.of(p).number(0, D + d));
                    for (index_t j = keys.first; j < keys.last; ++j) {
                        double score = 0;
                        for (index_t d = 0; d < D; ++d)
                            score += double(x.q(b, h, 0, d)) * x.cache.run(b, g, j).k.number(0, d);
                        most = std::max(most, score);
                    }
                    ASSERT_GE(bound, most);
                }
            }
        }
}

template <class S, class R = S>
void bounds_hold_while_the_cache_grows_and_shrinks() {
    step<S> x(1, 0);
    page_bounds<R> index(5);
    test::dice d(5);
    for (int round = 0; round < 40; ++round) {
        const index_t n = d.below(20), b = d.below(B);
        if (d.below(3) == 0 && index.batch() > 0) {
            index.follow(x.cache);
            const index_t drop = std::min({n, x.cache.size(b)});
            x.cache.truncate(b, drop), index.truncate(b, drop);
        } else {
            x.cache.append(b, test::normal<float>({1, G, n, D}, d.seed(), 3), test::normal<float>({1, G, n, E}, d.seed()));
        }
        if (d.below(2)) continue;
        index.follow(x.cache);
        expect_bounds(x, index, 5);
    }
}
TEST(quest, bounds_hold_while_the_cache_grows_and_shrinks) {
    bounds_hold_while_the_cache_grows_and_shrinks<float>();
    bounds_hold_while_the_cache_grows_and_shrinks<bf16>();
    bounds_hold_while_the_cache_grows_and_shrinks<float, bf16>();
    bounds_hold_while_the_cache_grows_and_shrinks<float, f16>();
    bounds_hold_while_the_cache_grows_and_shrinks<f16, float>();
}

template <class S>
void rounds_outward() {
    const auto up = [](float x) { return static_cast<float>(detail::rounded_up<S>(x)); };
    const auto down = [](float x) { return static_cast<float>(detail::rounded_down<S>(x)); };
    const float tiny = 1e-40f, inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    const auto least = static_cast<float>(std::bit_cast<S>(std::uint16_t(1)));  // denormal
    const auto most = static_cast<float>(std::numeric_limits<S>::max());
    for (float x : {0.f, -0.f, 1.f, -1.f, 0.5f, most, -most, inf, -inf}) {
        EXPECT_EQ(up(x), x);
        EXPECT_EQ(down(x), x);
    }
    EXPECT_TRUE(std::isnan(up(nan)) && std::isnan(down(nan)));
    if (least > tiny) {
        EXPECT_EQ(up(tiny), least);
        EXPECT_EQ(down(-tiny), -least);
        EXPECT_EQ(up(-tiny), 0);
        EXPECT_EQ(down(tiny), 0);
    }
    const float above = std::nextafter(most, inf);
    EXPECT_EQ(up(above), inf);
    EXPECT_EQ(down(-above), -inf);
    const float step = static_cast<float>(spacing<S>), one = std::nextafter(1.f, 2.f);
    EXPECT_EQ(up(one), 1 + step);
    EXPECT_EQ(down(-one), -1 - step);
    EXPECT_EQ(down(one), 1);
    EXPECT_EQ(up(-one), -1);
    for (int e = -20; e < 15; ++e)
        for (float x : {1.2345f, -1.777f, 1.9999f, -1.00001f}) {
            const float y = std::ldexp(x, e);
            EXPECT_GE(up(y), y);
            EXPECT_LE(down(y), y);
            EXPECT_LE(up(y) - down(y), std::ldexp(step, std::max(e, std::is_same_v<S, f16> ? -14 : e)));
        }
}
TEST(quest, narrower_bounds_are_rounded_outward) {
    rounds_outward<bf16>();
    rounds_outward<f16>();
    EXPECT_EQ(detail::rounded_up<float>(1.0 + 1e-12), std::nextafter(1.f, 2.f));
    EXPECT_EQ(detail::rounded_down<float>(1.0 + 1e-12), 1.f);
}

TEST(quest, pages_of_a_quantised_cache_are_bounded) {
    const step<float> x(1, 300);
    quantised_cache<int8_per_token, int8_per_token> cache({B, G, D, E});
    cache.append(x.k, x.v);
    page_bounds<bf16> index(8);
    const auto choice = index.choose(x.q.v(), cache, quest(10), 0.3);
    tensor<float> o(x.rows()), all(x.rows());
    quest_attention(x.q, cache, index, o, quest(10), scale{0.3});
    attention(x.q, gathered(cache, choice.keys), all, scale{0.3});
    EXPECT_TRUE(test::same_values(o, all));
    for (index_t p = 0; p < 38; ++p)
        for (index_t j = p * 8; j < std::min<index_t>(300, p * 8 + 8); ++j)
            for (index_t d = 0; d < D; ++d) {
                const auto rows = index.of(1, 1).rows();
                const double y = cache.run(1, 1, j).k.number(j - cache.run(1, 1, j).keys.first, d);
                ASSERT_GE(rows.of(p).number(0, d), y);
                ASSERT_LE(rows.of(p).number(0, D + d), y);
            }
}

TEST(quest, attends_to_the_chosen_and_says_what_it_missed) {
    for (index_t N : {1, 3}) {
        const step<float> x(N, 500);
        page_bounds<float> index(8);
        const quest rule(12, 1, 2);
        const double scale = 0.3;
        const auto keys = index.choose(x.q.v(), x.cache, rule, scale).keys;
        tensor<float> o(x.rows());
        std::vector<double> logs(static_cast<std::size_t>(B * H * N));
        const auto out = quest_attention(x.q, x.cache, index, o, rule, causal{}, heed::scale{scale},
                                         lse{dense(logs.data(), {B, H, N})});
        EXPECT_TRUE(test::attends(o, x.q, x.k, x.v, [&](auto real) {
            ref::options<decltype(real)> with;
            with.scale = decltype(real)(scale);
            with.visible = [&](index_t b, index_t h, index_t, index_t i, index_t j) {
                return j <= i && std::binary_search(keys(b, h / 2).begin(), keys(b, h / 2).end(), j);
            };
            return with;
        }));
        EXPECT_EQ(out.bytes, B * G * 4 * (63 * 2 * D) + keys.size() * 4 * (D + E));
        for (double m : out.missed) EXPECT_TRUE(0 < m && m < 1);
        for (double log : logs) EXPECT_TRUE(std::isfinite(log));
    }
}

// Mask, score and sink are those of the attention over what is chosen; the choice is that of plain logits.
TEST(quest, scores_and_sinks_are_those_of_attention_over_the_chosen) {
    const std::vector<float> slopes = alibi_slopes(H), logits{3, -1, 0, 2};
    for (index_t N : {1, 12}) {
        const step<float> x(N, 300);
        page_bounds<float> index(8);
        const quest rule(10, 1, 2);
        tensor<float> o(x.rows());
        std::vector<double> logs(static_cast<std::size_t>(B * H * N));
        const auto out = quest_attention(x.q, x.cache, index, o, rule, causal{} & window{250}, softcap{2} >> alibi{slopes},
                                         sink{logits}, lse{dense(logs.data(), {B, H, N})});
        const auto keys = index.choose(x.q.v(), x.cache, rule, 1 / std::sqrt(double(D))).keys;
        tensor<double> exact(x.rows());
        std::vector<double> exact_logs(logs.size());
        EXPECT_TRUE(test::attends(o, x.q, x.k, x.v, [&](auto real) {
            using Real = decltype(real);
            ref::options<Real> with;
            with.sink.assign(logits.begin(), logits.end());
            with.score = [&](Real y, index_t, index_t h, index_t, index_t i, index_t j) {
                return 2 * std::tanh(y / 2) - static_cast<Real>(slopes[static_cast<std::size_t>(h)]) * static_cast<Real>(i - j);
            };
            with.visible = [&](index_t b, index_t h, index_t, index_t i, index_t j) {
                return j <= i && i - 250 <= j && std::binary_search(keys(b, h / 2).begin(), keys(b, h / 2).end(), j);
            };
            if constexpr (std::is_same_v<Real, double>)
                ref::attention(x.q.v(), x.k.v(), x.v.v(), exact.v(), with, {.lse = dense(exact_logs.data(), {B, H, N})});
            return with;
        }));
        for (std::size_t r = 0; r < logs.size(); ++r) EXPECT_NEAR(logs[r], exact_logs[r], 1e-5);
        for (double m : out.missed) EXPECT_TRUE(0 < m && m < 1);
    }
}

// Where the keys of a page are equal, its centre is each of them.
TEST(quest, missed_is_the_weight_missed_where_pages_are_of_equal_keys) {
    step<double> x(1, 96);
    x.k.each([&](index_t b, index_t g, index_t j, index_t d) { x.k(b, g, j, d) = x.k(b, g, j / 8 * 8, d); });
    contiguous_cache<double> cache({B, G, D, E});
    const range most{0, 93};  // the last page is short
    cache.append(slice(x.k.v(), 2, most), slice(x.v.v(), 2, most));
    page_bounds<double> index(8);
    tensor<double> o(x.rows());
    std::vector<double> some(B * H), all(B * H);
    for (const quest& rule : {quest(3), quest(3, 0, 0)}) {
        const auto out = quest_attention(x.q, cache, index, o, rule, lse{dense(some.data(), {B, H, 1})});
        attention(x.q, cache, o, lse{dense(all.data(), {B, H, 1})});
        for (std::size_t r = 0; r < all.size(); ++r)
            EXPECT_NEAR(out.missed[r], 1 - std::exp(some[r] - all[r]), 1e-12);
        // Of a sink, too, the weight is not missed.
        const std::vector<float> logits{3, -1, 0, 5};
        const auto less = quest_attention(x.q, cache, index, o, rule, sink{logits}, lse{dense(some.data(), {B, H, 1})});
        attention(x.q, cache, o, sink{logits}, lse{dense(all.data(), {B, H, 1})});
        for (std::size_t r = 0; r < all.size(); ++r) {
            EXPECT_NEAR(less.missed[r], 1 - std::exp(some[r] - all[r]), 1e-12);
            EXPECT_LT(less.missed[r], out.missed[r]);
        }
    }
}

TEST(quest, all_pages_are_dense_attention_and_none_is_nothing) {
    const step<float> x(1, 700);
    page_bounds<float> index;
    tensor<float> o(x.rows()), want(x.rows());
    attention(x.q, x.cache, want);
    for (index_t pages : {44, 1000}) {
        const auto out = quest_attention(x.q, x.cache, index, o, quest(pages));
        EXPECT_TRUE(test::same_values(o, want));
        for (double m : out.missed) EXPECT_EQ(m, 0);
    }
    const auto out = quest_attention(x.q, x.cache, index, o, quest(0));
    EXPECT_TRUE(test::same_values(o, test::constant<float>(x.rows(), 0)));
    for (double m : out.missed) EXPECT_EQ(m, 1);
}

// The mass that is kept grows with the budget.
TEST(quest, more_pages_keep_more_mass_and_planted_keys_are_found) {
    step<float> x(1, 2000);
    for (index_t b = 0; b < B; ++b)
        for (index_t g = 0; g < G; ++g)
            for (index_t d = 0; d < D; ++d)
                x.k(b, g, 777, d) = 3 * (x.q(b, 2 * g, 0, d) + x.q(b, 2 * g + 1, 0, d));
    contiguous_cache<float> cache({B, G, D, E});
    cache.append(x.k, x.v);
    page_bounds<float> index;
    tensor<float> o(x.rows());
    std::vector<double> before(B * H, -1e9), now(B * H);
    for (index_t pages : {4, 10, 40, 100, 125}) {
        quest_attention(x.q, cache, index, o, quest(pages), lse{dense(now.data(), {B, H, 1})});
        const auto keys = index.choose(x.q.v(), cache, quest(pages), 1).keys;
        for (index_t t = 0; t < B * G; ++t)
            EXPECT_TRUE(std::binary_search(keys(t / G, t % G).begin(), keys(t / G, t % G).end(), 777)) << pages;
        for (std::size_t r = 0; r < now.size(); ++r) EXPECT_GE(now[r], before[r]);
        before = now;
    }
}

TEST(quest, where_rows_lie_and_who_runs_it_change_no_bit) {
    const step<float> x(1, 1500);
    const quest rule(20, 1, 2);
    tensor<float> want(x.rows()), o(x.rows());
    page_bounds<float> first;
    const auto told = quest_attention(x.q, x.cache, first, want, rule);
    paged_cache<float> pages({B, G, D, E}, 16, 200);
    pages.append(x.k, x.v);
    page_bounds<float> second, third, fourth;
    EXPECT_EQ(quest_attention(x.q, pages, second, o, rule).missed, told.missed);
    EXPECT_TRUE(test::same_values(o, want));
    const test::scratch_folder folder;
    auto file = mapped_cache<float>::create(folder / "cache", {B, G, D, E}, 100);
    file.append(x.k, x.v);
    EXPECT_EQ(quest_attention(x.q, file, fourth, o, rule).missed, told.missed);
    EXPECT_TRUE(test::same_values(o, want));
    threads pool(3);
    EXPECT_EQ(quest_attention(x.q, x.cache, third, o, rule, on{pool}).missed, told.missed);
    EXPECT_TRUE(test::same_values(o, want));
}

// Keys that have moved behind an index are keys it does not know.
/// Keys that go after a drop of others that had gone before are noticed all the same.
TEST(quest, an_index_counts_what_was_let_go_of_whatever_is_dropped) {
    step<float> x(1, 120);
    std::vector<index_t> kept;
    for (index_t j = 0; j < 120; ++j)
        if (j < 110 || j >= 115) kept.push_back(j);
    for (index_t t = 0; t < B * G; ++t) x.cache.keep(t / G, t % G, kept);
    page_bounds<float> index(8);
    index.follow(x.cache);
    x.cache.truncate(20), index.truncate(15);
    kept.resize(97);
    x.cache.keep(0, 1, kept);
    x.cache.append(x.k, x.v);
    refuses<argument_error>([&] { index.follow(x.cache); },
                            "index: head (0, 1) has let go of 8 keys, of 5 when the index read it");
}

TEST(quest, an_index_refuses_heads_that_have_let_go_of_keys) {
    step<float> x(1, 120);
    page_bounds<float> index(8);
    index.follow(x.cache);
    std::vector<index_t> kept;
    for (index_t j = 0; j < 120; j += 1 + j % 2) kept.push_back(j);
    x.cache.keep(1, 0, kept);
    x.cache.append(x.k, x.v);  // more than the index knows again
    refuses<argument_error>([&] { index.follow(x.cache); },
                            "index: head (1, 0) has let go of 59 keys, of 0 when the index read it: clear the index");
    index.clear();
    tensor<float> o(x.rows()), want(x.rows());
    attention(x.q, x.cache, want);
    for (int again = 0; again < 2; ++again) {
        quest_attention(x.q, x.cache, index, o, quest(30));
        EXPECT_TRUE(test::same_values(o, want));
    }
    x.cache.truncate(7), index.truncate(7);
    index.follow(x.cache);  // tokens that are dropped are not let go of
    const std::vector<index_t> parents{1, 0};
    x.cache.reorder(parents), index.reorder(parents);
    index.follow(x.cache);

    x.cache.skip(5);  // nor are positions that are left out
    index.follow(x.cache);
    x.cache.append(x.k, x.v);
    index.follow(x.cache);

    stream_cache<float> stream({B, G, D, E}, {4, 116});
    page_bounds<float> other(8);
    stream.append(slice(x.k.v(), 2, {0, 100}), slice(x.v.v(), 2, {0, 100}));
    other.follow(stream);
    stream.append(slice(x.k.v(), 2, {100, 120}), slice(x.v.v(), 2, {100, 120}));
    other.follow(stream);
    stream.append(slice(x.k.v(), 2, {0, 1}), slice(x.v.v(), 2, {0, 1}));
    refuses<argument_error>([&] { other.follow(stream); }, "index: head (0, 0) has let go of 1 keys, of 0");
}

TEST(quest, what_is_not_a_number_shows) {
    step<float> x(1, 200);
    x.k(1, 0, 100, 3) = std::numeric_limits<float>::quiet_NaN();
    contiguous_cache<float> cache({B, G, D, E});
    cache.append(x.k, x.v);
    page_bounds<float> index;
    tensor<float> o(x.rows());
    quest_attention(x.q, cache, index, o, quest(2));
    o.each([&](index_t b, index_t h, index_t n, index_t e) { EXPECT_EQ(std::isnan(o(b, h, n, e)), b == 1 && h < 2); });
}

TEST(quest, bad_arguments_are_named_before_anything_is_written) {
    const step<float> x(1, 30);
    page_bounds<float> index;
    auto o = test::constant<float>(x.rows(), 7);
    const auto with = [&](const quest& rule) { return [&, rule] { quest_attention(x.q, x.cache, index, o, rule); }; };
    refuses<argument_error>(with(quest(-1)), "quest_attention: -1 pages are chosen, the least is 0");
    refuses<argument_error>(with(quest(1, -1)), "quest_attention: -1 first pages are chosen");
    refuses<argument_error>(with(quest(1, 0, -1)), "quest_attention: -1 recent pages are chosen");
    refuses<argument_error>([] { page_bounds<float>(0); }, "page_bounds: page is 0, the least is 1");
    const std::vector<float> short_of_one(H - 1);
    refuses<shape_error>([&] { quest_attention(x.q, x.cache, index, o, quest(1), sink{short_of_one}); },
                         "quest_attention: sink holds 3 logits, q has 4 heads");
    const auto narrow = test::normal<float>({B, H, 1, D + 1}, 1);
    refuses<shape_error>([&] { quest_attention(narrow, x.cache, index, o, quest(1)); }, "the source has width 19, q has 20");
    for (float y : o.memory()) EXPECT_EQ(y, 7);
}

}  // namespace
