// 12: a Mamba block, over a prompt at once and token by token. The second way keeps two small states and no past: the
// last three inputs of the convolution, and 16 numbers a channel of the scan.
#include <heed/heed.hpp>

#include <chrono>
#include <cstdio>

#include "drawn.hpp"

using namespace heed;

// Rows of a matrix as one sequence, (1, N, C).
view<float, 3> sequence(matrix& x) { return dense(x.data(), {1, x.rows(), x.cols()}); }
view<const float, 2> as_weight(const matrix& w) { return dense(w.data(), {w.rows(), w.cols()}); }

// Weights of a model that was never trained. Taps and A lie with channels next to each other, so that a step has
// nothing to transpose.
struct block {
    static constexpr index_t D = 256, E = 512, S = 16, R = 16, K = 4;  // model, inner, states, rank of the steps, taps
    matrix in = projection(D, 2 * E, 1), mixing = projection(E, R + 2 * S, 2), steps = projection(R, E, 3),
           out = projection(E, D, 4), taps = drawn(K, E, 5, 0.5), decay{S, E};
    std::vector<float> bias = std::vector<float>(E), step = std::vector<float>(E),
                       through = std::vector<float>(E, 1.0f);

    block() {
        for (index_t s = 0; s < S; ++s) decay.row(s).setConstant(-static_cast<float>(s + 1));  // for every channel
        for (index_t c = 0; c < E; ++c)
            step[c] = static_cast<float>(-4 + 2 * counter_random(6).uniform(static_cast<std::uint64_t>(c)));
    }
    static matrix projection(index_t from, index_t to, std::uint64_t seed) {
        return drawn(from, to, seed, 1 / std::sqrt(static_cast<double>(from)));
    }
    mamba_weights<float> weights() const {
        return {
            as_weight(in),    {taps.data(), {E, K}, {1, E}}, dense(bias.data(), {E}),        as_weight(mixing),
            as_weight(steps), dense(step.data(), {E}),       {decay.data(), {E, S}, {1, E}}, dense(through.data(), {E}),
            as_weight(out)};
    }
};

int main() {
    const block model;
    const auto weights = model.weights();
    const index_t N = 1000, D = block::D;
    matrix x = drawn(N, D, 7, 1), whole(N, D), steps(N, D);
    const auto now = [] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
    };

    mamba_state<float> at_once(1, block::E, block::S, block::K), by_token = at_once;
    double start = now();
    mamba_block(at_once, sequence(x), weights, sequence(whole));
    const double prefill = now() - start;
    start = now();
    for (index_t n = 0; n < N; ++n) {
        const range token{n, n + 1};
        mamba_block(by_token, slice(sequence(x), 1, token), weights, slice(sequence(steps), 1, token));
    }
    const double decode = now() - start;

    const float apart = (whole - steps).cwiseAbs().maxCoeff();
    std::printf("%td tokens at once: %.1f us each; one by one: %.1f us each, with %zu bytes of state\n", N,
                1e6 * prefill / double(N), 1e6 * decode / double(N), by_token.bytes());
    std::printf("largest output %.2f, largest difference %.1e\n", double(whole.cwiseAbs().maxCoeff()), double(apart));
    return apart < 1e-4 && whole.allFinite() ? 0 : 1;
}
