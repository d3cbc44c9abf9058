// heed_test: LABELS sanitize
// The mLSTM against its definition, in pieces, in extreme gates, and where it is linear attention.
#include <heed/ops/mlstm.hpp>
#include <heed/ref/mlstm.hpp>

#include "recurs.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

template <class T>
struct cell {
    recurrence_data<T> x;
    tensor<T> log_i, log_f;

    explicit cell(const recurrence_sizes& s, double spread = 3)
        : x(s, 5),
          log_i(normal<T>({s.B, s.Hs(), s.N, 1}, 21, spread)),
          log_f(uniform<T>({s.B, s.Hs(), s.N, 1}, 22, -2, 0)) {}
    /// Keys and queries whose sums n.q do not cancel, which would have one row decide the error of all.
    void above_zero() {
        for (auto* y : {&x.q, &x.k})
            y->each([&](index_t b, index_t h, index_t n, index_t d) { (*y)(b, h, n, d) = std::abs((*y)(b, h, n, d)); });
    }
    template <class R>
    tensor<R> defined() const {
        tensor<R> o(x.v.shape());
        ref::mlstm<R>(x.q.v(), x.k.v(), x.v.v(), numbers(log_i), numbers(log_f), o.v());
        return o;
    }
    template <class... P>
    tensor<T> run(const P&... policies) const {
        tensor<T> o(x.v.shape());
        mlstm(x.q, x.k, x.v, o, numbers(log_i), numbers(log_f), policies...);
        return o;
    }
    testing::AssertionResult holds() const {
        using R = definition_of<T>;
        const auto exact = defined<R>();
        const auto naive = defined<T>();
        auto ok = within_rule<T>(run(), naive, exact);
        if (ok) ok = within_rule<T>(run(recurrent{}), naive, exact);
        return ok ? within_rule<T>(run(chunked{16}), naive, exact) : ok;
    }
};

const recurrence_sizes shapes[] = {
    {1, 1, 1, 1, 0, 8, 8},   {1, 1, 1, 1, 1, 8, 8},    {1, 1, 1, 1, 17, 5, 17},
    {2, 4, 4, 4, 33, 9, 17}, {1, 2, 2, 2, 100, 33, 7}, {1, 2, 2, 2, 40, 128, 16},
};

TEST(mlstm, keeps_to_its_definition) {
    for (const auto& s : shapes) {
        SCOPED_TRACE(testing::Message() << s);
        EXPECT_TRUE(cell<float>(s).holds());
    }
    EXPECT_TRUE(cell<double>({1, 2, 2, 2, 50, 9, 12}).holds());
}

TEST(mlstm, keeps_to_it_with_gates_far_beyond_the_range_of_exp) {
    for (const double spread : {0.0, 30.0, 300.0}) {
        SCOPED_TRACE(spread);
        cell<float> c({1, 2, 2, 2, 60, 12, 9}, spread);
        c.above_zero();
        EXPECT_TRUE(c.holds());
        c.log_f.fill([](index_t i) { return i % 7 == 0 ? -1e4 : -1e-3; });
        EXPECT_TRUE(c.holds());
        c.log_f.fill([](index_t i) { return i % 3 == 0 ? 5.0 : -1.0; });  // exponential forget gates may exceed 1
        EXPECT_TRUE(c.holds());
    }
}

TEST(mlstm, in_pieces_or_steps_carries_its_state) {
    const cell<double> c({2, 4, 4, 4, 33, 9, 17});
    const auto whole = c.run(recurrent{});
    tensor<double> o(whole.shape());
    mlstm_state<double> s(2, 4, 9, 17), twin = s;
    const auto piece = [&](const auto& run, mlstm_state<double>& carried, range r) {
        const auto of = [&](const tensor<double>& x) { return slice(x.v(), 2, r); };
        run(carried, of(c.x.q), of(c.x.k), of(c.x.v), slice(o.v(), 2, r), slice(numbers(c.log_i), 2, r),
            slice(numbers(c.log_f), 2, r));
    };
    const auto all = [](auto& carried, const auto&... x) { mlstm(carried, x..., recurrent{}); };
    piece(all, s, {0, 1}), piece(all, s, {1, 20}), piece(all, s, {20, 33});
    EXPECT_TRUE(all_near(o, whole, 1e-12));
    o.fill([](index_t) { return 0; });
    const auto step = [](auto& carried, const auto&... x) { mlstm_step(carried, x...); };
    for (index_t n = 0; n < 33; ++n) piece(step, twin, {n, n + 1});
    EXPECT_TRUE(all_near(o, whole, 1e-12));
    EXPECT_EQ(s.maxima, twin.maxima);
    EXPECT_TRUE(all_near(copied(s.sums.values()), copied(twin.sums.values()), 1e-13));
    double m = -std::numeric_limits<double>::infinity();  // the last maximum, of one head
    for (index_t n = 0; n < 33; ++n) m = std::max(m + c.log_f(1, 2, n, 0), c.log_i(1, 2, n, 0));
    EXPECT_NEAR(s.m()(1, 2), m, 1e-13);
    s.clear();
    EXPECT_EQ(s.maxima, mlstm_state<double>(2, 4, 9, 17).maxima);
}

TEST(mlstm, of_open_gates_is_linear_attention_with_a_floor_of_1) {
    cell<double> c({1, 2, 2, 2, 40, 9, 12});
    c.log_i.fill([](index_t) { return 0; });
    c.log_f.fill([](index_t) { return 0; });
    tensor<double> linear(c.x.v.shape());
    recurrence(c.x.q, c.x.k, c.x.v, linear, sum_of_keys{1, true});
    EXPECT_TRUE(all_near(c.run(), linear, 1e-13));
}

