// Chunks of the kinds that have other recurrences: several updates a token, low rank, decays of columns, complex
// decays. They are the token by token recurrence, keep its laws of bits, and its digits.
#include "recurrent_laws.hpp"

using namespace test;

namespace {

constexpr auto token = [](const auto& d) { return d.token_gate(); };
constexpr auto channel = [](const auto& d) { return d.channel_gate(); };
constexpr auto column = [](const auto& d) { return d.value_gate(); };
constexpr auto turn = [](const auto& d) { return d.complex_gate(); };
constexpr auto erase = [](const auto& d) { return d.delta_update(); };
constexpr auto steps = [](const auto& d) { return d.householder_update(); };
constexpr auto ranks = [](const auto& d) { return d.low_rank_update(); };
constexpr auto own = [](const auto& d) { return d.bonus_read(); };
constexpr auto early = [](const auto&) { return read_before{}; };

template <class F>
void each_kind_of_one_update(const F& f) {
    f("low rank", ranks);
    f("low rank by channels", ranks, channel);
    f("low rank by columns, read before", ranks, column, early);
    f("complex", turn);
    f("complex, bonus", turn, own);
    f("columns", column);
    f("columns, bonus", column, own);
    f("delta by columns", column, erase);
}
template <class F>
void each_kind_of_several(const F& f) {
    f("steps by tokens", steps, token);
    f("steps by channels, read before", steps, channel, early);
    f("steps by columns", steps, column);
}

template <class T, class S>
testing::AssertionResult near(const recurred<T, S>& a, const recurred<T, S>& b, double by) {
    auto o = all_near(a.o, b.o, by);
    return o ? all_near(a.state, b.state, by) : o;
}

/// f(name, kinds...): the forms of a kind over x agree.
auto forms_agree_over(const recurrence_data<double>& x) {
    return [&x](const char* name, const auto&... kind) {
        SCOPED_TRACE(name);
        const bool complex = (std::is_same_v<decltype(turn), const std::remove_cvref_t<decltype(kind)>> || ...);
        const auto from = beginning<double>(2, 2, complex ? 2 * x.s.D : x.s.D, x.s.E);
        const auto one = recur_from(from, x.q, x.k, x.v, kind(x)..., recurrent{});
        for (index_t c : {1, 16, 32, 100})
            EXPECT_TRUE(near(one, recur_from(from, x.q, x.k, x.v, kind(x)..., chunked{c}), 1e-11)) << "chunks of " << c;
    };
}

TEST(recurrence_chunks, agree_with_token_by_token) {
    for (index_t N : {1, 16, 70}) {
        SCOPED_TRACE(N);
        each_kind_of_one_update(forms_agree_over(recurrence_data<double>({2, 4, 2, 2, N, 9, 17, 1, 2})));
    }
}

TEST(recurrence_chunks, of_several_updates_agree_with_token_by_token) {
    for (index_t n : {1, 2, 3, 5, 19})
        for (index_t N : {1, 16, 70}) {
            SCOPED_TRACE(testing::Message() << n << " updates of each of " << N << " tokens");
            each_kind_of_several(forms_agree_over(recurrence_data<double>({2, 4, 2, 2, N, 9, 17, n, 2})));
        }
}

TEST(recurrence_chunks, keep_the_digits_of_token_by_token) {
    for (const auto& s :
         {recurrence_sizes{1, 2, 2, 2, 100, 33, 24, 1, 2}, recurrence_sizes{2, 4, 2, 2, 35, 9, 17, 1, 1}}) {
        SCOPED_TRACE(testing::Message() << s);
        const recurrence_data<float> x(s);
        EXPECT_TRUE(recurs(x, turning, x.complex_gate(), chunked{64}));
        EXPECT_TRUE(recurs(x, turning | before, x.complex_gate(), read_before{}, chunked{16}));
        EXPECT_TRUE(recurs(x, by_value, x.value_gate(), chunked{64}));
        EXPECT_TRUE(recurs(x, ranked | by_channel, x.low_rank_update(), x.channel_gate(), chunked{16}));
    }
    recurrence_data<float> three({1, 2, 2, 2, 50, 64, 24, 3, 2});
    EXPECT_TRUE(recurs(three, delta | by_token, three.householder_update(), three.token_gate(), chunked{16}));
}

TEST(recurrence_chunks, of_a_state_without_rows_answer_0_beside_any_value) {
    recurrence_data<float> x({1, 1, 1, 1, 40, 0, 5});
    x.v(0, 0, 3, 2) = std::numeric_limits<float>::quiet_NaN();
    EXPECT_TRUE(recurs(x, delta | by_token, x.delta_update(), x.token_gate(), chunked{16}));
    EXPECT_TRUE(recurs(x, delta | by_token, x.delta_update(), x.token_gate(), parallel{}));
    EXPECT_TRUE(recurs(x, by_value, x.value_gate(), chunked{16}));
}

/// Complex states of any number of rows are kept to: nothing is read or written beyond them.
TEST(recurrence_chunks, of_complex_states_of_any_width_keep_to_them) {
    for (index_t D : {1, 3, 4, 5, 8, 9, 12, 20}) {
        SCOPED_TRACE(D);
        const recurrence_data<double> x({2, 2, 2, 2, 40, D, 5, 1, 2});
        forms_agree_over(x)("complex", turn);
    }
}

/// A decay of -1e4 and one of -inf in every few, phases as they are.
TEST(recurrence_chunks, of_gates_of_any_size) {
    using pattern_of_tokens = double (*)(index_t);
    const pattern_of_tokens patterns[] = {
        [](index_t n) { return n % 2 ? -1e4 : 0.0; },
        [](index_t n) { return n % 7 == 3 ? -std::numeric_limits<double>::infinity() : -0.1; },
        [](index_t n) { return n % 2 ? -88.0 : -1e-6; },
        [](index_t) { return -20.0; },
    };
    for (const auto pattern : patterns) {
        recurrence_data<float> x({1, 2, 2, 2, 40, 12, 17, 1, 1});
        for (auto* g : {&x.channel, &x.column})
            g->each([&](index_t b, index_t h, index_t n, index_t d) {
                (*g)(b, h, n, d) = static_cast<float>(pattern(n + (d == 2)));
            });
        EXPECT_TRUE(recurs(x, turning, x.complex_gate(), chunked{32}));
        EXPECT_TRUE(recurs(x, by_value, x.value_gate(), chunked{32}));
        EXPECT_TRUE(recurs(x, ranked | by_channel, x.low_rank_update(), x.channel_gate(), chunked{32}));
    }
}

TEST(recurrence_chunks, feel_no_suffix_and_no_executor) {
    recurrence_sizes s{1, 2, 2, 2, 100, 9, 17};
    const recurrence_data<float> x(s);
    s.steps = 3;
    const recurrence_data<float> three(s);
    const auto over = [](const auto& data) {
        return [&](const char* name, const auto&... kind) {
            SCOPED_TRACE(name);
            const auto run = recurring(kind..., [](const auto&) { return chunked{32}; });
            feels_no_suffix(data, run);
            same_for_any_executor(data, run);
        };
    };
    each_kind_of_one_update(over(x));
    each_kind_of_several(over(three));
}

}  // namespace
