// 12: a Mamba block, over a prompt at once and token by token. The second way keeps two small states and no past: the
// last three inputs of the convolution, and 16 numbers a channel of the scan.
#include <heed/heed.hpp>

#include <Eigen/Dense>
#include <chrono>
#include <cstdio>

using namespace heed;
using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Rows of a matrix as one sequence, (1, N, C), columns from `first` on.
view<float, 3> sequence(matrix& x, index_t first, index_t C) {
    return {x.data() + first, {1, x.rows(), C}, {0, x.cols(), 1}};
}

struct mamba_block {
    static constexpr index_t D = 256, E = 512, S = 16, R = 16, K = 4;  // model, inner, states, rank of the steps, taps
    matrix in_proj{D, 2 * E}, x_proj{E, R + 2 * S}, dt_proj{R, E}, out_proj{E, D};
    std::vector<float> taps, bias, decay, step, through;

    // What a sequence leaves behind. Channels lie next to each other, so that a step has nothing to transpose.
    struct state {
        std::vector<float> conv = std::vector<float>((K - 1) * E), scan = std::vector<float>(S * E);
        view<float, 3> last_inputs() { return {conv.data(), {1, E, K - 1}, {0, 1, E}}; }
        view<float, 3> states() { return {scan.data(), {1, E, S}, {0, 1, E}}; }
    };

    mamba_block() : taps(K * E), bias(E), decay(S * E), step(E), through(E, 1.0f) {
        std::uint64_t draws = 0;
        const counter_random random(1);
        for (matrix* w : {&in_proj, &x_proj, &dt_proj, &out_proj})
            for (float& x : w->reshaped())
                x = static_cast<float>(random.normal(draws++) / std::sqrt(double(w->rows())));
        for (float& x : taps) x = static_cast<float>(0.5 * random.normal(draws++));
        for (index_t i = 0; i < S * E; ++i)
            decay[i] = -static_cast<float>(i / E + 1);  // A = -(1, ..., S) for every channel
        for (float& x : step) x = static_cast<float>(-4 + 2 * random.uniform(draws++));  // steps of 0.02 to 0.13
    }

    matrix operator()(const matrix& x, state& past) const {
        matrix xz = x * in_proj, u(x.rows(), E), y(x.rows(), E);
        causal_conv(sequence(xz, 0, E), view<const float, 2>{taps.data(), {E, K}, {1, E}}, sequence(u, 0, E),
                    conv_bias{dense(bias.data(), {E})}, silu_output{}, carry{past.last_inputs()});
        matrix dbc = u * x_proj, delta = dbc.leftCols(R) * dt_proj;
        selective_scan(sequence(u, 0, E), sequence(delta, 0, E), view<const float, 2>{decay.data(), {E, S}, {1, E}},
                       sequence(dbc, R, S), sequence(dbc, R + S, S), sequence(y, 0, E), softplus_step{},
                       step_bias{dense(step.data(), {E})}, skip{dense(through.data(), {E})}, gate{sequence(xz, E, E)},
                       carry{past.states()});
        return y * out_proj;
    }
};

int main() {
    const mamba_block block;
    const index_t N = 1000;
    matrix x(N, block.D);
    std::uint64_t draws = 0;
    for (float& v : x.reshaped()) v = static_cast<float>(counter_random(2).normal(draws++));
    const auto now = [] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
    };

    mamba_block::state at_once, by_token;
    double start = now();
    const matrix whole = block(x, at_once);
    const double prefill = now() - start;
    matrix steps(N, block.D);
    start = now();
    for (index_t n = 0; n < N; ++n) steps.row(n) = block(x.row(n), by_token);
    const double decode = now() - start;

    const float apart = (whole - steps).cwiseAbs().maxCoeff();
    std::printf("%td tokens at once: %.1f us each; one by one: %.1f us each, with %zu bytes of state\n", N,
                1e6 * prefill / double(N), 1e6 * decode / double(N),
                (by_token.conv.size() + by_token.scan.size()) * sizeof(float));
    std::printf("largest output %.2f, largest difference %.1e\n", double(whole.cwiseAbs().maxCoeff()), double(apart));
    return apart < 1e-4 && whole.allFinite() ? 0 : 1;
}
