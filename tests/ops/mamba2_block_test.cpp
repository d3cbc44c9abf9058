// The Mamba-2 block against its definition, at once, in pieces and token by token.
#include <heed/core/threads.hpp>
#include <heed/ops/mamba2_block.hpp>
#include <heed/ops/reverse_complement.hpp>
#include <heed/ref/causal_conv.hpp>
#include <heed/ref/mamba2.hpp>

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

constexpr index_t D = 6, H = 4, P = 5, E = H * P, G = 2, S = 8, K = 4, mixed = E + 2 * G * S, width = E + mixed + H;

tensor<float> drawn(index_t rows, index_t columns, std::uint64_t seed) {
    return test::normal<float>({1, 1, rows, columns}, seed, 0.5);
}

struct block {
    tensor<float> in = drawn(D, width, 1), taps = drawn(mixed, K, 2), conv_bias = drawn(1, mixed, 3),
                  decay = test::uniform<float>({1, 1, 1, H}, 4, -2, -0.1), step_bias = drawn(1, H, 5),
                  skip = drawn(1, H, 6), gain = drawn(1, E, 7), out = drawn(E, D, 8);

    mamba2_weights<float> weights() const {
        return {G,          matrix(in),     matrix(taps), vec(conv_bias),
                vec(decay), vec(step_bias), vec(skip),    {gain.v().data, static_cast<std::size_t>(E)},
                matrix(out)};
    }
    static mamba2_state<float> start(index_t B) { return {B, H, P, G, S, K}; }

    /// The definition in Real.
    template <class Real>
    tensor<Real> defined(const tensor<float>& x) const {
        const index_t B = x.shape()[0], N = x.shape()[2];
        const auto times = [&](const tensor<Real>& rows, const tensor<float>& w) {
            tensor<Real> y({B, 1, N, w.shape()[3]});
            y.each([&](index_t b, index_t, index_t n, index_t o) {
                Real sum = 0;
                for (index_t i = 0; i < w.shape()[2]; ++i) sum += rows(b, 0, n, i) * static_cast<Real>(w(0, 0, i, o));
                y(b, 0, n, o) = sum;
            });
            return y;
        };
        const auto projected = times(test::in<Real>(x), in);
        const auto w = test::in<Real>(taps), raise = test::in<Real>(conv_bias);
        tensor<Real> xbc({B, 1, N, mixed}), gated({B, 1, N, E});
        ref::causal_conv<Real>(slice(view<const Real, 3>(seq(projected)), 2, {E, E + mixed}), matrix(w), seq(xbc),
                               vec(raise), {}, true);
        tensor<Real> values({B, H, N, P}), dt({B, H, N, 1}), B_rows({B, G, N, S}), C_rows({B, G, N, S}),
            h({B, H, N, P});
        values.each([&](index_t b, index_t a, index_t n, index_t p) { values(b, a, n, p) = xbc(b, 0, n, a * P + p); });
        dt.each([&](index_t b, index_t a, index_t n, index_t) { dt(b, a, n, 0) = projected(b, 0, n, E + mixed + a); });
        B_rows.each([&](index_t b, index_t g, index_t n, index_t s) {
            B_rows(b, g, n, s) = xbc(b, 0, n, E + g * S + s);
            C_rows(b, g, n, s) = xbc(b, 0, n, E + (G + g) * S + s);
        });
        const auto bias = test::in<Real>(step_bias), through = test::in<Real>(skip);
        ref::mamba2_options<Real> with{.bias = vec(bias), .skip = vec(through), .softplus = true};
        const view<Real, 3> steps{dt.v().data, {B, H, N}, {H * N, N, 1}};
        ref::mamba2<Real>(values.v(), steps, vec(decay), B_rows.v(), C_rows.v(), h.v(), with);
        for (index_t b = 0; b < B; ++b)
            for (index_t n = 0; n < N; ++n) {
                Real squares = 0;
                for (index_t e = 0; e < E; ++e) {
                    const Real z = projected(b, 0, n, e);
                    gated(b, 0, n, e) = h(b, e / P, n, e % P) * z / (1 + std::exp(-z));
                    squares += gated(b, 0, n, e) * gated(b, 0, n, e);
                }
                const Real by = 1 / std::sqrt(squares / Real(E) + Real(1e-5));
                for (index_t e = 0; e < E; ++e) gated(b, 0, n, e) *= by * static_cast<Real>(gain(0, 0, 0, e));
            }
        return times(gated, out);
    }
};

