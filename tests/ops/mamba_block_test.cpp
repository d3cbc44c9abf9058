// heed_test: LABELS sanitize
// The Mamba block against its definition, at once and token by token, both ways, and over both strands of DNA.
#include <heed/core/threads.hpp>
#include <heed/ops/mamba_block.hpp>
#include <heed/ops/reverse_complement.hpp>
#include <heed/ref/causal_conv.hpp>
#include <heed/ref/selective_scan.hpp>

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

struct block {
    index_t D, E, S, R, K;
    tensor<float> in, taps, conv_bias, mixing, steps, step_bias, decay, skip, out;

    block(index_t width, index_t inner, index_t states, index_t rank, index_t K_taps, std::uint64_t seed = 0)
        : D(width),
          E(inner),
          S(states),
          R(rank),
          K(K_taps),
          in(drawn(D, 2 * E, seed + 1)),
          taps(drawn(E, K, seed + 2)),
          conv_bias(drawn(1, E, seed + 3)),
          mixing(drawn(E, R + 2 * S, seed + 4)),
          steps(drawn(R, E, seed + 5)),
          step_bias(drawn(1, E, seed + 6)),
          decay(test::uniform<float>({1, 1, E, S}, seed + 7, -2, -0.05)),
          skip(drawn(1, E, seed + 8)),
          out(drawn(E, D, seed + 9)) {}
    static tensor<float> drawn(index_t rows, index_t columns, std::uint64_t seed) {
        return test::normal<float>({1, 1, rows, columns}, seed, 0.5);
    }
    mamba_weights<float> weights() const {
        return {matrix(in),     matrix(taps),  vec(conv_bias), matrix(mixing), matrix(steps),
                vec(step_bias), matrix(decay), vec(skip),      matrix(out)};
    }
    mamba_state<float> start(index_t B) const { return {B, E, S, K}; }

    /// The definition in Real.
    template <class Real, class X>
    tensor<Real> defined(const tensor<X>& x) const {
        const index_t B = x.shape()[0], N = x.shape()[2];
        const auto times = [&](const tensor<Real>& rows, index_t first, const tensor<float>& w) {
            tensor<Real> y({B, 1, N, w.shape()[3]});
            y.each([&](index_t b, index_t, index_t n, index_t o) {
                Real sum = 0;
                for (index_t i = 0; i < w.shape()[2]; ++i)
                    sum += rows(b, 0, n, first + i) * static_cast<Real>(w(0, 0, i, o));
                y(b, 0, n, o) = sum;
            });
            return y;
        };
        const auto columns = [](const tensor<Real>& t, index_t first, index_t size) {
            return slice(view<const Real, 3>(seq(t)), 2, {first, first + size});
        };
        const auto uz = times(test::in<Real>(x), 0, in);
        tensor<Real> u({B, 1, N, E}), h(u.shape());
        const auto w = test::in<Real>(taps), bias = test::in<Real>(conv_bias), b = test::in<Real>(step_bias),
                   d = test::in<Real>(skip), a = test::in<Real>(decay);
        ref::causal_conv<Real>(columns(uz, 0, E), matrix(w), seq(u), vec(bias), {}, true);
        const auto mixed = times(u, 0, mixing), delta = times(mixed, 0, steps);
        const auto group = [&](index_t first) {
            const auto v = columns(mixed, first, S);
            return view<const Real, 4>{v.data, {B, N, 1, S}, {v.strides[0], v.strides[1], 0, v.strides[2]}};
        };
        ref::selective_options<Real> with{.bias = vec(b), .skip = vec(d), .gate = columns(uz, E, E), .softplus = true};
        ref::selective_scan<Real>(seq(std::as_const(u)), seq(delta), matrix(a), group(R), group(R + S), seq(h), with);
        return times(h, 0, out);
    }
};

TEST(mamba_block, follows_its_definition) {
    for (index_t N : {1, 2, 3, 40})
        for (index_t E : {1, 8, 19}) {
            const block f(5, E, 4, 2, 4);
            const auto x = test::normal<float>({2, 1, N, 5}, 20, 1, test::layout::strided());
            tensor<float> y(x.shape(), test::layout::strided());
            mamba_block(seq(x), f.weights(), seq(y));
            EXPECT_TRUE(test::within_rule<float>(y, f.defined<float>(x), f.defined<double>(x)));
            EXPECT_TRUE(y.poisoned_outside());
        }
}

TEST(mamba_block, of_one_tap_leaves_no_inputs_behind) {
    const block f(6, 20, 5, 3, 1);
    const auto x = test::normal<float>({2, 1, 30, 6}, 20);
    tensor<float> whole(x.shape());
    mamba_block(seq(x), f.weights(), seq(whole));
    EXPECT_TRUE(test::within_rule<float>(whole, f.defined<float>(x), f.defined<double>(x)));
    test::pieces_are(
        whole, 2e-6, [&] { return f.start(2); },
        [&](auto& s, range piece, auto& y) {
            mamba_block(s, slice(seq(x), 1, piece), f.weights(), slice(seq(y), 1, piece));
        });
}

