// The definition of recurrences itself, against values worked out by hand and against dense matrices.
#include <gtest/gtest.h>

#include <heed/ref/recurrence.hpp>

#include "../support/compare.hpp"
#include "../support/random.hpp"

namespace {

using namespace heed;
using test::tensor;
using options = ref::recurrence_options<double>;

/// Three tokens of one number each: q = 1, 1, 1; k = 1, 2, 3; v = 10, 20, 30.
struct small {
    tensor<double> q{{1, 1, 3, 1}}, k{{1, 1, 3, 1}}, v{{1, 1, 3, 1}}, o{{1, 1, 3, 1}}, s{{1, 1, 1, 1}};
    small() {
        q.fill([](index_t) { return 1; });
        k.fill([](index_t i) { return i + 1; });
        v.fill([](index_t i) { return 10 * (i + 1); });
        s.fill([](index_t) { return 100; });
    }
    std::array<double, 3> run(options with = {}) {
        with.scale = 1;
        ref::recurrence(q.v(), k.v(), v.v(), o.v(), with);
        return {o(0, 0, 0, 0), o(0, 0, 1, 0), o(0, 0, 2, 0)};
    }
};
using three = std::array<double, 3>;

options::gate always(double x) {
    return [x](index_t, index_t, index_t, index_t) { return x; };
}
auto each_row(double x) {
    return [x](index_t, index_t, index_t) { return x; };
}

TEST(ref_recurrence, additive) {
    EXPECT_EQ(small().run(), (three{10, 50, 140}));
    EXPECT_EQ(small().run({.reversed = true}), (three{140, 130, 90}));
    EXPECT_EQ(small().run({.non_causal = true}), (three{140, 140, 140}));
    EXPECT_EQ(small().run({.read_before = true}), (three{0, 10, 50}));
    EXPECT_EQ(small().run({.bonus = [](index_t, index_t) { return 0.5; }}), (three{5, 30, 95}));
}

TEST(ref_recurrence, decay) {
    const double half = std::log(0.5), third = std::log(1.0 / 3);
    for (const options& with : {options{.key_decay = always(half)}, options{.value_decay = always(half)}}) {
        const auto o = small().run(with);
        EXPECT_DOUBLE_EQ(o[1], 45);
        EXPECT_DOUBLE_EQ(o[2], 112.5);
    }
    EXPECT_DOUBLE_EQ(small().run({.key_decay = always(half), .value_decay = always(third)})[1], 10.0 / 6 + 40);
    EXPECT_EQ(small().run({.key_decay = always(-INFINITY)}), (three{10, 40, 90}));
}

TEST(ref_recurrence, complex_decay_turns_the_state_and_its_real_part_is_read) {
    tensor<double> s({1, 1, 2, 1});
    s(0, 0, 0, 0) = 4, s(0, 0, 1, 0) = 3;
    small x;
    ref::recurrence(x.q.v(), x.k.v(), x.v.v(), x.o.v(), {.key_decay = always(0), .phase = always(M_PI / 2), .scale = 1},
                    s.v());
    EXPECT_NEAR(x.o(0, 0, 0, 0), -3 + 10, 1e-13);  // i (4 + 3i) + 10 = 7 + 4i
    EXPECT_NEAR(x.o(0, 0, 1, 0), -4 + 40, 1e-13);  // i (7 + 4i) + 40 = 36 + 7i
    EXPECT_NEAR(x.o(0, 0, 2, 0), -7 + 90, 1e-13);
    EXPECT_NEAR(s(0, 0, 1, 0), 36, 1e-13);
}

TEST(ref_recurrence, delta_rule_replaces_what_the_key_holds) {
    EXPECT_EQ(small().run({.beta = each_row(1)}), (three{10, 10 + 2 * (20 - 20), 10 + 3 * (30 - 30)}));
    small x;
    x.k.fill([](index_t) { return 1; });
    EXPECT_EQ(x.run({.beta = each_row(1)}), (three{10, 20, 30}));
    EXPECT_EQ(x.run({.beta = each_row(0.5)}), (three{5, 12.5, 21.25}));
    // Gated: it sees the decayed state.
    EXPECT_EQ(x.run({.key_decay = always(-INFINITY), .beta = each_row(0.5)}), (three{5, 10, 15}));
}

TEST(ref_recurrence, low_rank_reads_the_state_before_the_decay) {
    EXPECT_EQ(small().run({.key_decay = always(-INFINITY), .a = always(2), .b = always(3)}),
              (three{10, 6 * 10 + 40, 6 * 100 + 90}));
}

TEST(ref_recurrence, several_updates_for_a_token) {
    tensor<double> q({1, 1, 1, 1}), o({1, 1, 1, 1}), s({1, 1, 1, 1});
    small x;
    q(0, 0, 0, 0) = 1, s(0, 0, 0, 0) = 8;
    const options with{.key_decay = always(std::log(0.25)),
                       .beta =
                           [](index_t, index_t, index_t row) {
                               return std::array{0.5, 0.125, 0.0}[static_cast<std::size_t>(row)];
                           },
                       .scale = 1};
    ref::recurrence(q.v(), x.k.v(), x.v.v(), o.v(), with, s.v());
    EXPECT_DOUBLE_EQ(o(0, 0, 0, 0), 6 + 2 * 0.125 * (20 - 12));  // 2 -> 2 + (10 - 2) / 2 -> ...
    EXPECT_EQ(s(0, 0, 0, 0), o(0, 0, 0, 0));
}

TEST(ref_recurrence, normaliser) {
    const auto floor_of = [](double x) { return [x](index_t, index_t, index_t) { return x; }; };
    EXPECT_EQ(small().run({.normalised = true}), (three{10, 50 / 3.0, 140 / 6.0}));
    EXPECT_EQ(small().run({.normalised = true, .floor = floor_of(4)}), (three{10 / 4.0, 50 / 4.0, 140 / 6.0}));
    small x;
    x.q.fill([](index_t) { return -1; });
    EXPECT_EQ(x.run({.normalised = true}), (three{10, 50 / 3.0, 140 / 6.0}));
    EXPECT_EQ(x.run({.normalised = true, .floor = floor_of(4)}), (three{-10 / 4.0, -50 / 4.0, -140 / 4.0}));
    EXPECT_EQ(x.run({.normalised = true, .absolute = true}), (three{-10, -50 / 3.0, -140 / 6.0}));
    x.k(0, 0, 0, 0) = 0;
    EXPECT_EQ(x.run({.normalised = true}), (three{0, 20, 130 / 5.0}));
}

TEST(ref_recurrence, the_default_scale_is_that_of_attention) {
    const auto q = test::normal<double>({1, 1, 3, 9}, 1), k = test::normal<double>({1, 1, 3, 9}, 2);
    const auto v = test::normal<double>({1, 1, 3, 4}, 3);
    tensor<double> a({1, 1, 3, 4}), b({1, 1, 3, 4});
    ref::recurrence(q.v(), k.v(), v.v(), a.v());
    ref::recurrence(q.v(), k.v(), v.v(), b.v(), {.scale = 3});
    a.each([&](index_t, index_t, index_t n, index_t e) { EXPECT_NEAR(9 * a(0, 0, n, e), b(0, 0, n, e), 1e-13); });
}

/// Gates of random logs, with every kind of update.
struct problem {
    tensor<double> q, k, v, g, b, x, y;
    problem(index_t B, index_t N)
        : q(test::normal<double>({B, 4, N, 5}, 1)),
          k(test::normal<double>({B, 2, N, 5}, 2)),
          v(test::normal<double>({B, 4, N, 3}, 3)),
          g(test::uniform<double>({B, 1, N, 5}, 4, -1, 0)),
          b(test::uniform<double>({B, 2, N, 1}, 5, 0, 2)),
          x(test::normal<double>({B, 4, N, 5}, 6, 0.3)),
          y(test::normal<double>({B, 4, N, 5}, 7, 0.3)) {}
    options with() {
        options w{.key_decay = ref::gate_of<double>(g.v(), 4),
                  .a = ref::gate_of<double>(x.v(), 4),
                  .b = ref::gate_of<double>(y.v(), 4)};
        w.beta = ref::gate_of<double>(b.v(), 4);
        return w;
    }
};

TEST(ref_recurrence, is_a_product_of_matrices) {
    problem p(1, 6);
    tensor<double> o({1, 4, 6, 3});
    ref::recurrence(p.q.v(), p.k.v(), p.v.v(), o.v(), p.with());
    for (index_t h = 0; h < 4; ++h) {
        // S_t = (I - beta k k^T) (diag(a) + x y^T) S_{t-1} + beta k v^T, as matrices
        std::array<std::array<double, 3>, 5> S{};
        for (index_t t = 0; t < 6; ++t) {
            auto next = S;
            const double beta = p.b(0, h / 2, t, 0);
            for (index_t i = 0; i < 5; ++i)
                for (index_t e = 0; e < 3; ++e) {
                    double sum = beta * p.k(0, h / 2, t, i) * p.v(0, h, t, e);
                    for (index_t j = 0; j < 5; ++j)
                        for (index_t l = 0; l < 5; ++l) {
                            const double erase = (i == j) - beta * p.k(0, h / 2, t, i) * p.k(0, h / 2, t, j);
                            const double move =
                                (j == l) * std::exp(p.g(0, 0, t, l)) + p.x(0, h, t, j) * p.y(0, h, t, l);
                            sum += erase * move * S[l][e];
                        }
                    next[i][e] = sum;
                }
            S = next;
            for (index_t e = 0; e < 3; ++e) {
                double sum = 0;
                for (index_t i = 0; i < 5; ++i) sum += p.q(0, h, t, i) * S[i][e] / std::sqrt(5);
                EXPECT_NEAR(o(0, h, t, e), sum, 1e-12 * std::max(1.0, std::abs(sum)));
            }
        }
    }
}

TEST(ref_recurrence, a_sequence_may_be_split_and_packed) {
    problem p(1, 11);
    const auto cut = [](tensor<double>& x, index_t first, index_t last) { return slice(x.v(), 2, {first, last}); };
    tensor<double> whole({1, 4, 11, 3}), parts({1, 4, 11, 3}), packed({1, 4, 11, 3});
    tensor<double> s({1, 4, 5, 3}), t({1, 4, 5, 3}), each({2, 4, 5, 3});
    for (auto* x : {&s, &t, &each}) x->fill([](index_t) { return 0; });
    ref::recurrence(p.q.v(), p.k.v(), p.v.v(), whole.v(), p.with(), s.v());
    const auto run = [&](index_t first, index_t last, tensor<double>& o, tensor<double>& state) {
        const auto later = [first](const options::gate& g) {
            return [g, first](index_t b, index_t h, index_t n, index_t c) { return g(b, h, n + first, c); };
        };
        options w = p.with();
        w.key_decay = later(w.key_decay), w.a = later(w.a), w.b = later(w.b);
        w.beta = [beta = w.beta, first](index_t b, index_t h, index_t n) { return beta(b, h, n + first); };
        ref::recurrence(cut(p.q, first, last), cut(p.k, first, last), cut(p.v, first, last), cut(o, first, last), w,
                        state.v());
    };
    run(0, 4, parts, t);
    run(4, 11, parts, t);
    EXPECT_TRUE(test::same_values(whole, parts));
    EXPECT_TRUE(test::same_values(s, t));

    auto with = p.with();
    with.offsets = {0, 4, 11};
    ref::recurrence(p.q.v(), p.k.v(), p.v.v(), packed.v(), with, each.v());
    t.fill([](index_t) { return 0; });
    run(0, 4, parts, t);
    t.each([&](index_t, index_t h, index_t d, index_t e) { EXPECT_EQ(t(0, h, d, e), each(0, h, d, e)); });
    t.fill([](index_t) { return 0; });
    run(4, 11, parts, t);
    t.each([&](index_t, index_t h, index_t d, index_t e) { EXPECT_EQ(t(0, h, d, e), each(1, h, d, e)); });
    EXPECT_TRUE(test::same_values(packed, parts));
}

TEST(ref_recurrence, heads_are_shared_in_runs) {
    const auto q = test::normal<double>({1, 6, 4, 3}, 1), k = test::normal<double>({1, 1, 4, 3}, 2);
    const auto v = test::normal<double>({1, 2, 4, 2}, 3);
    tensor<double> o({1, 6, 4, 2}), one({1, 1, 4, 2});
    ref::recurrence(q.v(), k.v(), v.v(), o.v());
    for (index_t h = 0; h < 6; ++h) {
        ref::recurrence(slice(q.v(), 1, {h, h + 1}), k.v(), slice(v.v(), 1, {h / 3, h / 3 + 1}), one.v());
        one.each([&](index_t, index_t, index_t n, index_t e) { EXPECT_EQ(o(0, h, n, e), one(0, 0, n, e)); });
    }
    tensor<double> two({1, 2, 4, 2});
    ref::recurrence(slice(q.v(), 1, {4, 5}), k.v(), v.v(), two.v());
    ref::recurrence(slice(q.v(), 1, {4, 5}), k.v(), slice(v.v(), 1, {1, 2}), one.v());
    one.each([&](index_t, index_t, index_t n, index_t e) { EXPECT_EQ(two(0, 1, n, e), one(0, 0, n, e)); });
}

TEST(ref_recurrence, features_widen_the_state) {
    const auto squares = [](const std::vector<double>& x, index_t) {
        std::vector<double> y;
        for (double a : x)
            for (double b : x) y.push_back(a * b);
        return y;
    };
    const auto q = test::normal<double>({1, 1, 5, 3}, 1), k = test::normal<double>({1, 1, 5, 3}, 2);
    const auto v = test::normal<double>({1, 1, 5, 2}, 3);
    tensor<double> o({1, 1, 5, 2}), s({1, 1, 9, 2});
    s.fill([](index_t) { return 0; });
    ref::recurrence(q.v(), k.v(), v.v(), o.v(), {.query_features = squares, .key_features = squares, .scale = 1},
                    s.v());
    o.each([&](index_t, index_t, index_t t, index_t e) {
        double sum = 0;
        for (index_t j = 0; j <= t; ++j) {
            double x = 0;
            for (index_t d = 0; d < 3; ++d) x += q(0, 0, t, d) * k(0, 0, j, d);
            sum += x * x * v(0, 0, j, e);
        }
        EXPECT_NEAR(o(0, 0, t, e), sum, 1e-13);
    });
}

TEST(ref_recurrence, nothing_to_carry) {
    tensor<double> q({1, 2, 0, 3}), v({1, 2, 0, 4}), o({1, 2, 0, 4}), s({1, 2, 3, 4});
    s.fill([](index_t i) { return i; });
    ref::recurrence(q.v(), q.v(), v.v(), o.v(), {.key_decay = always(-1)}, s.v());
    s.each([&](index_t, index_t h, index_t d, index_t e) { EXPECT_EQ(s(0, h, d, e), (h * 3 + d) * 4 + e); });
}

}  // namespace
