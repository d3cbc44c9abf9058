// heed_test: LABELS sanitize
// The delta rules by name, DeltaNet, gated DeltaNet, KDA and DeltaProduct: against their definition, token by token,
// and where one of them equals another.
#include <heed/ops/gated_delta_product.hpp>
#include <heed/ops/gated_deltanet.hpp>
#include <heed/ops/kda.hpp>

#include "recurs.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

using one = float;
using in = view<const one>;
using out = view<one>;

/// An operator over the gates of x, and its step.
struct rule {
    const char* name;
    unsigned parts;
    std::function<void(const recurrence_data<one>& x, in q, in k, in v, out o, state<one>* s)> run;
    std::function<void(const recurrence_data<one>& x, index_t n, in q, in k, in v, out o, state<one>& s)> step;
};

auto at(const tensor<one>& gate, index_t n, index_t rows = 1) {
    return slice(numbers(gate), 2, {n * rows, (n + 1) * rows});
}

const rule rules[] = {
    {"deltanet", delta,
     [](const auto& x, in q, in k, in v, out o, auto* s) {
         s ? deltanet(q, k, v, o, numbers(x.beta), *s, recurrent{}) : deltanet(q, k, v, o, numbers(x.beta));
     },
     [](const auto& x, index_t n, in q, in k, in v, out o, auto& s) { deltanet_step(s, q, k, v, o, at(x.beta, n)); }},
    {"gated_deltanet", delta | by_token,
     [](const auto& x, in q, in k, in v, out o, auto* s) {
         s ? gated_deltanet(q, k, v, o, numbers(x.token), numbers(x.beta), *s, recurrent{})
           : gated_deltanet(q, k, v, o, numbers(x.token), numbers(x.beta));
     },
     [](const auto& x, index_t n, in q, in k, in v, out o, auto& s) {
         gated_deltanet_step(s, q, k, v, o, at(x.token, n), at(x.beta, n));
     }},
    {"kda", delta | by_channel,
     [](const auto& x, in q, in k, in v, out o, auto* s) {
         s ? kda(q, k, v, o, x.channel.v(), numbers(x.beta), *s, recurrent{})
           : kda(q, k, v, o, x.channel.v(), numbers(x.beta));
     },
     [](const auto& x, index_t n, in q, in k, in v, out o, auto& s) {
         kda_step(s, q, k, v, o, slice(x.channel.v(), 2, {n, n + 1}), at(x.beta, n));
     }},
    {"delta_product", delta,
     [](const auto& x, in q, in k, in v, out o, auto* s) {
         s ? delta_product(q, k, v, o, numbers(x.beta), x.s.steps, *s)
           : delta_product(q, k, v, o, numbers(x.beta), x.s.steps);
     },
     [](const auto& x, index_t n, in q, in k, in v, out o, auto& s) {
         delta_product_step(s, q, k, v, o, at(x.beta, n, x.s.steps), x.s.steps);
     }},
    {"gated_delta_product", delta | by_token,
     [](const auto& x, in q, in k, in v, out o, auto* s) {
         const auto g = numbers(x.token), beta = numbers(x.beta);
         s ? gated_delta_product(q, k, v, o, g, beta, x.s.steps, *s)
           : gated_delta_product(q, k, v, o, g, beta, x.s.steps);
     },
     [](const auto& x, index_t n, in q, in k, in v, out o, auto& s) {
         gated_delta_product_step(s, q, k, v, o, at(x.token, n), at(x.beta, n, x.s.steps), x.s.steps);
     }},
};
bool several_rows(const rule& r) { return std::string(r.name).find("product") != std::string::npos; }

template <class F>
void each_case(F&& f) {
    for (const rule& r : rules)
        for (auto s : {recurrence_sizes{1, 1, 1, 1, 0, 8, 8},
                       {1, 1, 1, 1, 1, 8, 8},
                       {2, 4, 4, 4, 33, 9, 17, 1, 4},
                       {1, 4, 2, 2, 20, 16, 5, 1, 2},
                       {1, 2, 2, 2, 40, 64, 64, 1, 1}}) {
            s.steps = several_rows(r) ? 3 : 1;
            SCOPED_TRACE(testing::Message() << r.name << ": " << s);
            f(r, recurrence_data<one>(s, 7));
        }
}

