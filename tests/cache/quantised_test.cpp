// heed_test: BUSY LABELS sanitize
// quantised_cache: every number within half a step of what its kind defines; any history of operations leaves the bits
// that one append of the same tokens does.
#include <heed/cache/quantised.hpp>

#include "random.hpp"
#include "read_source.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

constexpr index_t G = 2, D = 40, E = 33;

/// Token number `id` as (1, G, 1, width) or several of them; normal, with an outlier here and there.
tensor<float> rows_of(const std::vector<index_t>& ids, index_t width, std::uint64_t seed) {
    tensor<float> x({1, G, static_cast<index_t>(ids.size()), width});
    x.each([&](index_t, index_t g, index_t n, index_t d) {
        const counter_random r(seed, number(ids[number(n)]));
        const double size = r.uniform(number(g * width + d)) < 0.05 ? 20 : 1;
        x(0, g, n, d) = static_cast<float>(size * r.normal(number(g * width + d)));
    });
    return x;
}
tensor<float> keys_of(const std::vector<index_t>& ids) { return rows_of(ids, D, 1); }
tensor<float> values_of(const std::vector<index_t>& ids) { return rows_of(ids, E, 2); }

std::vector<index_t> first_tokens(index_t n) {
    std::vector<index_t> ids(number(n));
    for (index_t i = 0; i < n; ++i) ids[number(i)] = i;
    return ids;
}

/// A pair of kinds, and how a cache of them is made.
template <class K, class V>
struct pair_of {
    K k;
    V v;
    hadamard turned;
    index_t droppable;  // tokens below the largest size
    quantised_cache<K, V> make(index_t B) const { return quantised_cache<K, V>({B, G, D, E}, k, v, turned); }
};
struct tokens_and_groups : pair_of<int8_per_token, int4_per_group<32>> {
    tokens_and_groups() : pair_of{{}, {}, {}, 1000} {}
};
struct integers : pair_of<int8_integer, int8_integer> {
    integers() : pair_of{{}, {}, {false, true}, 1000} {}
};
struct channels_and_tokens : pair_of<int8_per_channel, int8_per_token> {
    channels_and_tokens() : pair_of{{5}, {}, {true, false}, 5} {}
};
struct groups_and_channels : pair_of<int8_per_group<32>, int8_per_channel> {
    groups_and_channels() : pair_of{{}, {8}, {true, true}, 8} {}
};
struct channels : pair_of<int8_per_channel, int8_per_channel> {
    channels() : pair_of{{4}, {6}, {}, 4} {}
};

template <class Pair>
class quantised_cache_of : public testing::Test {};
using pairs = testing::Types<tokens_and_groups, integers, channels_and_tokens, groups_and_channels, channels>;
TYPED_TEST_SUITE(quantised_cache_of, pairs);

/// What shares a factor with row n, column d of a head of M rows: rows and columns.
struct sharing {
    range rows, columns;
    double levels = 127;
};
sharing share(int8_per_token, index_t n, index_t, index_t, index_t width) { return {{n, n + 1}, {0, width}}; }
sharing share(int8_integer, index_t n, index_t, index_t, index_t width) { return {{n, n + 1}, {0, width}}; }
sharing share(int8_per_channel kind, index_t n, index_t d, index_t M, index_t) {
    const index_t first = n / kind.block * kind.block;
    return {{first, std::min(M, first + kind.block)}, {d, d + 1}};
}
template <index_t Group>
sharing share(int8_per_group<Group>, index_t n, index_t d, index_t, index_t width) {
    const index_t first = d / Group * Group;
    return {{n, n + 1}, {first, std::min(width, first + Group)}};
}
template <index_t Group>
sharing share(int4_per_group<Group>, index_t n, index_t d, index_t M, index_t width) {
    auto of = share(int8_per_group<Group>{}, n, d, M, width);
    of.levels = 7;
    return of;
}

