// Random feature attention and Performer against their definitions, and the limits of both.
#include <heed/engine/attention.hpp>
#include <heed/ops/performer.hpp>
#include <heed/ops/rfa.hpp>

#include "recurrent_op.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

constexpr index_t N = 37, D = 7, E = 5, m = 20;
constexpr recurrence_sizes sizes{2, 2, 2, 2, N, D, E, 1, 2};

/// [sin, cos] of the directions of head h, in the arithmetic of R.
template <class R>
std::vector<R> fourier(const view<const float, 3>& w, const std::vector<R>& x, index_t h) {
    R length = 0;
    for (R one : x) length += one * one;
    length = std::sqrt(length) + R(1e-3);
    std::vector<R> y(static_cast<std::size_t>(2 * w.shape[2]));
    for (index_t i = 0; i < w.shape[2]; ++i) {
        R sum = 0;
        for (index_t d = 0; d < w.shape[1]; ++d)
            sum += x[static_cast<std::size_t>(d)] / length * static_cast<R>(w(h, d, i));
        y[static_cast<std::size_t>(i)] = std::sin(sum);
        y[static_cast<std::size_t>(w.shape[2] + i)] = std::cos(sum);
    }
    return y;
}

/// The definition, with log gates of what is kept, if any.
auto defined(const view<const float, 3>& w, const tensor<float>* c = nullptr) {
    return [=](auto real) {
        using R = decltype(real);
        ref::recurrence_options<R> with;
        with.query_features = [w](std::vector<R> x, index_t h) { return fourier(w, x, h); };
        with.key_features = with.query_features;
        with.normalised = true;
        with.floor = [](index_t, index_t, index_t) { return R(1); };
        if (c) with.key_decay = ref::gate_of<R>(c->v(), 2);
        return with;
    };
}

TEST(rfa, is_the_definition) {
    const recurrence_data<float> x(sizes);
    const auto drawn = normal_directions(2, D, m, 5);
    const view<const float, 3> w = dense(drawn.data(), {2, D, m});
    tensor<float> o(x.v.shape());
    rfa(x.q, x.k, x.v, o, w);
    EXPECT_TRUE(is_recurrence(o, x.q, x.k, x.v, defined(w)));
    state<float> s(2, 2, 2 * m, E);
    EXPECT_TRUE(goes_on(o, [&](range n, auto to) { rfa(part(x.q, n), part(x.k, n), part(x.v, n), to, w, s); }));
    rfa(x.q, x.k, x.v, o, w, token_decay{numbers(x.token)});
    EXPECT_TRUE(is_recurrence(o, x.q, x.k, x.v, defined(w, &x.token)));
    const auto wrong = dense(drawn.data(), {1, D - 1, m});
    refuses<shape_error>([&] { rfa(x.q, x.k, x.v, o, wrong); }, "recurrence: random directions have width 6, q has 7");
    const auto heads = dense(drawn.data(), {4, D, m / 2});
    refuses<shape_error>([&] { rfa(x.q, x.k, x.v, o, heads); }, "recurrence: random directions have 4 heads, q has 2");
}

/// Plain loops in double: S = e^c S + (1 - e^g) phi(k) v^T.
TEST(gated_rfa, is_the_definition) {
    const recurrence_data<float> x(sizes);
    const auto drawn = normal_directions(2, D, m, 5);
    const view<const float, 3> w = dense(drawn.data(), {2, D, m});
    const auto c = uniform<float>({2, 2, N, 1}, 77, -0.5, 0);
    tensor<float> o(x.v.shape()), same(x.v.shape()), want(x.v.shape());
    const auto defined_by = [&](const tensor<float>& keep, const tensor<float>& write) {
        for (index_t b = 0; b < 2; ++b)
            for (index_t h = 0; h < 2; ++h) {
                ref::detail::matrix<double> S{2 * m, E + 1};
                for (index_t n = 0; n < N; ++n) {
                    S.scale(std::exp(double(keep(b, h, n, 0))));
                    auto v = ref::detail::row<double>(x.v.v(), b, h, n);
                    v.push_back(1);
                    for (double& one : v) one *= 1 - std::exp(double(write(b, h, n, 0)));
                    S.add(fourier(w, ref::detail::row<double>(x.k.v(), b, h, n), h), v);
                    const auto y = S.read(fourier(w, ref::detail::row<double>(x.q.v(), b, h, n), h));
                    for (index_t e = 0; e < E; ++e)
                        want(b, h, n, e) = static_cast<float>(y[static_cast<std::size_t>(e)] / std::max(y.back(), 1.0));
                }
            }
        return want;
    };
    sentential_rfa(x.q, x.k, x.v, o, w, numbers(c), numbers(x.token));
    EXPECT_TRUE(all_near(o, defined_by(c, x.token), 2e-5));
    gated_rfa(x.q, x.k, x.v, o, w, numbers(x.token));
    EXPECT_TRUE(all_near(o, defined_by(x.token, x.token), 2e-5));
    state<float> s(2, 2, 2 * m, E);
    EXPECT_TRUE(goes_on(o, [&](range n, auto to) {
        gated_rfa(part(x.q, n), part(x.k, n), part(x.v, n), to, w, part_of_numbers(x.token, n), s);
    }));
    refuses<shape_error>(
        [&] {
            sentential_rfa(x.q, x.k, x.v, o, w, numbers(c), part_of_numbers(x.token, {0, 3}));
        },
        "recurrence: gates of keys have 3 tokens, k has 37");
}