/// m takes out what log i adds: but for the floor, the output only knows differences of gates.
TEST(mlstm, does_not_see_a_shift_of_the_input_gate_above_its_floor) {
    cell<double> c({1, 2, 2, 2, 40, 9, 12});
    c.above_zero();
    c.x.q.each([&](index_t b, index_t h, index_t n, index_t d) { c.x.q(b, h, n, d) *= 50; });
    c.log_i.each(
        [&](index_t b, index_t h, index_t n, index_t d) { c.log_i(b, h, n, d) = std::abs(c.log_i(b, h, n, d)); });
    const auto before = c.run();
    c.log_i.each([&](index_t b, index_t h, index_t n, index_t d) { c.log_i(b, h, n, d) += 7; });
    EXPECT_TRUE(all_near(c.run(), before, 1e-12));
}

TEST(mlstm, is_0_until_something_is_let_in) {
    cell<float> c({1, 2, 2, 2, 30, 8, 8});
    for (index_t h = 0; h < 2; ++h)
        for (index_t n = 0; n < 11; ++n) c.log_i(0, h, n, 0) = -std::numeric_limits<float>::infinity();
    const auto o = c.run();
    o.each([&](index_t, index_t h, index_t n, index_t e) {
        ASSERT_TRUE(std::isfinite(o(0, h, n, e)));
        ASSERT_EQ(o(0, h, n, e) == 0, n < 11) << h << ", " << n;
    });
    c.log_i(0, 1, 20, 0) = std::nanf("");
    const auto bad = c.run();
    bad.each(
        [&](index_t, index_t h, index_t n, index_t e) { ASSERT_EQ(std::isnan(bad(0, h, n, e)), h == 1 && n >= 20); });
}

TEST(mlstm, shares_heads_of_keys_and_queries) {
    const cell<double> c({1, 4, 2, 2, 20, 8, 8});
    tensor<double> o({1, 4, 20, 8}), expanded(o.shape());
    mlstm(c.x.q, c.x.k, c.x.v, o, numbers(c.log_i), numbers(c.log_f));
    const auto repeated = [](const tensor<double>& x) {
        tensor<double> y({1, 4, x.shape()[2], x.shape()[3]});
        y.each([&](index_t b, index_t h, index_t n, index_t d) { y(b, h, n, d) = x(b, h / 2, n, d); });
        return y;
    };
    const auto i = repeated(c.log_i), f = repeated(c.log_f);
    mlstm(c.x.q, repeated(c.x.k), repeated(c.x.v), expanded, numbers(i), numbers(f));
    EXPECT_TRUE(all_near(o, expanded, 1e-12));
}

TEST(mlstm, refuses_what_does_not_fit) {
    const cell<float> c({1, 2, 2, 2, 6, 8, 8});
    tensor<float> o(c.x.v.shape());
    const auto i = numbers(c.log_i), f = numbers(c.log_f);
    refuses<shape_error>(
        [&] {
            mlstm(c.x.q, c.x.k, c.x.v, o, slice(i, 2, {0, 5}), f);
        },
        "log_i has tokens 5, expected 6");
    refuses<shape_error>(
        [&] {
            mlstm(c.x.q, c.x.k, c.x.v, o, i, slice(f, 1, {0, 1}));
        },
        "log_f has heads 1, expected 2");
    refuses<shape_error>(
        [&] {
            mlstm(c.x.q, c.x.k, c.x.v, o, i, dense(o.v().data, {1, 2, 6}));
        },
        "o overlaps a gate in memory");
    mlstm_state<float> s(1, 2, 8, 7);
    refuses<shape_error>([&] { mlstm(s, c.x.q, c.x.k, c.x.v, o, i, f); }, "state has 7 columns");
    EXPECT_EQ(s.maxima, (mlstm_state<float>(1, 2, 8, 7).maxima));
}

TEST(mlstm, of_sequences_side_by_side_and_backwards) {
    const cell<float> c({1, 4, 2, 2, 40, 9, 12}, 1);
    tensor<float> all({1, 4, 40, 12}), one(all.shape());
    const std::vector<index_t> offsets{0, 7, 7, 40};
    const auto i = numbers(c.log_i), f = numbers(c.log_f);
    mlstm_state<float> packs(3, 2, 9, 12);
    mlstm(packs, c.x.q, c.x.k, c.x.v, all, i, f, packed{offsets});
    for (index_t s = 0; s < 3; ++s) {
        const auto at = static_cast<std::size_t>(s);
        const auto cut = [&](const auto& y) { return slice(y, 2, {offsets[at], offsets[at + 1]}); };
        mlstm_state<float> own(1, 2, 9, 12);
        mlstm(own, cut(c.x.q.v()), cut(c.x.k.v()), cut(c.x.v.v()), cut(one.v()), cut(i), cut(f));
        EXPECT_EQ(own.m()(0, 1), packs.m()(s, 1));
    }
    EXPECT_TRUE(same_values(all, one));
    mlstm(c.x.q, c.x.k, c.x.v, one, i, f, packed{offsets});
    EXPECT_TRUE(same_values(all, one));
    mlstm(c.x.q, c.x.k, c.x.v, all, i, f, reversed{});
    mlstm(flipped(c.x.q.v(), 2), flipped(c.x.k.v(), 2), flipped(c.x.v.v(), 2), flipped(one.v(), 2), flipped(i, 2),
          flipped(f, 2));
    EXPECT_TRUE(same_values(all, one));
    refuses<shape_error>([&] { mlstm(packs, c.x.q, c.x.k, c.x.v, one, i, f); }, "state has 3 sequences");
}

}  // namespace