/// Every number of `got` within half a step of x, or of x transformed.
template <class Kind>
void expect_quantised(const tensor<double>& got, tensor<float> x, Kind kind, bool transformed) {
    ASSERT_EQ(got.shape(), x.shape());
    const auto [B, heads, M, width] = x.shape();
    if (transformed)
        for (index_t g = 0; g < heads; ++g)
            for (index_t n = 0; n < M; ++n) hadamard_transform(&x(0, g, n, 0), width);
    got.each([&, M = M, width = width](index_t, index_t g, index_t n, index_t d) {
        const sharing s = share(kind, n, d, M, width);
        double most = 0;
        for (index_t i = s.rows.first; i < s.rows.last; ++i)
            for (index_t c = s.columns.first; c < s.columns.last; ++c)
                most = std::max<double>(most, std::abs(x(0, g, i, c)));
        ASSERT_NEAR(got(0, g, n, d), x(0, g, n, d), most / s.levels * (0.5 + 2 * s.levels * epsilon<float>))
            << g << ", " << n << ", " << d;
    });
}

TYPED_TEST(quantised_cache_of, holds_its_tokens_within_half_a_step) {
    const TypeParam pair;
    for (index_t M : {0, 1, 4, 5, 6, 7, 8, 23, 64}) {
        auto cache = pair.make(1);
        const auto ids = first_tokens(M);
        const auto k = keys_of(ids), v = values_of(ids);
        cache.append(k, v);
        const auto held = read_source(cache);
        expect_quantised(held.k, k, pair.k, pair.turned.keys);
        expect_quantised(held.v, v, pair.v, pair.turned.values);
    }
}

/// Sequence b of a cache has the bits of a cache that was given these tokens at once.
template <class Pair, class Cache>
void expect_tokens(const Pair& pair, const Cache& cache, index_t b, const std::vector<index_t>& ids) {
    auto fresh = pair.make(1);
    fresh.append(keys_of(ids), values_of(ids));
    ASSERT_EQ(cache.size(b), static_cast<index_t>(ids.size()));
    const auto held = read_source(cache, b), wanted = read_source(fresh);
    ASSERT_EQ(held.k.shape(), wanted.k.shape());
    held.k.each([&](index_t, index_t g, index_t n, index_t d) { ASSERT_EQ(held.k(0, g, n, d), wanted.k(0, g, n, d)); });
    held.v.each([&](index_t, index_t g, index_t n, index_t d) { ASSERT_EQ(held.v(0, g, n, d), wanted.v(0, g, n, d)); });
}

/// The tokens of several sequences as one operand (B, G, n, width).
template <class Rows>
tensor<float> stacked(const std::vector<std::vector<index_t>>& ids, index_t width, const Rows& rows) {
    const auto B = static_cast<index_t>(ids.size());
    tensor<float> all({B, G, B > 0 ? static_cast<index_t>(ids[0].size()) : 0, width}, layout::tokens());
    for (index_t b = 0; b < B; ++b) {
        const auto one = rows(ids[number(b)]);
        one.each([&](index_t, index_t g, index_t n, index_t d) { all(b, g, n, d) = one(0, g, n, d); });
    }
    return all;
}

/// A cache and, for each sequence, the tokens it should hold and the most it has held.
template <class Pair>
struct twins {
    struct sequence {
        std::vector<index_t> ids;
        index_t most = 0;
        void take(const std::vector<index_t>& more) {
            ids.insert(ids.end(), more.begin(), more.end());
            most = std::max(most, static_cast<index_t>(ids.size()));
        }
    };
    Pair pair;
    decltype(pair.make(2)) cache = pair.make(2);
    std::vector<sequence> model = std::vector<sequence>(2);
    counter_random random = counter_random(7);
    std::uint64_t draws = 0;
    index_t next = 0;

