// Attention calibration against the dense formula, and its limits.
#include <heed/ops/attention_calibration.hpp>
#include <heed/policy/probe.hpp>

#include "compare.hpp"
#include "operands.hpp"
#include "refuses.hpp"
#include "scattered.hpp"

namespace {

using namespace heed;
using test::refuses;
using test::tensor;

using operands = test::operands<float>;
constexpr index_t B = operands::B, H = operands::H, G = operands::G;

attention_sinks some_sinks(index_t keys) {
    attention_sinks sinks{{B, H, keys}, std::vector<unsigned char>(static_cast<std::size_t>(B * H * keys))};
    for (std::size_t x = 0; x < sinks.memory.size(); ++x) {
        const auto key = static_cast<index_t>(x) % keys, head = static_cast<index_t>(x) / keys;
        sinks.memory[x] = key > 0 && head != 2 && (key * 5 + head) % 7 == 0;  // head 2 has none
    }
    return sinks;
}

/// Dense weights, changed by the definition, times the values.
template <class Real>
tensor<Real> defined(const operands& x, const attention_sinks& sinks, double beta) {
    tensor<Real> o(x.rows()), p({B, H, x.N(), x.M()});
    ref::options<Real> with;
    with.visible = [](index_t, index_t, index_t, index_t i, index_t j) { return j <= i; };
    ref::record<Real> to;
    to.probability = p;
    ref::naive_attention<Real>(x.q.v(), x.k.v(), x.v.v(), o.v(), with, to);
    o.each([&](index_t b, index_t h, index_t n, index_t e) {
        const auto is_sink = [&](index_t j) { return j < sinks.shape[2] && sinks.marks()(b, h, j) != 0; };
        Real damped = 0, rest = 0, sum = 0;
        for (index_t j = 0; j < x.M(); ++j) (is_sink(j) ? damped : rest) += p(b, h, n, j);
        const Real by = static_cast<Real>(beta);
        for (index_t j = 0; j < x.M(); ++j) {
            const Real factor = rest == 0 ? 1 : is_sink(j) ? by : 1 + (1 - by) * damped / rest;
            sum += factor * p(b, h, n, j) * static_cast<Real>(x.v(b, h / 2, j, e));
        }
        o(b, h, n, e) = sum;
    });
    return o;
}

TEST(calibration, is_the_dense_formula) {
    for (auto [N, M] : std::vector<std::array<index_t, 2>>{{1, 1}, {40, 40}, {1, 40}, {3, 61}})
        for (double beta : {0.0, 0.4, 1.0}) {
            const operands x(N, M);
            const auto sinks = some_sinks(40);  // of a prompt of 40 tokens, or longer than what is there
            tensor<float> o(x.rows());
            calibrated_attention(x.q, x.k, x.v, o, sinks, beta, causal{});
            EXPECT_TRUE(test::within_rule<float>(o, defined<float>(x, sinks, beta), defined<double>(x, sinks, beta)))
                << N << " of " << M << ", beta " << beta;
        }
}

TEST(calibration, limits) {
    const operands x(40, 40);
    const auto sinks = some_sinks(40);
    tensor<float> o(x.rows()), want(x.rows());
    std::vector<double> sums(B * H * 40), wanted(sums);
    calibrated_attention(x.q, x.k, x.v, o, sinks, 1, causal{}, lse{dense(sums.data(), {B, H, 40})});
    attention(x.q, x.k, x.v, want, causal{}, lse{dense(wanted.data(), {B, H, 40})});
    EXPECT_TRUE(test::all_near(o, want, 4e-6)) << "beta 1 is the identity";
    for (std::size_t r = 0; r < sums.size(); ++r) EXPECT_NEAR(sums[r], wanted[r], 1e-5);
    calibrated_attention(x.q, x.k, x.v, o, sinks, 0, causal{});
    attention(x.q, x.k, x.v, want, causal{} & keys_where{sinks.marks(), false});
    EXPECT_TRUE(test::all_near(o, want, 4e-6)) << "beta 0 hides the sinks";
    const auto ones = test::constant<float>(x.v.shape(), 1);
    calibrated_attention(x.q, x.k, ones, o, sinks, 0.4, causal{});
    EXPECT_TRUE(test::all_near(o, test::constant<float>(x.rows(), 1), 4e-6)) << "rows sum to one";
    const test::scattered<float> source(x.k, x.v, {40, 40, 40, 40}, 7);
    calibrated_attention(x.q, source, o, sinks, 0.4, causal{});
    calibrated_attention(x.q, x.k, x.v, want, sinks, 0.4, causal{});
    EXPECT_TRUE(test::all_near(o, want, 4e-6)) << "any source";
}

TEST(calibration, a_row_of_nothing_but_sinks_or_of_far_logits_stays_finite) {
    operands x(3, 3);
    attention_sinks sinks{{B, H, 3}, std::vector<unsigned char>(B * H * 3, 1)};
    tensor<float> o(x.rows()), want(x.rows());
    attention(x.q, x.k, x.v, want, causal{});
    calibrated_attention(x.q, x.k, x.v, o, sinks, 0.4, causal{});
    EXPECT_TRUE(test::all_near(o, want, 4e-6));
    x.q = test::constant<float>(x.q.shape(), 300);
    for (float far : {1.f, -1.f}) {  // logits thousands apart, either way
        x.k = test::constant<float>(x.k.shape(), 0);
        for (index_t b = 0; b < B; ++b)
            for (index_t g = 0; g < G; ++g)
                for (index_t d = 0; d < 6; ++d) x.k(b, g, 1, d) = 10 * far;
        sinks.memory.assign(B * H * 3, 0);
        for (std::size_t r = 0; r < B * H; ++r) sinks.memory[3 * r + 1] = 1;
        calibrated_attention(x.q, x.k, x.v, o, sinks, 0.4, causal{});
        o.each([&](index_t b, index_t h, index_t n, index_t e) {
            const auto value = [&](index_t j) { return x.v(b, h / 2, j, e); };
            const float others = n < 2 ? value(0) : (value(0) + value(2)) / 2;
            const float want_here = far > 0 && n > 0 ? 0.4f * value(1) + 0.6f * others : others;
            EXPECT_NEAR(o(b, h, n, e), want_here, 1e-5f) << n << " " << far;
        });
    }
}

TEST(calibration, finds_a_planted_sink_and_spares_the_first) {
    constexpr index_t N = 50, planted = 20;
    operands x(N, N);
    x.q = test::uniform<float>(x.q.shape(), 1, 0.5, 1.5);
    for (index_t b = 0; b < B; ++b)
        for (index_t g = 0; g < G; ++g)
            for (index_t d = 0; d < 6; ++d) {
                x.k(b, g, 0, d) = 2;  // the first token draws attention, as it does in models
                x.k(b, g, planted, d) = 2;
            }
    tensor<float> o(x.rows());
    std::vector<double> mass(B * H * N);
    attention(x.q, x.k, x.v, o, causal{}, key_mass{dense(mass.data(), {B, H, N})});
    const auto sinks = find_sinks(dense(mass.data(), {B, H, N}), 10.0 / N);
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h)
            for (index_t j = 0; j < N - 1; ++j) EXPECT_EQ(sinks.marks()(b, h, j), j == planted) << j;
}

