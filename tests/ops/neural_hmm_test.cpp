// heed_test: LABELS sanitize
// Left-to-right HMMs against the sum over all paths, and their laws.
#include <heed/core/threads.hpp>
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

}  // namespace