TEST(delta_rules, keep_to_their_definitions) {
    each_case([](const rule& r, const auto& x) {
        EXPECT_TRUE(runs_by(token_by_token{}, x.q, x.k, x.v, x.defined(r.parts),
                            [&](in q, in k, in v, out o, auto& s) { r.run(x, q, k, v, o, &s); }));
    });
}

TEST(delta_rules, a_step_is_a_token_of_a_sequence) {
    each_case([](const rule& r, const auto& x) {
        const index_t m = x.s.steps;
        const auto from = beginning<one>(x.s.B, x.s.Hs(), x.s.D, x.s.E);
        const auto whole =
            run_from(from, x.q, x.k, x.v, [&](in q, in k, in v, out o, auto& s) { r.run(x, q, k, v, o, &s); });
        const auto stepped = run_from(from, x.q, x.k, x.v, [&](in q, in k, in v, out o, auto& s) {
            for (index_t n = 0; n < x.s.N; ++n) {
                const range token{n, n + 1}, rows{n * m, (n + 1) * m};
                r.step(x, n, slice(q, 2, token), slice(k, 2, rows), slice(v, 2, rows), slice(o, 2, token), s);
            }
        });
        EXPECT_TRUE(same_values(whole, stepped));
    });
}

/// o of a rule, in the form the engine chooses.
tensor<one> run(const rule& r, const recurrence_data<one>& x) {
    tensor<one> o({x.s.B, x.s.Ho(), x.s.N, x.s.E});
    r.run(x, x.q.v(), x.k.v(), x.v.v(), o.v(), nullptr);
    return o;
}

struct delta_limits : testing::Test {
    recurrence_data<one> x{{1, 2, 2, 2, 50, 12, 9, 1, 2}, 3};
    static constexpr double near = 2e-6;
};

TEST_F(delta_limits, gates_of_0_make_the_gated_deltanet_and_kda_the_deltanet) {
    const auto plain_o = run(rules[0], x);
    x.token.fill([](index_t) { return 0; });
    x.channel.fill([](index_t) { return 0; });
    EXPECT_TRUE(all_near(run(rules[1], x), plain_o, near));
    EXPECT_TRUE(all_near(run(rules[2], x), plain_o, near));
}

TEST_F(delta_limits, equal_channels_make_kda_the_gated_deltanet) {
    x.channel.each([&](index_t b, index_t h, index_t n, index_t d) { x.channel(b, h, n, d) = x.token(b, h, n, 0); });
    EXPECT_TRUE(all_near(run(rules[2], x), run(rules[1], x), near));
}

TEST_F(delta_limits, one_factor_makes_the_product_the_gated_deltanet) {
    EXPECT_TRUE(all_near(run(rules[3], x), run(rules[0], x), near));
    EXPECT_TRUE(all_near(run(rules[4], x), run(rules[1], x), near));
}

TEST_F(delta_limits, beta_of_0_leaves_what_the_gate_leaves_of_the_state) {
    x.beta.fill([](index_t) { return 0; });
    const auto from = beginning<one>(1, 2, 12, 9);
    const auto gated =
        run_from(from, x.q, x.k, x.v, [&](in q, in k, in v, out o, auto& s) { rules[1].run(x, q, k, v, o, &s); });
    const auto nothing = constant<one>(x.v.shape(), 0);
    EXPECT_TRUE(all_near(gated.o, recur_from(from, x.q, x.k, nothing, x.token_gate()).o, near));
}

TEST_F(delta_limits, orthogonal_keys_make_the_deltanet_linear_attention_of_weighted_values) {
    x = recurrence_data<one>({1, 2, 2, 2, 12, 12, 9, 1, 2}, 3);
    auto values = x.v;
    x.k.each([&](index_t b, index_t h, index_t n, index_t d) { x.k(b, h, n, d) = n == d; });
    values.each([&](index_t b, index_t h, index_t n, index_t e) { values(b, h, n, e) *= x.beta(b, h, n, 0); });
    tensor<one> linear(x.v.shape());
    recurrence(x.q, x.k, values, linear);
    EXPECT_TRUE(all_near(run(rules[0], x), linear, near));
}

