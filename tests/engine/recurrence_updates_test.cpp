// Values of recurrences whose update reads the state: delta rules, several steps a token, diagonal plus low rank.
#include "recurs.hpp"

using namespace test;

namespace {

const recurrence_sizes shapes[] = {
    {1, 1, 1, 1, 0, 8, 8},        {1, 1, 1, 1, 1, 8, 8},        {1, 1, 1, 1, 15, 7, 3},
    {1, 1, 1, 1, 16, 16, 16},     {1, 1, 1, 1, 17, 5, 17},      {3, 4, 4, 4, 33, 1, 1, 1, 4},
    {1, 1, 1, 1, 100, 33, 64},    {1, 1, 1, 1, 40, 64, 80},     {2, 4, 4, 4, 20, 9, 8, 1, 4},
    {2, 4, 2, 2, 20, 8, 9, 1, 1}, {1, 1, 2, 4, 20, 8, 8, 1, 2}, {1, 2, 4, 1, 35, 8, 5, 1, 4},
};

template <class Naive, class T, class... P>
void check_delta_by(const Naive& naive, const recurrence_data<T>& x, const P&... form) {
    const auto check = [&](unsigned parts, const auto&... gate) {
        return recurs_by(naive, x.q, x.k, x.v, x.defined(delta | parts), x.delta_update(), gate..., form...);
    };
    EXPECT_TRUE(check(plain)) << "no decay";
    EXPECT_TRUE(check(by_token, x.token_gate())) << "per token";
    EXPECT_TRUE(check(by_channel, x.channel_gate())) << "per channel";
}
/// In chunks nothing is folded into the state before their end, which loses digits: each form has its own naive loop.
template <class T>
void check_delta(const recurrence_data<T>& x) {
    check_delta_by(token_by_token{}, x, recurrent{});
    check_delta_by(in_chunks{32}, x, chunked{32});
    check_delta_by(in_chunks{16}, x, chunked{16});
    check_delta_by(token_by_token{}, x);
}

TEST(recurrence_delta, shapes) {
    for (const auto& s : shapes) {
        SCOPED_TRACE(testing::Message() << s);
        check_delta(recurrence_data<float>(s, static_cast<std::uint64_t>(s.N)));
    }
}

TEST(recurrence_delta, beta_of_0_keeps_the_state_and_of_2_turns_it_over) {
    for (const auto& s : {recurrence_sizes{1, 2, 2, 2, 50, 12, 9}, recurrence_sizes{1, 2, 2, 2, 50, 1, 1}})
        for (double b : {0.0, 1.0, 2.0}) {
            SCOPED_TRACE(b);
            recurrence_data<float> x(s);
            x.beta.fill([&](index_t) { return b; });
            check_delta(x);
            for (index_t n = 10; n < 40; ++n)  // the same key, again and again
                for (index_t d = 0; d < s.D; ++d) x.k(0, 1, n, d) = x.k(0, 1, 10, d);
            check_delta(x);
            for (index_t d = 0; d < s.D; ++d) x.k(0, 0, 3, d) = x.k(0, 0, 30, d) = 0;
            check_delta(x);
        }
}

TEST(recurrence_delta, of_a_usual_width_keeps_to_the_rule_in_any_form) {
    for (index_t D : {64, 128}) {
        const recurrence_data<float> x({1, 2, 2, 2, 150, D, 64, 1, 2});
        check_delta_by(token_by_token{}, x);
        check_delta_by(token_by_token{}, x, chunked{64});
    }
}

TEST(recurrence_delta, a_key_of_length_1_and_beta_1_is_answered_with_its_value) {
    const recurrence_data<float> x({1, 1, 1, 1, 40, 16, 8});
    tensor<float> ones({1, 1, 40, 1}), o({1, 1, 40, 8});
    ones.fill([](index_t) { return 1; });
    recurrence(x.k, x.k, x.v, o, delta_rule{numbers(ones)}, scale{1});
    EXPECT_TRUE(all_near(o, x.v, 1e-5));
}

TEST(recurrence_householder, steps) {
    for (index_t steps : {1, 2, 3, 5})
        for (const auto& s :
             {recurrence_sizes{1, 1, 1, 1, 0, 8, 8, steps}, recurrence_sizes{1, 1, 1, 1, 1, 8, 8, steps},
              recurrence_sizes{2, 4, 2, 2, 35, 9, 17, steps, 2}, recurrence_sizes{1, 1, 2, 4, 17, 16, 3, steps, 1}}) {
            SCOPED_TRACE(testing::Message() << s);
            const recurrence_data<float> x(s);
            EXPECT_TRUE(recurs(x, delta, x.householder_update()));
            EXPECT_TRUE(recurs(x, delta | by_token, x.householder_update(), x.token_gate()));
            EXPECT_TRUE(recurs(x, delta | by_channel, x.householder_update(), x.channel_gate()));
            EXPECT_TRUE(recurs(x, delta | by_token | before, x.householder_update(), x.token_gate(), read_before{}))
                << "every factor of a token comes after its read";
        }
}

TEST(recurrence_householder, one_step_is_the_delta_rule) {
    const recurrence_data<float> x({2, 4, 2, 2, 35, 9, 17, 1, 2});
    const auto from = beginning<float>(2, 2, 9, 17);
    EXPECT_TRUE(same_values(recur_from(from, x.q, x.k, x.v, x.householder_update(), x.token_gate()),
                            recur_from(from, x.q, x.k, x.v, x.delta_update(), x.token_gate(), recurrent{})));
}

TEST(recurrence_low_rank, shapes) {
    for (const auto& s : shapes) {
        SCOPED_TRACE(testing::Message() << s);
        const recurrence_data<float> x(s);
        EXPECT_TRUE(recurs(x, ranked, x.low_rank_update())) << "no decay";
        EXPECT_TRUE(recurs(x, ranked | by_channel, x.low_rank_update(), x.channel_gate())) << "per channel";
    }
}

TEST(recurrence_low_rank, can_say_the_delta_rule) {
    recurrence_data<double> x({1, 2, 2, 2, 40, 9, 8, 1, 2});
    auto v = x.v;
    x.a.each([&](index_t b, index_t h, index_t n, index_t d) {
        x.a(b, h, n, d) = -x.beta(b, h, n, 0) * x.k(b, h, n, d);
        x.b(b, h, n, d) = std::exp(x.channel(b, h, n, d)) * x.k(b, h, n, d);
    });
    v.each([&](index_t b, index_t h, index_t n, index_t e) { v(b, h, n, e) *= x.beta(b, h, n, 0); });
    const auto from = beginning<double>(1, 2, 9, 8);
    const auto one = recur_from(from, x.q, x.k, v, x.low_rank_update(), x.channel_gate());
    const auto other = recur_from(from, x.q, x.k, x.v, x.delta_update(), x.channel_gate());
    EXPECT_TRUE(all_near(one.o, other.o, 1e-13));
    EXPECT_TRUE(all_near(one.state, other.state, 1e-13));
}

}  // namespace
