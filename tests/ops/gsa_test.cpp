// heed_test: LABELS sanitize
// Gated slot attention and ABC against their definition, in pieces, and where they are softmax attention.
#include <heed/engine/attention.hpp>
#include <heed/ops/gsa.hpp>
#include <heed/policy/mask_position.hpp>
#include <heed/ref/slot_attention.hpp>

#include "recurs.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

struct sizes {
    index_t B, Hq, H, N, D, M, E;
};

template <class T>
struct slots {
    sizes n;
    tensor<T> q, k, v, s, g;

    explicit slots(const sizes& x, const layout& l = {})
        : n(x),
          q(normal<T>({x.B, x.Hq, x.N, x.D}, 1, 1, l)),
          k(normal<T>({x.B, x.H, x.N, x.D}, 2, 1, l)),
          v(normal<T>({x.B, x.H, x.N, x.E}, 3, 1, l)),
          s({x.B, x.H, x.N, x.M}, l),
          g(uniform<T>({x.B, x.H, x.N, x.M}, 4, -1, 0, l)) {
        s.each([&](index_t b, index_t h, index_t t, index_t m) { s(b, h, t, m) = 1 - std::exp(g(b, h, t, m)); });
    }
    extents<4> rows() const { return {n.B, n.Hq, n.N, n.E}; }
    tensor<T> run(slot_state<T>& carried, const auto&... policies) const {
        tensor<T> o(rows());
        gated_slot_attention(carried, q, k, v, o, s.v(), g.v(), policies...);
        return o;
    }
    slot_state<T> begun() const {
        slot_state<T> c(n.B, n.H, n.D, n.M, n.E);
        c.keys.assign(normal<T>(c.keys.shape(), 7).v());
        c.values.assign(normal<T>(c.values.shape(), 8).v());
        return c;
    }
    template <class R>
    tensor<R> defined(tensor<R>& keys, tensor<R>& values) const {
        tensor<R> o(rows());
        ref::gated_slot_attention<R>(q.v(), k.v(), v.v(), s.v(), g.v(), o.v(), {}, keys.v(), values.v());
        return o;
    }
    testing::AssertionResult holds() const {
        using R = definition_of<T>;
        auto carried = begun();
        auto naive_k = copied(carried.keys.values()), naive_v = copied(carried.values.values());
        const auto wide = [](const tensor<T>& x) {
            tensor<R> y(x.shape());
            y.each([&](index_t b, index_t h, index_t i, index_t j) { y(b, h, i, j) = x(b, h, i, j); });
            return y;
        };
        auto exact_k = wide(naive_k), exact_v = wide(naive_v);
        const auto exact = defined<R>(exact_k, exact_v);
        const auto naive = defined<T>(naive_k, naive_v);
        auto ok = within_rule<T>(run(carried), naive, exact);
        if (ok) ok = within_rule<T>(copied(carried.keys.values()), naive_k, exact_k);
        return ok ? within_rule<T>(copied(carried.values.values()), naive_v, exact_v) : ok;
    }
};

TEST(gsa, keeps_to_its_definition) {
    for (const sizes& n : {sizes{1, 1, 1, 0, 8, 8, 8},
                           {1, 1, 1, 1, 8, 8, 8},
                           {2, 4, 4, 33, 9, 5, 17},
                           {1, 4, 2, 20, 8, 17, 9},
                           {1, 2, 2, 40, 33, 64, 16},
                           {1, 1, 1, 9, 4, 1, 4}}) {
        SCOPED_TRACE(testing::Message() << "N" << n.N << " D" << n.D << " M" << n.M << " E" << n.E);
        EXPECT_TRUE(slots<float>(n).holds());
        EXPECT_TRUE(slots<float>(n, layout::strided()).holds());
    }
    EXPECT_TRUE(slots<double>({1, 2, 2, 40, 9, 12, 7}).holds());
}

TEST(gsa, in_pieces_carries_its_state) {
    const slots<float> x({2, 4, 2, 33, 9, 12, 17});
    auto whole = x.begun(), stepped = whole;
    const auto o = x.run(whole);
    tensor<float> each(o.shape());
    for (index_t n = 0; n < 33; ++n) {
        const auto at = [&](auto& t) { return slice(t.v(), 2, {n, n + 1}); };
        gated_slot_attention_step(stepped, at(x.q), at(x.k), at(x.v), at(each), at(x.s), at(x.g));
    }
    EXPECT_TRUE(same_values(each, o));
    EXPECT_TRUE(same_values(copied(stepped.keys.values()), copied(whole.keys.values())));
    EXPECT_TRUE(same_values(copied(stepped.values.values()), copied(whole.values.values())));
    slot_state<float> empty(2, 2, 9, 12, 17), twin = empty;
    tensor<float> from_nothing(o.shape());
    auto y = x;  // operands that are all views, and not const
    auto q = y.q.v(), k = y.k.v(), v = y.v.v(), s = y.s.v(), g = y.g.v(), to = from_nothing.v();
    gated_slot_attention(twin, q, k, v, to, s, g);
    EXPECT_TRUE(same_values(from_nothing, x.run(empty)));
    empty.keys.clear(), empty.values.clear();
    gated_slot_attention(x.q, x.k, x.v, from_nothing, x.s.v(), x.g.v());
    EXPECT_TRUE(same_values(from_nothing, x.run(empty)));
}