TEST_F(delta_limits, beta_of_1_stores_a_value_under_its_key) {
    x.beta.fill([](index_t) { return 1; });
    for (index_t h = 0; h < 2; ++h)
        for (index_t n = 0; n < 50; ++n)
            for (index_t d = 0; d < 12; ++d) x.q(0, h, n, d) = x.k(0, h, n, d);
    tensor<one> o(x.v.shape());
    deltanet(x.q, x.k, x.v, o, numbers(x.beta), scale{1});
    EXPECT_TRUE(all_near(o, x.v, near));
}

TEST_F(delta_limits, rows_are_normalised_as_they_are_read_or_before) {
    x.k = normal<one>(x.k.shape(), 8, 3);
    auto q = x.q, k = x.k;
    normalise_rows(x.q, q);
    normalise_rows(k, k);  // in place
    tensor<one> before(x.v.shape()), within(x.v.shape());
    gated_deltanet(q, k, x.v, before, numbers(x.token), numbers(x.beta));
    gated_deltanet(x.q, x.k, x.v, within, numbers(x.token), numbers(x.beta), unit_norm{});
    EXPECT_TRUE(same_values(within, before));
}

TEST(unit_norm, eps_is_under_the_root_or_the_least_length) {
    for (const index_t D : {1, 7, 16, 33}) {
        auto x = normal<double>({2, 1, 5, D}, 4, 1, layout::strided());
        for (index_t d = 0; d < D; ++d) x(1, 0, 4, d) = d == 0 ? 1e-5 : 0.0;
        tensor<double> y(x.shape());
        for (const bool root : {true, false}) {
            normalise_rows(x, y, unit_norm{1e-4, root ? norm_rule::under_root : norm_rule::at_least});
            x.each([&](index_t b, index_t h, index_t n, index_t d) {
                double sum = 0;
                for (index_t i = 0; i < D; ++i) sum += x(b, h, n, i) * x(b, h, n, i);
                const double length = root ? std::sqrt(sum + 1e-4) : std::max(std::sqrt(sum), 1e-4);
                ASSERT_NEAR(y(b, h, n, d), x(b, h, n, d) / length, 1e-14);
            });
        }
    }
    auto zeros = constant<one>({1, 1, 2, 3}, 0);
    normalise_rows(zeros, zeros);
    EXPECT_TRUE(same_values(zeros, constant<one>({1, 1, 2, 3}, 0)));
}

TEST(delta_rules, refuse_what_does_not_fit) {
    const recurrence_data<one> x({1, 2, 2, 2, 6, 8, 8, 1, 2});
    tensor<one> o(x.v.shape());
    const auto g = numbers(x.token), beta = numbers(x.beta);
    const auto fewer = slice(beta, 2, {0, 5});
    refuses<shape_error>([&] { deltanet(x.q, x.k, x.v, o, fewer); }, "delta_rule's beta has 5 tokens");
    refuses<shape_error>(
        [&] {
            kda(x.q, x.k, x.v, o, slice(x.channel.v(), 3, {0, 7}), beta);
        },
        "channel_decay has 7 key");
    refuses<argument_error>([&] { gated_deltanet(x.q, x.k, x.v, o, beta, beta); }, "the most is 0");
    refuses<shape_error>([&] { gated_delta_product(x.q, x.k, x.v, o, g, beta, 2); }, "k has tokens 6");
    refuses<argument_error>([&] { deltanet(x.q, x.k, x.v, o, beta, unit_norm{-1}); }, "eps of -1");
    refuses<shape_error>(
        [&] {
            normalise_rows(x.q, o.v().shape[3] == 8 ? slice(o.v(), 2, {0, 5}) : o.v());
        },
        "token extent of y is 5, of x 6");
    EXPECT_TRUE(same_values(o, tensor<one>(o.shape())));
}

}  // namespace
