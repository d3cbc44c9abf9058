// heed_test: LABELS sanitize
// Gated linear attentions against their definitions, and the limits in which one is another.
#include <heed/ops/gla.hpp>
#include <heed/ops/retention.hpp>

#include "recurrent_op.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

const recurrence_sizes shapes[] = {{1, 1, 1, 1, 0, 8, 8, 1, 1},
                                   {1, 2, 2, 2, 1, 8, 8, 1, 2},
                                   {2, 4, 2, 2, 37, 17, 9, 1, 1},
                                   {1, 2, 2, 2, 65, 16, 32, 1, 2}};

template <class F>
void each_shape(F&& f) {
    for (const auto& s : shapes) {
        SCOPED_TRACE(testing::Message() << s);
        f(recurrence_data<float>(s), tensor<float>({s.B, s.Ho(), s.N, s.E}));
    }
}

TEST(simple_gla, is_the_definition) {
    each_shape([](const auto& x, auto o) {
        simple_gla(x.q, x.k, x.v, o, numbers(x.token));
        EXPECT_TRUE(is_recurrence(o, x.q, x.k, x.v, x.defined(by_token)));
        tensor<float> p(o.shape());
        simple_gla(x.q, x.k, x.v, p, numbers(x.token), chunked{16});
        EXPECT_TRUE(all_near(o, p, 1e-5));
    });
}

TEST(gla, is_the_definition) {
    each_shape([](const auto& x, auto o) {
        gla(x.q, x.k, x.v, o, x.channel);
        EXPECT_TRUE(is_recurrence(o, x.q, x.k, x.v, x.defined(by_channel)));
    });
}

TEST(gla, of_one_gate_for_all_channels_is_simple_gla) {
    recurrence_data<double> x({1, 2, 2, 2, 40, 9, 5, 1, 2});
    x.channel.each([&](index_t b, index_t h, index_t n, index_t d) { x.channel(b, h, n, d) = x.token(b, h, n, 0); });
    tensor<double> o(x.v.shape()), p(x.v.shape());
    gla(x.q, x.k, x.v, o, x.channel);
    simple_gla(x.q, x.k, x.v, p, numbers(x.token));
    EXPECT_TRUE(all_near(o, p, 1e-12));
}

TEST(simple_gla, of_a_constant_is_retention) {
    recurrence_data<double> x({1, 2, 2, 2, 40, 9, 5, 1, 2});
    x.token.each([&](index_t b, index_t h, index_t n, index_t) { x.token(b, h, n, 0) = retention_decay{}.log(h); });
    tensor<double> o(x.v.shape()), p(x.v.shape());
    simple_gla(x.q, x.k, x.v, o, numbers(x.token));
    retention(x.q, x.k, x.v, p);
    EXPECT_TRUE(all_near(o, p, 1e-12));
}

TEST(gla, one_token_after_the_other) {
    const recurrence_data<float> x({2, 4, 2, 2, 37, 9, 5, 1, 2});
    tensor<float> whole({2, 4, 37, 5});
    {
        state<float> s(2, 2, 9, 5);
        gla(x.q, x.k, x.v, whole, x.channel);
        EXPECT_TRUE(goes_on(
            whole, [&](range n, auto o) { gla(part(x.q, n), part(x.k, n), part(x.v, n), o, part(x.channel, n), s); }));
    }
    {
        state<float> s(2, 2, 9, 5);
        simple_gla(x.q, x.k, x.v, whole, numbers(x.token));
        EXPECT_TRUE(goes_on(whole, [&](range n, auto o) {
            simple_gla(part(x.q, n), part(x.k, n), part(x.v, n), o, part_of_numbers(x.token, n), s);
        }));
    }
}

/// The definition of HGRN2 over gates as keys.
TEST(hgrn2, is_the_definition) {
    each_shape([](const auto& x, auto o) {
        if (x.s.gates != x.s.Hs()) return;
        auto g = x.channel;
        g.each([&](index_t b, index_t h, index_t n, index_t d) {
            if ((n + d) % 3 == 0) g(b, h, n, d) *= 1e-4f;  // gates near 1, whose keys are small
            if ((n + d) % 7 == 0) g(b, h, n, d) *= 1e4f;
        });
        hgrn2(x.q, x.v, o, g);
        EXPECT_TRUE(is_recurrence(o, x.q, g, x.v, [&](auto real) {
            using R = decltype(real);
            ref::recurrence_options<R> with;
            with.key_decay = ref::gate_of<R>(g.v(), x.s.Hs());
            with.query_features = [](std::vector<R> row, index_t) { return row; };
            with.key_features = [](std::vector<R> row, index_t) {
                for (R& one : row) one = -std::expm1(one);
                return row;
            };
            return with;
        }));
        state<float> s(x.s.B, x.s.Hs(), x.s.D, x.s.E);
        EXPECT_TRUE(goes_on(o, [&](range n, auto to) { hgrn2(part(x.q, n), part(x.v, n), to, part(g, n), s); }));
    });
}

