// heed_test: LABELS sanitize
// Reverse complements, scans over images and their orders, gated memory.
#include <heed/core/threads.hpp>
#include <heed/engine/attention.hpp>
#include <heed/ops/gated_memory.hpp>
#include <heed/ops/image_scans.hpp>
#include <heed/ops/reverse_complement.hpp>
#include <heed/ops/selective_scan.hpp>

#include <numeric>
#include <set>

#include "../support/compare.hpp"
#include "../support/refuses.hpp"
#include "../support/sequence.hpp"

namespace {

using namespace heed;
using test::matrix;
using test::refuses;
using test::seq;
using test::tensor;

/// BiMamba: a selective scan and a second one, with steps of its own, from the other end.
struct bimamba {
    tensor<float> decay, in, out, steps, back;
    bimamba(index_t N, index_t D)
        : decay(test::uniform<float>({1, 1, D, 4}, 1, -2, -0.1)),
          in(test::normal<float>({1, 1, D, 4}, 2)),
          out(test::normal<float>({1, 1, D, 4}, 3)),
          steps(test::normal<float>({1, 1, 1, D}, 4)),
          back(test::normal<float>({1, 1, 1, D}, 5)) {
        static_cast<void>(N);
    }
    /// B and C of a token are sums over its channels, so that all of the model depends on x alone.
    void operator()(const view<const float, 3>& x, const view<float, 3>& y) const {
        const auto [B, N, D] = x.shape;
        std::vector<float> b(static_cast<std::size_t>(B * N * 4)), c(b.size());
        const auto bs = dense(b.data(), {B, N, 4}), cs = dense(c.data(), {B, N, 4});
        for (index_t i = 0; i < B; ++i)
            for (index_t n = 0; n < N; ++n)
                for (index_t s = 0; s < 4; ++s)
                    for (index_t d = 0; d < D; ++d) {
                        bs(i, n, s) += x(i, n, d) * in(0, 0, d, s);
                        cs(i, n, s) += x(i, n, d) * out(0, 0, d, s);
                    }
        const auto ahead = test::vec(steps), behind = test::vec(back);
        selective_scan(x, x, matrix(decay), bs, cs, y, softplus_step{}, step_bias{ahead});
        selective_scan(x, x, matrix(decay), bs, cs, y, softplus_step{}, step_bias{behind}, reversed{}, adding{});
    }
};

TEST(reverse_complement, is_equivariant_to_the_bit) {
    const index_t N = 37, D = 19;
    const bimamba f(N, D);
    const auto x = test::normal<float>({2, 1, N, 2 * D}, 1);
    tensor<float> y(x.shape()), of_turned(x.shape());
    reverse_complement(seq(x), seq(y), f);
    reverse_complement(flip(flip(seq(x), 1), 2), seq(of_turned), f);  // RC of two strands: tokens and channels turn
    y.each([&](index_t b, index_t, index_t n, index_t c) {
        ASSERT_EQ(of_turned(b, 0, N - 1 - n, 2 * D - 1 - c), y(b, 0, n, c));
    });
    tensor<float> first({2, 1, N, D});
    f(slice(seq(x), 2, {0, D}), seq(first));
    first.each([&](index_t b, index_t, index_t n, index_t c) { ASSERT_EQ(first(b, 0, n, c), y(b, 0, n, c)); });
    auto odd = test::normal<float>({2, 1, N, 7}, 1);
    refuses<shape_error>([&] { reverse_complement(seq(odd), seq(odd), [](const auto&, const auto&) {}); },
                         "x has 7 channels, not an even number");
    for (char base : {'A', 'C', 'G', 'T', 'N'}) EXPECT_EQ(complement(complement(base)), base);
    EXPECT_EQ(complement('A'), 'T');
    EXPECT_EQ(complement('G'), 'C');
}

void expect_permutation(const scan_order& order, index_t n) {
    EXPECT_EQ(static_cast<index_t>(order.size()), n);
    EXPECT_EQ(static_cast<index_t>(std::set<index_t>(order.begin(), order.end()).size()), n);
    for (index_t place : order) EXPECT_TRUE(place >= 0 && place < n);
}
/// Steps between pixels, as |dr| + |dc|.
index_t jump(index_t a, index_t b, index_t W) { return std::abs(a / W - b / W) + std::abs(a % W - b % W); }

TEST(scan_order, all_are_permutations_with_inverses) {
    for (index_t H = 0; H <= 7; ++H)
        for (index_t W = 1; W <= 13; ++W) {
            std::vector<scan_order> all{row_order(H, W), column_order(H, W), hilbert_order(H, W),
                                        transposed(row_order(W, H), H, W),
                                        transposed(nested_s_order(W, H, 2, 1), H, W)};
            for (index_t stripe = 1; stripe <= 4; ++stripe)
                for (index_t shift = 0; shift <= 2; ++shift) all.push_back(turned(nested_s_order(H, W, stripe, shift)));
            for (const auto& order : all) {
                expect_permutation(order, H * W);
                const auto back = inverse(order);
                for (std::size_t t = 0; t < order.size(); ++t)
                    EXPECT_EQ(back[static_cast<std::size_t>(order[t])], static_cast<index_t>(t));
            }
            EXPECT_EQ(transposed(row_order(W, H), H, W), column_order(H, W));
        }
}

TEST(scan_order, nested_s_keeps_neighbours) {
    for (index_t H : {1, 4, 5})
        for (index_t W : {3, 8, 11})
            for (index_t stripe : {1, 3, 4}) {
                const auto order = nested_s_order(H, W, stripe);
                for (index_t t = 1; t < H * W; ++t) {
                    const index_t a = order[static_cast<std::size_t>(t - 1)], b = order[static_cast<std::size_t>(t)];
                    const bool border = a % W / stripe != b % W / stripe;
                    // At a border the jump is 1 if the stripe ends at its far side, the width of the stripe if at its
                    // near one.
                    EXPECT_LE(jump(a, b, W), border && H % 2 == 0 ? stripe : 1)
                        << H << " " << W << " " << stripe << " " << t;
                }
            }
    EXPECT_EQ(nested_s_order(2, 3, 3), (scan_order{0, 1, 2, 5, 4, 3}));  // a serpentine
    EXPECT_EQ(nested_s_order(2, 4, 2), (scan_order{0, 1, 5, 4, 6, 7, 3, 2}));
    EXPECT_EQ(nested_s_order(1, 5, 2, 1), (scan_order{0, 1, 2, 3, 4}));
    refuses<argument_error>([] { nested_s_order(2, 2, 0); }, "stripes have 0 columns, the least is 1");
}

TEST(scan_order, hilbert_moves_by_single_steps_on_its_square) {
    for (index_t side : {1, 2, 4, 8, 16}) {
        const auto order = hilbert_order(side, side);
        for (std::size_t t = 1; t < order.size(); ++t) EXPECT_EQ(jump(order[t - 1], order[t], side), 1) << t;
    }
}

TEST(image_scans, orders_are_undone) {
    const auto x = test::normal<float>({2, 1, 35, 6}, 1);
    tensor<float> y(x.shape()), z(x.shape());
    const auto order = nested_s_order(5, 7, 3);
    reordered(seq(x), order, seq(y));
    for (index_t t = 0; t < 35; ++t) EXPECT_EQ(y(1, 0, t, 2), x(1, 0, order[static_cast<std::size_t>(t)], 2));
    threads pool(2);
    restored(seq(std::as_const(y)), order, seq(z), on(pool));
    EXPECT_TRUE(test::same_values(x, z));
    refuses<shape_error>([&] { reordered(seq(x), row_order(5, 6), seq(y)); },
                         "the order has 30 places, y has 35 tokens");
}

TEST(image_scans, sequence_shuffle_attention) {
    const index_t K = 4, B = 2, N = 30, C = 7;
    const auto y = test::normal<float>({K, B, N, C}, 1);
    const auto w = test::normal<float>({1, C, K, K}, 2), bias = test::normal<float>({1, 1, C, K}, 3);
    const view<const float, 3> ws{w.v().data, {C, K, K}, {K * K, K, 1}};
    tensor<float> out({B, 1, N, C});
    sequence_shuffle_attention(y.v(), ws, matrix(bias), seq(out));
    for (index_t b = 0; b < B; ++b)
        for (index_t c = 0; c < C; ++c) {
            double mean[4] = {}, a[4];
            for (index_t k = 0; k < K; ++k)
                for (index_t n = 0; n < N; ++n) mean[k] += y(k, b, n, c) / double(N);
            for (index_t k = 0; k < K; ++k) {
                double s = bias(0, 0, c, k);
                for (index_t j = 0; j < K; ++j) s += w(0, c, k, j) * mean[j];
                a[k] = 1 / (1 + std::exp(-s));
            }
            for (index_t n = 0; n < N; ++n) {
                double want = 0;
                for (index_t k = 0; k < K; ++k) want += a[k] * y(k, b, n, c);
                EXPECT_NEAR(out(b, 0, n, c), want, 1e-5);
            }
        }
    threads pool(2);
    std::size_t bytes = 0;
    tensor<float> again({B, 1, N, C});
    sequence_shuffle_attention(y.v(), ws, matrix(bias), seq(again), scratch_size(pool, bytes));
    arena enough(bytes);
    sequence_shuffle_attention(y.v(), ws, matrix(bias), seq(again), on(pool, enough));
    EXPECT_TRUE(test::same_values(again, out));
    const auto none = test::constant<float>({1, C, K, K}, 0);
    const view<const float, 3> zeros{none.v().data, {C, K, K}, {K * K, K, 1}};
    sequence_shuffle_attention(y.v(), zeros, matrix(test::constant<float>({1, 1, C, K}, 0)), seq(out));
    EXPECT_NEAR(out(1, 0, 3, 2), 0.5 * (y(0, 1, 3, 2) + y(1, 1, 3, 2) + y(2, 1, 3, 2) + y(3, 1, 3, 2)), 1e-6);
}

struct memory_block {
    tensor<float> x, slots, taps, g1, g2, out;
    memory_block()
        : x(test::normal<float>({2, 1, 21, 12}, 1)), slots(test::normal<float>({1, 1, 9, 12}, 2)),
          taps(test::normal<float>({1, 1, 12, 3}, 3)), g1(test::normal<float>({2, 1, 21, 12}, 4)),
          g2(test::normal<float>({2, 1, 21, 12}, 5)), out({2, 1, 21, 12}) {}
    memory_block& run() {
        gated_memory(seq(std::as_const(x)), matrix(slots), matrix(taps), seq(std::as_const(g1)), seq(std::as_const(g2)),
                     seq(out));
        return *this;
    }
};

TEST(gated_memory, follows_its_definition) {
    memory_block m;
    m.run();
    for (index_t n = 0; n < 21; ++n) {
        double top = -1e300, total = 0;
        std::vector<double> logit(9);
        for (index_t s = 0; s < 9; ++s) {
            for (index_t c = 0; c < 12; ++c)
                logit[static_cast<std::size_t>(s)] += double(m.x(1, 0, n, c)) * m.slots(0, 0, s, c);
            top = std::max(top, logit[static_cast<std::size_t>(s)]);
        }
        for (double& l : logit) total += l = std::exp(l - top);
        for (index_t c = 0; c < 12; ++c) {
            double glob = 0, local = 0;
            for (index_t s = 0; s < 9; ++s) glob += logit[static_cast<std::size_t>(s)] / total * m.slots(0, 0, s, c);
            for (index_t r = 0; r < 3; ++r)
                if (n - 2 + r >= 0) local += double(m.taps(0, 0, c, r)) * m.x(1, 0, n - 2 + r, c);
            const auto open = [](double g) { return 1 / (1 + std::exp(-g)); };
            EXPECT_NEAR(m.out(1, 0, n, c), open(m.g1(1, 0, n, c)) * local + open(m.g2(1, 0, n, c)) * glob, 2e-5);
        }
    }
}

TEST(gated_memory, a_token_moves_k_outputs_and_slots_have_no_order) {
    memory_block m, other, shuffled;
    for (index_t c = 0; c < 12; ++c) other.x(0, 0, 9, c) += 1;
    shuffled.slots.each(
        [&](index_t b, index_t h, index_t s, index_t c) { shuffled.slots(b, h, s, c) = m.slots(b, h, 8 - s, c); });
    m.run(), other.run(), shuffled.run();
    EXPECT_TRUE(test::all_near(m.out, shuffled.out, 1e-5));
    m.out.each([&](index_t b, index_t h, index_t n, index_t c) {
        EXPECT_EQ(m.out(b, h, n, c) != other.out(b, h, n, c), b == 0 && n >= 9 && n < 12);
    });
    memory_block one;
    one.slots = test::normal<float>({1, 1, 1, 12}, 2), one.g1 = test::constant<float>({2, 1, 21, 12}, -1e4);
    one.g2 = test::constant<float>({2, 1, 21, 12}, 1e4);
    one.run().out.each(
        [&](index_t b, index_t h, index_t n, index_t c) { EXPECT_EQ(one.out(b, h, n, c), one.slots(0, 0, 0, c)); });
}

}  // namespace