TEST(gated_rfa, of_packed_sequences_takes_the_gates_of_their_tokens) {
    const recurrence_data<float> x({1, 2, 2, 2, N, D, E, 1, 2});
    const auto drawn = normal_directions(1, D, m, 5);
    const auto w = dense(drawn.data(), {1, D, m});
    const std::vector<index_t> cuts{0, 9, 30, N};
    tensor<float> whole(x.v.shape()), apart(x.v.shape());
    gated_rfa(x.q, x.k, x.v, whole, w, numbers(x.token), packed{cuts});
    for (std::size_t i = 0; i < 3; ++i) {
        const range n{cuts[i], cuts[i + 1]};
        gated_rfa(part(x.q, n), part(x.k, n), part(x.v, n), slice(apart.v(), 2, n), w, part_of_numbers(x.token, n));
    }
    EXPECT_TRUE(same_values(whole, apart));
}

struct sentences {
    recurrence_data<float> x{sizes};
    std::vector<float> drawn = normal_directions(1, D, m, 5);
    view<float, 3> w = dense(drawn.data(), {1, D, m});
    tensor<float> c{{2, 2, N, 1}}, last{{2, 2, N, 1}}, o{x.v.shape()}, p{x.v.shape()};
    std::vector<int> ends = std::vector<int>(2 * N, 0);
    view<int, 2> at = dense(ends.data(), {2, N});

    static view<float, 3> of(tensor<float>& t) { return {t.v().data, {2, 2, N}, {2 * N, N, 1}}; }
    void gates(const tensor<float>& g) { sentence_gates(numbers(g), at, of(c), of(last)); }
};

TEST(sentence_gates, without_ends_it_is_plain_rfa) {
    sentences t;
    t.gates(t.x.token);
    rfa(t.x.q, t.x.k, t.x.v, t.p, t.w);
    rfa(t.x.q, t.x.k, t.x.v, t.o, t.w, token_decay{numbers(t.c)});
    EXPECT_TRUE(all_near(t.o, t.p, 1e-6));
    sentential_rfa(t.x.q, t.x.k, t.x.v, t.o, t.w, numbers(t.c), numbers(t.last));
    EXPECT_TRUE(all_near(t.o, t.p, 1e-6));
}

TEST(sentence_gates, shut_at_the_ends_sentences_are_apart) {
    sentences t;
    const range first{0, 10}, second{10, N};
    for (index_t b = 0; b < 2; ++b) t.at(b, 9) = 1;
    t.gates(constant<float>({2, 2, N, 1}, -std::numeric_limits<double>::infinity()));
    rfa(t.x.q, t.x.k, t.x.v, t.o, t.w, token_decay{numbers(t.c)});
    for (range n : {first, second}) rfa(part(t.x.q, n), part(t.x.k, n), part(t.x.v, n), slice(t.p.v(), 2, n), t.w);
    EXPECT_TRUE(all_near(t.o, t.p, 1e-6));
}

