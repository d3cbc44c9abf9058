// heed_test: LABELS sanitize
// The Hawk block against its definition, at once and token by token, and its limits.
#include <heed/core/threads.hpp>
#include <heed/ops/hawk_block.hpp>
#include <heed/ops/reverse_complement.hpp>
#include <heed/ref/causal_conv.hpp>
#include <heed/ref/diagonal.hpp>

#include "../support/compare.hpp"
#include "../support/refuses.hpp"
#include "../support/sequence.hpp"
#include "../support/streams.hpp"

namespace {

using namespace heed;
using test::matrix;
using test::refuses;
using test::seq;
using test::tensor;
using test::vec;

/// x (1, P, I, O) as (P, I, O).
view<const float, 3> blocks(const tensor<float>& x) {
    const auto v = x.v();
    return {v.data, {v.shape[1], v.shape[2], v.shape[3]}, {v.strides[1], v.strides[2], v.strides[3]}};
}

struct block {
    index_t D, E, P, K;
    tensor<float> in, in_bias, taps, conv_bias, gate_r, bias_r, gate_i, bias_i, lambda, out, out_bias;
    double c = 8;

    block(index_t width, index_t inner, index_t gates, index_t K_taps)
        : D(width),
          E(inner),
          P(gates),
          K(K_taps),
          in(drawn(1, D, 2 * E, 1)),
          in_bias(drawn(1, 1, 2 * E, 2)),
          taps(drawn(1, E, K, 3)),
          conv_bias(drawn(1, 1, E, 4)),
          gate_r(drawn(P, E / P, E / P, 5)),
          bias_r(drawn(1, 1, E, 6)),
          gate_i(drawn(P, E / P, E / P, 7)),
          bias_i(drawn(1, 1, E, 8)),
          lambda(test::uniform<float>({1, 1, 1, E}, 9, -6, 0)),
          out(drawn(1, E, D, 10)),
          out_bias(drawn(1, 1, D, 11)) {}
    static tensor<float> drawn(index_t some, index_t rows, index_t columns, std::uint64_t seed) {
        return test::normal<float>({1, some, rows, columns}, seed, 0.5);
    }
    hawk_weights<float> weights() const {
        return {matrix(in),     vec(in_bias), matrix(taps), vec(conv_bias), blocks(gate_r), vec(bias_r),
                blocks(gate_i), vec(bias_i),  vec(lambda),  matrix(out),    vec(out_bias),  c};
    }
    hawk_state<float> start(index_t B) const { return {B, E, K}; }