    index_t below(index_t n) { return random.integer(draws++, 0, n); }
    std::vector<index_t> new_tokens(index_t n) {
        std::vector<index_t> ids(number(n));
        for (index_t& id : ids) id = next++;
        return ids;
    }
    void append_to_all() {
        std::vector<std::vector<index_t>> ids;
        const index_t n = below(3);
        for (sequence& s : model) s.take(ids.emplace_back(new_tokens(n)));
        cache.append(stacked(ids, D, keys_of), stacked(ids, E, values_of));
    }
    void append_to_one() {
        const index_t b = below(cache.batch());
        const auto ids = new_tokens(below(6));
        cache.append(b, keys_of(ids), values_of(ids));
        model[number(b)].take(ids);
    }
    void truncate() {
        const index_t b = below(cache.batch()), size = cache.size(b);
        const index_t n = below(8) == 0 ? size : below(std::min<index_t>(size, 6) + 1);
        sequence& s = model[number(b)];
        try {
            cache.truncate(b, n);
            s.ids.resize(number(size - n));
        } catch (const argument_error&) {
            EXPECT_LT(size - n, s.most - pair.droppable) << "refused what is promised";
        }
    }
    void reorder() {
        std::vector<index_t> parents(number(1 + below(3)));
        std::vector<sequence> children;
        for (index_t& parent : parents) children.push_back(model[number(parent = below(cache.batch()))]);
        cache.reorder(parents);
        model = children;
    }
    void step() {
        switch (below(8)) {
            case 0:
                return append_to_all();
            case 1:
            case 2:
                return append_to_one();
            case 3:
            case 4:
                return truncate();
            case 5:
                return reorder();
            case 6:
                return cache.reserve(below(40));
            default:
                return cache.truncate(0);
        }
    }
};

TYPED_TEST(quantised_cache_of, any_history_leaves_the_bits_of_one_append) {
    twins<TypeParam> both;
    for (int step = 0; step < 5000 && !testing::Test::HasFailure(); ++step) {
        both.step();
        ASSERT_EQ(both.cache.batch(), static_cast<index_t>(both.model.size()));
        const index_t b = both.below(both.cache.batch());
        expect_tokens(both.pair, both.cache, b, both.model[number(b)].ids);
    }
    EXPECT_GT(both.next, 4000);
}

template <class Cache>
concept forgetful = requires(Cache& cache, std::vector<index_t> kept) {
    cache.keep(0, 0, kept);
};

static_assert(!forgetful<decltype(channels().make(2))> && !forgetful<decltype(channels_and_tokens().make(2))>);

/// Heads that let go of keys, against the tokens each should hold; every row has the bits it was first given.
template <class Pair>
void expect_heads_forget() {
    using cache_type = decltype(Pair().make(2));
    static_assert(forgetful<cache_type>);
    struct sequence {
        std::vector<index_t> ids;                 // by position; -1 where it was skipped
        std::vector<std::vector<index_t>> at{G};  // the positions each head holds
    };
    const Pair pair;
    cache_type cache = pair.make(2);
    std::vector<sequence> model(2);
    const counter_random random(3);
    std::uint64_t draws = 0;
    index_t next = 0;
    const auto below = [&](index_t n) { return random.integer(draws++, 0, n); };
    for (int step = 0; step < 600 && !testing::Test::HasFailure(); ++step) {
        const index_t b = below(cache.batch()), g = below(G);
        sequence& s = model[number(b)];
        switch (below(9)) {
            case 0:
            case 1: {
                std::vector<index_t> kept, left;
                const index_t odds = below(5);
                for (index_t j = 0; j < cache.keys(b, g); ++j)
                    if (below(4) < odds) kept.push_back(j), left.push_back(s.at[number(g)][number(j)]);
                cache.keep(b, g, kept);
                s.at[number(g)] = left;
                break;
            }
            case 2: {
                const index_t n = below(std::min<index_t>(cache.size(b), 9) + 1), end = cache.size(b) - n;
                cache.truncate(b, n);
                s.ids.resize(number(end));
                for (auto& at : s.at) std::erase_if(at, [&](index_t j) { return j >= end; });
                break;
            }
            case 3: {
                const std::vector<index_t> parents{below(cache.batch()), b, below(cache.batch())};
                std::vector<sequence> children;
                for (index_t parent : parents) children.push_back(model[number(parent)]);
                cache.reorder(parents);
                model = children;
                break;
            }
            case 4: {
                const index_t n = below(4);
                cache.skip(b, n);
                s.ids.resize(s.ids.size() + number(n), -1);
                break;
            }
            default: {
                std::vector<index_t> ids(number(below(9)));
                for (index_t& id : ids) {
                    for (auto& at : s.at) at.push_back(static_cast<index_t>(s.ids.size()));
                    s.ids.push_back(id = next++);
                }
                cache.append(b, keys_of(ids), values_of(ids));
            }
        }
        for (index_t c = 0; c < cache.batch(); ++c)
            for (index_t head = 0; head < G; ++head) {
                const sequence& want = model[number(c)];
                const auto& at = want.at[number(head)];
                ASSERT_EQ(cache.end(c), static_cast<index_t>(want.ids.size()));
                ASSERT_EQ(cache.keys(c, head), static_cast<index_t>(at.size()));
                const index_t* const places = cache.positions(c, head);
                if (!at.empty()) ASSERT_EQ(places == nullptr, at.size() == want.ids.size());
                for (index_t j = 0; j < cache.keys(c, head); ++j) {
                    ASSERT_EQ(places ? places[j] : j, at[number(j)]);
                    if (step % 20 != 0) continue;
                    auto one = pair.make(1);
                    const std::vector<index_t> id{want.ids[number(at[number(j)])]};
                    one.append(keys_of(id), values_of(id));
                    const auto got = cache.run(c, head, j), given = one.run(0, head, 0);
                    ASSERT_EQ(got.keys, (range{j, cache.keys(c, head)}));
                    for (index_t d = 0; d < D; ++d) ASSERT_EQ(got.k.number(0, d), given.k.number(0, d));
                    for (index_t e = 0; e < E; ++e) ASSERT_EQ(got.v.number(0, e), given.v.number(0, e));
                }
            }
    }
    cache.append(0, keys_of({1, 2}), values_of({1, 2}));
    refuses<argument_error>([&] { cache.keep(9, 0, {}); }, "quantised_cache::keep: sequence 9 of ");
    refuses<argument_error>([&] { cache.keep(0, G, {}); }, "quantised_cache::keep: head 2 of 2");
    const index_t many[] = {100000}, twice[] = {1, 1};
    refuses<argument_error>([&] { cache.keep(0, 0, many); }, "quantised_cache::keep: key 100000 of ");
    refuses<argument_error>([&] { cache.keep(0, 0, twice); }, "quantised_cache::keep: key 1 follows key 1");
}
TEST(quantised_cache, heads_forget) {
    expect_heads_forget<tokens_and_groups>();
    expect_heads_forget<integers>();
}

