// Dual chunk attention against its definition, and the limits in which it is something simpler.
#include <heed/cache/contiguous.hpp>
#include <heed/ops/dual_chunk.hpp>
#include <heed/policy/rope_scaling.hpp>
#include <heed/ref/rotary_attention.hpp>

#include "compare.hpp"
#include "operands.hpp"
#include "refuses.hpp"
#include "scattered.hpp"

namespace {

using namespace heed;
using test::all_near;
using test::operands;
using test::refuses;
using test::tensor;

template <class S, class Rule>
tensor<S> attended(const operands<S>& x, const Rule& rule) {
    tensor<S> k(x.k.shape()), o(x.rows());
    rotary(x.k, k, rule.keys());
    dual_chunk_attention(x.q, k, x.v, o, rule);
    return o;
}

template <class S>
tensor<S> plain(const operands<S>& x) {
    tensor<S> q(x.q.shape()), k(x.k.shape()), o(x.rows());
    rotary(x.q, q, offset{x.k.shape()[2] - x.q.shape()[2]});
    rotary(x.k, k);
    attention(q, k, x.v, o, causal{});
    return o;
}

template <class S>
testing::AssertionResult defined(const operands<S>& x, const dual_chunk& rule) {
    return test::attends(attended(x, rule), x.q, x.k, x.v, [&](auto real) {
        return ref::rotary_options<decltype(real)>(
            x.q.v(), x.k.v(), [&](index_t i, index_t j) { return ref::dual_chunk_places(i, j, rule.chunk, rule.cap); });
    });
}

TEST(dual_chunk, prefill_is_the_definition) {
    for (auto [s, w] :
         std::vector<std::array<index_t, 2>>{{1, 0}, {1, 1}, {3, 2}, {8, 0}, {8, 3}, {8, 8}, {8, 30}, {64, 5}})
        for (index_t N : {0, 1, 7, 8, 9, 16, 17, 61}) {
            SCOPED_TRACE(testing::Message() << "chunks of " << s << ", local " << w << ", tokens " << N);
            EXPECT_TRUE(defined(operands<float>(N, N, 6), dual_chunk{s, w}));
        }
}

TEST(dual_chunk, decode_and_chunked_prefill_are_rows_of_the_prefill) {
    constexpr index_t M = 61;
    const dual_chunk rule{7, 3};
    const operands<float> x(M, M, 8);
    const auto whole = attended(x, rule);
    tensor<float> k(x.k.shape());
    rotary(x.k, k, rule.keys());
    for (index_t first = 0; first < M; first += 4)
        for (index_t rows : {1, 3, 9}) {
            const range at{first, std::min(first + rows, M)}, past{0, at.last};
            tensor<float> o({2, 4, at.size(), 5});
            dual_chunk_attention(slice(x.q.v(), 2, at), slice(k.v(), 2, past), slice(x.v.v(), 2, past), o, rule);
            EXPECT_TRUE(all_near(o, test::copied(slice(whole.v(), 2, at)), 8e-6)) << first << ", " << rows;
        }
}

TEST(dual_chunk, keys_appended_later_are_rotated_as_if_at_once) {
    const dual_chunk rule{7, 3};
    const auto k = test::normal<float>({2, 2, 30, 8}, 2);
    tensor<float> once(k.shape()), parts(k.shape());
    rotary(k, once, rule.keys());
    for (range r : {range{0, 13}, range{13, 14}, range{14, 30}})
        rotary(slice(k.v(), 2, r), slice(parts.v(), 2, r), rule.keys(r.first));
    EXPECT_TRUE(test::same_values(once, parts));
}

TEST(dual_chunk, short_sequences_are_plain_rotary_attention) {
    for (auto [s, w] : std::vector<std::array<index_t, 2>>{{20, 0}, {20, 5}, {8, 6}}) {
        const operands<float> one(s, s, 6);
        EXPECT_TRUE(test::same_values(attended(one, dual_chunk{s, w}), plain(one))) << "one chunk";
        const operands<float> exact(s + w + 1, s + w + 1, 6);
        EXPECT_TRUE(all_near(attended(exact, dual_chunk{s, w}), plain(exact), 8e-6)) << "distances are exact";
        const operands<float> longer(s + w + 2, s + w + 2, 6);
        EXPECT_FALSE(all_near(attended(longer, dual_chunk{s, w}), plain(longer), 8e-6)) << "the cap is reached";
        // One token earlier by the paper's text.
        EXPECT_TRUE(w == 0 || !all_near(attended(exact, dual_chunk{s, w - 1}), plain(exact), 8e-6));
    }
}

TEST(dual_chunk, without_rotation_it_is_causal_attention) {
    const operands<double> x(61, 61, 6);
    tensor<double> o(x.rows()), want(x.rows());
    dual_chunk_attention(x.q, x.k, x.v, o, dual_chunk{7, 3}, rotated{0});
    attention(x.q, x.k, x.v, want, causal{});
    EXPECT_TRUE(all_near(o, want, 8e-6));
}

TEST(dual_chunk, no_distance_exceeds_the_cap) {
    for (auto [s, w] : std::vector<std::array<index_t, 2>>{{1, 0}, {8, 0}, {8, 3}, {8, 8}, {8, 50}}) {
        const dual_chunk rule{s, w};
        for (index_t i = 0; i < 10 * s; ++i)
            for (index_t p : {rule.intra(i), rule.successive(i), rule.inter()}) {
                EXPECT_LE(p, rule.cap);
                EXPECT_GE(p, 0);
            }
    }
    const auto llama2 = dual_chunk::trained(4096);
    EXPECT_EQ(llama2.cap, 3072);
    EXPECT_EQ(llama2.chunk, 2816);
}

TEST(dual_chunk, sequences_of_a_source_stand_at_their_own_ends) {
    const dual_chunk rule{7, 3};
    const operands<float> x(3, 40, 8);
    const std::vector<index_t> lengths{5, 40};
    tensor<float> k(x.k.shape()), o(x.rows());
    rotary(x.k, k, rule.keys());
    dual_chunk_attention(x.q, test::scattered<float>(k, x.v, {5, 5, 40, 40}, 9), o, rule);
    for (index_t b = 0; b < 2; ++b) {
        const range one{b, b + 1}, past{0, lengths[static_cast<std::size_t>(b)]};
        const auto of = [&](const auto& t) { return slice(slice(t.v(), 0, one), 2, past); };
        tensor<float> alone({1, 4, 3, 5});
        dual_chunk_attention(slice(x.q.v(), 0, one), of(k), of(x.v), alone, rule);
        alone.each([&](index_t, index_t h, index_t n, index_t d) { EXPECT_EQ(o(b, h, n, d), alone(0, h, n, d)); });
    }
    const auto too_short = [&] {
        dual_chunk_attention(x.q, test::scattered<float>(k, x.v, {2, 2, 40, 40}, 9), o, rule);
    };
    refuses<argument_error>(too_short, "the first query stands at -1, before the first key");
}

TEST(dual_chunk, a_cache_decodes_what_prefill_computes) {
    constexpr index_t M = 30;
    const dual_chunk rule{7, 3};
    const operands<float> x(M, M, 8);
    const auto whole = attended(x, rule);
    contiguous_cache<float> cache({2, 2, 8, 5});
    for (index_t i = 0; i < M; ++i) {
        auto k = test::copied(slice(x.k.v(), 2, {i, i + 1}));
        tensor<float> o({2, 4, 1, 5});
        rotary(k, k, rule.keys(i));
        cache.append(k, slice(x.v.v(), 2, {i, i + 1}));
        dual_chunk_attention(slice(x.q.v(), 2, {i, i + 1}), cache, o, rule);
        EXPECT_TRUE(all_near(o, test::copied(slice(whole.v(), 2, {i, i + 1})), 8e-6)) << i;
    }
}

TEST(dual_chunk, policies_reach_rotation_and_attention) {
    constexpr index_t N = 23;
    const operands<float> x(N, N, 8, test::layout::tokens());
    tensor<float> q(x.q.shape()), k(x.k.shape()), o(x.rows(), test::layout::padded()), want(x.rows());
    std::vector<float> sums(2 * 4 * N), wanted(sums);
    const auto rows = [](std::vector<float>& v) { return lse{dense(v.data(), {2, 4, N})}; };
    const auto check = [&](const dual_chunk& rule, bool same) {
        rotary(x.k, k, rule.keys(), interpolated{2, 500}, interleaved{}, rotated{6});
        dual_chunk_attention(x.q, k, x.v, o, rule, interpolated{2, 500}, interleaved{}, rotated{6}, scale{0.2},
                             rows(sums), offset{0});
        EXPECT_EQ(test::same_values(o, want), same);
        EXPECT_EQ(sums == wanted, same);
        EXPECT_TRUE(o.poisoned_outside());
    };
    rotary(x.q, q, interpolated{2, 500}, interleaved{}, rotated{6});
    rotary(x.k, k, interpolated{2, 500}, interleaved{}, rotated{6});
    attention(q, k, x.v, want, causal{}, scale{0.2}, rows(wanted));
    check({N, 0}, true);
    check({5, 2}, false);
}

TEST(dual_chunk, mixed_storage) {
    constexpr index_t N = 20;
    const auto q = test::normal<bf16>({1, 2, N, 8}, 1);
    const auto k = test::normal<f16>({1, 1, N, 8}, 2);
    const auto v = test::normal<float>({1, 1, N, 3}, 3);
    tensor<bf16> turned(q.shape());
    tensor<f16> keys(k.shape());
    tensor<double> o({1, 2, N, 3}), want(o.shape());
    rotary(q, turned);
    rotary(k, keys);
    attention(turned, keys, v, want, causal{});
    rotary(k, keys, dual_chunk{N, 4}.keys());
    dual_chunk_attention(q, keys, v, o, dual_chunk{N, 4});
    EXPECT_TRUE(test::same_values(o, want));
}

TEST(dual_chunk, bad_arguments_are_named_before_anything_is_written) {
    const operands<float> x(5, 5, 8);
    auto o = test::constant<float>(x.rows(), 7);
    const auto with = [&](const dual_chunk& rule, auto... p) {
        return [&x, &o, rule, p...] { dual_chunk_attention(x.q, x.k, x.v, o, rule, p...); };
    };
    refuses<argument_error>(with({0, 3}), "dual_chunk_attention: chunks have 0 keys, the least is 1");
    refuses<argument_error>(with({4, -1}), "dual_chunk_attention: -1 keys are local, the least is 0");
    refuses<argument_error>(with({4, 1}, offset{-1}), "the first query stands at -1, before the first key");
    refuses<argument_error>(with({4, 1}, rotated{3}), "width 3 is odd");
    const operands<float> longer(6, 5, 8);
    tensor<float> o6(longer.rows());
    refuses<argument_error>(
        [&] {
            dual_chunk_attention(longer.q, x.k, x.v, o6, dual_chunk{4, 1});
        },
        "the first query stands at -1");
    refuses<shape_error>(
        [&] {
            dual_chunk_attention(x.q, x.k, x.v, o6, dual_chunk{4, 1});
        },
        "dual_chunk_attention: o has rows 6, q has 5");
    tensor<float> sums({2, 4, 4, 1});
    refuses<shape_error>(with({4, 1}, lse{view<float, 3>{sums.v().data, {2, 4, 4}, {16, 4, 1}}}),
                         "lse has shape (2, 4, 4)");
    o.each([&](index_t b, index_t h, index_t n, index_t d) { EXPECT_EQ(o(b, h, n, d), 7); });
}

}  // namespace