TEST(mamba_block, pieces_and_steps_are_one_shot) {
    constexpr index_t N = 50;
    const block f(6, 20, 5, 3, 4);
    const auto x = test::normal<float>({2, 1, N, 6}, 20);
    tensor<float> whole(x.shape());
    threads pool(2);
    mamba_block(seq(x), f.weights(), seq(whole), on(pool));
    test::pieces_are(
        whole, 2e-6, [&] { return f.start(2); },
        [&](auto& s, range piece, auto& y) {
            mamba_block(s, slice(seq(x), 1, piece), f.weights(), slice(seq(y), 1, piece));
        });
    test::packed_are_apart(N, 6, [&](range piece, auto& y, const auto&... policies) {
        const auto row = slice(slice(seq(x), 0, {0, 1}), 1, piece);
        mamba_block(row, f.weights(), slice(seq(y), 1, piece), policies...);
    });
    tensor<float> segments(x.shape());
    mamba_block(seq(x), f.weights(), seq(segments), chunked{8}, on(pool));
    EXPECT_TRUE(test::within_rule<float>(segments, f.defined<float>(x), f.defined<double>(x)));
    auto in_place = x;
    mamba_block(seq(in_place), f.weights(), seq(in_place));
    EXPECT_TRUE(test::same_values(in_place, whole));
}

/// reversed{} is flip, block, flip; with adding{} it is the other half of BiMamba, which makes a model of both strands.
TEST(mamba_block, both_ways_and_both_strands) {
    constexpr index_t N = 33, D = 6;
    const block ahead(D, 10, 4, 2, 3), back(D, 10, 4, 2, 3, 100);
    const auto x = test::normal<float>({2, 1, N, 2 * D}, 20);
    const auto bimamba = [&](const auto& from, const auto& to) {
        mamba_block(from, ahead.weights(), to);
        mamba_block(from, back.weights(), to, reversed{}, adding{});
    };
    const auto half = slice(seq(x), 2, {0, D});
    tensor<float> both({2, 1, N, D}), one(both.shape()), other(both.shape());
    bimamba(half, seq(both));
    mamba_block(half, ahead.weights(), seq(one));
    mamba_block(flip(half, 1), back.weights(), flip(seq(other), 1));
    both.each([&](index_t b, index_t h, index_t n, index_t c) {
        ASSERT_EQ(both(b, h, n, c), one(b, h, n, c) + other(b, h, n, c));
    });
    tensor<float> y(x.shape()), of_turned(x.shape());
    reverse_complement(seq(x), seq(y), bimamba);
    reverse_complement(flip(flip(seq(x), 1), 2), seq(of_turned), bimamba);
    y.each([&](index_t b, index_t, index_t n, index_t c) {
        ASSERT_EQ(of_turned(b, 0, N - 1 - n, 2 * D - 1 - c), y(b, 0, n, c));
    });
}

TEST(mamba_block, scratch_and_refusals) {
    constexpr index_t N = 21;
    const block f(6, 20, 5, 3, 4);
    auto x = test::normal<float>({2, 1, N, 6}, 20);
    tensor<float> y(x.shape()), want(x.shape());
    auto s = f.start(2);
    mamba_block(seq(x), f.weights(), seq(want));
    threads pool(2);
    std::size_t need = 0;
    mamba_block(s, seq(x), f.weights(), seq(y), scratch_size(pool, need));
    EXPECT_TRUE(test::same_values(y, tensor<float>(x.shape()))) << "was written";
    EXPECT_EQ(s.states()(1, 3, 2), 0);
    std::vector<std::byte> poisoned(need + arena::alignment, std::byte{0xff});
    arena scratch{std::span<std::byte>(poisoned)}, small(need / 2);
    refuses<argument_error>([&] { mamba_block(s, seq(x), f.weights(), seq(y), on(pool, small)); }, "the arena holds");
    mamba_block(s, seq(x), f.weights(), seq(y), on(pool, scratch));
    EXPECT_TRUE(test::same_values(y, want));
    auto over = seq(x);
    over.data += 1;
    refuses<shape_error>([&] { mamba_block(seq(x), f.weights(), over); }, "mamba_block: y overlaps x");
    auto inside = f.weights();
    inside.skip.data = seq(y).data;
    refuses<shape_error>([&] { mamba_block(seq(x), inside, seq(y)); }, "mamba_block: y overlaps D in memory");
    auto narrow = f.weights();
    narrow.steps.shape[0] = 2;
    refuses<shape_error>([&] { mamba_block(seq(x), narrow, seq(y)); }, "mamba_block: W_x has extent 13 on axis 1");
    auto other = f.start(1);
    refuses<shape_error>([&] { mamba_block(other, seq(x), f.weights(), seq(y)); }, "the carried state has extent 1");
    EXPECT_TRUE(test::same_values(y, want));
}

}  // namespace