/// Tokens after a gap stand later, and have the bits they would have without it.
TYPED_TEST(quantised_cache_of, positions_can_be_skipped) {
    const TypeParam pair;
    auto cache = pair.make(2);
    const auto ids = first_tokens(7);
    for (index_t b : {0, 1}) cache.append(b, keys_of(ids), values_of(ids));
    const std::vector<index_t> more{7, 8, 9};
    cache.skip(1, 4);
    cache.skip(0);
    cache.append(1, keys_of(more), values_of(more));
    cache.append(0, keys_of(more), values_of(more));
    EXPECT_EQ(cache.size(0), 10);
    EXPECT_EQ(cache.end(1), 14);
    EXPECT_EQ(cache.keys(1, 1), 10);
    EXPECT_EQ(cache.positions(0, 1), nullptr);
    for (index_t j = 0; j < 10; ++j) EXPECT_EQ(cache.positions(1, 0)[j], j < 7 ? j : j + 4);
    const auto gap = read_source(cache, 1), none = read_source(cache, 0);
    none.k.each([&](index_t, index_t g, index_t n, index_t d) { EXPECT_EQ(gap.k(0, g, n, d), none.k(0, g, n, d)); });
    cache.truncate(1, 5);  // into the gap
    EXPECT_EQ(cache.end(1), 9);
    EXPECT_EQ(cache.keys(1, 0), 7);
    refuses<argument_error>([&] { cache.skip(-1); }, "quantised_cache::skip: cannot skip -1 positions");
    refuses<argument_error>([&] { cache.skip(2, 1); }, "quantised_cache::skip: sequence 2 of 2");
}

