// heed_test: LABELS sanitize
// Chosen keys of a source: their rows, and attention over them, which is that over all keys with the others hidden.
#include <heed/cache/quantised.hpp>
#include <heed/cache/stream.hpp>
#include <heed/engine/attention.hpp>
#include <heed/policy/mask_position.hpp>
#include <heed/policy/probe.hpp>
#include <heed/policy/score_distance.hpp>
#include <heed/select/gathered.hpp>

#include "any_mask.hpp"
#include "compare.hpp"
#include "operands.hpp"
#include "refuses.hpp"
#include "scattered.hpp"

namespace {

using namespace heed;
using test::any_mask;
using test::refuses;
using test::tensor;
using operands = test::operands<float>;
constexpr index_t B = operands::B, H = operands::H, G = operands::G, E = operands::E;

/// About one in `apart` keys of the first keys(b, g).
template <class Source>
key_lists some_keys(const Source& source, index_t apart) {
    const counter_random random(7);
    key_lists lists(B, G);
    std::uint64_t draw = 0;
    for (index_t b = 0; b < B; ++b)
        for (index_t g = 0; g < G; ++g)
            for (index_t j = 0; j < source.keys(b, g); ++j)
                if (random.integer(draw++, 0, apart) == 0) lists(b, g).push_back(j);
    return lists;
}

bool holds(const key_lists& lists, index_t b, index_t g, index_t j) {
    return std::binary_search(lists(b, g).begin(), lists(b, g).end(), j);
}

TEST(gathered, rows_are_those_of_the_source_at_their_positions) {
    const operands x(1, 90);
    std::vector<index_t> places;
    for (index_t j = 0; j < 90; ++j) places.push_back(2 * j + j / 10);
    const test::placed_scattered<float> source(x.k, x.v, {90, 80, 33, 0}, 7, places, 200);
    const test::scattered<float> plain(x.k, x.v, {90, 80, 33, 0}, 7);
    for (index_t apart : {1, 2, 9}) {
        const auto lists = some_keys(source, apart);
        const gathered chosen(source, lists);
        const gathered bare(plain, lists);
        EXPECT_EQ(chosen.end(1), 200);
        EXPECT_EQ(bare.end(1), 33);
        index_t total = 0;
        for (index_t b = 0; b < B; ++b)
            for (index_t g = 0; g < G; ++g) {
                const auto& list = lists(b, g);
                const auto n = static_cast<index_t>(list.size());
                total += n;
                ASSERT_EQ(chosen.keys(b, g), n);
                const auto same = [&](index_t j, const auto& k, const auto& v) {
                    const index_t key = list[static_cast<std::size_t>(j)];
                    for (index_t d = 0; d < 6; ++d) EXPECT_EQ(k.number(0, d), x.k(b, g, key, d));
                    for (index_t e = 0; e < E; ++e) EXPECT_EQ(v.number(0, e), x.v(b, g, key, e));
                };
                for (index_t j = 0; j < n; ++j) {
                    EXPECT_EQ(chosen.positions(b, g)[j], places[static_cast<std::size_t>(list[static_cast<std::size_t>(j)])]);
                    EXPECT_EQ(bare.positions(b, g)[j], list[static_cast<std::size_t>(j)]);
                    const auto run = chosen.run(b, g, j);
                    ASSERT_EQ(run.keys.first, j);
                    ASSERT_TRUE(j < run.keys.last && run.keys.last <= n);
                    for (index_t c = 0; c < run.keys.size(); ++c) same(j + c, run.k.from(c), run.v.from(c));
                }
                index_t next = n / 3;
                chosen.each_row(b, g, {n / 3, n}, [&](index_t j, const auto& k, const auto& v) {
                    EXPECT_EQ(j, next++);
                    same(j, k, v);
                });
                EXPECT_EQ(next, n);
            }
        EXPECT_EQ(chosen.bytes(), total * 4 * (6 + E));
    }
}

// Few queries and many; masks, a score and a sink that look at positions.
TEST(gathered, attention_is_that_with_the_other_keys_hidden) {
    for (index_t N : {1, 3, 20}) {
        const operands x(N, 150);
        const test::scattered<float> source(x.k, x.v, {150, 150, 150, 150}, 16);
        const auto lists = some_keys(source, 3);
        const gathered chosen(source, lists);
        const std::vector<float> slopes{0.5f, 0.25f, 0.125f, 0.0625f}, sinks{1, 0, -1, 2};
        tensor<float> o(x.rows());
        attention(x.q, chosen, o, any_mask(causal{} & window{70}), alibi{slopes}, sink{sinks});
        EXPECT_TRUE(test::attends(o, x.q, x.k, x.v, [&](auto real) {
            using Real = decltype(real);
            ref::options<Real> with;
            with.visible = [&](index_t b, index_t h, index_t, index_t i, index_t j) {
                return j <= i && i - 70 <= j && holds(lists, b, h / 2, j);
            };
            with.score = [&](Real y, index_t, index_t h, index_t, index_t i, index_t j) {
                return y - Real(slopes[static_cast<std::size_t>(h)]) * static_cast<Real>(std::abs(i - j));
            };
            for (float s : sinks) with.sink.push_back(Real(s));
            return with;
        })) << N;
    }
}

TEST(gathered, all_keys_give_the_bits_of_the_source_and_none_gives_nothing) {
    for (index_t N : {1, 20}) {
        const operands x(N, 300);
        const test::scattered<float> source(x.k, x.v, {300, 300, 300, 300}, 50);
        tensor<float> o(x.rows()), want(x.rows());
        attention(x.q, source, want, any_mask(causal{}));
        attention(x.q, gathered(source, some_keys(source, 1)), o, any_mask(causal{}));
        EXPECT_TRUE(test::same_values(o, want)) << N;
        attention(x.q, gathered(source, key_lists(B, G)), o, any_mask(causal{}));
        EXPECT_TRUE(test::same_values(o, test::constant<float>(x.rows(), 0))) << N;
    }
}

TEST(gathered, probes_speak_of_the_chosen) {
    const operands x(1, 60);
    const test::scattered<float> source(x.k, x.v, {60, 60, 60, 60}, 9);
    const auto lists = some_keys(source, 4);
    const gathered chosen(source, lists);
    index_t most = 0;
    for (index_t t = 0; t < B * G; ++t) most = std::max(most, chosen.keys(t / G, t % G));
    tensor<float> o(x.rows()), mass({1, B, H, most});
    attention(x.q, chosen, o, any_mask(causal{}), key_mass{dense(mass.memory().data(), {B, H, most})});
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h)
            for (index_t e = 0; e < E; ++e) {
                double sum = 0;
                for (index_t j = 0; j < chosen.keys(b, h / 2); ++j)
                    sum += mass(0, b, h, j) * x.v(b, h / 2, lists(b, h / 2)[static_cast<std::size_t>(j)], e);
                EXPECT_NEAR(sum, o(b, h, 0, e), 1e-5);
            }
}

