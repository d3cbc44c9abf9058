// Ltri-LLM: spans and choices are those of the definition, planted topics are found, limits, and streams cut short.
#include <heed/cache/contiguous.hpp>
#include <heed/cache/paged.hpp>
#include <heed/cache/quantised.hpp>
#include <heed/core/threads.hpp>
#include <heed/ops/ltri.hpp>
#include <heed/policy/scores.hpp>
#include <heed/ref/retrieval.hpp>

#include "compare.hpp"
#include "refuses.hpp"
#include "source_tokens.hpp"

namespace {

using namespace heed;
using test::refuses;
using test::tensor;

constexpr index_t B = 2, H = 4, G = 2, D = 16, E = 9, group = H / G;

template <class S>
struct tokens_of {
    tensor<S> q, k, v;
    explicit tokens_of(index_t n, double spread = 1)
        : q(test::normal<S>({B, H, n, D}, 1, spread)),
          k(test::normal<S>({B, G, n, D}, 2, spread)),
          v(test::normal<S>({B, G, n, E}, 3)) {}
    index_t size() const { return q.shape()[2]; }
    extents<4> rows() const { return {B, H, size(), E}; }
};

/// A token of topic t looks, and is looked for, along direction t; topic t has the tokens edges[t] to edges[t + 1].
template <class S = float>
tokens_of<S> topics(const std::vector<index_t>& edges, double strength) {
    tokens_of<S> x(edges.back(), 0.3);
    for (std::size_t t = 1; t < edges.size(); ++t)
        for (index_t j = edges[t - 1]; j < edges[t]; ++j)
            for (index_t b = 0; b < B; ++b) {
                for (index_t h = 0; h < H; ++h) x.q(b, h, j, static_cast<index_t>(t - 1) % D) += S(strength);
                for (index_t g = 0; g < G; ++g) x.k(b, g, j, static_cast<index_t>(t - 1) % D) += S(strength);
            }
    return x;
}
std::vector<index_t> equal_topics(index_t count, index_t length) {
    std::vector<index_t> edges;
    for (index_t t = 0; t <= count; ++t) edges.push_back(t * length);
    return edges;
}

/// A cache that grows with its index.
template <class S, class Cache = contiguous_cache<S>>
struct stream {
    Cache cache;
    span_index<accumulator<S>> index;

    explicit stream(const span_blocks& rule, Cache c = Cache({B, G, D, E})) : cache(std::move(c)), index(rule) {}
    index_t size() const { return cache.keys(0, 0); }

