// 13: Hyena over a genome: HyenaDNA's operator [6] on a synthetic genome, as long as you like.
//
//   13_hyena             65536 nucleotides, a few seconds
//   13_hyena 1000000 256 a million, at HyenaDNA's width: some minutes, and less than 3 GiB
// Each nucleotide is read at its own resolution, and every output sees the whole genome before it. At the end an output
// is computed again from the definition, as a sum over everything before it.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <heed/heed.hpp>
#include <vector>

#include "drawn.hpp"

using namespace heed;

namespace {

/// Nucleotide n: genes of three letters in a row out of a small code, between stretches of anything.
int nucleotide(index_t n) {
    const counter_random random(7);
    const index_t gene = n / 300;
    if (gene % 3 == 0) return static_cast<int>(random.integer(static_cast<std::uint64_t>(n), 0, 4));
    return static_cast<int>(random.integer(static_cast<std::uint64_t>(n % 300 / 3 * 17 + n % 3), 0, 4));
}

/// A model of the published shape with random weights: 5 features of a position, a network 64 wide, order 2.
hyena_weights<float> model(index_t D, index_t longest) {
    const index_t W = 64, E = 5;
    const auto decays = hyena_decays(D);
    const implicit_filter<float> filters(
        {{drawn(W, E, 1, 0.5), drawn(W, 1, 2, 0.1)},
         {drawn(W, W, 3, 0.1), drawn(W, 1, 4, 0.1)},
         {drawn(W, W, 5, 0.1), drawn(W, 1, 6, 0.1)}},
        drawn(D, W, 7, 0.1 / std::sqrt(double(longest))), implicit_filter<float>::column::Constant(W, 10),
        Eigen::Map<const Eigen::VectorXd>(decays.data(), D).cast<float>(), 0.05f, longest);
    const double scale = 1 / std::sqrt(double(D));
    return {
        2,       drawn(3 * D, D, 8, scale), drawn(3 * D, 1, 9, 0.1), drawn(3 * D, 3, 10, 0.5), drawn(3 * D, 1, 11, 0.1),
        filters, drawn(D, 1, 12, 0.3),      drawn(D, D, 13, scale),  drawn(D, 1, 14, 0.1)};
}

/// Output n of the layer, in double, from its definition.
std::vector<double> defined(const hyena_weights<float>& w, const matrix& embedding, index_t n) {
    const index_t D = w.out.cols();
    const auto stream = [&](index_t row, index_t t) {  // the short convolution of a projection
        double sum = w.short_bias[row];
        for (index_t k = 0; k < std::min<index_t>(3, t + 1); ++k) {
            const auto x = embedding.row(nucleotide(t - k)).cast<double>();
            sum += double(w.short_taps(row, k)) * (x.dot(w.in.row(row).cast<double>()) + double(w.in_bias[row]));
        }
        return sum;
    };
    matrix h(1, n + 1);
    const matrix hidden = w.filters.hidden(n + 1);
    std::vector<double> y(w.out_bias.data(), w.out_bias.data() + D);
    for (index_t c = 0; c < D; ++c) {
        w.filters.taps(hidden, c, 1, dense(h.data(), {1, n + 1}));
        double sum = double(w.skip[c]) * stream(D + c, n) * stream(2 * D + c, n);
        for (index_t t = 0; t <= n; ++t) sum += double(h(0, n - t)) * stream(D + c, t) * stream(2 * D + c, t);
        for (index_t d = 0; d < D; ++d) y[d] += stream(c, n) * sum * double(w.out(d, c));
    }
    return y;
}

}  // namespace

int main(int argc, char** argv) {
    // ctest gives the path of the repository, which is no number.
    const index_t given = argc > 1 ? std::atol(argv[1]) : 0, N = given > 0 ? given : 65536;
    const index_t D = given > 0 && argc > 2 ? std::atol(argv[2]) : 32;
    const auto w = model(D, N);
    const matrix embedding = drawn(4, D, 20, 1);
    std::vector<float> x(static_cast<std::size_t>(N * D)), y(x.size());
    for (index_t n = 0; n < N; ++n) std::copy_n(embedding.row(nucleotide(n)).data(), D, &x[n * D]);

    const hyena_layer<float> layer(w);
    const auto start = std::chrono::steady_clock::now();
    layer(dense(x.data(), {1, N, D}), dense(y.data(), {1, N, D}));
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    std::printf("%td nucleotides, width %td: %.2f s, %.2f us each\n", N, D, seconds, 1e6 * seconds / double(N));

    double worst = 0;
    for (index_t n : {index_t(0), index_t(1000), index_t(2999)}) {
        const auto exact = defined(w, embedding, n);
        for (index_t d = 0; d < D; ++d) worst = std::max(worst, std::abs(exact[d] - double(y[n * D + d])));
    }
    std::printf("largest difference from the definition: %.1e\n", worst);
    return worst < 1e-3 ? 0 : 1;
}
