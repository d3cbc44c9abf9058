// heed_test: LABELS sanitize
// SparQ and SparF: choices and outputs by the definition, limits, and an index that follows its cache.
#include <heed/cache/contiguous.hpp>
#include <heed/cache/mapped.hpp>
#include <heed/cache/paged.hpp>
#include <heed/core/threads.hpp>
#include <heed/ops/sparq.hpp>
#include <heed/ref/retrieval.hpp>

#include "compare.hpp"
#include "operands.hpp"
#include "refuses.hpp"
#include "scattered.hpp"
#include "scratch_folder.hpp"
#include "source_tokens.hpp"

namespace {

using namespace heed;
using test::refuses;
using test::tensor;

constexpr index_t B = 2, H = 6, G = 2, D = 20, E = 13;

template <class S>
struct step {
    tensor<S> q, k, v;
    explicit step(index_t M)
        : q(test::normal<S>({B, H, 1, D}, 1, 2)), k(test::normal<S>({B, G, M, D}, 2)), v(test::normal<S>({B, G, M, E}, 3)) {}
    contiguous_cache<S> cache() const {
        contiguous_cache<S> held({B, G, D, E});
        held.append(k, v);
        return held;
    }
    extents<4> rows() const { return {B, H, 1, E}; }
    view<const S, 2> queries(index_t b, index_t g) const {
        return {&q(b, g * (H / G), 0, 0), {H / G, D}, {q.v().strides[1], 1}};
    }
    static view<const S, 2> of(const tensor<S>& x, index_t b, index_t g) {
        return {x.v().data + b * x.v().strides[0] + g * x.v().strides[1], {x.shape()[2], x.shape()[3]}, {x.shape()[3], 1}};
    }
};

/// o against the definition, for keys and shares that the definition, or the step itself, has chosen.
template <class S>
testing::AssertionResult mixes(const tensor<S>& o, const step<S>& x, const channel_choice& choice, double scale) {
    using T = accumulator<S>;
    tensor<double> exact(x.rows()), naive(x.rows());
    const auto fill = [&](auto real, auto& to) {
        to.each([&](index_t b, index_t h, index_t, index_t e) {
            if (e > 0) return;
            const auto row = ref::sparq_mix<decltype(real)>(
                view<const S, 1>{&x.q(b, h, 0, 0), {D}, {1}}, x.of(x.k, b, h / 3), x.of(x.v, b, h / 3),
                choice.keys(b, h / 3), choice.shares[static_cast<std::size_t>(b * H + h)], scale);
            for (index_t c = 0; c < E; ++c) to(b, h, 0, c) = static_cast<double>(row[static_cast<std::size_t>(c)]);
        });
    };
    fill(test::definition_of<T>{}, exact);
    fill(T{}, naive);
    return test::within_rule<T>(o, naive, exact);
}

TEST(sparq, chooses_and_mixes_by_the_definition) {
    for (index_t M : {1, 15, 16, 17, 700, 1024, 1500})
        for (const sparq& rule : {sparq(1, 3), sparq(5, M / 3, 2), sparq(7, M / 8 + 1, 4), sparq(D - 1, M - 1, 1)}) {
            const step<double> x(M);
            const auto cache = x.cache();
            channel_keys<double> index;
            const double scale = 0.3;
            const auto choice = index.choose(x.q.v(), cache, rule, scale);
            for (index_t b = 0; b < B; ++b)
                for (index_t g = 0; g < G; ++g) {
                    const auto want = ref::sparq_choose(x.queries(b, g), x.of(x.k, b, g), rule.channels, rule.keys,
                                                        rule.recent, scale);
                    ASSERT_EQ(choice.keys(b, g), want.keys) << M << " keys";
                    for (index_t r = 0; r < H / G; ++r)
                        EXPECT_NEAR(choice.shares[static_cast<std::size_t>((b * G + g) * (H / G) + r)],
                                    want.shares[static_cast<std::size_t>(r)], 1e-13);
                }
            tensor<double> o(x.rows());
            const auto out = sparq_attention(x.q, cache, index, o, rule, heed::scale{scale});
            EXPECT_TRUE(mixes(o, x, choice, scale)) << M << " keys";
            for (std::size_t r = 0; r < out.missed.size(); ++r) EXPECT_NEAR(out.missed[r], 1 - choice.shares[r], 1e-15);
        }
}

TEST(sparq, storage_types_mix_by_the_definition_and_nearly_choose_so) {
    const auto check = [](auto storage) {
        using S = decltype(storage);
        const step<S> x(1100);
        const auto cache = x.cache();
        channel_keys<S> index;
        const sparq rule(6, 100, 10);
        const double scale = 1 / std::sqrt(double(D));
        const auto choice = index.choose(x.q.v(), cache, rule, scale);
        for (index_t b = 0; b < B; ++b)
            for (index_t g = 0; g < G; ++g) {
                const auto want = ref::sparq_choose(x.queries(b, g), x.of(x.k, b, g), 6, 100, 10, scale);
                ASSERT_EQ(choice.keys(b, g).size(), 100u);
                double least = 1;  // of those the definition chooses by score
                for (std::size_t i = 0; i < 90; ++i)
                    least = std::min(least, want.scores[static_cast<std::size_t>(want.keys[i])]);
                for (index_t j : choice.keys(b, g))
                    EXPECT_TRUE(j >= 1090 || want.scores[static_cast<std::size_t>(j)] > least * (1 - 1e-5));
            }
        tensor<S> o(x.rows());
        sparq_attention(x.q, cache, index, o, rule);
        EXPECT_TRUE(mixes(o, x, choice, scale));
    };
    check(float{});
    check(bf16{});
}

TEST(sparq, all_channels_and_all_keys_are_exact_attention_and_no_keys_the_mean) {
    const step<float> x(600);
    const auto cache = x.cache();
    channel_keys<float> index;
    tensor<float> o(x.rows()), want(x.rows());
    attention(x.q, cache, want);
    for (index_t channels : {D, index_t(3), 10 * D}) {
        const auto out = sparq_attention(x.q, cache, index, o, sparq(channels, 600));
        EXPECT_TRUE(test::same_values(o, want)) << channels;
        for (double m : out.missed) EXPECT_EQ(m, 0);
    }
    const auto out = sparq_attention(x.q, cache, index, o, sparq(3, 0, 5));
    for (double m : out.missed) EXPECT_EQ(m, 1);
    o.each([&](index_t b, index_t h, index_t, index_t e) {
        double sum = 0;
        for (index_t j = 0; j < 600; ++j) sum += x.v(b, h / 3, j, e);
        EXPECT_NEAR(o(b, h, 0, e), sum / 600, 1e-7);
    });
}

// With all channels the shares are those of the weights themselves.
TEST(sparq, missed_is_the_weight_missed_where_all_channels_are_read) {
    const step<double> x(300);
    const auto cache = x.cache();
    channel_keys<double> index;
    tensor<double> o(x.rows()), all(x.rows());
    std::vector<double> some_log(B * H), all_log(B * H);
    const auto out = sparq_attention(x.q, cache, index, o, sparq(D, 40, 4), lse{dense(some_log.data(), {B, H, 1})});
    attention(x.q, cache, all, lse{dense(all_log.data(), {B, H, 1})});
    for (std::size_t r = 0; r < all_log.size(); ++r)
        EXPECT_NEAR(out.missed[r], 1 - std::exp(some_log[r] - all_log[r]), 1e-12);
}

TEST(sparq, queries_of_zeros_and_queries_that_the_channels_miss_score_all_keys_alike) {
    step<float> x(50);
    x.q.each([&](index_t b, index_t h, index_t n, index_t d) {
        // Head 0 is zero; head 1 looks at channel 7 alone, which its group, and so the choice, does not.
        if (h == 0) x.q(b, h, n, d) = 0;
        if (h == 1) x.q(b, h, n, d) = d == 7 ? 1e-3f : 0;
        if (h == 2) x.q(b, h, n, d) = d == 7 ? 0 : float(d % 3);
    });
    const auto cache = x.cache();
    channel_keys<float> index;
    tensor<float> o(x.rows());
    const auto out = sparq_attention(x.q, cache, index, o, sparq(4, 20, 2));
    for (index_t b = 0; b < B; ++b)
        for (index_t h : {0, 1}) EXPECT_NEAR(out.missed[static_cast<std::size_t>(b * H + h)], 0.6, 1e-6);
    o.each([&](index_t b, index_t h, index_t n, index_t e) { EXPECT_TRUE(std::isfinite(o(b, h, n, e))); });
}

TEST(sparq, finds_planted_keys) {
    step<float> x(4000);
    const index_t planted[] = {17, 1023, 1024, 3000};
    for (index_t b = 0; b < B; ++b)
        for (index_t g = 0; g < G; ++g)
            for (index_t j : planted)
                for (index_t d = 0; d < D; ++d) {
                    float sum = 0;
                    for (index_t h = 3 * g; h < 3 * g + 3; ++h) sum += x.q(b, h, 0, d);
                    x.k(b, g, j, d) = sum;
                }
    const auto cache = x.cache();
    channel_keys<float> index;
    const auto choice = index.choose(x.q.v(), cache, sparq(8, 60), 1 / std::sqrt(double(D)));
    for (index_t b = 0; b < B; ++b)
        for (index_t g = 0; g < G; ++g)
            for (index_t j : planted)
                EXPECT_TRUE(std::binary_search(choice.keys(b, g).begin(), choice.keys(b, g).end(), j)) << j;
}

TEST(sparq, where_rows_lie_and_who_runs_it_change_no_bit) {
    const step<float> x(2100);
    const sparq rule(5, 300, 7);
    tensor<float> want(x.rows());
    channel_keys<float> first;
    const auto told = sparq_attention(x.q, x.cache(), first, want, rule);
    const auto same = [&](const auto& source, const auto&... on) {
        channel_keys<float> index;
        tensor<float> o(x.rows());
        const auto out = sparq_attention(x.q, source, index, o, rule, on...);
        EXPECT_TRUE(test::same_values(o, want));
        EXPECT_EQ(out.missed, told.missed);
        EXPECT_EQ(out.bytes, told.bytes);
    };
    for (index_t page : {1, 16, 100}) {
        paged_cache<float> pages({B, G, D, E}, page, 2 * ceil_div(2100, page) + 2);
        for (index_t j = 0; j < 2100; j += 300)
            for (index_t b = 0; b < B; ++b) {
                const auto part = [&](const auto& y) { return slice(slice(y.v(), 0, {b, b + 1}), 2, {j, j + 300}); };
                pages.append(b, part(x.k), part(x.v));
            }
        same(pages);
    }
    const test::scratch_folder folder;
    for (index_t segment : {100, 4096}) {
        auto file = mapped_cache<float>::create(folder / std::to_string(segment), {B, G, D, E}, segment);
        file.append(x.k, x.v);
        same(file);
    }
    same(x.cache(), on{*std::make_unique<threads>(3)});
}

TEST(sparq, bytes_are_those_of_channels_chosen_rows_and_means) {
    const step<bf16> x(500);
    const auto cache = x.cache();
    channel_keys<float> index;
    tensor<float> o(x.rows());
    const auto out = sparq_attention(x.q, cache, index, o, sparq(6, 70, 3));
    EXPECT_EQ(out.bytes, B * G * (500 * 6 * 4 + 70 * (D + E) * 2 + E * 8));
    EXPECT_EQ(index.bytes(), B * G * (1024 * D * 4 + 2 * E * 8));
}

// Appends, truncates and copies at random: the index is that of the keys that are there.
TEST(sparq, an_index_follows_its_cache) {
    test::dice d(3);
    contiguous_cache<float> cache({B, G, D, E});
    channel_keys<float> index;
    index_t size[B] = {0, 0};
    const sparq rule(5, 40, 3);
    for (int round = 0; round < 60; ++round) {
        const index_t b = d.below(B), n = d.below(4) ? d.below(40) : d.below(900);
        switch (d.below(4)) {
            case 0: {
                const index_t drop = std::min(n, size[b]);
                if (index.batch() == 0) break;
                index.follow(cache);
                cache.truncate(b, drop), index.truncate(b, drop);
                size[b] -= drop;
                break;
            }
            case 1: {
                if (index.batch() == 0) break;
                index.follow(cache);
                const std::vector<index_t> parents{d.below(B), d.below(B)};
                cache.reorder(parents), index.reorder(parents);
                const index_t next[B] = {size[parents[0]], size[parents[1]]};
                size[0] = next[0], size[1] = next[1];
                break;
            }
            default:
                cache.append(b, test::normal<float>({1, G, n, D}, d.seed()), test::normal<float>({1, G, n, E}, d.seed()));
                size[b] += n;
        }
        if (d.below(3)) continue;
        const auto q = test::normal<float>({B, H, 1, D}, d.seed());
        tensor<float> o({B, H, 1, E}), want({B, H, 1, E});
        channel_keys<float> anew;
        const auto a = sparq_attention(q, cache, index, o, rule), w = sparq_attention(q, cache, anew, want, rule);
        ASSERT_TRUE(test::same_values(o, want)) << round;
        ASSERT_EQ(a.missed, w.missed) << round;
        for (index_t g = 0; g < G; ++g)
            for (index_t e = 0; e < E; ++e) ASSERT_EQ(index.of(b, g).mean(e), anew.of(b, g).mean(e));
    }
}

TEST(sparq, what_is_not_a_number_shows) {
    step<float> x(40);
    x.k(0, 1, 20, 3) = std::numeric_limits<float>::quiet_NaN();
    const auto cache = x.cache();
    channel_keys<float> index;
    tensor<float> o(x.rows());
    sparq_attention(x.q, cache, index, o, sparq(D, 10));
    o.each([&](index_t b, index_t h, index_t n, index_t e) {
        EXPECT_EQ(std::isnan(o(b, h, n, e)), b == 0 && h / 3 == 1) << b << " " << h;
    });
}

TEST(sparq, bad_arguments_are_named_before_anything_is_written) {
    const step<float> x(30);
    const auto cache = x.cache();
    channel_keys<float> index;
    auto o = test::constant<float>(x.rows(), 7);
    const auto with = [&](const sparq& rule) { return [&, rule] { sparq_attention(x.q, cache, index, o, rule); }; };
    refuses<argument_error>(with({0, 5}), "sparq_attention: keys are scored by 0 channels, the least is 1");
    refuses<argument_error>(with({4, -1}), "sparq_attention: -1 keys are chosen, the least is 0");
    refuses<argument_error>(with({4, 1, -2}), "sparq_attention: -2 recent keys are chosen, the least is 0");
    const auto two = test::normal<float>({B, H, 2, D}, 1);
    tensor<float> o2({B, H, 2, E});
    refuses<shape_error>([&] { sparq_attention(two, cache, index, o2, sparq(4, 5)); }, "q has 2 rows, a step has 1");
    const auto narrow = test::normal<float>({B, H, 1, D - 1}, 1);
    refuses<shape_error>([&] { sparq_attention(narrow, cache, index, o, sparq(4, 5)); }, "the source has width 20, q has 19");
    index.follow(cache);
    contiguous_cache<float> less({B, G, D, E}), other({B, G, D, E + 1});
    refuses<argument_error>([&] { sparq_attention(x.q, less, index, o, sparq(4, 5)); },
                            "index: the index knows 30 keys of head (0, 0), the source holds 0");
    tensor<float> wide({B, H, 1, E + 1});
    refuses<shape_error>([&] { sparq_attention(x.q, other, index, wide, sparq(4, 5)); },
                         "index: the index has value width 13, the source 14");
    refuses<argument_error>([&] { index.truncate(31); }, "index: cannot forget 31 keys of 30");
    refuses<argument_error>([&] { index.truncate(2, 1); }, "index: sequence 2 of 2");
    refuses<argument_error>([&] { index.reorder(std::vector<index_t>{2}); }, "index: sequence 2 of 2");
    for (float y : o.memory()) EXPECT_EQ(y, 7);
    index.clear();
    sparq_attention(x.q, less, index, o, sparq(4, 5));  // no keys at all
    for (float y : o.memory()) EXPECT_EQ(y, 0);
}

}  // namespace
