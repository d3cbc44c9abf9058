// heed_test: O1 LABELS sanitize
// Ltri-LLM: spans of planted topics are found and retrieved, limits, and a stream that is truncated.
#include <heed/cache/contiguous.hpp>
#include <heed/ops/ltri.hpp>
#include <heed/policy/mask_position.hpp>

#include "compare.hpp"
#include "refuses.hpp"
#include "source_tokens.hpp"

namespace {

using namespace heed;
using test::refuses;
using test::tensor;

constexpr index_t B = 2, H = 4, G = 2, D = 16, E = 9;

/// Tokens of topics: a token's key and query look along the direction of its topic, edges[t] to edges[t + 1].
struct topics {
    tensor<float> q, k, v;
    topics(const std::vector<index_t>& edges, double strength)
        : q(test::normal<float>({B, H, edges.back(), D}, 1, 0.3)),
          k(test::normal<float>({B, G, edges.back(), D}, 2, 0.3)),
          v(test::normal<float>({B, G, edges.back(), E}, 3)) {
        for (std::size_t t = 1; t < edges.size(); ++t)
            for (index_t j = edges[t - 1]; j < edges[t]; ++j)
                for (index_t b = 0; b < B; ++b) {
                    for (index_t h = 0; h < H; ++h) q(b, h, j, static_cast<index_t>(t - 1) % D) += float(strength);
                    for (index_t g = 0; g < G; ++g) k(b, g, j, static_cast<index_t>(t - 1) % D) += float(strength);
                }
    }
    index_t size() const { return q.shape()[2]; }
};

/// Feeds tokens [from, to) in steps of n, and gives what the last step left out.
template <class Stream>
retrieved feed(Stream& stream, const topics& x, range tokens, index_t n, const view<float>& o) {
    retrieved last;
    for (index_t j = tokens.first; j < tokens.last; j += n) {
        const range part{j, std::min(j + n, tokens.last)};
        last = stream.step(slice(x.q.v(), 2, part), slice(x.k.v(), 2, part), slice(x.v.v(), 2, part), slice(o, 2, part));
    }
    return last;
}

const index_rule rule{{0.01, 100, 64}, 1, 3};

TEST(ltri, topics_become_spans) {
    const std::vector<index_t> edges{0, 11, 20, 32, 40, 57, 64};
    const topics x(edges, 4);
    contiguous_cache<float> cache({B, G, D, E});
    ltri_stream stream(cache, H, 32, rule, retrieval(0, 4, 8));
    tensor<float> o({B, H, 64, E});
    feed(stream, x, {0, 64}, 5, o);
    EXPECT_EQ(stream.index().size(), 64);
    for (index_t b = 0; b < B; ++b)
        for (index_t g = 0; g < G; ++g) {
            const auto& spans = stream.index().of(b, g).spans;
            ASSERT_EQ(spans.size(), edges.size() - 1);
            for (std::size_t s = 0; s < spans.size(); ++s) {
                EXPECT_EQ(spans[s].keys, (range{edges[s], edges[s + 1]}));
                EXPECT_TRUE(1 <= spans[s].told_by.size() && spans[s].told_by.size() <= 3);
                for (index_t key : spans[s].told_by) EXPECT_TRUE(spans[s].keys.contains(key));
            }
        }
}

// A query of an old topic retrieves the span of that topic.
TEST(ltri, a_query_finds_its_topic) {
    std::vector<index_t> edges;
    for (index_t t = 0; t <= 12; ++t) edges.push_back(16 * t);
    const topics x(edges, 4);
    for (bool together : {false, true}) {
        contiguous_cache<float> cache({B, G, D, E});
        ltri_stream stream(cache, H, 32, rule, retrieval(2, 1, 8, 0, together));
        tensor<float> o({B, H, 193, E});
        const auto near = feed(stream, x, {0, 192}, 16, slice(o.v(), 2, range{0, 192}));
        const auto ask = slice(x.q.v(), 2, range{40, 41});  // of the third topic
        auto index = stream.index();
        const auto choice = choose_spans(index, ask, cache, retrieval(2, 1, 8), 1 / std::sqrt(double(D)));
        for (index_t t = 0; t < B * G; ++t) {
            std::vector<index_t> want{0, 1};
            for (index_t j = 32; j < 48; ++j) want.push_back(j);
            for (index_t j = 184; j < 192; ++j) want.push_back(j);
            EXPECT_EQ(choice.keys(t / G, t % G), want);
        }
        for (double m : near.missed) EXPECT_TRUE(0 <= m && m < 0.5);
    }
}

TEST(ltri, every_span_is_causal_attention_and_none_is_sinks_and_window) {
    const topics x({0, 30, 50, 100}, 2);
    for (index_t n : {1, 7, 100}) {
        tensor<float> o({B, H, 100, E});
        contiguous_cache<float> cache({B, G, D, E});
        ltri_stream all(cache, H, 16, rule, retrieval(1, 1000, 4));
        for (double m : feed(all, x, {0, 100}, n, o).missed) EXPECT_EQ(m, 0);
        EXPECT_TRUE(test::attends(o, x.q, x.k, x.v, [](auto real) {
            ref::options<decltype(real)> with;
            with.visible = [](index_t, index_t, index_t, index_t i, index_t j) { return j <= i; };
            return with;
        })) << n;
    }
    tensor<float> o({B, H, 100, E});
    contiguous_cache<float> cache({B, G, D, E});
    ltri_stream none(cache, H, 8, rule, retrieval(3, 0, 20));
    feed(none, x, {0, 100}, 1, o);
    EXPECT_TRUE(test::attends(o, x.q, x.k, x.v, [](auto real) {
        ref::options<decltype(real)> with;
        with.visible = [](index_t, index_t, index_t, index_t i, index_t j) { return j <= i && (j < 3 || j > i - 20); };
        return with;
    }));
}

// Keys in no span yet are attended to, however short the window.
TEST(ltri, no_key_is_out_of_reach) {
    const topics x({0, 60}, 1);
    tensor<float> o({B, H, 60, E});
    contiguous_cache<float> cache({B, G, D, E});
    ltri_stream stream(cache, H, 50, rule, retrieval(0, 1000, 1));
    feed(stream, x, {0, 60}, 3, o);
    EXPECT_TRUE(test::attends(o, x.q, x.k, x.v, [](auto real) {
        ref::options<decltype(real)> with;
        with.visible = [](index_t, index_t, index_t, index_t i, index_t j) { return j <= i; };
        return with;
    }));
}

TEST(ltri, evidence_persists) {
    const topics x({0, 16, 32, 48, 64}, 4);
    contiguous_cache<float> cache({B, G, D, E});
    ltri_stream stream(cache, H, 32, rule, retrieval(0, 1, 4));
    tensor<float> o({B, H, 64, E});
    feed(stream, x, {0, 64}, 16, o);
    auto index = stream.index();
    const auto ask = [&](index_t j, double decay) {
        return choose_spans(index, slice(x.q.v(), 2, range{j, j + 1}), cache, retrieval(0, 1, 4, decay), 0.25)
            .keys(0, 0)[0];
    };
    EXPECT_EQ(ask(5, 0), 0);
    EXPECT_EQ(ask(20, 0), 16);
    for (int i = 0; i < 6; ++i) ask(5, 0.9);
    EXPECT_EQ(ask(20, 0.9), 0);  // one vote does not outweigh many
    for (int i = 0; i < 20; ++i) ask(20, 0.5);
    EXPECT_EQ(ask(20, 0.5), 16);
}

// Truncated and fed again, a stream covers its tokens, and with all spans is causal attention still.
TEST(ltri, a_truncated_stream_goes_on) {
    test::dice d(2);
    const topics x({0, 20, 45, 70, 90, 120}, 3);
    contiguous_cache<float> cache({B, G, D, E});
    ltri_stream stream(cache, H, 16, rule, retrieval(1, 1000, 2));
    tensor<float> o({B, H, 120, E});
    index_t size = 0;
    for (int round = 0; round < 60; ++round) {
        if (d.below(3) == 0) {
            const index_t n = std::min(size, d.below(50));
            stream.truncate(n);
            size -= n;
        } else {
            const index_t n = std::min(d.below(20), 120 - size);
            feed(stream, x, {size, size + n}, std::max<index_t>(n, 1), o);
            size += n;
        }
        ASSERT_EQ(cache.size(), size);
        ASSERT_LE(stream.index().size(), size);
        index_t next = 0;
        for (const auto& span : stream.index().of(1, 1).spans) {
            ASSERT_EQ(span.keys.first, next);
            ASSERT_FALSE(span.told_by.empty());
            for (index_t key : span.told_by) ASSERT_TRUE(span.keys.contains(key));
            next = span.keys.last;
        }
        ASSERT_EQ(next, stream.index().size());
    }
    const index_t kept = size;
    EXPECT_TRUE(kept > 0);
    const auto rows = copied(slice(o.v(), 2, range{0, kept}));
    EXPECT_TRUE(test::attends(rows, test::copied(slice(x.q.v(), 2, range{0, kept})),
                              test::copied(slice(x.k.v(), 2, range{0, kept})),
                              test::copied(slice(x.v.v(), 2, range{0, kept})), [](auto real) {
                                  ref::options<decltype(real)> with;
                                  with.visible = [](index_t, index_t, index_t, index_t i, index_t j) { return j <= i; };
                                  return with;
                              }));
}

TEST(ltri, bad_arguments_are_named_and_leave_the_cache) {
    contiguous_cache<float> cache({B, G, D, E});
    const auto with = [&](index_t heads, index_t block, const index_rule& find, const retrieval& choose) {
        return [&, heads, block, find, choose] { ltri_stream(cache, heads, block, find, choose); };
    };
    const retrieval right(1, 1, 1);
    refuses<argument_error>(with(3, 8, rule, right), "ltri_stream: 3 query heads over 2 of keys");
    refuses<argument_error>(with(H, 0, rule, right), "ltri_stream: a block has 0 tokens");
    refuses<argument_error>(with(H, 8, {{0, 1, 0}}, right), "spans are 0 tokens long");
    refuses<argument_error>(with(H, 8, {{0, 1, 4}, 2, 1}, right), "spans are told by 2 to 1 keys");
    refuses<argument_error>(with(H, 8, rule, {-1, 1, 1}), "-1 first keys");
    refuses<argument_error>(with(H, 8, rule, {1, -1, 1}), "-1 spans are retrieved");
    refuses<argument_error>(with(H, 8, rule, {1, 1, 0}), "0 last keys");
    refuses<argument_error>(with(H, 8, rule, {1, 1, 1, 1.0}), "decay is 1, not in [0, 1)");
    ltri_stream stream(cache, H, 8, rule, right);
    const topics x({0, 5}, 1);
    tensor<float> o({B, H, 5, E}), narrow({B, H, 5, E - 1});
    refuses<shape_error>([&] { stream.step(x.k, x.k, x.v, o); }, "ltri_stream: q is (2, 2, 5, 16), expected (2, 4, 5, 16)");
    refuses<shape_error>([&] { stream.step(x.q, x.k, x.v, narrow); }, "o has width 8, the source has 9");
    EXPECT_EQ(cache.size(), 0);
    refuses<argument_error>([&] { stream.truncate(1); }, "cannot drop 1 tokens of 0");
    refuses<argument_error>([&] { span_index(1, 1, {{0, 1, 4}, 0, 1}); }, "spans are told by 0 to 1 keys");
    span_index index(B, G, rule);
    const tensor<float> map({B, G, 3, 4});
    refuses<shape_error>([&] { index.append(map.v()); }, "the map has extent 4 on axis 3, expected 3");
}

}  // namespace