/// A slot for each token, written by it alone and never forgotten: the softmax over slots is that over all tokens;
/// those to come are slots of zeros, which weigh exp(0) and hold nothing.
TEST(gsa, with_a_slot_a_token_is_softmax_attention) {
    slots<double> x({1, 2, 2, 24, 8, 24, 5});
    x.g.fill([](index_t) { return 0; });
    x.s.each([&](index_t b, index_t h, index_t t, index_t m) { x.s(b, h, t, m) = t == m; });
    tensor<double> o(x.rows()), full(x.rows());
    gated_slot_attention(x.q, x.k, x.v, o, x.s.v(), x.g.v(), scale{0.3});
    attention(x.q, x.k, x.v, full, scale{0.3});
    for (index_t h = 0; h < 2; ++h)
        for (index_t e = 0; e < 5; ++e) EXPECT_NEAR(o(0, h, 23, e), full(0, h, 23, e), 1e-13);
}

TEST(gsa, of_one_slot_reads_its_value_whatever_the_query) {
    const slots<double> x({1, 1, 1, 12, 8, 1, 5});
    tensor<double> o(x.rows()), sum(x.rows());
    gated_slot_attention(x.q, x.k, x.v, o, x.s.v(), x.g.v());
    recurrence(constant<double>({1, 1, 12, 1}, 1), x.s, x.v, sum, channel_decay{x.g.v()}, scale{1});
    EXPECT_TRUE(all_near(o, sum, 1e-14));
}

TEST(abc, gates_are_their_definition_and_carry_on) {
    const auto x = normal<float>({2, 3, 20, 7}, 5, 20);
    tensor<float> s(x.shape()), g(x.shape()), naive_s(x.shape()), naive_g(x.shape());
    tensor<double> exact_s(x.shape()), exact_g(x.shape());
    auto z = constant<float>({2, 3, 7, 1}, -std::numeric_limits<double>::infinity());
    const auto at = [](auto& t, index_t a, index_t b) { return slice(t.v(), 2, {a, b}); };
    const view<float, 3> sums{z.v().data, {2, 3, 7}, {21, 7, 1}};
    for (const range r : {range{0, 1}, range{1, 9}, range{9, 20}})
        abc_gates(at(x, r.first, r.last), at(s, r.first, r.last), at(g, r.first, r.last), sums);
    ref::abc_gates<double>(x.v(), exact_s.v(), exact_g.v());
    ref::abc_gates<float>(x.v(), naive_s.v(), naive_g.v());
    EXPECT_TRUE(within_rule<float>(s, naive_s, exact_s));
    EXPECT_TRUE(within_rule<float>(g, naive_g, exact_g));
    g.each([&](index_t b, index_t h, index_t t, index_t m) { ASSERT_LE(g(b, h, t, m), 0); });
}

/// The slots of ABC are averages: keys all alike are kept as they are.
TEST(abc, slots_are_weighted_averages) {
    slots<double> x({1, 1, 1, 15, 6, 4, 5});
    x.v.each([&](index_t b, index_t h, index_t n, index_t e) { x.v(b, h, n, e) = static_cast<double>(e) + 1; });
    std::vector<double> z(4, -std::numeric_limits<double>::infinity());
    abc_gates(normal<double>(x.s.shape(), 3).v(), x.s.v(), x.g.v(), dense(z.data(), {1, 1, 4}));
    tensor<double> o(x.rows());
    gated_slot_attention(x.q, x.k, x.v, o, x.s.v(), x.g.v());
    EXPECT_TRUE(all_near(o, x.v, 1e-13));
}

TEST(abc, tokens_of_no_weight_leave_nothing) {
    const double none = -std::numeric_limits<double>::infinity();
    auto x = constant<double>({1, 1, 5, 1}, none);
    x(0, 0, 2, 0) = 3;
    tensor<double> s(x.shape()), g(x.shape());
    std::vector<double> z(1, none);
    abc_gates(x.v(), s.v(), g.v(), dense(z.data(), {1, 1, 1}));
    for (index_t n = 0; n < 5; ++n) {
        EXPECT_EQ(s(0, 0, n, 0), n == 2);
        EXPECT_EQ(g(0, 0, n, 0), 0);
    }
}