TEST(calibration, the_threshold_is_of_the_mean_received_weight) {
    const std::vector<float> mass{4, 0.9f, 2.1f, 0.5f, 1};  // means: 0.8, 0.225, 0.7, 0.25, 1
    const auto marks = [&](double threshold) { return find_sinks(dense(mass.data(), {1, 1, 5}), threshold).memory; };
    using bytes = std::vector<unsigned char>;
    EXPECT_EQ(marks(0.5), (bytes{0, 0, 1, 0, 1}));
    EXPECT_EQ(marks(0.75), (bytes{0, 0, 0, 0, 1}));
    EXPECT_EQ(marks(0.9), (bytes{0, 0, 0, 0, 0})) << "the first that is found is not damped, wherever it stands";
    EXPECT_EQ(marks(2), (bytes{0, 0, 0, 0, 0}));
}

TEST(calibration, bad_arguments_are_named_before_anything_is_written) {
    const operands x(3, 10);
    const auto sinks = some_sinks(10);
    auto o = test::constant<float>(x.rows(), 7);
    const auto with = [&](double beta, const attention_sinks& s) {
        return [&, beta] { calibrated_attention(x.q, x.k, x.v, o, s, beta, causal{}); };
    };
    refuses<argument_error>(with(1.5, sinks), "calibrated_attention: beta is 1.5, must be of [0, 1]");
    refuses<argument_error>(with(-0.5, sinks), "beta is -0.5");
    refuses<argument_error>(with(std::nan(""), sinks), "beta is");
    const attention_sinks other{{B, 3, 10}, std::vector<unsigned char>(B * 3 * 10)};
    refuses<shape_error>(with(0.5, other), "calibrated_attention: keys_where has heads 3, the logits have 4");
    refuses<argument_error>([] { find_sinks(view<float, 3>{}, std::nan("")); }, "find_sinks: the threshold is not");
    for (float y : o.memory()) EXPECT_EQ(y, 7);
}

}  // namespace
