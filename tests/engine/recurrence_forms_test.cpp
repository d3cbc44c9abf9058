// The forms of a recurrence are one function: token by token, in chunks of any size, all at once, step by step, whole
// or in pieces.
#include "recurs.hpp"

using namespace test;

namespace {

constexpr recurrence_sizes sizes{2, 4, 2, 2, 100, 9, 17, 1, 2};

/// f(policies...) for the kinds of decay and update that have every form.
template <class T, class F>
void each_kind(const recurrence_data<T>& x, F&& f) {
    const auto named = [&](const char* name, const auto&... policies) {
        SCOPED_TRACE(name);
        f(policies...);
    };
    named("additive");
    named("token decay", x.token_gate());
    named("channel decay", x.channel_gate());
    named("delta", x.delta_update());
    named("gated delta", x.delta_update(), x.token_gate());
    named("delta by channels", x.delta_update(), x.channel_gate());
}

template <class T, class S>
testing::AssertionResult near(const recurred<T, S>& a, const recurred<T, S>& b, double by) {
    auto o = all_near(a.o, b.o, by);
    return o ? all_near(a.state, b.state, by) : o;
}

TEST(recurrence_forms, agree) {
    const recurrence_data<double> x(sizes);
    const auto from = beginning<double>(2, 2, 9, 17);
    each_kind(x, [&](const auto&... p) {
        const auto one = recur_from(from, x.q, x.k, x.v, p..., recurrent{});
        for (index_t c : {1, 2, 15, 16, 17, 32, 64, 99, 100, 128, 1000})
            EXPECT_TRUE(near(one, recur_from(from, x.q, x.k, x.v, p..., chunked{c}), 1e-12)) << "chunks of " << c;
        EXPECT_TRUE(near(one, recur_from(from, x.q, x.k, x.v, p..., parallel{}), 1e-12)) << "parallel";
        EXPECT_TRUE(near(one, recur_from(from, x.q, x.k, x.v, p...), 1e-12)) << "the fastest";
    });
}

/// The same sequence, a piece after another.
template <class T, class S, class Run>
recurred<T, S> in_pieces(const recurrence_data<T>& x, tensor<S> from, const std::vector<index_t>& cuts,
                         const Run& run) {
    recurred<T, S> all{tensor<T>({x.s.B, x.s.Ho(), x.s.N, x.s.E}), from};
    for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
        const range piece{cuts[i], cuts[i + 1]};
        recurrence_data<T> part = x;
        for (auto member : {&recurrence_data<T>::q, &recurrence_data<T>::k, &recurrence_data<T>::v,
                            &recurrence_data<T>::token, &recurrence_data<T>::channel, &recurrence_data<T>::beta})
            part.*member = copied(slice((x.*member).v(), 2, piece));
        const auto r = run(all.state, part);
        r.o.each(
            [&](index_t b, index_t h, index_t n, index_t e) { all.o(b, h, piece.first + n, e) = r.o(b, h, n, e); });
        all.state = r.state;
    }
    return all;
}

TEST(recurrence_forms, pieces_are_the_whole) {
    const recurrence_data<double> x(sizes);
    const auto from = beginning<double>(2, 2, 9, 17);
    const auto check = [&](const auto& run) {
        const auto whole = run(from, x);
        for (const auto& cuts :
             {std::vector<index_t>{0, 50, 100}, {0, 1, 2, 17, 17, 50, 99, 100}, {0, 16, 48, 64, 100}})
            EXPECT_TRUE(near(whole, in_pieces(x, from, cuts, run), 1e-12));
    };
    check([](const auto& s, const auto& p) { return recur_from(s, p.q, p.k, p.v, p.token_gate()); });
    check(
        [](const auto& s, const auto& p) { return recur_from(s, p.q, p.k, p.v, p.channel_gate(), p.delta_update()); });
    check([](const auto& s, const auto& p) { return recur_from(s, p.q, p.k, p.v, p.channel_gate(), chunked{32}); });
}

TEST(recurrence_forms, token_by_token_a_cut_moves_no_bit) {
    const recurrence_data<float> x(sizes);
    const auto from = beginning<float>(2, 2, 9, 17);
    const auto check = [&](const auto& run) {
        EXPECT_TRUE(same_values(run(from, x), in_pieces(x, from, {0, 1, 2, 17, 33, 50, 99, 100}, run)));
    };
    check([](const auto& s, const auto& p) { return recur_from(s, p.q, p.k, p.v, p.token_gate(), recurrent{}); });
    check([](const auto& s, const auto& p) {
        return recur_from(s, p.q, p.k, p.v, p.channel_gate(), p.delta_update(), recurrent{});
    });
}

TEST(recurrence_forms, a_step_is_a_sequence_of_one_token) {
    const recurrence_data<float> x(sizes);
    const auto from = beginning<float>(2, 2, 9, 17);
    const auto check = [&](const auto& gates) {
        const auto stepped = [&](const auto& s, const auto& p) {
            recurred<float, float> r{tensor<float>({2, 4, p.q.shape()[2], 17}), s};
            state<float> carried(2, 2, 9, 17);
            carried.assign(slice(s.v(), 3, {0, 17}));
            std::apply([&](const auto&... policy) { step(carried, p.q.v(), p.k.v(), p.v.v(), r.o.v(), policy...); },
                       gates(p));
            const auto S = carried.values();
            r.state.each([&](index_t b, index_t h, index_t d, index_t e) {
                if (e < 17) r.state(b, h, d, e) = S(b, h, d, e);
            });
            return r;
        };
        std::vector<index_t> each;
        for (index_t n = 0; n <= 100; ++n) each.push_back(n);
        const auto whole = std::apply(
            [&](const auto&... policy) { return recur_from(from, x.q, x.k, x.v, policy..., recurrent{}); }, gates(x));
        EXPECT_TRUE(same_values(whole, in_pieces(x, from, each, stepped)));
    };
    check([](const auto& p) { return std::make_tuple(p.token_gate()); });
    check([](const auto& p) { return std::make_tuple(p.channel_gate(), p.delta_update()); });
}

TEST(recurrence_forms, without_a_state_it_starts_at_0_and_with_one_it_ends_there) {
    const recurrence_data<float> x(sizes);
    each_kind(x, [&](const auto&... p) {
        tensor<float> zero({2, 2, 9, 18}), o({2, 4, 100, 17});
        zero.fill([](index_t) { return 0; });
        const auto carried = recur_from(zero, x.q, x.k, x.v, p...);
        recurrence(x.q, x.k, x.v, o, p...);
        EXPECT_TRUE(same_values(carried.o, o));
    });
}

TEST(recurrence_forms, copies_of_a_state_are_snapshots) {
    const recurrence_data<float> x(sizes);
    state<float> s(2, 2, 9, 17);
    tensor<float> first({2, 4, 100, 17}), again(first.shape());
    s.assign(slice(beginning<float>(2, 2, 9, 17).v(), 3, {0, 17}));
    const state<float> kept = s;
    recurrence(x.q, x.k, x.v, first, x.token_gate(), s);
    EXPECT_FALSE(same_values(copied(s.values()), copied(kept.values())));
    s = kept;
    recurrence(x.q, x.k, x.v, again, x.token_gate(), s);
    EXPECT_TRUE(same_values(first, again));
    state<float> moved = std::move(s);
    EXPECT_EQ(moved.shape(), (extents<4>{2, 2, 9, 17}));
    moved.clear();
    EXPECT_TRUE(same_values(copied(moved.values()), constant<float>({2, 2, 9, 17}, 0)));
}

}  // namespace
