// heed_test: LABELS sanitize
// Left-to-right HMMs against the sum over all paths, and their laws.
#include <heed/core/threads.hpp>
#include <heed/ops/gaussian_emission.hpp>
#include <heed/ops/neural_hmm.hpp>
#include <heed/ref/lattice.hpp>

#include "../support/compare.hpp"
#include "../support/refuses.hpp"
#include "../support/sequence.hpp"

namespace {

using namespace heed;
using test::refuses;
using test::seq;
using test::tensor;

constexpr double inf = std::numeric_limits<double>::infinity();

template <class S>
struct model {
    index_t B, T, N;
    tensor<S> e, w;
    tensor<float> gamma;
    std::vector<double> log_p, score;
    std::vector<index_t> path;

    model(index_t batch, index_t frames, index_t states, const test::layout& l = {})
        : B(batch),
          T(frames),
          N(states),
          e(test::normal<S>({B, 1, T, N}, 1, 2, l)),
          w(test::normal<S>({B, 1, T, N}, 2, 2, l)),
          gamma({B, 1, T, N}),
          log_p(static_cast<std::size_t>(B)),
          score(static_cast<std::size_t>(B)),
          path(static_cast<std::size_t>(B * T)) {}
    template <class... P>
    model& run(const P&... policies) {
        const auto es = seq(std::as_const(e)), ws = seq(std::as_const(w));
        std::vector<double> alone(log_p.size());
        neural_hmm(es, ws, dense(alone.data(), {B}), policies...);
        neural_hmm_posteriors(es, ws, seq(gamma), dense(log_p.data(), {B}), policies...);
        neural_hmm_best_path(es, ws, dense(path.data(), {B, T}), dense(score.data(), {B}), policies...);
        EXPECT_EQ(alone, log_p);
        return *this;
    }
    index_t state(index_t b, index_t t) const { return path[static_cast<std::size_t>(b * T + t)]; }
};

/// Sequence b with so many frames and states, by brute force.
template <class S>
void expect_brute_force(const model<S>& m, index_t b, index_t T, index_t N, double by) {
    double total = -inf, best = -inf;
    tensor<double> mass({1, 1, m.T, m.N});
    mass.fill([](index_t) { return 0; });
    std::vector<index_t> argmax;
    const auto at = [&](const tensor<S>& x) {
        return [&](index_t t, index_t s) { return static_cast<double>(x(b, 0, t, s)); };
    };
    ref::each_hmm_path(T, N, at(m.e), at(m.w), [&](const std::vector<index_t>& path, double weight) {
        total = ref::log_plus(total, weight);
        if (weight > best) best = weight, argmax = path;
    });
    ref::each_hmm_path(T, N, at(m.e), at(m.w), [&](const std::vector<index_t>& path, double weight) {
        for (index_t t = 0; t < T; ++t) mass(0, 0, t, path[static_cast<std::size_t>(t)]) += std::exp(weight - total);
    });
    const auto i = static_cast<std::size_t>(b);
    if (total == -inf) {
        EXPECT_EQ(m.log_p[i], -inf);
        EXPECT_EQ(m.score[i], -inf);
    } else {
        EXPECT_NEAR(m.log_p[i], total, by);
        EXPECT_NEAR(m.score[i], best, by);
    }
    for (index_t t = 0; t < m.T; ++t) {
        EXPECT_EQ(m.state(b, t), t < T && best > -inf ? argmax[static_cast<std::size_t>(t)] : -1);
        for (index_t s = 0; s < m.N; ++s) EXPECT_NEAR(m.gamma(b, 0, t, s), mass(0, 0, t, s), by) << t << " " << s;
    }
}

template <class S>
class hmm_of : public testing::Test {};
using storages = testing::Types<float, double, bf16>;
TYPED_TEST_SUITE(hmm_of, storages);

TYPED_TEST(hmm_of, is_the_sum_over_all_paths) {
    for (const auto& l : test::layouts())
        for (index_t T : {1, 2, 5, 8})
            for (index_t N : {1, 2, 5, 8}) {
                model<TypeParam> m(2, T, N, l);
                m.run();
                for (index_t b = 0; b < 2; ++b) expect_brute_force(m, b, T, N, 2e-5);
            }
}

TEST(neural_hmm, lengths_mask_frames_and_states) {
    model<double> m(4, 7, 5);
    const index_t frames[] = {7, 4, 3, 0}, states[] = {5, 3, 4, 2};
    for (index_t b = 0; b < 4; ++b)
        for (index_t t = 0; t < 7; ++t)
            for (index_t s = 0; s < 5; ++s)
                if (t >= frames[b] || s >= states[b]) m.e(b, 0, t, s) = m.w(b, 0, t, s) = std::nan("");
    m.run(alignment_lengths(dense(static_cast<const index_t*>(frames), {4}),
                            dense(static_cast<const index_t*>(states), {4})));
    for (index_t b = 0; b < 4; ++b) expect_brute_force(m, b, frames[b], states[b], 1e-6);
}

/// N = 1, constant density b and tau = p: log p = T b + (T - 1) log(1 - p) + log p.
TEST(neural_hmm, one_state_is_a_geometric_duration) {
    model<double> m(1, 40, 1);
    m.e = test::constant<double>({1, 1, 40, 1}, -0.7), m.w = test::constant<double>({1, 1, 40, 1}, 0.4);
    m.run();
    const double p = 1 / (1 + std::exp(-0.4));
    EXPECT_NEAR(m.log_p[0], 40 * -0.7 + 39 * std::log(1 - p) + std::log(p), 1e-12);
}

TEST(neural_hmm, posteriors_are_probabilities_and_derivatives) {
    model<float> m(1, 60, 21), shifted = m;
    m.run();
    for (index_t t = 0; t < 60; ++t) {
        double sum = 0;
        for (index_t s = 0; s < 21; ++s) sum += m.gamma(0, 0, t, s);
        EXPECT_NEAR(sum, 1, 1e-6);
    }
    for (index_t s = 0; s < 21; ++s) shifted.e(0, 0, 30, s) += 3;
    shifted.run();
    EXPECT_NEAR(shifted.log_p[0], m.log_p[0] + 3, 1e-4);
    EXPECT_TRUE(test::all_near(shifted.gamma, m.gamma, 1e-5));
    EXPECT_LE(m.score[0], m.log_p[0]);
    model<double> d(1, 9, 4), more = d;
    d.run();
    more.e(0, 0, 5, 2) += 1e-6;
    more.run();
    EXPECT_NEAR((more.log_p[0] - d.log_p[0]) / 1e-6, d.gamma(0, 0, 5, 2), 1e-5);
}

/// A frame in which some state has a density that is no number is in no state.
TEST(neural_hmm, nan_reaches_the_posteriors_of_its_sequence) {
    model<float> m(2, 30, 19), clean = m;
    m.e(0, 0, 6, 3) = std::nanf("");
    clean.run();
    neural_hmm_posteriors(seq(std::as_const(m.e)), seq(std::as_const(m.w)), seq(m.gamma), dense(m.log_p.data(), {2}));
    EXPECT_TRUE(std::isnan(m.log_p[0]));
    EXPECT_EQ(m.log_p[1], clean.log_p[1]);
    for (index_t s = 0; s < 19; ++s) {
        EXPECT_TRUE(std::isnan(m.gamma(0, 0, 6, s))) << s;
        EXPECT_EQ(m.gamma(1, 0, 6, s), clean.gamma(1, 0, 6, s));
    }
}

TEST(neural_hmm, paths_are_monotone_with_unit_steps) {
    model<float> m(3, 90, 37);
    m.run();
    for (index_t b = 0; b < 3; ++b) {
        EXPECT_EQ(m.state(b, 0), 0);
        EXPECT_EQ(m.state(b, 89), 36);
        for (index_t t = 1; t < 90; ++t)
            EXPECT_TRUE(m.state(b, t) == m.state(b, t - 1) || m.state(b, t) == m.state(b, t - 1) + 1);
    }
}

/// Densities that sum to -1e6 still tell alignments apart.
TEST(neural_hmm, long_sequences_keep_their_digits) {
    model<float> m(1, 3000, 50);
    m.e.each([&](index_t b, index_t h, index_t t, index_t s) { m.e(b, h, t, s) -= 300; });
    auto exact = model<double>(1, 3000, 50);
    exact.e = test::in<double>(m.e), exact.w = test::in<double>(m.w);
    m.run();
    exact.run();
    EXPECT_NEAR(m.log_p[0], exact.log_p[0], 1e-8 * std::abs(exact.log_p[0]));
    EXPECT_TRUE(test::all_near(m.gamma, exact.gamma, 2e-4));
}

TEST(neural_hmm, threads_and_refusals) {
    model<float> one(5, 20, 9), many = one;
    threads pool(3);
    one.run();
    many.run(on(pool));
    EXPECT_EQ(one.log_p, many.log_p);
    EXPECT_TRUE(test::same_values(one.gamma, many.gamma));
    EXPECT_EQ(one.path, many.path);
    const index_t frames[] = {20, 20, 21, 20, 20}, states[] = {9, 9, 9, 9, 9};
    refuses<argument_error>(
        [&] {
            many.run(alignment_lengths(dense(static_cast<const index_t*>(frames), {5}),
                                       dense(static_cast<const index_t*>(states), {5})));
        },
        "neural_hmm: sequence 2 has 21 frames of 20");
    const auto thin = test::normal<float>({5, 1, 20, 8}, 1);
    refuses<shape_error>([&] { neural_hmm(seq(std::as_const(one.e)), seq(thin), dense(one.log_p.data(), {5})); },
                         "w has extent 8 on axis 2, e asks for 9");
    model<float>(0, 3, 2).run();
    model<float>(1, 0, 2).run();
    model<float> no_states(1, 3, 0);
    EXPECT_EQ(no_states.run().log_p[0], -inf);
}

TEST(duration_walk, leaves_a_state_at_the_quantile) {
    duration_walk walk(0.5);
    std::vector<index_t> states;
    for (int t = 0; t < 9; ++t) {
        states.push_back(walk.state());
        walk.step(0.25);
    }
    EXPECT_EQ(states, (std::vector<index_t>{0, 0, 0, 1, 1, 1, 2, 2, 2}));  // 0.75^3 < 0.5
}

template <class S>
void emits(index_t D, const test::layout& l) {
    SCOPED_TRACE(D);
    constexpr index_t B = 2, T = 7, N = 3;
    constexpr double least = 0.3;
    const auto x = test::normal<S>({B, 1, T, D}, 1, 1, l), mean = test::normal<S>({B, T, N, D}, 2, 1, l);
    const auto deviation = test::uniform<S>({B, 1, N, D}, 3, -1, 2, l);  // some below the least
    auto same = deviation.v();
    same.shape[1] = T, same.strides[1] = 0;
    tensor<float> e({B, 1, T, N}, test::layout::strided()), naive({B, 1, T, N});
    tensor<double> exact(naive.shape());
    threads pool(2);
    gaussian_emission(seq(x), mean.v(), same, least, seq(e), on(pool));
    exact.each([&](index_t b, index_t, index_t t, index_t s) {
        std::vector<double> at[3];
        for (index_t d = 0; d < D; ++d) {
            at[0].push_back(static_cast<double>(x(b, 0, t, d)));
            at[1].push_back(static_cast<double>(mean(b, t, s, d)));
            at[2].push_back(static_cast<double>(deviation(b, 0, s, d)));
        }
        exact(b, 0, t, s) = ref::gaussian_log_density(at[0], at[1], at[2], least);
        naive(b, 0, t, s) = ref::gaussian_log_density<float>(at[0], at[1], at[2], least);
    });
    EXPECT_TRUE(test::within_rule<float>(e, naive, exact));
    EXPECT_TRUE(e.poisoned_outside());
}

TEST(gaussian_emission, is_the_log_density) {
    for (index_t D : {0, 1, 7, 8, 16, 17, 40})
        for (const auto& l : {test::layout::heads(), test::layout::strided()}) {
            emits<float>(D, l);
            emits<bf16>(D, l);
        }
    tensor<float> x({1, 1, 2, 3}), mean({1, 2, 4, 3}), e({1, 1, 2, 4});
    refuses<argument_error>([&] { gaussian_emission(seq(x), mean.v(), mean.v(), 0, seq(e)); },
                            "gaussian_emission: the least deviation is 0");
    refuses<shape_error>([&] { gaussian_emission(seq(x), x.v(), mean.v(), 1, seq(e)); },
                         "the mean has extent 1 on axis 1");
}

/// Drawn durations are geometric, drawn features have the density that the emission gives them, on average.
TEST(sampled_walk, draws_from_the_model) {
    constexpr index_t steps = 20000;
    constexpr double tau = 0.2, deviation = 0.01, least = 0.5;
    sampled_walk walk(3), again(3);
    std::vector<double> frames(steps), densities(steps);
    const double mean = 1.5, given = deviation;
    for (double& x : frames) {
        x = walk.feature(mean, deviation, least);
        EXPECT_EQ(x, again.feature(mean, deviation, least));
        EXPECT_EQ(walk.step(tau), again.step(tau));
    }
    EXPECT_NEAR(static_cast<double>(walk.state()) / steps, tau, 5 * std::sqrt(tau * (1 - tau) / steps));
    gaussian_emission(dense(frames.data(), {1, steps, 1}), view<const double, 4>{&mean, {1, steps, 1, 1}, {}},
                      view<const double, 4>{&given, {1, steps, 1, 1}, {}}, least,
                      dense(densities.data(), {1, steps, 1}));
    double sum = 0;
    for (double density : densities) sum += density / steps;
    const double entropy = 0.5 * std::log(2 * std::numbers::pi * std::numbers::e * least * least);
    EXPECT_NEAR(sum, -entropy, 5 * std::sqrt(0.5 / steps));
}

}  // namespace
