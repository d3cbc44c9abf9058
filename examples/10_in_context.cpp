// 10: a layer of linear self-attention learns a line from its prompt [15]. With the weights that training ends with,
// its answer is one closed form of the prompt; it nears the line as the prompt grows, and misses it when inputs are
// scaled.
#include <cmath>
#include <cstdio>
#include <heed/heed.hpp>
#include <vector>

using namespace heed;

namespace {

constexpr index_t D = 8, T = D + 1;  // inputs, and tokens (x, y)

/// A prompt: M rows (x, w.x), then (x, 0), x ~ N(0, c I).
struct prompt {
    index_t M;
    std::vector<double> e;
    double wanted = 0;  // w.x of the last row

    prompt(index_t rows, std::uint64_t seed, double c) : M(rows), e(static_cast<std::size_t>((rows + 1) * T)) {
        const counter_random random(seed), line(seed, 1);
        for (index_t n = 0; n <= M; ++n) {
            double y = 0;
            for (index_t d = 0; d < D; ++d) {
                const double x = std::sqrt(c) * random.normal(static_cast<std::uint64_t>(n * D + d));
                at(n, d) = x;
                y += x * line.normal(static_cast<std::uint64_t>(d));
            }
            (n < M ? at(n, D) : wanted) = y;
        }
    }
    double& at(index_t n, index_t i) { return e[static_cast<std::size_t>(n * T + i)]; }
};

/// The layer: queries G^-1 x, keys the tokens, values their labels.
double answer(prompt& p, const std::vector<double>& inverse) {
    std::vector<double> q(p.e.size()), o(static_cast<std::size_t>(p.M + 1));
    for (index_t n = 0; n <= p.M; ++n)
        for (index_t i = 0; i < D; ++i)
            for (index_t j = 0; j < D; ++j)
                q[static_cast<std::size_t>(n * T + i)] += inverse[static_cast<std::size_t>(i * D + j)] * p.at(n, j);
    const auto k = heads(p.e.data(), {1, 1, p.M + 1, T});
    linear_self_attention(heads(q.data(), {1, 1, p.M + 1, T}), k, slice(k, 3, {D, T}),
                          heads(o.data(), {1, 1, p.M + 1, 1}), static_cast<double>(p.M));
    return o.back();
}

/// x^T G^-1 (1 / M) sum y_j x_j.
double closed_form(prompt& p, const std::vector<double>& inverse) {
    double y = 0;
    for (index_t i = 0; i < D; ++i)
        for (index_t j = 0; j < D; ++j) {
            double mean = 0;
            for (index_t n = 0; n < p.M; ++n) mean += p.at(n, D) * p.at(n, j) / static_cast<double>(p.M);
            y += p.at(p.M, i) * inverse[static_cast<std::size_t>(i * D + j)] * mean;
        }
    return y;
}

}  // namespace

int main() {
    std::vector<double> identity(D * D);
    for (std::size_t d = 0; d < D; ++d) identity[d * D + d] = 1;
    double apart = 0, first = 0, last = 0;
    std::printf("prompt   error of the layer, inputs as in training   inputs of 4 times the variance\n");
    for (index_t M : {8, 32, 128, 512, 2048}) {
        const auto inverse = trained_preconditioner(dense(std::as_const(identity).data(), {D, D}), M);
        double error = 0, shifted = 0, size = 0, shifted_size = 0;
        for (std::uint64_t seed = 0; seed < 64; ++seed) {
            prompt p(M, seed, 1), wide(M, seed, 4);
            const double y = answer(p, inverse);
            apart = std::max(apart, std::abs(y - closed_form(p, inverse)) / (1 + std::abs(y)));
            error += std::pow(y - p.wanted, 2), size += std::pow(p.wanted, 2);
            shifted += std::pow(answer(wide, inverse) - wide.wanted, 2), shifted_size += std::pow(wide.wanted, 2);
        }
        last = std::sqrt(error / size);
        if (first == 0) first = last;
        std::printf("%6td   %.3f %39.3f\n", M, last, std::sqrt(shifted / shifted_size));
    }
    std::printf("the layer is its closed form to %.1e\n", apart);
    return apart < 1e-10 && last < 0.1 && last < first / 4 ? 0 : 1;
}
