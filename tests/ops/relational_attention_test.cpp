// Relations between tokens against the definition with a key and a value of its own for every pair.
#include <heed/heed.hpp>

#include "any_mask.hpp"
#include "compare.hpp"
#include "random.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

/// A score on packs and numbers behind a call, so that one engine serves all tests: none where there is no cap.
struct maybe_capped {
    using role = roles::score;
    double cap = 0;
    template <class X>
    X operator()(X x, const where& w) const {
        return cap > 0 ? softcap{cap}(x, w) : x;
    }
};

struct sizes {
    index_t B, H, G, N, M, D, E, P;
};

template <class S>
struct scene {
    sizes s;
    tensor<S> q, k, v, rk, rv;
    std::vector<int> id;  // (B, N, M)
    any_mask mask = everything{};
    double cap = 0;

    explicit scene(const sizes& of, index_t table_batch = 1, index_t table_heads = 1)
        : s(of), q(normal<S>({s.B, s.H, s.N, s.D}, 1)), k(normal<S>({s.B, s.G, s.M, s.D}, 2)),
          v(normal<S>({s.B, s.G, s.M, s.E}, 3)), rk(normal<S>({table_batch, table_heads, s.P, s.D}, 4)),
          rv(normal<S>({table_batch, table_heads, s.P, s.E}, 5)) {
        const counter_random r(6);
        for (index_t i = 0; i < s.B * s.N * s.M; ++i)
            id.push_back(static_cast<int>(r.bits(number(i)) % static_cast<std::uint64_t>(s.P)));
    }
    view<const int, 3> ids() const { return dense(id.data(), {s.B, s.N, s.M}); }
    int& at(index_t b, index_t n, index_t j) { return id[static_cast<std::size_t>((b * s.N + n) * s.M + j)]; }

    template <class... P>
    tensor<S> attend(const P&... policies) const {
        tensor<S> o({s.B, s.H, s.N, s.E});
        relational_attention(q, k, v, o, relations(rk.v(), rv.v(), ids()), mask, maybe_capped{cap}, policies...);
        return o;
    }

    /// The definition, row by row: the keys and values of a row are its own.
    template <class R, class O>
    tensor<O> define() const {
        tensor<O> o({s.B, s.H, s.N, s.E});
        tensor<R> row({1, 1, 1, s.D}), key({1, 1, s.M, s.D}), value({1, 1, s.M, s.E});
        for (index_t b = 0; b < s.B; ++b)
            for (index_t h = 0; h < s.H; ++h)
                for (index_t n = 0; n < s.N; ++n) {
                    const index_t g = h / (s.H / s.G);
                    const auto plus = [&](const tensor<S>& x, const tensor<S>& table, index_t j, index_t d) {
                        return R(x(b, g, j, d)) + R(table(table.shape()[0] == 1 ? 0 : b, table.shape()[1] == 1 ? 0 : g,
                                                          ids()(b, n, j), d));
                    };
                    row.each([&](index_t, index_t, index_t, index_t d) { row(0, 0, 0, d) = R(q(b, h, n, d)); });
                    key.each([&](index_t, index_t, index_t j, index_t d) { key(0, 0, j, d) = plus(k, rk, j, d); });
                    value.each([&](index_t, index_t, index_t j, index_t d) { value(0, 0, j, d) = plus(v, rv, j, d); });
                    ref::options<R> with;
                    with.offset = n + s.M - s.N;
                    with.visible = [&](index_t, index_t, index_t, index_t i, index_t j) {
                        return mask.allows({b, h, n, i, j});
                    };
                    with.score = [&](R x, index_t, index_t, index_t, index_t, index_t) {
                        return cap > 0 ? R(cap) * std::tanh(x / R(cap)) : x;
                    };
                    const view<O> to{&o(b, h, n, 0), {1, 1, 1, s.E}, {0, 0, 0, 1}};
                    ref::naive_attention<R>(row.v(), key.v(), value.v(), to, with);
                }
        return o;
    }
    testing::AssertionResult agrees() const {
        using T = accumulator<S>;
        using R = definition_of<T>;
        return within_rule<T>(attend(), define<T, S>(), define<R, R>());
    }
};

constexpr sizes small{1, 2, 1, 20, 30, 6, 5, 4};

