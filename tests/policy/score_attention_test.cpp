// The engine under scores and weights of the catalogue, against the definition, and the limits that join them.
#include <heed/heed.hpp>

#include "any_mask.hpp"
#include "any_score.hpp"
#include "compare.hpp"
#include "random.hpp"

using namespace test;

namespace {

constexpr index_t B = 2, H = 2, N = 53, M = 141, shift = M - N;

struct operands {
    tensor<float> q = normal<float>({B, H, N, 5}, 1), k = normal<float>({B, 1, M, 5}, 2), v = normal<float>({B, 1, M, 3}, 3);
    tensor<float> o{{B, H, N, 3}};

    testing::AssertionResult agree(const any_score& score, const any_mask& mask) {
        attention(q, k, v, o, score, mask);
        return attends(o, q, k, v, [&](auto real) {
            using R = decltype(real);
            ref::options<R> with;
            with.score = [&](R x, index_t b, index_t h, index_t row, index_t i, index_t j) {
                return static_cast<R>(score(double(x), {b, h, row, i, j}));
            };
            with.visible = [&](index_t b, index_t h, index_t row, index_t i, index_t j) {
                return mask.allows({b, h, row, i, j});
            };
            return with;
        }, {3, 1e-6});  // tables and transcendentals of the scores are float, in the definition double
    }
};

TEST(score_attention, every_score) {
    operands x;
    const any_mask all = everything{}, causal_mask = causal{};
    const auto slopes = alibi_slopes(H);
    const std::vector<float> two{0.5f, -1.5f}, three{-1, -2};
    const auto table = normal<float>({B, H, N, M}, 5), pairs = normal<float>({1, H, 1, 40}, 6);
    const auto sums = uniform<float>({1, B, H, M}, 7, -3, 0);
    const view<const float, 3> gates{sums.v().data, {B, H, M}, {H * M, M, 1}}, rows{table.v().data, {B, H, N}, {H * N, N, 1}};
    std::vector<int> ids(static_cast<std::size_t>(N * M));
    for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int>(i * i % 40);
    const auto t5 = t5_table(view<const float, 2>{table.v().data, {32, H}, {H, 1}}, true);
    for (const any_mask& mask : {all, causal_mask}) {
        EXPECT_TRUE(x.agree(alibi{slopes}, mask));
        EXPECT_TRUE(x.agree(softcap{2} >> alibi{slopes}, mask));
        EXPECT_TRUE(x.agree(temperature{0.5}, mask));
        EXPECT_TRUE(x.agree(bias(table.v()), mask));
        EXPECT_TRUE(x.agree(t5.score(), mask));
        EXPECT_TRUE(x.agree(prior{three, two}, mask));
        EXPECT_TRUE(x.agree(rows_scale(rows) >> head_scale{two}, mask));
        EXPECT_TRUE(x.agree(forget(gates), mask));
        EXPECT_TRUE(x.agree(relation(pairs.v(), dense(static_cast<const int*>(ids.data()), {1, N, M}), 0.4), mask));
        EXPECT_TRUE(x.agree(affinity([](auto a, const where& w) { return a - 0.1f * abs(w.gap(a)); }), mask));
    }
}

TEST(score_attention, a_bias_of_bf16) {
    for (const auto& [rows, keys] : {std::pair<index_t, index_t>{1, 37}, {9, 8}, {17, 24}, {50, 133}}) {
        const auto q = normal<float>({2, 2, rows, 5}, 1), k = normal<float>({2, 1, keys, 5}, 2);
        const auto v = normal<float>({2, 1, keys, 3}, 3);
        const auto table = normal<bf16>({1, 2, rows, keys}, 4, 2, layout::padded());
        tensor<float> o({2, 2, rows, 3});
        attention(q, k, v, o, bias(table.v()));
        EXPECT_TRUE(attends(o, q, k, v, [&](auto real) {
            using R = decltype(real);
            ref::options<R> with;
            with.score = [&](R x, index_t, index_t h, index_t n, index_t, index_t j) {
                return x + static_cast<R>(table(0, h, n, j));
            };
            return with;
        })) << rows << ", " << keys;
    }
}

TEST(score_attention, relations_of_graphs_permute_with_their_nodes) {
    const index_t n = 20, P = 7;
    const auto q = normal<float>({1, 2, n, 4}, 1), k = normal<float>({1, 2, n, 4}, 2), v = normal<float>({1, 2, n, 4}, 3);
    const auto products = normal<float>({1, 2, n, P}, 4);
    std::vector<int> ids(static_cast<std::size_t>(n * n)), turned(ids.size());
    const auto to = [&](index_t i) { return (i * 7 + 3) % n; };
    for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < n; ++j) {
            ids[static_cast<std::size_t>(i * n + j)] = static_cast<int>((i * 5 + j * j) % P);
            turned[static_cast<std::size_t>(to(i) * n + to(j))] = ids[static_cast<std::size_t>(i * n + j)];
        }
    const auto permuted = [&](const tensor<float>& x) {
        tensor<float> y(x.shape());
        x.each([&](index_t b, index_t h, index_t i, index_t d) { y(b, h, to(i), d) = x(b, h, i, d); });
        return y;
    };
    const auto run = [&](const auto& a, const auto& b, const auto& c, const auto& t, const std::vector<int>& id) {
        tensor<float> o(q.shape());
        attention(a, b, c, o, any_score(relation(t.v(), dense(id.data(), {1, n, n}), 0.5)), any_mask(everything{}));
        return o;
    };
    const auto o = permuted(run(q, k, v, products, ids));
    const auto o2 = run(permuted(q), permuted(k), permuted(v), permuted(products), turned);
    o.each([&](index_t b, index_t h, index_t i, index_t d) { EXPECT_NEAR(o(b, h, i, d), o2(b, h, i, d), 2e-6); });
}