TEST(mamba2_block, follows_its_definition) {
    const block f;
    for (index_t N : {1, 2, 3, 70}) {
        const auto x = test::normal<float>({2, 1, N, D}, 20, 1, test::layout::strided());
        tensor<float> y(x.shape(), test::layout::strided());
        mamba2_block(seq(x), f.weights(), seq(y));
        EXPECT_TRUE(test::within_rule<float>(y, f.defined<float>(x), f.defined<double>(x))) << N;
        EXPECT_TRUE(y.poisoned_outside());
    }
}

TEST(mamba2_block, of_one_tap_leaves_no_inputs_behind) {
    const block f;
    auto w = f.weights();
    w.taps = slice(w.taps, 1, {K - 1, K});
    const auto x = test::normal<float>({2, 1, 30, D}, 20);
    tensor<float> whole(x.shape());
    mamba2_block(seq(x), w, seq(whole));
    test::pieces_are(
        whole, 2e-5, [&] { return mamba2_state<float>(2, H, P, G, S, 1); },
        [&](auto& s, range piece, auto& y) {
            mamba2_block(s, slice(seq(x), 1, piece), w, slice(seq(y), 1, piece));
        });
}

TEST(mamba2_block, pieces_and_steps_are_one_shot) {
    constexpr index_t N = 70;
    const block f;
    const auto x = test::normal<float>({2, 1, N, D}, 20);
    tensor<float> whole(x.shape());
    threads pool(2);
    mamba2_block(seq(x), f.weights(), seq(whole), on(pool));
    test::pieces_are(
        whole, 5e-6, [] { return block::start(2); },
        [&](auto& s, range piece, auto& y) {
            mamba2_block(s, slice(seq(x), 1, piece), f.weights(), slice(seq(y), 1, piece));
        });
    test::packed_are_apart(N, 6, [&](range piece, auto& y, const auto&... policies) {
        const auto row = slice(slice(seq(x), 0, {0, 1}), 1, piece);
        mamba2_block(row, f.weights(), slice(seq(y), 1, piece), policies...);
    });
    auto in_place = x;
    mamba2_block(seq(in_place), f.weights(), seq(in_place));
    EXPECT_TRUE(test::same_values(in_place, whole));
}

/// reversed{} is flip, block, flip, and adding{} adds.
TEST(mamba2_block, both_ways) {
    const block f;
    const auto x = test::normal<float>({2, 1, 33, D}, 20);
    tensor<float> ahead(x.shape()), back(x.shape()), both(x.shape());
    mamba2_block(seq(x), f.weights(), seq(ahead));
    mamba2_block(flip(seq(x), 1), f.weights(), flip(seq(back), 1));
    mamba2_block(seq(x), f.weights(), seq(both));
    mamba2_block(seq(x), f.weights(), seq(both), reversed{}, adding{});
    both.each([&](index_t b, index_t h, index_t n, index_t c) {
        ASSERT_NEAR(both(b, h, n, c), ahead(b, h, n, c) + back(b, h, n, c), 5e-6);
    });
}

TEST(mamba2_block, scratch_and_refusals) {
    const block f;
    auto x = test::normal<float>({2, 1, 21, D}, 20);
    tensor<float> y(x.shape()), want(x.shape());
    auto s = block::start(2), other = block::start(1);
    mamba2_block(seq(x), f.weights(), seq(want));
    threads pool(2);
    std::size_t need = 0;
    mamba2_block(s, seq(x), f.weights(), seq(y), scratch_size(pool, need));
    EXPECT_TRUE(test::same_values(y, tensor<float>(x.shape()))) << "was written";
    EXPECT_EQ(s.inputs()(1, 3, 2), 0);
    std::vector<std::byte> poisoned(need + arena::alignment, std::byte{0xff});
    arena scratch{std::span<std::byte>(poisoned)}, small(need / 2);
    refuses<argument_error>([&] { mamba2_block(s, seq(x), f.weights(), seq(y), on(pool, small)); }, "the arena holds");
    mamba2_block(s, seq(x), f.weights(), seq(y), on(pool, scratch));
    EXPECT_TRUE(test::same_values(y, want));
    auto over = seq(x);
    over.data += 1;
    refuses<shape_error>([&] { mamba2_block(seq(x), f.weights(), over); }, "mamba2_block: y overlaps x");
    auto inside = f.weights();
    inside.skip = {seq(y).data, {H}, {1}};
    refuses<shape_error>([&] { mamba2_block(seq(x), inside, seq(y)); }, "mamba2_block: y overlaps D in memory");
    auto odd = f.weights();
    odd.groups = 3;
    refuses<shape_error>([&] { mamba2_block(seq(x), odd, seq(y)); }, "twice 3 groups of states");
    refuses<shape_error>([&] { mamba2_block(other, seq(x), f.weights(), seq(y)); }, "the carried state has extent 1");
    EXPECT_TRUE(test::same_values(y, want));
}

}  // namespace