// A source that turns queries and outputs is turned through its choice.
TEST(gathered, quantised_keys_in_a_turned_space) {
    const operands x(1, 80, 32);
    quantised_cache<int8_per_token> cache({B, G, 32, E}, {}, {}, {.keys = true, .values = false});
    cache.append(x.k, x.v);
    tensor<float> o(x.rows()), want(x.rows());
    attention(x.q, cache, want);
    attention(x.q, gathered(cache, some_keys(cache, 1)), o);
    EXPECT_TRUE(test::same_values(o, want));
}

TEST(gathered, queries_that_the_source_cannot_answer_are_refused) {
    stream_cache<float> stream({1, 1, 4, 4}, {1, 3});
    const auto tokens = [](index_t n) { return tensor<float>({1, 1, n, 4}).fill([](index_t i) { return i % 7; }); };
    stream.append(tokens(9), tokens(9));
    key_lists all(1, 1);
    all.add(0, 0, {0, 4});
    const gathered chosen(stream, all);
    tensor<float> o({1, 1, 3, 4}), more({1, 1, 4, 4});
    attention(tokens(3), chosen, o);
    refuses<argument_error>([&] { attention(tokens(4), chosen, more); },
                            "attention: q has 4 rows, the window of the stream is 3");
}

TEST(gathered, bad_lists_are_named) {
    const operands x(1, 20);
    const test::scattered<float> source(x.k, x.v, {20, 20, 20, 5}, 9);
    const auto of = [&](index_t b, index_t g, std::vector<index_t> list) {
        key_lists lists(B, G);
        lists(b, g) = std::move(list);
        return [&source, lists] { gathered(source, lists); };
    };
    refuses<argument_error>(of(0, 0, {3, 3}), "gathered: key 3 follows key 3");
    refuses<argument_error>(of(0, 1, {3, 2}), "gathered: key 2 follows key 3");
    refuses<argument_error>(of(0, 1, {-1}), "gathered: key -1 follows key -1");
    refuses<argument_error>(of(1, 1, {2, 5}), "gathered: key 5 of 5");
    refuses<shape_error>([&] { gathered(source, key_lists(1, G)); }, "the lists have batch 1, the source has 2");
    refuses<shape_error>([&] { gathered(source, key_lists(B, H)); }, "the lists have heads 4, the source has 2");
}

}  // namespace