TEST(gsa, gates_of_any_size_keep_to_it) {
    constexpr double inf = std::numeric_limits<double>::infinity(), sizes_of_gates[] = {0, -1e-6, -1, -88, -1e4, -inf};
    slots<float> x({1, 2, 2, 40, 9, 5, 17});
    for (index_t first = 0; first < 6; ++first) {
        x.g.each([&](index_t b, index_t h, index_t n, index_t m) {  // slots apart, and alike at first = 0
            x.g(b, h, n, m) = static_cast<float>(sizes_of_gates[(first * m + n * (n + 1) / 2) % 6]);
            x.s(b, h, n, m) = 1 - std::exp(x.g(b, h, n, m));
        });
        EXPECT_TRUE(x.holds()) << first;
    }
}

TEST(gsa, refuses_what_does_not_fit_before_it_writes) {
    const slots<float> x({1, 2, 2, 6, 8, 4, 5});
    auto carried = x.begun();
    const auto before = copied(carried.keys.values());
    tensor<float> o(x.rows()), narrow({1, 2, 6, 4});
    refuses<shape_error>([&] { gated_slot_attention(carried, x.q, x.k, x.v, narrow, x.s.v(), x.g.v()); },
                         "o has width 4");
    refuses<shape_error>(
        [&] {
            gated_slot_attention(carried, x.q, x.k, x.v, o, x.s.v(), slice(x.g.v(), 3, {0, 3}));
        },
        "value_decay has 3 value channels");
    refuses<argument_error>([&] { gated_slot_attention(carried, x.q, x.k, x.v, o, x.s.v(), x.s.v()); },
                            "the most is 0");
    const auto in_k = heads(const_cast<float*>(x.k.v().data), {1, 2, 6, 5});
    refuses<shape_error>([&] { gated_slot_attention(carried, x.q, x.k, x.v, in_k, x.s.v(), x.g.v()); },
                         "o overlaps q or k in memory");
    refuses<shape_error>(
        [&] {
            gated_slot_attention(carried, x.q, x.k, x.v, o, x.s.v(), heads(o.v().data, {1, 2, 6, 4}));
        },
        "o overlaps the decay in memory");
    std::vector<std::byte> few(128);
    arena small{std::span<std::byte>(few)};
    serial pool;
    refuses<argument_error>(
        [&] {
            gated_slot_attention(carried, x.q, x.k, x.v, o, x.s.v(), x.g.v(), on{pool, small});
        },
        "the arena holds");
    EXPECT_TRUE(same_values(copied(carried.keys.values()), before));
    auto s = x.s, g = x.g;
    std::vector<float> z(8);
    refuses<shape_error>(
        [&] {
            abc_gates(x.s.v(), s.v(), slice(g.v(), 2, {0, 5}), dense(z.data(), {1, 2, 4}));
        },
        "g has tokens 5");
}

TEST(gated_slot_attention, of_sequences_side_by_side_and_backwards) {
    const slots<float> x({1, 4, 2, 40, 9, 5, 12});
    const std::vector<index_t> offsets{0, 7, 7, 40};
    tensor<float> all(x.rows()), one(x.rows()), back(x.rows());
    gated_slot_attention(x.q, x.k, x.v, all, x.s.v(), x.g.v(), packed{offsets});
    for (std::size_t i = 1; i < offsets.size(); ++i) {
        const auto cut = [&](const tensor<float>& y) { return slice(y.v(), 2, {offsets[i - 1], offsets[i]}); };
        gated_slot_attention(cut(x.q), cut(x.k), cut(x.v), slice(one.v(), 2, {offsets[i - 1], offsets[i]}), cut(x.s),
                             cut(x.g));
    }
    EXPECT_TRUE(same_values(all, one));
    gated_slot_attention(x.q, x.k, x.v, all, x.s.v(), x.g.v(), reversed{});
    const auto turned = [](const tensor<float>& y) { return flipped(y.v(), 2); };
    gated_slot_attention(turned(x.q), turned(x.k), turned(x.v), flipped(back.v(), 2), turned(x.s), turned(x.g));
    EXPECT_TRUE(same_values(all, back));
    gated_slot_attention(x.q, x.k, x.v, back, x.s.v(), x.g.v(), reversed{}, chunked{16});
    EXPECT_TRUE(all_near(all, back, 1e-5));
}

}  // namespace