    /// The next n tokens of x, without attention.
    void learn(const tokens_of<S>& x, index_t n) {
        const range next = append(x, n);
        index.append(slice(x.q.v(), 2, next), cache, 0.25);
    }
    /// The next n tokens, attended to; the last answer.
    template <class... P>
    retrieved feed(const tokens_of<S>& x, index_t n, index_t portion, tensor<S>& o, const ltri& rule,
                   const P&... policies) {
        retrieved last;
        for (const index_t end = size() + n; size() < end;) {
            const range next = append(x, std::min(portion, end - size()));
            last = ltri_attention(slice(x.q.v(), 2, next), cache, index, slice(o.v(), 2, next), rule, policies...);
        }
        return last;
    }
    range append(const tokens_of<S>& x, index_t n) {
        const range next{size(), size() + n};
        cache.append(slice(x.k.v(), 2, next), slice(x.v.v(), 2, next));
        return next;
    }
};

std::vector<range> spans_of(const detail::span_head<double>& head) {
    std::vector<range> all;
    for (const auto& span : head.spans()) all.push_back(span.keys);
    return all;
}
template <class S>
std::vector<index_t> told_of(const detail::span_head<S>& head, const indexed_span& span) {
    return {head.told().begin() + span.told.first, head.told().begin() + span.told.last};
}

template <class S>
void expect_same_spans(const span_index<S>& a, const span_index<S>& b) {
    for (index_t t = 0; t < B * G; ++t) {
        const auto &x = a.of(t / G, t % G), &y = b.of(t / G, t % G);
        ASSERT_EQ(x.spans().size(), y.spans().size());
        for (std::size_t s = 0; s < x.spans().size(); ++s) {
            EXPECT_EQ(x.spans()[s].keys, y.spans()[s].keys);
            EXPECT_EQ(x.spans()[s].told, y.spans()[s].told);
        }
        EXPECT_EQ(x.told(), y.told());
        EXPECT_EQ(x.size(), y.size());
    }
}

const auto causally = [](auto real) {
    ref::options<decltype(real)> with;
    with.visible = [](index_t, index_t, index_t, index_t i, index_t j) { return j <= i; };
    return with;
};

// Spans, leftovers and the keys that tell, block by block, from the map of the definition.
TEST(ltri, spans_are_those_of_the_definition) {
    for (index_t block : {1, 2, 7, 16}) {
        const tokens_of<double> x(37, 0.8);
        const span_blocks rule(block, {3 / double(block + 1), std::max<index_t>(1, block - 1), block}, 1, 3);
        stream<double> s(rule);
        s.learn(x, x.size());
        for (index_t b = 0; b < B; ++b)
            for (index_t g = 0; g < G; ++g) {
                const auto& head = s.index.of(b, g);
                const auto all = spans_of(head);
                std::size_t at = 0;
                for (index_t first = 0; first + block <= x.size(); first += block) {
                    const view<const double, 3> q{
                        &x.q(b, g * group, first, 0), {group, block, D}, {x.size() * D, D, 1}};
                    const auto map =
                        ref::local_map(q, view<const double, 2>{&x.k(b, g, first, 0), {block, D}, {D, 1}}, 0.25);
                    const auto a = dense(map.data(), {block, block});
                    std::vector<range> high;
                    index_t next = first;
                    for (; at < all.size() && all[at].first < first + block; ++at) {
                        const range span{all[at].first - first, all[at].last - first};
                        ASSERT_EQ(all[at].first, next);
                        next = all[at].last;
                        const double score = ref::triangle(a, span, rule.find.threshold);
                        const auto told = told_of(head, head.spans()[at]);
                        std::vector<double> received(static_cast<std::size_t>(span.size()));
                        for (index_t i = span.first; i < span.last; ++i)
                            for (index_t j = span.first; j <= i; ++j) received[std::size_t(j - span.first)] += a(i, j);
                        auto want = ref::greatest(received, static_cast<index_t>(told.size()));
                        for (index_t& j : want) j += all[at].first;
                        EXPECT_EQ(told, want);
                        EXPECT_TRUE(told.size() == 1 || told.size() == std::size_t(std::min<index_t>(3, span.size())));
                        if (score > 1e-9) high.push_back(span);
                    }
                    ASSERT_EQ(next, first + block);
                    const auto defined = ref::triangle_spans(a, rule.find.threshold, rule.find.longest, rule.find.most);
                    for (range span : defined) EXPECT_NE(std::find(high.begin(), high.end(), span), high.end());
                }
                EXPECT_EQ(at, all.size());
                EXPECT_EQ(head.size(), x.size());
            }
    }
}

// Topics of a quarter of a block are what the usual rule is made for.
TEST(ltri, topics_become_spans) {
    const auto edges = equal_topics(12, 8);
    const auto x = topics(edges, 8);
    stream<float> s(span_blocks(32));
    s.learn(x, x.size());
    for (index_t t = 0; t < B * G; ++t) {
        const auto& head = s.index.of(t / G, t % G);
        ASSERT_EQ(head.spans().size(), edges.size() - 1);
        for (std::size_t i = 0; i < head.spans().size(); ++i) {
            EXPECT_EQ(head.spans()[i].keys, (range{edges[i], edges[i + 1]}));
            for (index_t key : told_of(head, head.spans()[i])) EXPECT_TRUE(head.spans()[i].keys.contains(key));
        }
    }
}

template <class F>
void chosen_as_defined(head_pooling pooling, index_t N, const F& each) {
    const tokens_of<double> x(150 + N, 0.8);
    stream<double> s(span_blocks(20, {0.2, 7, 20}, 1, 3));
    s.learn(x, 150);
    const range now = s.append(x, N);
    for (index_t budget : {0, 1, 5, 30, 90, 200}) {
        const ltri rule(budget, 3, 18, 0, pooling);
        const auto choice = s.index.choose(slice(x.q.v(), 2, now), s.cache, rule, 0.25);
        for (index_t b = 0; b < B; ++b)
            for (index_t g = 0; g < G; ++g) {
                const auto& head = s.index.of(b, g);
                const view<const double, 2> k{&x.k(b, g, 0, 0), {150, D}, {D, 1}};
                std::vector<double> scores;
                for (const auto& span : head.spans()) {
                    double most = -std::numeric_limits<double>::infinity();
                    const index_t rows = pooling == head_pooling::mean ? 1 : group;
                    for (index_t r = 0; r < rows; ++r) {
                        std::vector<double> mean(D);
                        for (index_t h = r; h < group; h += rows)
                            for (index_t n = 0; n < N; ++n)
                                for (index_t d = 0; d < D; ++d)
                                    mean[std::size_t(d)] +=
                                        x.q(b, g * group + h, 150 + n, d) / double(N * group / rows);
                        most = std::max(most, ref::span_score(dense(mean.data(), {D}), k, told_of(head, span)));
                    }
                    scores.push_back(most);
                }
                const range among{3, std::min<index_t>(140, 150 + 1 - 18)};
                std::vector<index_t> want{0, 1, 2};
                for (index_t j : ref::span_keys(spans_of(head), scores, among, budget)) want.push_back(j);
                for (index_t j = among.last; j < 150 + N; ++j) want.push_back(j);
                EXPECT_EQ(choice.keys(b, g), want) << budget << " keys for " << N;
            }
        each(choice);
    }
}
TEST(ltri, chooses_the_spans_of_the_greatest_scores) {
    for (index_t N : {1, 3, 40})
        for (head_pooling pooling : {head_pooling::mean, head_pooling::max}) {
            index_t before = 0;
            chosen_as_defined(pooling, N, [&](const span_choice& choice) {
                EXPECT_GE(choice.keys.size(), before);  // more budget, more keys
                before = choice.keys.size();
            });
        }
}

// A query of an old topic retrieves the span of that topic.
TEST(ltri, a_query_finds_its_topic) {
    const auto x = topics(equal_topics(14, 8), 4);
    stream<float> s(span_blocks(32));
    s.learn(x, 104);
    const range now = s.append(x, 1);
    for (index_t topic : {1, 5, 10}) {
        const auto ask = slice(x.q.v(), 2, range{8 * topic + 3, 8 * topic + 4});
        for (head_pooling pooling : {head_pooling::mean, head_pooling::max}) {
            const auto choice = s.index.choose(ask, s.cache, ltri(8, 2, 4, 0, pooling), 0.25);
            std::vector<index_t> want{0, 1};
            for (index_t j = 8 * topic; j < 8 * topic + 8; ++j) want.push_back(j);
            for (index_t j = 96; j < now.last; ++j) want.push_back(j);
            for (index_t t = 0; t < B * G; ++t) EXPECT_EQ(choice.keys(t / G, t % G), want);
        }
    }
}

TEST(ltri, room_for_all_is_causal_attention_exactly) {
    for (index_t n : {1, 7, 16, 101}) {
        const tokens_of<float> x(101);
        tensor<float> o(x.rows()), want(x.rows());
        stream<float> s(span_blocks(16)), plain(span_blocks(16));
        for (double m : s.feed(x, 101, n, o, ltri(1000, 1, 4)).missed) EXPECT_EQ(m, 0);
        while (plain.size() < 101) {
            const range next = plain.append(x, std::min(n, 101 - plain.size()));
            attention(slice(x.q.v(), 2, next), plain.cache, slice(want.v(), 2, next), causal{});
        }
        EXPECT_TRUE(test::same_values(o, want));
        EXPECT_TRUE(test::attends(o, x.q, x.k, x.v, causally)) << n;
    }
}

TEST(ltri, room_for_all_is_causal_attention_with_its_sink) {
    const tokens_of<float> x(60);
    const std::vector<float> logits{2, -1, 0, 4};
    tensor<float> o(x.rows());
    stream<float> s(span_blocks(16));
    s.feed(x, 60, 12, o, ltri(1000, 1, 4), sink{logits});
    EXPECT_TRUE(test::attends(o, x.q, x.k, x.v, [&](auto real) {
        auto with = causally(real);
        with.sink.assign(logits.begin(), logits.end());
        return with;
    }));
}

TEST(ltri, no_span_is_sinks_and_window) {
    const tokens_of<float> x(101);
    for (index_t n : {1, 5}) {
        tensor<float> o(x.rows());
        stream<float> s(span_blocks(8));
        s.feed(x, 101, n, o, ltri(0, 3, 20));
        EXPECT_TRUE(test::attends(o, x.q, x.k, x.v, [&](auto real) {
            ref::options<decltype(real)> with;
            with.visible = [n](index_t, index_t, index_t, index_t i, index_t j) {
                return j <= i && (j < 3 || j > i / n * n - 20);  // counted from the first query of a portion
            };
            return with;
        })) << n;
    }
}

// Keys in no span yet are attended to, however short the window.
TEST(ltri, no_key_is_out_of_reach) {
    const tokens_of<float> x(60);
    tensor<float> o(x.rows());
    stream<float> s(span_blocks(50));
    s.feed(x, 49, 3, o, ltri(0, 0, 1));
    s.feed(x, 11, 3, o, ltri(1000, 0, 1));
    EXPECT_TRUE(test::attends(o, x.q, x.k, x.v, causally));
}

TEST(ltri, masks_scores_and_log_sums_are_those_of_attention_over_the_chosen) {
    const tokens_of<float> x(90);
    stream<float> s(span_blocks(16, {0.2, 8, 16}));
    s.learn(x, 87);
    const range now = s.append(x, 3);
    const auto q = slice(x.q.v(), 2, now);
    const ltri rule(20, 2, 6);
    const auto keys = s.index.choose(q, s.cache, rule, 0.3).keys;
    tensor<float> o({B, H, 3, E});
    std::vector<double> logs(B * H * 3);
    const auto out = ltri_attention(q, s.cache, s.index, o, rule, window{60}, scale{0.3} >> softcap{5},
                                    lse{dense(logs.data(), {B, H, 3})});
    EXPECT_TRUE(test::attends(o, test::copied(q), x.k, x.v, [&](auto real) {
        using T = decltype(real);
        ref::options<T> with;
        with.scale = T(0.3);
        with.score = [](T y, index_t, index_t, index_t, index_t, index_t) { return T(5) * std::tanh(y / T(5)); };
        with.visible = [&](index_t b, index_t h, index_t, index_t i, index_t j) {
            return j <= i && i - j <= 60 && std::binary_search(keys(b, h / group).begin(), keys(b, h / group).end(), j);
        };
        return with;
    }));
    for (double log : logs) EXPECT_TRUE(std::isfinite(log));
    for (double m : out.missed) EXPECT_TRUE(0 < m && m < 1);
    EXPECT_EQ(s.index.keys(0, 0), 90);
}

// Where the keys of a span are equal, each of them tells all.
TEST(ltri, missed_is_the_weight_missed_where_spans_are_of_equal_keys) {
    auto x = topics<double>(equal_topics(9, 8), 8);
    x.k.each([&](index_t b, index_t g, index_t j, index_t d) { x.k(b, g, j, d) = x.k(b, g, j / 8 * 8, d); });
    stream<double> s(span_blocks(32));
    s.learn(x, 71);
    const range now = s.append(x, 1);
    const auto q = slice(x.q.v(), 2, now);
    ASSERT_EQ(s.index.of(0, 0).spans().size(), 8u);
    tensor<double> o({B, H, 1, E});
    std::vector<double> some(B * H), all(B * H);
    attention(q, s.cache, o, scale{0.02}, lse{dense(all.data(), {B, H, 1})});
    const auto out =
        ltri_attention(q, s.cache, s.index, o, ltri(16, 3, 2), scale{0.02}, lse{dense(some.data(), {B, H, 1})});
    for (std::size_t r = 0; r < all.size(); ++r) EXPECT_NEAR(out.missed[r], 1 - std::exp(some[r] - all[r]), 1e-12);
    index_t told = 0;
    for (index_t t = 0; t < B * G; ++t) told += static_cast<index_t>(s.index.of(t / G, t % G).told().size());
    EXPECT_EQ(out.bytes, 8 * (told * D + B * G * (3 + 16 + 8) * (D + E)));
}

// Spans do not depend on how their tokens came, and outputs not either where portions are pooled alike.
TEST(ltri, portions_change_no_bit) {
    const tokens_of<float> x(192);
    stream<float> whole(span_blocks(16));
    whole.learn(x, 192);
    for (index_t n : {1, 13, 16, 48, 96}) {
        stream<float> parts(span_blocks(16));
        while (parts.size() < 192) parts.learn(x, std::min(n, 192 - parts.size()));
        expect_same_spans(parts.index, whole.index);
    }
    const ltri rule(40, 2, 16, 0.5);
    tensor<float> once(x.rows()), again(x.rows());
    stream<float> a(span_blocks(16)), b(span_blocks(16));
    a.feed(x, 192, 16, once, rule);
    for (index_t n : {32, 96, 64}) b.feed(x, n, 16, again, rule);
    EXPECT_TRUE(test::same_values(once, again));
    expect_same_spans(a.index, b.index);
}

TEST(ltri, where_rows_lie_and_who_runs_it_change_no_bit) {
    const tokens_of<float> x(300);
    const ltri rule(60, 2, 20, 0.3);
    tensor<float> want(x.rows()), o(x.rows());
    stream<float> plain(span_blocks(32)), shared(span_blocks(32));
    const auto told = plain.feed(x, 300, 25, want, rule);
    stream<float, paged_cache<float>> pages(span_blocks(32), paged_cache<float>({B, G, D, E}, 16, 60));
    EXPECT_EQ(pages.feed(x, 300, 25, o, rule).missed, told.missed);
    EXPECT_TRUE(test::same_values(o, want));
    threads pool(3);
    EXPECT_EQ(shared.feed(x, 300, 25, o, rule, on{pool}).missed, told.missed);
    EXPECT_TRUE(test::same_values(o, want));
}

TEST(ltri, narrow_storage_reads_as_it_is_stored) {
    const tokens_of<bf16> x(120);
    stream<bf16> s(span_blocks(16));
    tensor<bf16> o(x.rows());
    s.feed(x, 120, 9, o, ltri(1000, 2, 16));
    EXPECT_TRUE(test::attends(o, x.q, x.k, x.v, causally));
    s.index.clear();
    s.index.append(x.q.v(), s.cache, 0.25);
    EXPECT_EQ(s.index.of(1, 1).spanned(), 112);
}

/// The last token of x over a source of all its keys, whose index learnt the others from `before`.
template <class Before, class Source>
retrieved last_token(const tokens_of<float>& x, const Before& before, const Source& all, tensor<float>& o, const ltri& rule) {
    span_index<float> index(span_blocks(32));
    const index_t n = x.size() - 1;
    index.append(slice(x.q.v(), 2, {0, n}), before, 0.25);
    return ltri_attention(slice(x.q.v(), 2, {n, n + 1}), all, index, o.v(), rule);
}

TEST(ltri, scores_read_what_a_key_stands_for) {
    tokens_of<float> x(300);
    for (index_t b = 0; b < B; ++b)
        for (index_t g = 0; g < G; ++g)
            for (index_t j = 0; j < 300; ++j)
                for (index_t d = 0; d < D; ++d) x.k(b, g, j, d) *= static_cast<float>(1 + j * 5 % 7) / 4;
    const ltri rule(60, 2, 20, 0.3);
    tensor<float> want({B, H, 1, E}), o({B, H, 1, E});

    using bytes = quantised_cache<int8_per_token, int8_per_token>;  // a factor a key
    bytes all({B, G, D, E}), before({B, G, D, E});
    all.append(x.k.v(), x.v.v());
    before.append(slice(x.k.v(), 2, {0, 299}), slice(x.v.v(), 2, {0, 299}));
    tensor<float> k({B, G, 300, D}), v({B, G, 300, E}), apart({B, G, 300, 2 * D});  // elements of keys that are apart
    for (index_t b = 0; b < B; ++b)
        for (index_t g = 0; g < G; ++g)
            for (index_t j = 0; j < 300; ++j) {
                const auto run = all.run(b, g, j);
                for (index_t d = 0; d < D; ++d)
                    apart(b, g, j, 2 * d) = k(b, g, j, d) = static_cast<float>(run.k.number(0, d));
                for (index_t e = 0; e < E; ++e) v(b, g, j, e) = static_cast<float>(run.v.number(0, e));
            }
    const auto over = [&](const view<const float>& keys, index_t n) {
        return view_source<float, float>{slice(keys, 2, {0, n}), slice(v.v(), 2, {0, n})};
    };
    const auto told = last_token(x, over(k.v(), 299), over(k.v(), 300), want, rule);
    const auto by_bytes = last_token(x, before, all, o, rule);
    for (std::size_t row = 0; row < told.missed.size(); ++row) {
        EXPECT_GT(told.missed[row], 0);
        EXPECT_NEAR(by_bytes.missed[row], told.missed[row], 1e-4);
    }
    EXPECT_TRUE(test::all_near(o, want, 1e-5));

    const auto strides = apart.v().strides;
    const view<const float> keys{apart.v().data, {B, G, 300, D}, {strides[0], strides[1], strides[2], 2}};
    EXPECT_EQ(last_token(x, over(keys, 299), over(keys, 300), o, rule).missed, told.missed);
    EXPECT_TRUE(test::same_values(o, want));
}

TEST(ltri, evidence_persists) {
    const auto x = topics(equal_topics(8, 8), 4);
    stream<float> s(span_blocks(32));
    s.learn(x, 64);
    s.append(x, 0);
    const auto ask = [&](index_t j, double decay) {
        return s.index.choose(slice(x.q.v(), 2, range{j, j + 1}), s.cache, ltri(8, 0, 1, decay), 0.25).keys(0, 0)[0];
    };
    s.cache.append(slice(x.k.v(), 2, range{0, 1}), slice(x.v.v(), 2, range{0, 1}));  // the token that asks
    EXPECT_EQ(ask(5, 0), 0);
    EXPECT_EQ(ask(20, 0), 16);
    EXPECT_EQ(ask(5, 0), 0);
    for (int i = 0; i < 6; ++i) ask(5, 0.9);
    EXPECT_EQ(ask(20, 0.9), 0);  // one voice does not outweigh many
    for (int i = 0; i < 20; ++i) ask(20, 0.5);
    EXPECT_EQ(ask(20, 0.5), 16);
    // The average, by hand.
    const double before = s.index.of(1, 0).spans()[3].evidence;
    auto copy = s.index;
    copy.choose(slice(x.q.v(), 2, range{9, 10}), s.cache, ltri(8, 0, 1), 0.25);
    ask(9, 0.25);
    EXPECT_NEAR(s.index.of(1, 0).spans()[3].evidence, 0.25 * before + 0.75 * copy.of(1, 0).spans()[3].evidence, 1e-5);
}

// Truncated and fed again, a stream covers its tokens, and with room for all is causal attention still.
TEST(ltri, a_truncated_stream_goes_on) {
    test::dice d(2);
    const tokens_of<float> x(120);
    stream<float> s(span_blocks(16));
    tensor<float> o(x.rows());
    o.fill([](index_t) { return 0; });
    for (int round = 0; round < 80; ++round) {
        if (d.below(3) == 0) {
            const index_t n = std::min(s.size(), d.below(50));
            s.cache.truncate(n), s.index.truncate(n);
        } else {
            s.feed(x, std::min(d.below(20), 120 - s.size()), 1 + d.below(6), o,
                   ltri(d.below(2) ? 1000 : 10, 1, 2, 0.5));
        }
        if (s.index.batch() == 0) continue;
        for (index_t t = 0; t < B * G; ++t) {
            const auto& head = s.index.of(t / G, t % G);
            ASSERT_EQ(head.size(), s.size());
            ASSERT_LT(head.size() - head.spanned(), 16);
            range last;
            index_t told = 0;
            for (const auto& span : head.spans()) {
                ASSERT_EQ(span.keys.first, last.last);
                ASSERT_EQ(span.told.first, told);
                ASSERT_FALSE(span.told.empty());
                for (index_t key : told_of(head, span)) ASSERT_TRUE(span.keys.contains(key));
                last = span.keys, told = span.told.last;
            }
            ASSERT_EQ(told, static_cast<index_t>(head.told().size()));
        }
    }
    s.feed(x, 120 - s.size(), 7, o, ltri(1000, 1, 2));
    const range now{100, 120};
    s.cache.truncate(20), s.index.truncate(20);
    s.feed(x, 20, 20, o, ltri(1000, 0, 1));
    tensor<float> want({B, H, 20, E});
    attention(slice(x.q.v(), 2, now), x.k, x.v, want, causal{});
    EXPECT_TRUE(test::all_near(test::copied(slice(o.v(), 2, now)), want, 1e-5));
    const index_t parents[] = {1, 0, 1};
    s.index.reorder(parents), s.cache.reorder(parents);
    EXPECT_EQ(s.index.batch(), 3);
    EXPECT_EQ(s.index.keys(2, 1), 120);
}

TEST(ltri, what_is_not_a_number_shows) {
    tokens_of<float> x(200);
    x.k(1, 0, 37, 3) = std::numeric_limits<float>::quiet_NaN();
    stream<float> s(span_blocks(16));
    s.learn(x, 199);
    const range now = s.append(x, 1);
    tensor<float> o({B, H, 1, E});
    ltri_attention(slice(x.q.v(), 2, now), s.cache, s.index, o, ltri(16, 0, 4));
    o.each([&](index_t b, index_t h, index_t n, index_t e) { EXPECT_EQ(std::isnan(o(b, h, n, e)), b == 1 && h < 2); });
}

TEST(ltri, empty_extents_are_fine) {
    for (const extents<4>& shape : {extents<4>{0, 4, 3, 5}, {2, 0, 3, 5}, {2, 4, 0, 5}, {1, 2, 3, 0}}) {
        const auto [b, h, n, d] = shape;
        const auto q = test::normal<float>(shape, 1);
        const auto k = test::normal<float>({b, h / 2, n, d}, 1), v = test::normal<float>({b, h / 2, n, 4}, 2);
        contiguous_cache<float> cache({b, h / 2, d, 4});
        cache.append(k, v);
        span_index<float> index(span_blocks(2));
        tensor<float> o({b, h, n, 4});
        EXPECT_EQ(ltri_attention(q, cache, index, o, ltri(0, 0, 1)).missed.size(), std::size_t(b * h * n));
        EXPECT_EQ(
            ltri_attention(slice(q.v(), 2, range{0, 0}), cache, index, slice(o.v(), 2, range{0, 0}), ltri(0, 0, 1))
                .missed.size(),
            0u);
    }
}

TEST(ltri, bad_arguments_are_named_before_anything_is_written) {
    const tokens_of<float> x(30);
    stream<float> s(span_blocks(8));
    auto o = test::constant<float>(x.rows(), 7);
    const auto with = [&](const ltri& rule) { return [&, rule] { ltri_attention(x.q, s.cache, s.index, o, rule); }; };
    refuses<argument_error>(with(ltri(1, 1, 1)), "index knows 0 keys, q has 30 more, the source holds 0");
    s.append(x, 30);
    refuses<argument_error>(with(ltri(-1, 1, 1)), "ltri_attention: -1 keys of spans are retrieved, the least is 0");
    refuses<argument_error>(with(ltri(1, -2, 1)), "ltri_attention: -2 first keys are attended to, the least is 0");
    refuses<argument_error>(with(ltri(1, 1, 0)), "ltri_attention: 0 last keys are attended to, the least is 1");
    refuses<argument_error>(with(ltri(1, 1, 1, 1)), "ltri_attention: decay is 1, not in [0, 1)");
    refuses<argument_error>(with(ltri(1, 1, 1, std::nan(""))), "ltri_attention: decay is nan, not in [0, 1)");
    const auto narrow = test::normal<float>({B, H, 30, D + 1}, 1), odd = test::normal<float>({B, 3, 30, D}, 1);
    refuses<shape_error>([&] { ltri_attention(narrow, s.cache, s.index, o, ltri(1, 1, 1)); },
                         "the source has width 16, q has 17");
    refuses<shape_error>([&] { s.index.append(narrow.v(), s.cache, 1); }, "span_index: q has width 17, the source 16");
    refuses<shape_error>([&] { s.index.append(odd.v(), s.cache, 1); }, "span_index: q has 3 heads, the source 2");
    const auto part = slice(x.q.v(), 2, range{0, 9});
    refuses<argument_error>([&] { s.index.append(part, s.cache, 1); },
                            "the index knows 0 keys, q has 9 more, the source holds 30");
    for (float y : o.memory()) EXPECT_EQ(y, 7);
    s.index.append(x.q.v(), s.cache, 1);
    s.append(x, 0);
    const auto more = test::normal<float>({B, 2, 0, D}, 1);
    refuses<shape_error>([&] { s.index.append(more.v(), s.cache, 1); },
                         "span_index: q has 2 heads, those before had 4");
    refuses<argument_error>([&] { s.index.truncate(31); }, "index: cannot forget 31 keys of 30");
    refuses<argument_error>([] { span_index<float>(span_blocks(0)); },
                            "span_index: a block has 0 tokens, the least is 1");
    refuses<argument_error>(
        [] {
            span_index<float>(span_blocks(4, {0, 0, 1}));
        },
        "span_index: spans are 0 tokens long");
    refuses<argument_error>([] { span_index<float>(span_blocks(4, span_rule(4), 2, 1)); },
                            "spans are told by 2 to 1 keys");
    refuses<argument_error>([] { span_index<float>(span_blocks(4, span_rule(4), 0, 1)); },
                            "spans are told by 0 to 1 keys");
}

}  // namespace