TYPED_TEST(quantised_cache_of, errors_leave_it_as_it_was) {
    const TypeParam pair;
    auto cache = pair.make(1);
    const auto ids = first_tokens(11);
    cache.append(keys_of(ids), values_of(ids));
    const auto k = keys_of(first_tokens(3));
    const auto v = values_of(first_tokens(3));
    refuses<shape_error>([&] { cache.append(v, v); }, "quantised_cache::append: k has width 33, the cache has 40");
    refuses<shape_error>([&] { cache.append(k, values_of(first_tokens(2))); }, "v has 2 tokens, k has 3");
    refuses<argument_error>([&] { cache.append(1, k, v); }, "sequence 1 of 1");
    refuses<argument_error>([&] { cache.truncate(12); }, "cannot drop 12 tokens of 11");
    refuses<argument_error>([&] { cache.truncate(-1); }, "cannot drop -1 tokens of 11");
    refuses<argument_error>([&] { cache.reserve(-1); }, "tokens is -1");
    const index_t parents[] = {0, 1};
    refuses<argument_error>([&] { cache.reorder(parents); }, "sequence 1 of 1");
    for (double bad : {std::nan(""), double(INFINITY), -double(INFINITY)}) {
        auto bad_k = k;
        bad_k(0, 1, 2, 39) = static_cast<float>(bad);
        refuses<argument_error>([&] { cache.append(bad_k, v); }, "k is inf or NaN in sequence 0, head 1, token 2");
        auto bad_v = v;
        bad_v(0, 0, 1, 0) = static_cast<float>(bad);
        refuses<argument_error>([&] { cache.append(k, bad_v); }, "v is inf or NaN in sequence 0, head 0, token 1");
    }
    expect_tokens(pair, cache, 0, ids);
}

TEST(quantised_cache, a_block_that_is_gone_cannot_be_reopened) {
    quantised_cache<int8_per_channel, int8_per_token> cache({1, G, D, E}, {10});
    const auto ids = first_tokens(47);
    cache.append(keys_of(ids), values_of(ids));
    refuses<argument_error>([&] { cache.truncate(22); },
                            "cannot end after 25 tokens: of blocks of 10 those from token 30 on can be reopened");
    expect_tokens(channels_and_tokens::pair_of{{10}, {}, {}, 10}, cache, 0, ids);
    cache.truncate(10);  // a block, wherever the end stands
    expect_tokens(channels_and_tokens::pair_of{{10}, {}, {}, 10}, cache, 0, first_tokens(37));
    cache.truncate(27);  // to the end of a block
    expect_tokens(channels_and_tokens::pair_of{{10}, {}, {}, 10}, cache, 0, first_tokens(10));
    cache.truncate(10);
    EXPECT_EQ(cache.size(), 0);
}

TEST(quantised_cache, runs_are_as_long_as_the_factors_allow) {
    const auto ids = first_tokens(100);
    const auto runs = [&](auto cache) {
        cache.append(keys_of(ids), values_of(ids));
        return read_source(cache).most_runs;
    };
    EXPECT_EQ(runs(quantised_cache<int8_per_token>({1, G, D, E})), 1);
    EXPECT_EQ(runs(quantised_cache<int8_per_group<32>, int4_per_group<64>>({1, G, D, E})), 1);
    EXPECT_EQ(runs(quantised_cache<int8_per_token, int8_per_channel>({1, G, D, E})), 2);
    EXPECT_EQ(runs(quantised_cache({1, G, D, E}, int8_per_channel{10}, int8_per_channel{25})), 12);
}

TEST(quantised_cache, bytes_are_those_of_the_format) {
    const auto ids = first_tokens(64);
    quantised_cache<int8_per_token, int4_per_group<32>> cache({1, G, D, E});
    EXPECT_EQ(cache.bytes(), 0);
    cache.reserve(64);
    const index_t per_token = (D + 4) + (16 + 1 + 2 * 4);
    EXPECT_EQ(cache.bytes(), 64 * G * per_token);
    cache.append(keys_of(ids), values_of(ids));
    EXPECT_EQ(cache.bytes(), 64 * G * per_token);
}

TEST(quantised_cache, storage_types_are_read_as_float) {
    const auto ids = first_tokens(7);
    const auto k = keys_of(ids), v = values_of(ids);
    const auto as = []<class T>(T, const auto& x, const layout& l) {
        tensor<T> y(x.shape(), l);
        y.each([&](index_t b, index_t g, index_t n, index_t d) { y(b, g, n, d) = static_cast<T>(x(b, g, n, d)); });
        return y;
    };
    for (const layout& l : {layout::padded(), layout::strided(), layout::channels_first()}) {
        quantised_cache<int8_per_token> cache({1, G, D, E});
        cache.append(as(double{}, k, l), as(bf16{}, v, l));
        const auto held = read_source(cache);
        expect_quantised(held.k, k, int8_per_token{}, false);
        expect_quantised(held.v, as(float{}, as(bf16{}, v, l), l), int8_per_token{}, false);
    }
}

