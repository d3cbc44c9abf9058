// heed_test: LABELS sanitize
// The short causal convolution against its definition and its laws.
#include <heed/core/threads.hpp>
#include <heed/ops/causal_conv.hpp>
#include <heed/ref/causal_conv.hpp>

#include "../support/compare.hpp"
#include "../support/refuses.hpp"
#include "../support/sequence.hpp"

namespace {

using namespace heed;
using test::matrix;
using test::refuses;
using test::seq;
using test::tensor;
using test::vec;

template <class T>
struct convolved {
    tensor<T> x, w, bias, state, y;
    convolved(index_t B, index_t N, index_t C, index_t K, const test::layout& l = {})
        : x(test::normal<T>({B, 1, N, C}, 1, 1, l)),
          w(test::normal<T>({1, 1, C, K}, 2, 1, l)),
          bias(test::normal<T>({1, 1, 1, C}, 3, 1, l)),
          state(test::normal<T>({B, 1, C, K - 1}, 4, 1, l)),
          y({B, 1, N, C}, l) {}
    template <class... P>
    convolved& run(const P&... policies) {
        causal_conv(seq(std::as_const(x)), matrix(w), seq(y), conv_bias{vec(bias)}, carry{seq(state)}, policies...);
        return *this;
    }
};

template <class Real, class T>
convolved<Real> defined(const convolved<T>& x, bool silu) {
    convolved<Real> r(1, 1, 1, 1);
    r.x = test::in<Real>(x.x), r.w = test::in<Real>(x.w), r.bias = test::in<Real>(x.bias);
    r.state = test::in<Real>(x.state), r.y = tensor<Real>(x.y.shape());
    ref::causal_conv<Real>(seq(std::as_const(r.x)), matrix(r.w), seq(r.y), vec(r.bias), seq(r.state), silu);
    return r;
}

template <class T>
void expect_defined(convolved<T> x, bool silu) {
    using A = accumulator<T>;
    const auto exact = defined<test::definition_of<A>>(x, silu);
    const auto naive = defined<A>(x, silu);
    x.run(silu_output{silu});
    EXPECT_TRUE(test::within_rule<A>(x.y, test::in<T>(naive.y), exact.y));
    EXPECT_TRUE(test::within_rule<A>(x.state, test::in<T>(naive.state), exact.state));
    EXPECT_TRUE(x.y.poisoned_outside());
}

template <class T>
class conv_of : public testing::Test {};
using storages = testing::Types<float, double, bf16, f16>;
TYPED_TEST_SUITE(conv_of, storages);

TYPED_TEST(conv_of, matches_the_definition_in_every_layout) {
    const auto L = static_cast<index_t>(lanes<accumulator<TypeParam>>);
    for (const auto& l : test::layouts())
        for (index_t K : {1, 2, 4, 7})
            for (index_t N : {1, 3, 40}) expect_defined(convolved<TypeParam>(2, N, N % 2 ? L + 3 : 2 * L, K, l), K > 2);
}

TEST(causal_conv, wide_rows_and_long_sequences) {
    expect_defined(convolved<float>(1, 50, 4100, 4), true);
    expect_defined(convolved<float>(1, 1100, 3, 5), false);
    expect_defined(convolved<bf16>(1, 600, 61, 4), false);
}

TEST(causal_conv, a_stream_is_one_run_bit_for_bit) {
    for (const auto& l : test::layouts()) {
        convolved<float> whole(2, 61, 21, 5, l), parts = whole;
        whole.run();
        const counter_random r(3);
        for (index_t n = 0, i = 0; n < 61; ++i) {
            const range piece{n, std::min<index_t>(61, n + r.integer(test::number(i), 1, 9))};
            const auto at = [&](const auto& v) { return slice(v, 1, piece); };
            causal_conv(at(seq(parts.x)), matrix(parts.w), at(seq(parts.y)), conv_bias{vec(parts.bias)},
                        carry{seq(parts.state)});
            n = piece.last;
        }
        EXPECT_TRUE(test::same_values(parts.y, whole.y));
        EXPECT_TRUE(test::same_values(parts.state, whole.state));
    }
}

/// Segments at once have the bits of one run, also those shorter than the filter.
TEST(causal_conv, segments_are_one_run) {
    threads pool(3);
    for (index_t K : {1, 4, 9})
        for (const auto& l : test::layouts()) {
            const auto x = test::normal<float>({2, 1, 41, 21}, 1, 1, l), w = test::normal<float>({1, 1, 21, K}, 2);
            const auto first = test::normal<float>({2, 1, 21, K - 1}, 3);
            auto state = first;
            tensor<float> whole(x.shape()), y(x.shape());
            causal_conv(seq(x), matrix(w), seq(whole), carry{seq(state)});
            for (index_t segment : {1, 3, 16, 40, 41}) {
                auto again = first;
                causal_conv(seq(x), matrix(w), seq(y), carry{seq(again)}, chunked{segment}, on(pool));
                EXPECT_TRUE(test::same_values(y, whole)) << K << " " << segment;
                EXPECT_TRUE(test::same_values(again, state)) << K << " " << segment;
            }
        }
}

TEST(causal_conv, limits) {
    convolved<float> x(1, 30, 19, 4);
    tensor<float> y(x.y.shape());
    x.w.each([&](index_t b, index_t h, index_t c, index_t k) { x.w(b, h, c, k) = k == 3; });
    causal_conv(seq(x.x), matrix(x.w), seq(y));  // a delta at the last tap
    EXPECT_TRUE(test::same_values(y, x.x));
    x.w.each([&](index_t b, index_t h, index_t c, index_t k) { x.w(b, h, c, k) = k == 0; });
    causal_conv(seq(x.x), matrix(x.w), seq(y));  // three tokens late
    y.each(
        [&](index_t b, index_t h, index_t n, index_t c) { EXPECT_EQ(y(b, h, n, c), n < 3 ? 0 : x.x(b, h, n - 3, c)); });
    auto twice = y;
    causal_conv(seq(x.x), matrix(x.w), seq(twice), adding{});
    y.each([&](index_t b, index_t h, index_t n, index_t c) { EXPECT_EQ(twice(b, h, n, c), 2 * y(b, h, n, c)); });
}

TEST(causal_conv, a_token_moves_the_next_k_alone) {
    convolved<float> x(1, 40, 17, 4), other = x;
    for (index_t c = 0; c < 17; ++c) other.x(0, 0, 11, c) += 1;
    x.run(), other.run();
    x.y.each([&](index_t b, index_t h, index_t n, index_t c) {
        EXPECT_EQ(x.y(b, h, n, c) != other.y(b, h, n, c), n >= 11 && n < 15) << n;
    });
}

TEST(causal_conv, packed_reversed_and_threads) {
    const std::vector<index_t> offsets{0, 2, 2, 25, 40};
    convolved<float> x(1, 40, 50, 4);
    x.state = test::normal<float>({4, 1, 50, 3}, 9);
    for (bool back : {false, true}) {
        auto packs = x;
        threads pool(3);
        back ? packs.run(packed{offsets}, reversed{}, on(pool)) : packs.run(packed{offsets}, on(pool));
        for (index_t i = 0; i < 4; ++i) {
            const range own{offsets[test::number(i)], offsets[test::number(i) + 1]};
            const auto part = [&](const tensor<float>& t) { return test::copied(slice(t.v(), 2, own)); };
            convolved<float> alone(1, own.size(), 50, 4);
            alone.x = part(x.x);
            if (back)
                alone.x.each([&](index_t b, index_t h, index_t n, index_t c) {
                    alone.x(b, h, n, c) = x.x(b, h, own.last - 1 - n, c);
                });
            alone.state = test::copied(slice(x.state.v(), 0, {i, i + 1}));
            alone.run();
            const auto got = part(packs.y);
            got.each([&](index_t b, index_t h, index_t n, index_t c) {
                EXPECT_EQ(got(b, h, n, c), alone.y(b, h, back ? own.size() - 1 - n : n, c));
            });
            EXPECT_TRUE(test::same_values(test::copied(slice(packs.state.v(), 0, {i, i + 1})), alone.state));
        }
    }
}

TEST(causal_conv, empty_extents_and_bad_arguments) {
    for (auto [B, N, C] : {std::array<index_t, 3>{0, 3, 4}, {2, 0, 4}, {2, 3, 0}}) {
        convolved<float> x(B, N, C, 4);
        const auto before = x.state;
        x.run();
        if (N == 0) EXPECT_TRUE(test::same_values(x.state, before));
    }
    convolved<float> x(2, 4, 6, 3);
    const auto few = test::normal<float>({1, 1, 5, 3}, 1), none = test::normal<float>({1, 1, 6, 0}, 1);
    refuses<shape_error>([&] { causal_conv(seq(x.x), matrix(few), seq(x.y)); },
                         "causal_conv: w has extent 5 on axis 0, y asks for 6");
    refuses<argument_error>([&] { causal_conv(seq(x.x), matrix(none), seq(x.y)); },
                            "causal_conv: w has 0 taps, the least is 1");
    refuses<shape_error>([&] { causal_conv(seq(x.x), matrix(x.w), seq(x.x)); }, "y overlaps x in memory");
    refuses<shape_error>(
        [&] {
            causal_conv(seq(x.x), matrix(x.w), seq(x.y), conv_bias{vec(test::normal<float>({1, 1, 1, 7}, 1))});
        },
        "the bias has extent 7");
    convolved<float> long_state(2, 4, 6, 4);
    refuses<shape_error>([&] { causal_conv(seq(x.x), matrix(x.w), seq(x.y), carry{seq(long_state.state)}); },
                         "the carried state has extent 3 on axis 2");
}

}  // namespace
