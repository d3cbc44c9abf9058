// Adversarial gates and values: decays from 1 to 0 in every mixture, huge and tiny operands, NaN and infinities.
#include "recurs.hpp"

using namespace test;

namespace {

constexpr double inf = std::numeric_limits<double>::infinity();

struct gate_pattern {
    const char* name;
    double (*at)(index_t n, index_t channel);
};
const gate_pattern patterns[] = {
    {"0", [](index_t, index_t) { return 0.0; }},
    {"-1e-6", [](index_t, index_t) { return -1e-6; }},
    {"-1", [](index_t, index_t) { return -1.0; }},
    {"-2", [](index_t, index_t) { return -2.0; }},
    {"-20", [](index_t, index_t) { return -20.0; }},
    {"-88", [](index_t, index_t) { return -88.0; }},
    {"-1e4", [](index_t, index_t) { return -1e4; }},
    {"-inf", [](index_t, index_t) { return -inf; }},
    {"alternating 0 and -1e4", [](index_t n, index_t c) { return (n + c) % 2 ? -1e4 : 0.0; }},
    {"alternating -1e-6 and -88", [](index_t n, index_t) { return n % 2 ? -88.0 : -1e-6; }},
    {"a reset every 7 tokens", [](index_t n, index_t) { return n % 7 == 3 ? -inf : -0.1; }},
    {"a channel each", [](index_t, index_t c) { return -std::pow(10.0, static_cast<double>(c % 10) - 5); }},
};

template <class T>
void fill_gates(recurrence_data<T>& x, const gate_pattern& p) {
    x.token.each([&](index_t b, index_t h, index_t n, index_t) { x.token(b, h, n, 0) = static_cast<T>(p.at(n, 0)); });
    for (auto* g : {&x.channel, &x.column})
        g->each([&](index_t b, index_t h, index_t n, index_t d) { (*g)(b, h, n, d) = static_cast<T>(p.at(n, d)); });
}

TEST(recurrence_gates, additive) {
    for (const auto& p : patterns) {
        SCOPED_TRACE(p.name);
        recurrence_data<float> x({1, 2, 2, 2, 70, 12, 17});
        fill_gates(x, p);
        const auto check = [&](const auto&... form) {
            EXPECT_TRUE(recurs(x, by_token, x.token_gate(), form...));
            EXPECT_TRUE(recurs(x, by_channel, x.channel_gate(), form...));
        };
        check();
        check(chunked{16});
        check(chunked{64});
        EXPECT_TRUE(recurs(x, by_value, x.value_gate()));
        EXPECT_TRUE(recurs(x, turning, x.complex_gate()));
    }
}

TEST(recurrence_gates, delta_rules) {
    for (const auto& p : patterns) {
        SCOPED_TRACE(p.name);
        recurrence_data<float> x({1, 2, 2, 2, 70, 32, 17});
        fill_gates(x, p);
        EXPECT_TRUE(recurs(x, delta | by_token, x.delta_update(), x.token_gate(), recurrent{}));
        EXPECT_TRUE(recurs(x, delta | by_channel, x.delta_update(), x.channel_gate(), recurrent{}));
        const auto in = [&](index_t chunk, unsigned part, const auto&... p2) {
            EXPECT_TRUE(recurs_by(in_chunks{chunk}, x.q, x.k, x.v, x.defined(delta | part), x.delta_update(), p2...));
        };
        in(16, by_token, x.token_gate(), chunked{16});
        in(16, by_channel, x.channel_gate(), chunked{16});
        in(64, by_token, x.token_gate(), chunked{64});
        in(64, by_channel, x.channel_gate(), chunked{64});
        EXPECT_TRUE(recurs(x, delta | by_token, x.householder_update(), x.token_gate()));
        EXPECT_TRUE(recurs(x, ranked | by_channel, x.low_rank_update(), x.channel_gate()));
    }
}

TEST(recurrence_gates, a_decay_to_0_forgets_all_before) {
    recurrence_data<float> x({1, 1, 1, 1, 40, 8, 8});
    x.token.fill([](index_t) { return 0; });
    x.token(0, 0, 23, 0) = static_cast<float>(-inf);
    const auto one = recur_from(beginning<float>(1, 1, 8, 8), x.q, x.k, x.v, x.token_gate());
    for (index_t n = 0; n < 23; ++n)
        for (index_t d = 0; d < 8; ++d) x.k(0, 0, n, d) *= 1000;
    const auto other = recur_from(beginning<float>(1, 1, 8, 8), x.q, x.k, x.v, x.token_gate());
    for (index_t n = 23; n < 40; ++n)
        for (index_t e = 0; e < 8; ++e) ASSERT_EQ(one.o(0, 0, n, e), other.o(0, 0, n, e));
}

TEST(recurrence_gates, adversarial_operands) {
    for (const auto& a : adversaries()) {
        if (!a.finite || a.name == "logits_of_1e30") continue;
        SCOPED_TRACE(a.name);
        recurrence_data<float> x({1, 1, 1, 1, 50, 12, 9});
        x.q = filled<float>(x.q.shape(), a, 1), x.k = filled<float>(x.k.shape(), a, 2);
        const auto check = [&](const auto&... form) {
            EXPECT_TRUE(recurs(x, plain, form...));
            EXPECT_TRUE(recurs(x, by_token, x.token_gate(), form...));
            EXPECT_TRUE(recurs(x, by_channel, x.channel_gate(), form...));
        };
        check();
        check(chunked{32});
        x.k = unit_rows(x.k);
        EXPECT_TRUE(recurs(x, delta | by_token, x.delta_update(), x.token_gate(), recurrent{}));
    }
}

TEST(recurrence_gates, nan_and_inf_reach_their_value_channel_from_their_token_on) {
    for (double bad : {std::nan(""), inf, -inf}) {
        recurrence_data<float> x({1, 1, 1, 1, 60, 8, 8});
        x.v(0, 0, 21, 5) = static_cast<float>(bad);
        tensor<float> o(x.v.shape());
        const auto check = [&](const auto&... policies) {
            recurrence(x.q, x.k, x.v, o, policies...);
            o.each([&](index_t, index_t, index_t n, index_t e) {
                ASSERT_EQ(std::isfinite(o(0, 0, n, e)), !(n >= 21 && e == 5)) << n << ", " << e;
            });
        };
        check(chunked{32});
        check(x.channel_gate(), chunked{32});
        check(x.token_gate(), x.delta_update(), chunked{32});
        check();
        check(x.channel_gate());
        check(x.token_gate(), x.delta_update());
    }
}

TEST(recurrence_gates, a_nan_gate_reaches_everything_after) {
    recurrence_data<float> x({1, 1, 1, 1, 60, 8, 8});
    x.token(0, 0, 21, 0) = x.channel(0, 0, 21, 3) = static_cast<float>(std::nan(""));
    tensor<float> o(x.v.shape());
    const auto check = [&](const auto&... policies) {
        recurrence(x.q, x.k, x.v, o, policies...);
        o.each([&](index_t, index_t, index_t n, index_t e) {
            ASSERT_EQ(std::isnan(o(0, 0, n, e)), n >= 21) << n << ", " << e;
        });
    };
    check(x.token_gate());
    check(x.token_gate(), chunked{32});
    check(x.channel_gate());
    check(x.channel_gate(), chunked{32});
    check(x.channel_gate(), x.delta_update());
    check(x.channel_gate(), x.delta_update(), chunked{32});
}

}  // namespace