/// The weights of Mega, chosen when run.
struct mega_weight {
    using role = roles::weight;
    static constexpr bool normalised = false;
    bool squares;
    template <class X>
    X operator()(X x) const {
        return squares ? relu_squared{}(x) : laplace{}(x);
    }
};

// Mega: s = q.k / len + bias, weights element by element, len the visible keys of the row; inside chunks.
TEST(score_attention, mega) {
    operands x;
    std::vector<float> per_row(static_cast<std::size_t>(N));
    const auto mask = causal{} & chunk{64};
    const view<float, 3> factors = dense(per_row.data(), {1, 1, N});
    count_rows(mask, M, shift, factors);
    for (float& f : per_row) f = 1 / f;
    const auto slopes = alibi_slopes(H);
    const any_score score = rows_scale(factors) >> alibi{slopes};
    for (bool squares : {false, true}) {
        attention(x.q, x.k, x.v, x.o, scale{1}, score, any_mask(mask), mega_weight{squares});
        EXPECT_TRUE(attends(x.o, x.q, x.k, x.v, [&](auto real) {
            using R = decltype(real);
            ref::options<R> with;
            with.scale = 1;
            with.score = [&](R s, index_t, index_t h, index_t row, index_t i, index_t j) {
                return s * R(per_row[static_cast<std::size_t>(row)]) -
                       R(slopes[static_cast<std::size_t>(h)]) * R(std::abs(i - j));
            };
            with.visible = [&](index_t b, index_t h, index_t row, index_t i, index_t j) {
                return mask.allows({b, h, row, i, j});
            };
            with.weight = [&](R s) { return static_cast<R>(mega_weight{squares}(s)); };
            return with;
        }, {2, 2e-6})) << squares;
    }
}

TEST(score_attention, visual_tokens_of_ee_mllm_keep_their_values) {
    const index_t n = 60, visual = 41;
    const auto q = normal<float>({1, 2, n, 4}, 1), k = normal<float>({1, 2, n, 4}, 2), v = normal<float>({1, 2, n, 4}, 3);
    tensor<float> o(q.shape()), plain(q.shape());
    const any_score none = identity{};
    attention(q, k, v, o, none, any_mask(ee_mllm(visual)));
    attention(q, k, v, plain, none, any_mask(causal{}));
    o.each([&](index_t b, index_t h, index_t i, index_t d) {
        if (i < visual)
            EXPECT_EQ(o(b, h, i, d), v(b, h, i, d));
        else
            EXPECT_EQ(o(b, h, i, d), plain(b, h, i, d));
    });
    attention(q, k, v, o, none, any_mask(ee_mllm(visual, false)));
    o.each([&](index_t b, index_t h, index_t i, index_t d) {
        if (i < visual) EXPECT_EQ(o(b, h, i, d), 0);
    });
}

// Pieces of a parallel context do not feel each other; a song's vocals do not feel later accompaniment.
TEST(score_attention, what_is_hidden_moves_nothing) {
    const index_t n = 60;
    const std::vector<index_t> pieces{4, 20, 37, 50};
    const auto moved_rows = [&](const any_mask& mask, index_t changed) {
        const auto q = normal<float>({1, 1, n, 4}, 1), k = normal<float>({1, 1, n, 4}, 2), v = normal<float>({1, 1, n, 4}, 3);
        tensor<float> before(q.shape()), after(q.shape());
        attention(q, k, v, before, any_score(identity{}), mask);
        auto k2 = k, v2 = v;
        for (index_t d = 0; d < 4; ++d) k2(0, 0, changed, d) = v2(0, 0, changed, d) = 9;
        attention(q, k2, v2, after, any_score(identity{}), mask);
        std::vector<bool> moved(static_cast<std::size_t>(n));
        before.each([&](index_t, index_t, index_t i, index_t d) {
            if (before(0, 0, i, d) != after(0, 0, i, d)) moved[static_cast<std::size_t>(i)] = true;
        });
        return moved;
    };
    for (index_t changed : {2, 19, 25, 40, 55})
        for (const any_mask& mask : {any_mask(parallel_context(pieces)), any_mask(star(16, 50)),
                                     any_mask(song{song::strategy::both_ways, song::stream::vocals}),
                                     any_mask(song{song::strategy::accompaniment_to_vocals, song::stream::accompaniment})}) {
            const auto moved = moved_rows(mask, changed);
            for (index_t i = 0; i < n; ++i)
                EXPECT_EQ(moved[static_cast<std::size_t>(i)], mask.allows({0, 0, i, i, changed})) << i << " " << changed;
        }
}

// Equal scores over n keys have entropy ln n [115]; a constant added to the scores changes nothing.
TEST(score_attention, entropy_of_equal_scores) {
    const index_t n = 40;
    const auto q = constant<float>({1, 1, n, 4}, 0), k = normal<float>({1, 1, n, 4}, 2);
    tensor<float> o(q.shape());
    std::vector<float> h(static_cast<std::size_t>(n));
    for (float constant : {0.0f, 5.0f}) {
        const any_score added = affinity([constant](auto x, const where&) { return x + constant; });
        attention(q, k, k, o, added, any_mask(causal{}), entropy(dense(h.data(), {1, 1, n})));
        for (index_t i = 0; i < n; ++i) EXPECT_NEAR(h[static_cast<std::size_t>(i)], std::log(double(i + 1)), 4e-6);
    }
}

}  // namespace