TEST(relational_attention, is_attention_with_a_key_and_a_value_for_each_pair) {
    for (const sizes& s : {sizes{2, 4, 2, 53, 141, 5, 3, 7}, sizes{1, 1, 1, 1, 1, 1, 1, 1},
                           sizes{1, 3, 3, 17, 17, 16, 16, 33}, sizes{1, 2, 1, 7, 97, 31, 17, 1}})
        for (const any_mask& mask : {any_mask(everything{}), any_mask(causal{} & window{9})}) {
            scene<float> x(s);
            x.mask = mask;
            EXPECT_TRUE(x.agrees()) << s.N;
        }
}

TEST(relational_attention, tables_of_their_own_for_batches_and_heads) {
    for (index_t batch : {1, 2})
        for (index_t heads : {1, 2}) EXPECT_TRUE(scene<float>({2, 4, 2, 20, 30, 6, 5, 4}, batch, heads).agrees());
}

TEST(relational_attention, storage_types) {
    EXPECT_TRUE(scene<bf16>({2, 4, 2, 20, 70, 6, 5, 4}, 2, 2).agrees());
    EXPECT_TRUE(scene<double>({2, 4, 2, 20, 70, 6, 5, 4}, 2, 2).agrees());
}

TEST(relational_attention, the_score_of_the_pack_follows) {
    scene<float> x(small);
    x.cap = 0.7;
    EXPECT_TRUE(x.agrees());
}

// Shaw: the relation is the clipped distance, and one row of ids is the next one shifted.
TEST(relational_attention, clipped_distances) {
    const index_t reach = 3;
    scene<float> x({1, 2, 1, 40, 40, 8, 8, 2 * reach + 1});
    for (index_t n = 0; n < 40; ++n)
        for (index_t j = 0; j < 40; ++j) x.at(0, n, j) = static_cast<int>(std::clamp(j - n, -reach, reach) + reach);
    EXPECT_TRUE(x.agrees());
    // Rows whose keys all lie beyond the reach meet one vector: it is added whole to the values.
    x.mask = [=](const where& w) { return w.j + reach <= w.i; };
    const auto with = x.attend();
    auto bare = x;
    bare.rk.fill([](index_t) { return 0; });
    bare.rv.fill([](index_t) { return 0; });
    const auto without = bare.attend();
    with.each([&](index_t b, index_t h, index_t n, index_t e) {
        EXPECT_NEAR(with(b, h, n, e), without(b, h, n, e) + (n < reach ? 0 : x.rv(0, 0, 0, e)), 2e-6) << n;
    });
}

TEST(relational_attention, zero_vectors_change_nothing) {
    scene<float> x(small);
    x.rv.fill([](index_t) { return 0; });
    const auto o = x.attend();
    // Values alone: attention with the score of the relations, to the bit.
    tensor<float> dots({1, 2, 20, 4}), same(o.shape());
    const auto no_width = [](tensor<float>& t) { return slice(t.v(), 3, {0, 0}); };
    attention(x.q, x.rk, no_width(x.rv), no_width(same), linear{}, logits(dots.v(), stage::raw));
    attention(x.q, x.k, x.v, same, relation(dots.v(), x.ids()) >> maybe_capped{}, x.mask);
    EXPECT_TRUE(same_values(o, same));
    x.rk.fill([](index_t) { return 0; });
    EXPECT_TRUE(attends(x.attend(), x.q, x.k, x.v));
}

TEST(relational_attention, permutes_with_the_nodes_of_a_graph) {
    scene<float> x({1, 2, 1, 31, 31, 6, 5, 9});
    const auto to = [&](index_t i) { return (i * 7 + 3) % 31; };
    auto turned = x;
    const auto permute = [&](const tensor<float>& from, tensor<float>& y) {
        from.each([&](index_t b, index_t h, index_t i, index_t d) { y(b, h, to(i), d) = from(b, h, i, d); });
    };
    permute(x.q, turned.q), permute(x.k, turned.k), permute(x.v, turned.v);
    for (index_t n = 0; n < 31; ++n)
        for (index_t j = 0; j < 31; ++j) turned.at(0, to(n), to(j)) = x.at(0, n, j);
    const auto o = x.attend(), o2 = turned.attend();
    o.each([&](index_t b, index_t h, index_t i, index_t e) { EXPECT_NEAR(o(b, h, i, e), o2(b, h, to(i), e), 3e-6); });
}