TEST(quantised_cache, a_transform_keeps_scores_and_is_undone_in_outputs) {
    quantised_cache<int8_per_token> cache({1, 1, 48, 24}, {}, {}, {.keys = true, .values = true});
    const auto q = normal<double>({1, 1, 1, 48}, 2);
    const auto k = normal<float>({1, 1, 3, 48}, 1);
    const auto v = normal<float>({1, 1, 3, 24}, 3);
    cache.append(k, v);
    const auto held = read_source(cache);
    auto turned = q;
    cache.turn_query(turned.v().data);
    for (index_t j = 0; j < 3; ++j) {
        double exact = 0, got = 0, q_size = 0, step = 0;
        for (index_t d = 0; d < 48; ++d) {
            exact += q(0, 0, 0, d) * k(0, 0, j, d);
            got += turned(0, 0, 0, d) * held.k(0, 0, j, d);
            q_size += std::abs(turned(0, 0, 0, d));
            step = std::max(step, std::abs(held.k(0, 0, j, d)) / 127);
        }
        EXPECT_NEAR(got, exact, 0.51 * step * q_size);
        EXPECT_NE(got, exact);
        double row[24], error = 0, size = 0;
        for (index_t e = 0; e < 24; ++e) row[e] = held.v(0, 0, j, e), size = std::max(size, std::abs(row[e]));
        cache.turn_output(row);
        for (index_t e = 0; e < 24; ++e) error += std::pow(row[e] - v(0, 0, j, e), 2);
        EXPECT_LT(std::sqrt(error), 0.51 * size / 127 * std::sqrt(24.0));  // the transform keeps lengths
    }
    quantised_cache<int8_per_token> plain({1, 1, 48, 24});
    auto same = q;
    plain.turn_query(same.v().data);
    for (index_t d = 0; d < 48; ++d) EXPECT_EQ(same(0, 0, 0, d), q(0, 0, 0, d));
}

/// An outlier takes the levels of its whole group; spread over the row it leaves them to the others.
TEST(quantised_cache, a_transform_helps_against_outliers) {
    const auto error = [](hadamard transformed) {
        auto v = normal<float>({1, 1, 50, 64}, 1);
        for (index_t n = 0; n < 50; ++n) v(0, 0, n, 11) = 60;
        quantised_cache<int4_per_group<64>> cache({1, 1, 64, 64}, {}, {}, transformed);
        cache.append(v, v);
        auto held = read_source(cache).v;
        double sum = 0;
        for (index_t n = 0; n < 50; ++n) {
            cache.turn_output(&held(0, 0, n, 0));
            for (index_t d = 0; d < 64; ++d) sum += std::pow(held(0, 0, n, d) - v(0, 0, n, d), 2);
        }
        return std::sqrt(sum / (50 * 64));
    };
    EXPECT_NEAR(error({}), 1, 0.05);  // everything but the outliers is rounded to 0
    EXPECT_LT(error({.values = true}), 0.5);
}

TEST(quantised_cache, empty_extents) {
    for (cache_shape shape : {cache_shape{0, 2, 4, 4}, cache_shape{2, 0, 4, 4}, cache_shape{1, 1, 0, 0}}) {
        quantised_cache<int8_per_channel, int4_per_group<32>> cache(shape);
        const auto k = normal<float>({shape.B, shape.G, 3, shape.D}, 1),
                   v = normal<float>({shape.B, shape.G, 3, shape.E}, 2);
        cache.append(k, v);
        cache.append(k, v);
        cache.truncate(1);
        EXPECT_EQ(cache.size(), shape.B > 0 ? 5 : 0);
        const std::vector<index_t> nobody;
        cache.reorder(nobody);
        EXPECT_EQ(cache.batch(), 0);
        EXPECT_EQ(cache.size(), 0);
    }
    refuses<argument_error>([] { quantised_cache<int8_per_token>({1, 1, -2, 4}); }, "quantised_cache: D is -2");
    refuses<argument_error>([] { quantised_cache<int8_per_channel>({1, 1, 2, 4}, {0}); }, "block is 0, must be 1");
}

}  // namespace
