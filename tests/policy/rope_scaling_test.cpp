// heed_test: LABELS sanitize
// Scaled rotations by their formulas and limits, through rotary; xPos and randomised positions as well.
#include <algorithm>
#include <heed/ops/rotary.hpp>
#include <heed/policy/random_positions.hpp>
#include <heed/policy/rope_scaling.hpp>
#include <heed/policy/xpos.hpp>

#include "compare.hpp"
#include "random.hpp"
#include "refuses.hpp"

namespace {

using namespace heed;
using test::refuses;
using test::tensor;

constexpr index_t D = 20;

template <class... P>
tensor<double> turned(const tensor<double>& x, const P&... policies) {
    tensor<double> o(x.shape());
    rotary(x.v(), o.v(), policies...);
    return o;
}

/// One row of ones, turned at a position: cosines and sines of all pairs.
template <class Angles>
tensor<double> at(index_t position, const Angles& angles) {
    return turned(test::constant<double>({1, 1, 1, D}, 1), angles, offset{position});
}

void near(const tensor<double>& a, const tensor<double>& b, double by = 1e-12) {
    a.each([&](index_t i, index_t h, index_t n, index_t d) {
        ASSERT_NEAR(a(i, h, n, d), b(i, h, n, d), by * std::max(1.0, std::abs(b(i, h, n, d)))) << n << ", " << d;
    });
}

TEST(rope_scaling, a_factor_of_one_is_plain_rotation) {
    const auto x = test::normal<double>({2, 3, 7, D}, 1);
    for (double base : {10000.0, 500.0}) {
        const auto plain = turned(x, theta{base}, offset{5000});
        const auto same = [&](const auto& angles) {
            EXPECT_TRUE(test::same_values(turned(x, angles, offset{5000}), plain));
        };
        same(interpolated{1, base});
        same(ntk_aware{1, base});
        same(yarn{1, 2048, base});
        EXPECT_EQ((yarn{1, 2048, base}.logit_factor()), 1);
    }
}

TEST(rope_scaling, interpolation_divides_positions) {
    for (index_t n : {0, 1, 13, 1000}) near(at(n * 8, interpolated{8}), at(n, theta{10000}));
    near(at(80, interpolated{8, 300}), at(10, theta{300}));
}

TEST(rope_scaling, ntk_keeps_the_first_pair_and_interpolates_the_last) {
    for (double s : {1.0, 2.0, 7.5})
        for (index_t width : {2, 4, 20, 128}) {
            const ntk_aware by{s};
            EXPECT_EQ(by.frequency(0, width), 1);
            double before = 1;
            for (index_t p = 0; p < width / 2; ++p) {
                const double slowed = theta{10000}.frequency(p, width) / by.frequency(p, width);
                const double share = width > 2 ? static_cast<double>(2 * p) / static_cast<double>(width - 2) : 0;
                EXPECT_NEAR(slowed, std::pow(s, share), 1e-12 * s) << p << " of " << width;
                EXPECT_GE(slowed, before * (1 - 1e-12));
                before = slowed;
            }
        }
}

TEST(rope_scaling, dynamic_ntk_starts_beyond_the_trained_length) {
    const auto x = test::normal<double>({1, 2, 5, D}, 2);
    const auto plain = turned(x, theta{10000});
    for (index_t length : {0, 1, 511, 512})
        for (double s : {1.0, 1.1, 3.0}) EXPECT_TRUE(test::same_values(turned(x, dynamic_ntk{s, 512, length}), plain));
    // At twice the trained length a factor of s slows the last pair by s 2 - (s - 1).
    near(turned(x, dynamic_ntk{3, 512, 1024}), turned(x, ntk_aware{4}));
    near(turned(x, dynamic_ntk{1, 512, 2048}), turned(x, ntk_aware{4}));
    const auto longer = turned(x, dynamic_ntk{3, 512, 513});
    EXPECT_FALSE(test::same_values(longer, plain));
}

TEST(rope_scaling, yarn_ramps_from_plain_to_interpolated) {
    // Llama 2: 4096 tokens, width 128. 32 turns are made by pair 20.9, one turn by pair 45.0, so the ramp is 20 to 46.
    const yarn by{16, 4096};
    for (index_t p = 0; p < 64; ++p) {
        const double f = theta{10000}.frequency(p, 128);
        const double ramp = p <= 20 ? 0 : p >= 46 ? 1 : static_cast<double>(p - 20) / 26;
        EXPECT_NEAR(by.frequency(p, 128) / f, 1 - ramp + ramp / 16, 1e-14) << p;
    }
    EXPECT_NEAR(by.logit_factor(), 1.2772588722239781 * 1.2772588722239781, 1e-14);
    // A trained length too short for any pair to turn once: everything is interpolated, but for the ramp's first pair.
    const yarn brief{4, 2};
    EXPECT_EQ(brief.frequency(0, 8), 1);
    for (index_t p = 1; p < 4; ++p) EXPECT_NEAR(brief.frequency(p, 8), theta{10000}.frequency(p, 8) / 4, 1e-15) << p;
    // One so long that every pair turns 32 times: nothing is.
    const yarn endless{4, index_t(1) << 40};
    for (index_t p = 0; p < 4; ++p) EXPECT_EQ(endless.frequency(p, 8), theta{10000}.frequency(p, 8)) << p;
}

double dot(const tensor<double>& a, const tensor<double>& b) {
    double sum = 0;
    for (index_t d = 0; d < D; ++d) sum += a(0, 0, 0, d) * b(0, 0, 0, d);
    return sum;
}

TEST(xpos, logits_are_those_of_rotary_pair_by_pair_fading_with_distance) {
    const auto q = test::normal<double>({1, 1, 1, D}, 3), k = test::normal<double>({1, 1, 1, D}, 4);
    for (index_t p = 0; p < D / 2; ++p) {
        auto one = tensor<double>(q.shape()).fill([](index_t) { return 0; });  // q's pair p alone
        one(0, 0, 0, p) = q(0, 0, 0, p);
        one(0, 0, 0, p + D / 2) = q(0, 0, 0, p + D / 2);
        const double zeta = (2.0 * static_cast<double>(p) / D + 0.4) / 1.4;
        for (index_t gap : {0, 1, 40, 700})
            for (index_t j : {0, 9, 1000}) {
                const double plain = dot(turned(one, offset{j + gap}), turned(k, offset{j}));
                const double faded =
                    dot(turned(one, xpos_queries{500}, offset{j + gap}), turned(k, xpos_keys{500}, offset{j}));
                EXPECT_NEAR(faded, plain * std::pow(zeta, static_cast<double>(gap) / 512), 1e-11) << p << ", " << gap;
            }
    }
}

TEST(xpos, the_centre_and_an_endless_spread) {
    const auto q = test::normal<double>({1, 1, 1, D}, 3), k = test::normal<double>({1, 1, 1, D}, 4);
    const auto logit = [&](index_t centre, double spread) {
        return dot(turned(q, xpos_queries{centre, spread}, offset{77}),
                   turned(k, xpos_keys{centre, spread}, offset{9}));
    };
    EXPECT_NEAR(logit(0, 512), logit(300, 512), 1e-11);
    EXPECT_NEAR(logit(0, 1e18), dot(turned(q, offset{77}), turned(k, offset{9})), 1e-11);
}

TEST(positions_by, is_a_function_of_the_token) {
    const auto x = test::normal<double>({3, 2, 9, D}, 5);
    std::vector<index_t> ids;
    for (index_t n = 0; n < 9; ++n) ids.push_back(n * n % 5);
    const auto by = positions_by{[](index_t n) { return n * n % 5; }};
    EXPECT_TRUE(test::same_values(turned(x, by), turned(x, positions{view<index_t, 2>{ids.data(), {3, 9}, {0, 1}}})));
}

TEST(random_positions, ascend_and_are_drawn_evenly) {
    for (auto [n, length] : std::vector<std::array<index_t, 2>>{{0, 0}, {0, 7}, {1, 1}, {1, 50}, {20, 64}, {63, 64}}) {
        const auto drawn = random_positions(n, length, 11);
        ASSERT_EQ(static_cast<index_t>(drawn.size()), n);
        EXPECT_TRUE(std::is_sorted(drawn.begin(), drawn.end(), std::less_equal<>{}));  // strictly
        EXPECT_TRUE(n == 0 || (drawn.front() >= 0 && drawn.back() < length));
        EXPECT_EQ(drawn, random_positions(n, length, 11));
    }
    EXPECT_NE(random_positions(20, 64, 1), random_positions(20, 64, 2));
    // The mean of the i-th of n is (i + 1)(L + 1) / (n + 1) - 1.
    constexpr index_t n = 4, length = 30;
    constexpr int draws = 4000;
    double mean[n] = {};
    for (int seed = 0; seed < draws; ++seed) {
        const auto drawn = random_positions(n, length, static_cast<std::uint64_t>(seed));
        for (std::size_t i = 0; i < n; ++i) mean[i] += static_cast<double>(drawn[i]) / draws;
    }
    for (int i = 0; i < n; ++i) EXPECT_NEAR(mean[i], (i + 1) * (length + 1.0) / (n + 1) - 1, 0.4) << i;  // 4 sigma
}

TEST(random_positions, all_of_the_axis_is_the_plain_encoding) {
    const auto ids = random_positions(9, 9, 3);
    const auto x = test::normal<double>({1, 2, 9, D}, 6);
    EXPECT_TRUE(test::same_values(turned(x, positions{dense(ids.data(), {1, 9})}), turned(x)));
    EXPECT_EQ(random_distances(9, 9, 5), ids);
}

TEST(random_positions, distances_start_at_zero) {
    const auto drawn = random_distances(12, 100, 8);
    EXPECT_EQ(drawn[0], 0);
    EXPECT_TRUE(std::is_sorted(drawn.begin(), drawn.end(), std::less_equal<>{}));
    EXPECT_LT(drawn.back(), 100);
    EXPECT_EQ(random_distances(1, 1, 8), std::vector<index_t>{0});
}

TEST(rope_scaling, bad_parameters_are_named) {
    auto x = test::constant<float>({1, 1, 2, 4}, 1);
    const auto with = [&](auto angles) { return [&x, angles] { rotary(x.v(), x.v(), angles); }; };
    refuses<argument_error>(with(interpolated{0.5}), "rotary: the factor of interpolated is 0.5, the least is 1");
    refuses<argument_error>(with(interpolated{std::nan("")}), "the factor of interpolated is");
    refuses<argument_error>(with(interpolated{2, -1}), "theta is -1");
    refuses<argument_error>(with(ntk_aware{0}), "the factor of ntk_aware is 0");
    refuses<argument_error>(with(dynamic_ntk{0.5, 8, 4}), "the factor of dynamic_ntk is 0.5");
    refuses<argument_error>(with(dynamic_ntk{2, 0, 4}), "the trained length is 0, the least is 1");
    refuses<argument_error>(with(yarn{0.9, 8}), "the factor of yarn is 0.9");
    refuses<argument_error>(with(yarn{2, 0}), "the trained length is 0");
    refuses<argument_error>(with(yarn{2, 8, 1}), "theta is 1, yarn needs one above 1");
    refuses<argument_error>(with(yarn{2, 8, 10000, 1, 32}), "yarn keeps pairs of 1 turns and interpolates those of 32");
    refuses<argument_error>(with(xpos_keys{0, 0}), "the spread of xPos is 0");
    refuses<argument_error>(with(xpos_queries{0, 512, 0}), "gamma of xPos is 0");
    refuses<argument_error>([] { random_positions(3, 2, 0); }, "random_positions: cannot draw 3 positions of 2");
    refuses<argument_error>([] { random_positions(-1, 2, 0); }, "cannot draw -1 positions of 2");
    refuses<argument_error>([] { random_distances(0, 2, 0); }, "random_distances: cannot draw 0 distances below 2");
    x.each([&](index_t b, index_t h, index_t n, index_t d) { EXPECT_EQ(x(b, h, n, d), 1); });
}

}  // namespace