TEST(relational_attention, a_row_without_keys_gives_0_and_strangers_do_not_reach_it) {
    scene<float> x(small);
    x.mask = [](const where& w) { return w.row != 3 && w.j < 20; };
    for (index_t n = 0; n < 20; ++n)
        for (index_t j = 0; j < 30; ++j)
            if (x.at(0, n, j) == 2 && (j < 20 && n != 5)) x.at(0, n, j) = 1;
    x.at(0, 5, 7) = 2;  // the only visible pair with relation 2
    const auto before = x.attend();
    for (bool key_side : {true, false}) {
        auto y = x;
        (key_side ? y.rk : y.rv)(0, 0, 2, 1) = std::numeric_limits<float>::quiet_NaN();
        const auto after = y.attend();
        after.each([&](index_t b, index_t h, index_t n, index_t e) {
            const float got = after(b, h, n, e);
            EXPECT_TRUE(n == 5 && (key_side || e == 1) ? std::isnan(got) : got == before(b, h, n, e)) << n;
            EXPECT_TRUE(n != 3 || got == 0);
        });
    }
}

TEST(relational_attention, any_number_of_threads_gives_the_same_bits) {
    const scene<float> x({2, 4, 2, 130, 141, 5, 3, 7});
    threads two(2);
    std::vector<float> sums(2 * 4 * 130), again(sums.size());
    const auto o = x.attend(lse(dense(sums.data(), {2, 4, 130})), on(detail::calling_thread::self));
    EXPECT_TRUE(same_values(o, x.attend(lse(dense(again.data(), {2, 4, 130})), on(two))));
    EXPECT_EQ(sums, again);
}

TEST(relational_attention, works_in_the_scratch_it_asks_for) {
    const scene<float> x({2, 4, 2, 20, 41, 5, 3, 7});
    threads pool(2);
    std::size_t need = 0;
    const auto none = x.attend(scratch_size(pool, need));
    EXPECT_TRUE(same_values(none, tensor<float>(none.shape()))) << "was written";
    for (unsigned char poison : {0x00, 0xff, 0x7f}) {
        std::vector<std::byte> memory(need + arena::alignment, std::byte{poison});
        arena scratch{std::span<std::byte>(memory)};
        EXPECT_TRUE(same_values(x.attend(on{pool, scratch}), x.attend()));
    }
    std::vector<std::byte> memory(need / 2);
    arena small_one{std::span<std::byte>(memory)};
    EXPECT_THROW(x.attend(on{pool, small_one}), argument_error);
}

TEST(relational_attention, empty_extents) {
    for (const sizes& s : {sizes{0, 2, 1, 4, 4, 3, 3, 2}, sizes{1, 2, 1, 0, 4, 3, 3, 2}, sizes{1, 2, 1, 4, 4, 3, 0, 2},
                           sizes{1, 2, 1, 4, 4, 0, 3, 2}})
        scene<float>(s).attend();
    scene<float> x({1, 2, 1, 4, 0, 3, 3, 2});
    const auto o = x.attend();
    o.each([&](index_t b, index_t h, index_t n, index_t e) { EXPECT_EQ(o(b, h, n, e), 0); });
}

TEST(relational_attention, errors) {
    scene<float> x(small);
    tensor<float> o({1, 2, 20, 5});
    const auto fails = [&](const auto& rk, const auto& rv, const auto& ids, const std::string& sentence) {
        const relations of(rk, rv, ids);
        const auto call = [&] { relational_attention(x.q, x.k, x.v, o, of, x.mask, maybe_capped{}); };
        refuses<std::invalid_argument>(call, sentence);
        o.each([&](index_t b, index_t h, index_t n, index_t e) { ASSERT_TRUE(std::isnan(o(b, h, n, e))); });
    };
    const auto rk = std::as_const(x.rk).v(), rv = std::as_const(x.rv).v();
    const tensor<float> wrong({3, 1, 4, 6}), fewer({1, 1, 3, 5});
    fails(wrong.v(), rv, x.ids(), "relational_attention: keys of relations have extent 3 on axis 0, expected 1");
    fails(rv, rv, x.ids(), "relational_attention: keys of relations have extent 5 on axis 3, expected 6");
    fails(rk, fewer.v(), x.ids(), "relational_attention: values of relations have extent 3 on axis 2, expected 4");
    fails(rk, rv, slice(x.ids(), 1, {0, 19}), "relation: the ids have extent 19 on axis 1, the logits have 20");
    x.at(0, 4, 5) = 4;
    fails(rk, rv, x.ids(), "relation: id 4 of 4");
    x.at(0, 4, 5) = 0;
    const view<const float> inside{&o(0, 0, 0, 0), rv.shape, rv.strides};
    fails(rk, inside, x.ids(), "relational_attention: o overlaps the values of relations in memory");
}

}  // namespace
