// Attention over contiguous, paged and layer-shared caches: the bits of dense k and v, whose values the definition
// gives.
#include <heed/heed.hpp>

#include "any_mask.hpp"
#include "compare.hpp"
#include "random.hpp"

using namespace test;

namespace {

using list = std::vector<index_t>;

constexpr index_t H = 4, G = 2, D = 24, E = 40;

/// Keys and values of one sequence of M tokens.
template <class S>
struct sequence {
    tensor<S> k, v;
    sequence(index_t M, std::uint64_t seed) : k(normal<S>({1, G, M, D}, seed)), v(normal<S>({1, G, M, E}, seed + 1)) {}
    view<S> keys(range tokens) { return slice(k.v(), 2, tokens); }
    view<S> values(range tokens) { return slice(v.v(), 2, tokens); }
};

template <class S, class Source>
tensor<S> attend(const tensor<S>& q, const Source& source, const any_mask& mask = causal{}) {
    tensor<S> o({q.shape()[0], H, q.shape()[2], E});
    attention(q.v(), source, o.v(), mask);
    return o;
}

/// Sequence b of o against attention over the first M of its own k and v.
template <class S>
testing::AssertionResult is_dense(const tensor<S>& o, const tensor<S>& q, index_t b, sequence<S>& x, index_t M,
                                  const any_mask& mask = causal{}) {
    const auto alone = copied(slice(q.v(), 0, {b, b + 1}));
    const auto want = attend(alone, view_source<S, S>{x.keys({0, M}), x.values({0, M})}, mask);
    return same_values(copied(slice(o.v(), 0, {b, b + 1})), want);
}

template <class S>
class contiguous_attention : public testing::Test {};
using storages = testing::Types<float, bf16>;
TYPED_TEST_SUITE(contiguous_attention, storages);

// Few queries and many, sequences of different lengths, and keys appended in uneven pieces.
TYPED_TEST(contiguous_attention, is_that_of_dense_keys_and_values) {
    using S = TypeParam;
    sequence<S> x[2] = {{700, 1}, {90, 3}};
    contiguous_cache<S> cache({2, G, D, E});
    for (index_t b = 0; b < 2; ++b)
        for (index_t j = 0, n = 1, M = x[b].k.shape()[2]; j < M; j += n, n = std::min(2 * n + 1, M - j))
            cache.append(b, x[b].keys({j, j + n}), x[b].values({j, j + n}));
    for (index_t N : {1, 3, 40}) {
        const auto q = normal<S>({2, H, N, D}, 5);
        for (const any_mask& mask : {any_mask(causal{}), any_mask(causal{} & (window{50} | first{3}))}) {
            const auto o = attend(q, cache, mask);
            for (index_t b = 0; b < 2; ++b)
                EXPECT_TRUE(is_dense(o, q, b, x[b], cache.size(b), mask)) << N << " rows, " << b;
        }
    }
}

// A head that forgot tokens gives what a mask that hides them gives; the other heads are as before.
TEST(contiguous_cache, after_an_eviction_attends_to_the_kept_at_their_positions) {
    sequence<double> x(120, 1);
    contiguous_cache<double> cache({1, G, D, E});
    cache.append(x.keys({0, 100}), x.values({0, 100}));
    list kept;
    for (index_t j = 0; j < 100; j += 1 + j % 4) kept.push_back(j);
    cache.keep(0, 1, kept);
    cache.append(x.keys({100, 120}), x.values({100, 120}));  // these stand at 100 to 119 in both heads
    for (index_t j = 100; j < 120; ++j) kept.push_back(j);
    for (index_t N : {1, 30}) {
        const auto q = normal<double>({1, H, N, D}, 5);
        const any_mask mask = causal{} & window{70};
        EXPECT_TRUE(attends(attend(q, cache, mask), q, x.k, x.v,
                            [&](auto real) {
                                ref::options<decltype(real)> with;
                                with.visible = [&](index_t, index_t h, index_t, index_t i, index_t j) {
                                    const bool here = h < H / G || std::binary_search(kept.begin(), kept.end(), j);
                                    return here && j <= i && i - 70 <= j;
                                };
                                return with;
                            }))
            << N << " rows";
    }
}

// Tokens after positions that were skipped give what a mask gives that hides the skipped.
TEST(contiguous_cache, tokens_stand_where_they_are_put) {
    sequence<double> x(120, 1);
    contiguous_cache<double> cache({1, G, D, E});
    cache.append(x.keys({0, 40}), x.values({0, 40}));
    cache.skip(10);
    for (index_t j = 50; j < 120; j += 2, cache.skip(0, 1)) cache.append(x.keys({j, j + 1}), x.values({j, j + 1}));
    cache.truncate(1);  // what was skipped last, after the token at 118
    for (index_t N : {1, 30}) {
        const auto q = normal<double>({1, H, N, D}, 5);
        EXPECT_TRUE(attends(attend(q, cache, any_mask(causal{} & window{70})), q, x.k, x.v, [&](auto real) {
            ref::options<decltype(real)> with;
            with.offset = 119 - N;
            with.visible = [](index_t, index_t, index_t, index_t i, index_t j) {
                return j <= i && i - 70 <= j && (j < 40 || (j >= 50 && j % 2 == 0));
            };
            return with;
        })) << N
            << " rows";
    }
}

// A prompt fed in pieces, each attended to as it comes, gives the rows of the whole prompt.
TEST(contiguous_cache, prefill_in_any_pieces_is_prefill_at_once) {
    const index_t M = 90;
    sequence<float> x(M, 1);
    const auto q = normal<float>({1, H, M, D}, 5);
    for (const list& cuts : {list{0, 90}, list{0, 1, 2, 90}, list{0, 13, 26, 39, 52, 65, 78, 90}, list{0, 89, 90}}) {
        contiguous_cache<float> cache({1, G, D, E});
        tensor<float> o({1, H, M, E});
        for (std::size_t c = 1; c < cuts.size(); ++c) {
            const range piece{cuts[c - 1], cuts[c]};
            cache.append(x.keys(piece), x.values(piece));
            attention(slice(q.v(), 2, piece), cache, slice(o.v(), 2, piece), any_mask(causal{}));
        }
        EXPECT_TRUE(attends(o, q, x.k, x.v, [](auto real) {
            ref::options<decltype(real)> with;
            with.visible = [](index_t, index_t, index_t, index_t i, index_t j) { return j <= i; };
            return with;
        }));
    }
}

// Pages taken in turn by three sequences, one of which shares a prefix, lie scattered; the bits do not tell.
TEST(paged_cache, attention_is_that_of_dense_keys_and_values) {
    for (index_t page : {1, 16, 64}) {
        sequence<float> x[3] = {{300, 1}, {300, 3}, {300, 5}};
        paged_cache<float> cache({2, G, D, E}, page, 3 * ceil_div(300, page));
        for (index_t j = 0; j < 200; j += 20)
            for (index_t b = 0; b < 2; ++b) cache.append(b, x[b].keys({j, j + 20}), x[b].values({j, j + 20}));
        const index_t fork = cache.fork(1, 77);
        for (auto half : {&sequence<float>::k, &sequence<float>::v})
            (x[2].*half).each([&](index_t, index_t g, index_t n, index_t d) {
                if (n < 77) (x[2].*half)(0, g, n, d) = (x[1].*half)(0, g, n, d);
            });
        cache.append(fork, x[2].keys({77, 137}), x[2].values({77, 137}));
        cache.append(1, x[1].keys({200, 300}), x[1].values({200, 300}));
        for (index_t N : {1, 30}) {
            const auto q = normal<float>({3, H, N, D}, 9);
            const auto all = attend(q, cache);
            const auto chosen = attend(q, cache.of({fork, 1, fork}));
            const list ids{fork, 1, fork};
            for (index_t b = 0; b < 3; ++b) {
                const index_t id = ids[static_cast<std::size_t>(b)];
                EXPECT_TRUE(is_dense(all, q, b, x[b], cache.size(b))) << "page " << page << ", sequence " << b;
                EXPECT_TRUE(is_dense(chosen, q, b, x[id], cache.size(id))) << "page " << page << ", sequence " << id;
            }
        }
    }
}

TEST(caches, an_output_inside_one_is_an_error) {
    sequence<float> x(20, 1);
    contiguous_cache<float> cache({1, G, D, E});
    paged_cache<float> pages({1, G, D, E}, 4, 10);
    const auto q = normal<float>({1, H, 1, D}, 5);
    cache.append(x.k, x.v);
    pages.append(x.k, x.v);
    const auto inside = [](const auto& source) {
        return heads(const_cast<float*>(source.run(0, 1, 3).v.data), {1, H, 1, E});
    };
    EXPECT_THROW(attention(q.v(), cache, inside(cache), any_mask(causal{})), shape_error);
    EXPECT_THROW(attention(q.v(), pages, inside(pages), any_mask(causal{})), shape_error);
}

// Layer by layer, token by token: a layer that shares sees the token its producer has just appended [18].
TEST(layer_caches, attention_is_that_over_the_producers_tensors) {
    const index_t L = 5, M = 40;
    std::vector<sequence<float>> x;
    for (index_t l = 0; l < L; ++l) x.emplace_back(M, number(10 * l));
    for (index_t s : {1, 2, 3}) {
        layer_caches layers(shared_by(s, L), [](index_t) { return contiguous_cache<float>({1, G, D, E}); });
        for (index_t j = 0; j < M; ++j)
            for (index_t l = 0; l < L; ++l) {
                const index_t p = layers.producer(l);
                auto& own = x[static_cast<std::size_t>(p)];
                if (p == l) layers.produced_by(l).append(own.keys({j, j + 1}), own.values({j, j + 1}));
                const auto q = normal<float>({1, H, 1, D}, number(l * M + j));
                ASSERT_TRUE(is_dense(attend(q, layers.cache_of(l)), q, 0, own, j + 1))
                    << "layer " << l << ", token " << j;
            }
    }
}

}  // namespace
