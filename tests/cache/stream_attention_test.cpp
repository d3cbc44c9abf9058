// Attention over streams: row [13]'s definition in double, and what it is equal to at its limits.
#include <heed/heed.hpp>
#include <heed/ref/rotary.hpp>

#include "compare.hpp"
#include "random.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

constexpr index_t H = 4, G = 2, D = 24, E = 20;
const float slopes[H] = {0.5f, 0.25f, 0.125f, 0.0625f};

template <class T>
tensor<T> converted(const tensor<float>& x) {
    tensor<T> y(x.shape());
    y.each([&](index_t b, index_t h, index_t n, index_t d) { y(b, h, n, d) = static_cast<T>(x(b, h, n, d)); });
    return y;
}
tensor<float> part(const tensor<float>& x, range tokens) {
    tensor<float> y({x.shape()[0], x.shape()[1], tokens.size(), x.shape()[3]});
    y.each([&](index_t b, index_t h, index_t n, index_t d) { y(b, h, n, d) = x(b, h, tokens.first + n, d); });
    return y;
}

/// x rotated: row n stands at position first + n.
template <class T>
tensor<T> placed(tensor<T> x, index_t first) {
    ref::rotary(x.v(), x.v(), D, false, [&](index_t, index_t n, index_t pair) {
        return ref::rotary_turn(static_cast<double>(first + n), pair, D);
    });
    return x;
}

/// The definition: key c of the cache stands at position c, the last query at L - 1. q, k raw, in order of the cache.
template <class Real>
tensor<Real> defined(const tensor<float>& q, const tensor<float>& k, const tensor<float>& v, bool rope) {
    const index_t N = q.shape()[2], L = k.shape()[2];
    auto qs = converted<Real>(q), ks = converted<Real>(k);
    if (rope) qs = placed(qs, L - N), ks = placed(ks, 0);
    tensor<Real> o({1, H, N, E});
    ref::options<Real> with;
    with.visible = [](index_t, index_t, index_t, index_t i, index_t j) { return j <= i; };
    with.score = [](Real x, index_t, index_t h, index_t, index_t i, index_t j) {
        return x - static_cast<Real>(slopes[h]) * static_cast<Real>(i - j);
    };
    ref::naive_attention<Real>(qs.v(), ks.v(), converted<Real>(v).v(), o.v(), with);
    return o;
}

/// A stream of `seen` tokens, asked with the last N of them, against the definition.
void check(const residency& where, index_t seen, index_t N, bool rope) {
    SCOPED_TRACE(testing::Message() << where.sinks << " sinks, window " << where.window << ", " << seen << " seen, "
                                    << N << " queries" << (rope ? ", rotary" : ""));
    const auto k = normal<float>({1, G, seen, D}, 1), v = normal<float>({1, G, seen, E}, 2);
    const auto q = normal<float>({1, H, N, D}, 3);
    auto cache =
        rope ? stream_cache<float>({1, G, D, E}, where, theta{10000}) : stream_cache<float>({1, G, D, E}, where);
    auto k_rotated = k, q_rotated = q;
    if (rope) rotary(k, k_rotated, offset{0}), rotary(q, q_rotated, offset{seen - N});
    const range older{0, seen - N}, newer{seen - N, seen};
    cache.append(part(k_rotated, older), part(v, older));
    cache.append(part(k_rotated, newer), part(v, newer));
    tensor<float> o({1, H, N, E});
    attention(q_rotated, cache, o, causal{}, alibi{slopes});

    const index_t L = where.keys(seen);
    tensor<float> held_k({1, G, L, D}), held_v({1, G, L, E});
    held_k.each(
        [&](index_t, index_t g, index_t c, index_t d) { held_k(0, g, c, d) = k(0, g, where.token(c, seen), d); });
    held_v.each(
        [&](index_t, index_t g, index_t c, index_t e) { held_v(0, g, c, e) = v(0, g, where.token(c, seen), e); });
    EXPECT_TRUE(
        within_rule<float>(o, defined<float>(q, held_k, held_v, rope), defined<double>(q, held_k, held_v, rope)));
}

TEST(stream_attention, follows_the_definition_at_positions_in_the_cache) {
    for (bool rope : {false, true})
        for (index_t N : {1, 3, 30}) {
            check({4, 40}, 44, N, rope);  // full, nothing forgotten
            check({4, 40}, 45, N, rope);  // the first token goes
            check({4, 40, 7}, 131, N, rope);
            check({0, 33, 1}, 97, N, rope);
            check({1, 30}, 3000, N, rope);
        }
}