TEST(sentence_gates, act_after_the_end_and_go_on) {
    sentences t;
    for (index_t b = 0; b < 2; ++b) t.at(b, 4 + b) = t.at(b, 20) = 1;
    t.gates(t.x.token);
    for (index_t b = 0; b < 2; ++b)
        for (index_t n = 0; n < N; ++n) {
            const bool after = n == 5 + b || n == 21;
            ASSERT_EQ(t.c(b, 1, n, 0), after ? t.x.token(b, 1, n - 1, 0) : 0) << n;
            const float recent =
                n <= 4 + b ? -std::numeric_limits<float>::infinity() : t.x.token(b, 1, n <= 20 ? 4 + b : 20, 0);
            ASSERT_EQ(t.last(b, 1, n, 0), recent) << n;
        }
    auto c = t.c, last = t.last;
    std::vector<float> carried;
    for (int i = 0; i < 4; ++i) carried.insert(carried.end(), {0, -std::numeric_limits<float>::infinity()});
    for (range n : {range{0, 5}, range{5, 21}, range{21, N}})
        sentence_gates(part_of_numbers(t.x.token, n), slice(t.at, 1, n), slice(t.of(c), 2, n), slice(t.of(last), 2, n),
                       dense(carried.data(), {2, 2, 2}));
    EXPECT_TRUE(same_values(c, t.c));
    EXPECT_TRUE(same_values(last, t.last));
    refuses<shape_error>(
        [&] {
            sentence_gates(numbers(t.x.token), slice(t.at, 1, {0, 3}), t.of(c), t.of(last));
        },
        "sentence_gates: ends are of (2, 3) tokens, g of (2, 37)");
}

TEST(rfa, of_constant_values_is_that_value_where_the_floor_is_not_met) {
    const recurrence_data<float> x(sizes);
    const auto drawn = normal_directions(1, D, 200, 5, 0.3);
    const auto w = dense(drawn.data(), {1, D, 200});
    tensor<float> o(x.v.shape());
    rfa(x.q, x.k, constant<float>(x.v.shape(), 3), o, w);  // 200 directions: phi.z is near 200 t
    EXPECT_TRUE(all_near(o, constant<float>(o.shape(), 3), 1e-4));
}

/// With many directions, softmax attention of rows of length 1.
TEST(rfa, of_many_directions_is_softmax_attention_of_unit_rows) {
    recurrence_data<float> x({1, 1, 1, 1, N, D, E});
    const auto drawn = orthogonal_directions(1, D, 20000, 5);
    const auto q = unit_rows(x.q), k = unit_rows(x.k);
    tensor<float> o(x.v.shape()), soft(x.v.shape());
    rfa(x.q, x.k, x.v, o, dense(drawn.data(), {1, D, 20000}), non_causal{});
    attention(q, k, x.v, soft, scale{1});
    EXPECT_TRUE(all_near(o, soft, 0.02));
}

TEST(performer, is_the_definition) {
    const recurrence_data<float> x(sizes);
    const auto drawn = orthogonal_directions(2, D, m, 5);
    const view<const float, 3> w = dense(drawn.data(), {2, D, m});
    tensor<float> o(x.v.shape());
    performer(x.q, x.k, x.v, o, w);
    EXPECT_TRUE(is_recurrence(o, x.q, x.k, x.v, [&](auto real) {
        using R = decltype(real);
        ref::recurrence_options<R> with;
        with.query_features = [&](const std::vector<R>& row, index_t h) {
            const R by = std::pow(R(D), R(-0.25));
            std::vector<R> y;
            for (index_t i = 0; i < m; ++i) {
                R sum = 0;
                for (index_t d = 0; d < D; ++d) {
                    const R one = by * row[static_cast<std::size_t>(d)];
                    sum += one * static_cast<R>(w(h, d, i)) - one * one / 2;
                }
                y.push_back(std::exp(sum) / std::sqrt(R(m)));
            }
            return y;
        };
        with.key_features = with.query_features;
        with.normalised = true;
        return with;
    }));
    state<float> s(2, 2, m, E);
    EXPECT_TRUE(goes_on(o, [&](range n, auto to) { performer(part(x.q, n), part(x.k, n), part(x.v, n), to, w, s); }));
}

TEST(performer, of_many_directions_is_softmax_attention_of_rows_of_moderate_length) {
    recurrence_data<float> x({1, 1, 1, 1, N, D, E});
    x.q.each([&](index_t b, index_t h, index_t n, index_t d) { x.q(b, h, n, d) *= 0.5f; });
    const auto drawn = orthogonal_directions(1, D, 20000, 5);
    const auto w = dense(drawn.data(), {1, D, 20000});
    tensor<float> o(x.v.shape()), soft(x.v.shape());
    performer(x.q, x.k, x.v, o, w, non_causal{});
    attention(x.q, x.k, x.v, soft);
    EXPECT_TRUE(all_near(o, soft, 0.02));
    performer(x.q, x.k, x.v, o, w);
    attention(x.q, x.k, x.v, soft, [](const where& at) { return at.j <= at.i; });
    EXPECT_TRUE(all_near(o, soft, 0.02));
}

}  // namespace
