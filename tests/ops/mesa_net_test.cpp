// heed_test: LABELS sanitize
// The Mesa layer against its definition, its limits, and what its steps come to.
#include <heed/core/threads.hpp>
#include <heed/ops/mesa_net.hpp>
#include <heed/ref/mesa_net.hpp>

#include "recurs.hpp"
#include "refuses.hpp"

namespace {

using namespace heed;
using namespace test;

struct data : recurrence_data<float> {
    tensor<float> lambda;
    explicit data(index_t N, index_t D = 9, index_t E = 19)
        : recurrence_data<float>({2, 2, 2, 2, N, D, E, 1, 2}), lambda(uniform<float>({1, 2, 1, D}, 21, 0.5, 2)) {}
    view<const float, 2> ridge() const { return {lambda.v().data, {2, s.D}, {lambda.v().strides[1], 1}}; }
    tensor<float> out() const { return tensor<float>({2, 2, s.N, s.E}); }
    mesa_state<float> fresh() const { return {2, 2, s.D, s.E}; }
};

template <class... P>
tensor<float> solved_by(const data& x, index_t steps, const P&... policies) {
    auto s = x.fresh();
    auto o = x.out();
    mesa_net(s, x.q, x.k, x.v, numbers(x.beta), x.ridge(), o, steps, policies...);
    return o;
}

TEST(mesa_net, of_enough_steps_is_the_definition) {
    for (index_t D : {1, 4, 9, 16, 17})
        for (index_t N : {0, 1, 7, 33}) {
            SCOPED_TRACE(testing::Message() << N << " tokens, width " << D);
            const data x(N, D);
            tensor<double> exact(x.out().shape());
            tensor<float> naive(exact.shape());
            ref::mesa_net<double>(x.q.v(), x.k.v(), x.v.v(), x.ridge(), exact.v(), x.defined(by_token | delta)(0.0));
            ref::mesa_net<float>(x.q.v(), x.k.v(), x.v.v(), x.ridge(), naive.v(), x.defined(by_token | delta)(0.0f));
            EXPECT_TRUE(within_rule<float>(solved_by(x, 2 * D, x.token_gate()), naive, exact));
        }
}

TEST(mesa_net, comes_nearer_step_by_step) {
    const data x(33);
    const auto last = solved_by(x, 30);
    double before = std::numeric_limits<double>::infinity();
    for (index_t steps : {0, 1, 2, 4, 8}) {
        const auto o = solved_by(x, steps);
        double off = 0;
        o.each([&](index_t b, index_t h, index_t n, index_t e) { off += std::abs(o(b, h, n, e) - last(b, h, n, e)); });
        EXPECT_LT(off, before / 2) << steps;
        before = off;
    }
}

TEST(mesa_net, under_a_large_ridge_is_linear_attention) {
    data x(33);
    x.lambda.fill([](index_t) { return 1e6; });
    auto weighted = x.v;  // beta is a factor of values
    weighted.each([&](index_t b, index_t h, index_t n, index_t e) { weighted(b, h, n, e) *= x.beta(b, h, n, 0); });
    auto linear = x.out();
    recurrence(x.q, x.k, weighted, linear, x.token_gate(), scale{1});
    auto o = solved_by(x, 2, x.token_gate());
    o.each([&](index_t b, index_t h, index_t n, index_t e) { o(b, h, n, e) *= 1e6f; });
    EXPECT_TRUE(all_near(o, linear, 5e-5));
}

TEST(mesa_net, recalls_the_value_of_a_key_it_has_seen) {
    data x(9, 9, 5);  // a value a key, keys of length 1 and independent
    x.lambda.fill([](index_t) { return 1e-4; });
    x.beta.fill([](index_t) { return 1; });
    x.k.each([&](index_t b, index_t h, index_t n, index_t d) { x.k(b, h, n, d) = n == d ? 1.0f : 0.0f; });
    x.q = x.k;
    EXPECT_TRUE(all_near(solved_by(x, 9), x.v, 1e-3));
}

TEST(mesa_net, has_the_same_bits_in_pieces_and_on_threads) {
    const data x(21);
    const auto whole = solved_by(x, 5, x.token_gate());
    threads pool(3);
    EXPECT_TRUE(same_values(whole, solved_by(x, 5, x.token_gate(), on{pool})));
    auto s = x.fresh();
    auto o = x.out();
    for (index_t t = 0; t < 21; t += 2) {
        const range r{t, std::min<index_t>(t + 2, 21)};
        const auto at = [&](const auto& of) { return slice(of.v(), 2, r); };
        mesa_net(s, at(x.q), at(x.k), at(x.v), slice(numbers(x.beta), 2, r), x.ridge(), slice(o.v(), 2, r), 5,
                 token_decay{slice(numbers(x.token), 2, r)});
    }
    EXPECT_TRUE(same_values(whole, o));
}

TEST(mesa_net, is_causal_to_the_bit) {
    data x(21);
    const auto before = solved_by(x, 5, x.token_gate());
    for (index_t n = 13; n < 21; ++n)
        x.k(0, 0, n, 3) = x.v(1, 1, n, 2) = x.q(0, 1, n, 0) = std::numeric_limits<float>::quiet_NaN();
    const auto after = solved_by(x, 5, x.token_gate());
    EXPECT_TRUE(same_values(copied(slice(before.v(), 2, {0, 13})), copied(slice(after.v(), 2, {0, 13}))));
}

TEST(mesa_net, refuses_before_it_writes) {
    data x(8);
    auto o = x.out();
    auto s = x.fresh();
    const auto run = [&](auto& into, index_t steps) {
        mesa_net(into, x.q, x.k, x.v, numbers(x.beta), x.ridge(), o, steps);
    };
    refuses<argument_error>([&] { run(s, -1); }, "-1 steps");
    mesa_state<float> narrow(2, 2, 9, 18);
    refuses<shape_error>([&] { run(narrow, 3); }, "the state has 18 columns");
    x.lambda(0, 1, 0, 2) = 0;
    refuses<argument_error>([&] { run(s, 3); }, "lambda is 0, it must be above 0");
    o.each(
        [&](index_t b, index_t h, index_t n, index_t e) { EXPECT_TRUE(std::isnan(o(b, h, n, e))) << "was written"; });
}

TEST(mesa_net, of_sequences_side_by_side_and_backwards) {
    const recurrence_data<float> x({1, 4, 2, 1, 40, 9, 12, 1, 2});
    const std::vector<float> ones(9, 1);
    const view<const float, 2> ridge{ones.data(), {2, 9}, {0, 1}};
    const std::vector<index_t> offsets{0, 7, 7, 40};
    tensor<float> all({1, 4, 40, 12}), one(all.shape());
    const auto run = [&](mesa_state<float>& s, const auto& cut, tensor<float>& o, const auto&... policies) {
        mesa_net(s, cut(x.q.v()), cut(x.k.v()), cut(x.v.v()), cut(numbers(x.beta)), ridge, cut(o.v()), 4,
                 token_decay{cut(numbers(x.token))}, policies...);
    };
    const auto whole = [](const auto& y) { return y; };
    mesa_state<float> packs(3, 2, 9, 12), fresh(1, 2, 9, 12);
    run(packs, whole, all, packed{offsets});
    for (std::size_t i = 1; i < offsets.size(); ++i) {
        auto own = fresh;
        run(
            own,
            [&](const auto& y) {
                return slice(y, 2, {offsets[i - 1], offsets[i]});
            },
            one);
    }
    EXPECT_TRUE(same_values(all, one));
    auto there = fresh, back = fresh;
    run(there, whole, all, reversed{});
    run(
        back, [](const auto& y) { return flipped(y, 2); }, one);
    EXPECT_TRUE(same_values(all, one));
}

TEST(mesa_net, shares_heads) {
    const recurrence_data<float> x({1, 4, 2, 1, 20, 9, 12, 1, 1});
    const auto repeated = [](const tensor<float>& y) {
        tensor<float> z({1, 4, y.shape()[2], y.shape()[3]});
        z.each([&](index_t b, index_t h, index_t n, index_t d) { z(b, h, n, d) = y(b, h * y.shape()[1] / 4, n, d); });
        return z;
    };
    const std::vector<float> ones(9, 1);
    const auto ridge = [&](index_t H) { return view<const float, 2>{ones.data(), {H, 9}, {0, 1}}; };
    mesa_state<float> two(1, 2, 9, 12), four(1, 4, 9, 12);
    tensor<float> o({1, 4, 20, 12}), each(o.shape());
    mesa_net(two, x.q, x.k, x.v, numbers(x.beta), ridge(2), o, 9);
    mesa_net(four, x.q, repeated(x.k), repeated(x.v), numbers(x.beta), ridge(4), each, 9);
    EXPECT_TRUE(same_values(o, each));
}

}  // namespace