/// Before anything is forgotten the stream is any other cache, to the bit.
TEST(stream_attention, equals_dense_causal_attention_until_it_is_full) {
    const auto k = normal<float>({2, G, 30, D}, 1), v = normal<float>({2, G, 30, E}, 2);
    for (index_t seen : {1, 29, 30}) {
        stream_cache<float> cache({2, G, D, E}, {4, 26}, theta{10000});
        cache.append(part(k, {0, seen}), part(v, {0, seen}));
        const index_t N = std::min<index_t>(seen, 20);
        const auto q = normal<float>({2, H, N, D}, 3);
        tensor<float> o({2, H, N, E}), dense_o({2, H, N, E});
        attention(q, cache, o, causal{}, alibi{slopes});
        attention(q, part(k, {0, seen}), part(v, {0, seen}), dense_o, causal{}, alibi{slopes});
        EXPECT_TRUE(same_values(o, dense_o)) << seen;
    }
}

/// Without sinks, and with distances alone in the scores: a window over all tokens.
TEST(stream_attention, equals_a_sliding_window_where_there_are_no_sinks) {
    const index_t seen = 90, w = 25;
    const auto k = normal<float>({1, G, seen, D}, 1), v = normal<float>({1, G, seen, E}, 2);
    const auto q = normal<float>({1, H, 1, D}, 3);
    stream_cache<float> cache({1, G, D, E}, {0, w}, theta{10000});
    cache.append(k, v);
    tensor<float> o({1, H, 1, E});
    attention(q, cache, o, causal{}, alibi{slopes});
    EXPECT_TRUE(attends(o, q, k, v, [&](auto real) {
        using Real = decltype(real);
        ref::options<Real> with;
        with.visible = [](index_t, index_t, index_t, index_t i, index_t j) { return i - w < j && j <= i; };
        with.score = [](Real x, index_t, index_t h, index_t, index_t i, index_t j) {
            return x - static_cast<Real>(slopes[h]) * static_cast<Real>(i - j);
        };
        return with;
    }));
}

/// A sink without a token: one more logit of 0 with the value 0, also in terms of log-sum-exp.
TEST(stream_attention, a_zero_sink_is_a_key_of_zeros) {
    const float zeros[H] = {};
    stream_cache<float> cache({1, G, D, E}, {2, 20});
    const auto k = normal<float>({1, G, 80, D}, 1), v = normal<float>({1, G, 80, E}, 2);
    cache.append(k, v);
    const auto q = normal<float>({1, H, 1, D}, 3);
    tensor<float> o({1, H, 1, E}), plain({1, H, 1, E});
    std::vector<float> sums(H);
    attention(q, cache, o, sink{zeros});
    attention(q, cache, plain, lse{dense(sums.data(), {1, H, 1})});
    tensor<float> keys({1, G, 23, D}), values({1, G, 23, E});  // row 0: the zeros
    const residency where{2, 20};
    keys.each([&](index_t, index_t g, index_t n, index_t d) {
        keys(0, g, n, d) = n > 0 ? k(0, g, where.token(n - 1, 80), d) : 0.f;
    });
    values.each([&](index_t, index_t g, index_t n, index_t e) {
        values(0, g, n, e) = n > 0 ? v(0, g, where.token(n - 1, 80), e) : 0.f;
    });
    EXPECT_TRUE(attends(o, q, keys, values));
    o.each([&](index_t, index_t h, index_t, index_t e) {
        const double x = sums[number(h)], share = std::exp(x - std::log1p(std::exp(x)));
        EXPECT_NEAR(o(0, h, 0, e), share * plain(0, h, 0, e), 8 * epsilon<float> * (1 + std::abs(plain(0, h, 0, e))));
    });
    // Scores that leave the sink everything.
    const auto away = constant<float>({1, H, 1, D}, -1e4);
    stream_cache<float> only({1, G, D, E}, {0, 22});
    only.append(constant<float>({1, G, 22, D}, 1), constant<float>({1, G, 22, E}, 5));
    attention(away, only, o, sink{zeros});
    o.each([&](index_t, index_t h, index_t, index_t e) { EXPECT_EQ(o(0, h, 0, e), 0.f); });
}

/// Queries whose own keys are gone have no answer, unless they say where they stand.
TEST(stream_attention, more_queries_than_the_window_are_refused_once_tokens_are_forgotten) {
    const auto k = normal<float>({1, G, 40, D}, 1), v = normal<float>({1, G, 40, E}, 2);
    const auto q = normal<float>({1, H, 21, D}, 3);
    for (index_t seen : {24, 25, 40}) {
        stream_cache<float> cache({1, G, D, E}, {4, 20, 3});
        cache.append(part(k, {0, seen}), part(v, {0, seen}));
        auto o = constant<float>({1, H, 21, E}, 7), twenty = constant<float>({1, H, 20, E}, 7);
        const auto all = [&] { attention(q, cache, o, causal{}, alibi{slopes}); };
        if (seen > 24) {
            refuses<argument_error>(all, "attention: q has 21 rows, the window of the stream is 20");
            o.each([&](index_t b, index_t h, index_t n, index_t e) { EXPECT_EQ(o(b, h, n, e), 7); });
        } else {
            all();
        }
        attention(part(q, {1, 21}), cache, twenty, causal{}, alibi{slopes});
        attention(q, cache, o, causal{}, alibi{slopes}, offset{24});
    }
}

}  // namespace