TEST(hgrn2, keys_keep_the_digits_of_small_gates) {
    const std::vector<float> g{-1e-30f, -1e-7f, -1e-3f, -0.2f, -0.7f, -3, -50, -std::numeric_limits<float>::infinity(),
                               0};
    std::vector<float> k(g.size());
    complement_of_gate{}(g.data(), static_cast<index_t>(g.size()), k.data(), feature_place{});
    for (std::size_t i = 0; i < g.size(); ++i) {
        const double want = -std::expm1(static_cast<double>(g[i]));
        EXPECT_NEAR(k[i], want, 4e-7 * want) << g[i];
    }
}

TEST(hgrn2, of_open_gates_keeps_the_last_value_and_of_shut_gates_nothing_new) {
    const recurrence_data<float> x({1, 2, 2, 2, 20, 9, 5, 1, 2});
    tensor<float> o(x.v.shape());
    hgrn2(x.q, x.v, o, constant<float>(x.q.shape(), -std::numeric_limits<double>::infinity()));  // forget all: k = 1
    o.each([&](index_t b, index_t h, index_t n, index_t e) {
        float sum = 0;
        for (index_t d = 0; d < 9; ++d) sum += x.q(b, h, n, d);
        ASSERT_NEAR(o(b, h, n, e), sum * x.v(b, h, n, e), 1e-5);
    });
    hgrn2(x.q, x.v, o, constant<float>(x.q.shape(), 0));
    EXPECT_TRUE(same_values(o, constant<float>(x.v.shape(), 0)));
}

TEST(lightning_attention, is_the_definition) {
    EXPECT_NEAR(lightning_decays(8, 0, 24)[0], -0.5 * (1 + 1e-5), 1e-7);
    EXPECT_NEAR(lightning_decays(8, 23, 24)[7], -std::exp2(-8) * 1e-5, 1e-12);
    EXPECT_NEAR(lightning_decays(8, 12, 24)[3], -std::exp2(-4) * (1 - 12.0 / 23 + 1e-5), 1e-8);
    refuses<argument_error>([] { lightning_decays(8, 24, 24); }, "lightning_decays: layer 24 is not one of 24");
    each_shape([](const auto& x, auto o) {
        if (x.s.N == 0) return;
        const auto g = lightning_decays(x.s.Hs(), 1, 4);
        lightning_attention(x.q, x.k, x.v, o, g);
        EXPECT_TRUE(is_recurrence(o, x.q, x.k, x.v, [&](auto real) {
            using R = decltype(real);
            ref::recurrence_options<R> with;
            with.key_decay = [&](index_t, index_t h, index_t, index_t) {
                return static_cast<R>(g[static_cast<std::size_t>(h)]);
            };
            with.scale = R(1);
            return with;
        }));
    });
}

TEST(log_gates, keeps_its_digits_at_both_ends) {
    const std::vector<float> x{-200, -30, -3, -1e-3f, 0, 0.5f, 3, 20, 60, 80};
    std::vector<float> g(x.size());
    const auto n = static_cast<index_t>(x.size());
    for (double b : {0.0, 0.25, 0.9})
        for (double t : {1.0, 16.0}) {
            log_gates(dense(x.data(), {n}), dense(g.data(), {n}), t, b);
            for (std::size_t i = 0; i < x.size(); ++i) {
                const long double y = x[i], s = 1 / (1 + std::exp(-y)), no = 1 / (1 + std::exp(y));
                const long double log = b == 0  ? (y > 0 ? std::log1p(-no) : y - std::log1p(std::exp(y)))
                                        : y > 0 ? std::log1p(-(1 - b) * no)
                                                : std::log(b + (1 - b) * s);
                const double want = static_cast<double>(log / t);
                EXPECT_NEAR(g[i], want, 6e-7 * std::abs(want)) << x[i] << " " << b;
                EXPECT_LE(g[i], 0);
            }
        }
    refuses<argument_error>([&] { log_gates(dense(x.data(), {n}), dense(g.data(), {n}), 0); },
                            "log_gates: t is 0, must be above 0");
    refuses<argument_error>([&] { log_gates(dense(x.data(), {n}), dense(g.data(), {n}), 1, 1); },
                            "log_gates: the bound is 1, must be in [0, 1)");
    refuses<shape_error>([&] { log_gates(dense(x.data(), {n}), dense(g.data(), {n - 1})); },
                         "log_gates: g has extent 9 on axis 0, x has 10");
}

}  // namespace