    /// The definition in Real, with what has no data left out.
    template <class Real>
    tensor<Real> defined(const tensor<float>& x, bool biased = true) const {
        const index_t B = x.shape()[0], N = x.shape()[2];
        const auto times = [&](const tensor<Real>& rows, const tensor<float>& w, const tensor<float>& bias) {
            const index_t I = w.shape()[2], O = w.shape()[3];
            tensor<Real> y({B, 1, N, w.shape()[1] * O});
            y.each([&](index_t b, index_t, index_t n, index_t o) {
                Real sum = 0;
                for (index_t i = 0; i < I; ++i)
                    sum += rows(b, 0, n, o / O * I + i) * static_cast<Real>(w(0, o / O, i, o % O));
                y(b, 0, n, o) = sum + (biased ? static_cast<Real>(bias(0, 0, 0, o)) : 0);
            });
            return y;
        };
        const auto uz = times(test::in<Real>(x), in, in_bias);
        tensor<Real> u({B, 1, N, E}), h(u.shape());
        const auto w = test::in<Real>(taps), b = test::in<Real>(conv_bias);
        ref::causal_conv<Real>(slice(view<const Real, 3>(seq(uz)), 2, {0, E}), matrix(w), seq(u),
                               biased ? vec(b) : view<const Real, 1>{}, {}, false);
        const auto r = times(u, gate_r, bias_r), i = times(u, gate_i, bias_i);
        ref::diagonal<Real>(seq(h), [&](index_t s, index_t n, index_t e) {
            return ref::rg_lru(u(s, 0, n, e), r(s, 0, n, e), i(s, 0, n, e), static_cast<Real>(lambda(0, 0, 0, e)),
                               false, static_cast<Real>(c));
        });
        h.each([&](index_t s, index_t, index_t n, index_t e) {
            const Real z = uz(s, 0, n, E + e);
            h(s, 0, n, e) *=
                z / 2 * (1 + std::tanh(std::sqrt(2 / std::acos(Real(-1))) * (z + Real(0.044715) * z * z * z)));
        });
        return times(h, out, out_bias);
    }
};

TEST(hawk_block, follows_its_definition) {
    for (index_t N : {1, 2, 3, 40})
        for (index_t P : {1, 2, 5}) {
            block f(6, 20, P, 4);
            if (P == 5) f.c = 2.5;
            const auto x = test::normal<float>({2, 1, N, 6}, 20, 1, test::layout::strided());
            tensor<float> y(x.shape(), test::layout::strided());
            hawk_block(seq(x), f.weights(), seq(y));
            EXPECT_TRUE(test::within_rule<float>(y, f.defined<float>(x), f.defined<double>(x)));
            EXPECT_TRUE(y.poisoned_outside());
        }
}

TEST(hawk_block, odd_widths_and_no_biases) {
    for (index_t E : {1, 7, 51})
        for (index_t K : {1, 3}) {
            const block f(5, E, E == 51 ? 3 : 1, K);
            auto w = f.weights();
            w.in_bias = w.conv_bias = w.recurrence_bias = w.input_bias = w.out_bias = {};
            const auto x = test::normal<float>({1, 1, 17, 5}, 20);
            tensor<float> y(x.shape());
            hawk_block(seq(x), w, seq(y));
            EXPECT_TRUE(test::within_rule<float>(y, f.defined<float>(x, false), f.defined<double>(x, false)));
        }
    const block f(5, 8, 2, 4);
    tensor<float> none({2, 1, 0, 5});
    hawk_block(seq(none), f.weights(), seq(none));
}

TEST(hawk_block, of_one_tap_leaves_no_inputs_behind) {
    const block f(6, 20, 2, 1);
    const auto x = test::normal<float>({2, 1, 30, 6}, 20);
    tensor<float> whole(x.shape());
    hawk_block(seq(x), f.weights(), seq(whole));
    test::pieces_are(
        whole, 0, [&] { return f.start(2); },
        [&](auto& s, range piece, auto& y) {
            hawk_block(s, slice(seq(x), 1, piece), f.weights(), slice(seq(y), 1, piece));
        });
}

TEST(hawk_block, pieces_and_steps_are_one_shot) {
    constexpr index_t N = 50;
    const block f(6, 20, 2, 4);
    const auto x = test::normal<float>({2, 1, N, 6}, 20);
    tensor<float> whole(x.shape());
    threads pool(2);
    hawk_block(seq(x), f.weights(), seq(whole), on(pool));
    test::pieces_are(
        whole, 0, [&] { return f.start(2); },
        [&](auto& s, range piece, auto& y) {
            hawk_block(s, slice(seq(x), 1, piece), f.weights(), slice(seq(y), 1, piece));
        });
    test::packed_are_apart(N, 6, [&](range piece, auto& y, const auto&... policies) {
        const auto row = slice(slice(seq(x), 0, {0, 1}), 1, piece);
        hawk_block(row, f.weights(), slice(seq(y), 1, piece), policies...);
    });
    auto in_place = x;
    hawk_block(seq(in_place), f.weights(), seq(in_place));
    EXPECT_TRUE(test::same_values(in_place, whole));
}

/// reversed{} is flip, block, flip; adding{} adds; the suffix does not move the prefix.
TEST(hawk_block, directions_and_suffixes) {
    constexpr index_t N = 33;
    const block f(6, 10, 1, 3);
    auto x = test::normal<float>({2, 1, N, 6}, 20);
    tensor<float> y(x.shape()), back(x.shape()), both(x.shape()), again(x.shape());
    hawk_block(seq(x), f.weights(), seq(y));
    hawk_block(flip(seq(x), 1), f.weights(), flip(seq(back), 1));
    hawk_block(seq(x), f.weights(), seq(both));
    hawk_block(seq(x), f.weights(), seq(both), reversed{}, adding{});
    both.each([&](index_t b, index_t h, index_t n, index_t c) {
        ASSERT_EQ(both(b, h, n, c), y(b, h, n, c) + back(b, h, n, c));
    });
    for (index_t c = 0; c < 6; ++c) x(1, 0, 20, c) = std::numeric_limits<float>::quiet_NaN();
    hawk_block(seq(x), f.weights(), seq(again));
    again.each([&](index_t b, index_t h, index_t n, index_t c) {
        if (b == 0 || n < 20)
            ASSERT_EQ(again(b, h, n, c), y(b, h, n, c));
        else
            ASSERT_TRUE(std::isnan(again(b, h, n, c)));
    });
}

/// Closed input gates leave nothing but the bias; an open recurrence gate of a fast channel has no past.
TEST(hawk_block, limits) {
    block f(6, 12, 3, 4);
    const auto x = test::normal<float>({1, 1, 9, 6}, 20);
    tensor<float> y(x.shape()), alone(x.shape());
    f.bias_i = test::constant<float>({1, 1, 1, 12}, -1e4);
    hawk_block(seq(x), f.weights(), seq(y));
    y.each([&](index_t b, index_t h, index_t n, index_t c) { ASSERT_EQ(y(b, h, n, c), f.out_bias(0, 0, 0, c)); });
    block fast(6, 12, 3, 1);  // one tap: tokens meet in the recurrence only
    fast.lambda = test::constant<float>({1, 1, 1, 12}, 1e4), fast.bias_r = test::constant<float>({1, 1, 1, 12}, 1e4);
    hawk_block(seq(x), fast.weights(), seq(y));
    for (index_t n = 0; n < 9; ++n) {
        const range one{n, n + 1};
        hawk_block(slice(seq(x), 1, one), fast.weights(), slice(seq(alone), 1, one));
    }
    EXPECT_TRUE(test::same_values(y, alone));
}

TEST(hawk_block, scratch_and_refusals) {
    constexpr index_t N = 21;
    block f(6, 20, 2, 4);
    auto x = test::normal<float>({2, 1, N, 6}, 20);
    tensor<float> y(x.shape()), want(x.shape());
    auto s = f.start(2);
    hawk_block(seq(x), f.weights(), seq(want));
    threads pool(2);
    std::size_t need = 0;
    hawk_block(s, seq(x), f.weights(), seq(y), scratch_size(pool, need));
    EXPECT_TRUE(test::same_values(y, tensor<float>(x.shape()))) << "was written";
    EXPECT_EQ(s.states()(1, 3), 0);
    std::vector<std::byte> poisoned(need + arena::alignment, std::byte{0xff});
    arena scratch{std::span<std::byte>(poisoned)}, small(need / 2);
    refuses<argument_error>([&] { hawk_block(s, seq(x), f.weights(), seq(y), on(pool, small)); }, "the arena holds");
    hawk_block(s, seq(x), f.weights(), seq(y), on(pool, scratch));
    EXPECT_TRUE(test::same_values(y, want));
    auto over = seq(x);
    over.data += 1;
    refuses<shape_error>([&] { hawk_block(seq(x), f.weights(), over); }, "hawk_block: y overlaps x");
    const auto without = [&](auto change, const char* message) {
        auto w = f.weights();
        change(w);
        auto fresh = f.start(2);
        refuses<shape_error>([&] { hawk_block(fresh, seq(x), w, seq(y)); }, message);
        EXPECT_EQ(fresh.states()(1, 3), 0);
        EXPECT_EQ(fresh.inputs()(1, 3, 1), 0);
    };
    without([](auto& w) { w.recurrence_gate.shape[0] = 3; }, "w has 20 channels, not a multiple of the 3 blocks");
    without([](auto& w) { w.recurrence_gate.shape[0] = 0; }, "w has 20 channels, not a multiple of the 0 blocks");
    without([](auto& w) { w.input_gate.shape[1] = 9; }, "hawk_block: W_i has extent 9 on axis 1");
    without([](auto& w) { w.in.shape[1] = 39; }, "hawk_block: W_in has extent 39 on axis 1");
    without([](auto& w) { w.out.shape[0] = 19; }, "hawk_block: W_out has extent 19 on axis 0");
    without([](auto& w) { w.in_bias.shape[0] = 20; }, "hawk_block: b_in has extent 20 on axis 0");
    without([](auto& w) { w.out_bias.shape[0] = 7; }, "hawk_block: b_out has extent 7 on axis 0");
    without([](auto& w) { w.lambda.shape[0] = 19; }, "lambda has extent 19 on axis 0");
    without([&](auto& w) { w.lambda.data = &y(0, 0, 0, 0); }, "hawk_block: y overlaps lambda");
    f.c = 0;
    refuses<argument_error>([&] { hawk_block(seq(x), f.weights(), seq(y)); }, "c is 0");
    auto other = f.start(1);
    f.c = 8;
    refuses<shape_error>([&] { hawk_block(other, seq(x), f.weights(), seq(y)); }, "the carried state has extent 1");
    EXPECT_TRUE(test::same_values(y, want));
}

}  // namespace
