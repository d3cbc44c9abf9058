// Hyena of order 2 against attention, a million tokens at once, and decoding by a distilled recurrence against a cache.
#include <fstream>

#include "../attention/measured.hpp"
#include "../attention/patterns.hpp"
#include "../support/families.hpp"
#include "../support/lanes.hpp"
#include "problem.hpp"

namespace bench {
namespace {

std::vector<float> drawn(index_t n, std::uint64_t seed, double spread) {
    const counter_random random(seed);
    std::vector<float> x(static_cast<std::size_t>(n));
    for (index_t i = 0; i < n; ++i)
        x[i] = static_cast<float>((random.uniform(static_cast<std::uint64_t>(i)) - 0.5) * spread);
    return x;
}

/// Short convolution of three streams of C channels, and the operator: what takes the place of attention's q, k and v.
struct hyena_operands {
    static constexpr index_t C = 64, taps = 3;
    index_t N;
    std::vector<float> projected, short_taps, long_taps, mixed, y;

    explicit hyena_operands(index_t n)
        : N(n),
          projected(drawn(3 * C * n, 1, 3.464)),
          short_taps(drawn(3 * C * taps, 2, 1)),
          long_taps(drawn(C * n, 3, 3.464 / std::sqrt(static_cast<double>(n)))),
          mixed(static_cast<std::size_t>(3 * C * n)),
          y(static_cast<std::size_t>(C * n)) {}
};

prepared prepare_hyena(index_t N, int workers) {
    constexpr index_t C = hyena_operands::C, K = hyena_operands::taps;
    const auto x = std::make_shared<hyena_operands>(N);
    const auto pool = std::make_shared<threads>(workers);
    const auto first = std::make_shared<convolution_filter<float>>(dense(x->short_taps.data(), {3 * C, K}));
    const auto filter =
        std::make_shared<convolution_filter<float>>(dense(x->long_taps.data(), {C, N}), filter_options{.longest = N});
    const auto in = channels(x->projected.data(), {1, 3 * C, N}), u = channels(x->mixed.data(), {1, 3 * C, N});
    const auto y = channels(x->y.data(), {1, C, N});
    const job run = [=] {
        convolution(in, *first, u, on(*pool));
        hyena(u, *filter, y, on(*pool));
        (void)x;
    };
    run();
    double off = 0, norm = 0;  // some outputs of every channel, from their definition
    for (index_t c = 0; c < C; ++c)
        for (index_t t : {index_t(0), N / 3 + c, N - 1}) {
            double sum = 0;
            for (index_t k = 0; k <= t; ++k)
                sum += double(x->long_taps[c * N + k]) * double(u(0, t - k, C + c)) * double(u(0, t - k, 2 * C + c));
            off = std::max(off, std::abs(double(u(0, t, c)) * sum - double(y(0, t, c))));
            norm = std::max(norm, std::abs(sum));
        }
    const double both = 2 * static_cast<double>(N);
    return {.run = run,
            .wrong = off <= 1e-5 * norm ? "" : "wrong",
            .flops = C * (5 * both * std::log2(both) + 3 * both + 3 * 2 * K * both / 2),
            .bytes = 5.0 * C * static_cast<double>(N) * sizeof(float),
            .columns = {{"error", off / norm}},
            .output = std::as_bytes(std::span(x->y))};
}

/// 64 channels of order 16, one token.
prepared prepare_distilled(int) {
    constexpr index_t C = 64, modes = 8;
    std::vector<modal_form> forms(static_cast<std::size_t>(C));
    const counter_random random(4);
    std::uint64_t drawn_numbers = 0;
    for (modal_form& f : forms)
        for (index_t n = 0; n < modes; ++n) {
            f.poles.push_back(
                std::polar(0.9 + 0.09 * random.uniform(drawn_numbers), 3 * random.uniform(drawn_numbers + 1)));
            f.residues.push_back(std::polar(1.0, 6 * random.uniform(drawn_numbers + 2)));
            drawn_numbers += 3;
        }
    struct decoding {
        modal_filter<float> filter;
        modal_filter<float>::state state;
        std::vector<float> x, y;
    };
    modal_filter<float> made(forms);
    auto state = made.start(1);
    const auto d = std::make_shared<decoding>(
        decoding{std::move(made), std::move(state), std::vector<float>(C, 1.0f), std::vector<float>(C)});
    const job run = [d] { d->filter(dense(d->x.data(), {1, 1, C}), dense(d->y.data(), {1, 1, C}), d->state); };
    run(), run();  // the second output of a constant is h[0] + h[1]
    double off = 0;
    for (index_t c = 0; c < C; ++c) off = std::max(off, std::abs(forms[c].samples(2)[1] - double(d->y[c])));
    return {.run = run,
            .wrong = off < 1e-5 ? "" : "wrong",
            .flops = C * modes * 12,
            .bytes = C * modes * 6 * sizeof(float),
            .columns = {{"error", off}},
            .output = std::as_bytes(std::span(d->y))};
}

measurement hyena_of(index_t N, int workers) {
    return {"convolution/hyena2/f32/n:" + std::to_string(N) + "/c:64/threads:" + std::to_string(workers) + "/heed",
            workers, [=] { return prepare_hyena(N, workers); }};
}
measurement distilled_decode() {
    return {"convolution/distilled/f32/order:16/c:64/threads:1/heed", 1, [] { return prepare_distilled(1); }};
}

/// Memory of this process at its peak since the last call of forget_peak, in bytes; 0 where the system does not tell.
void forget_peak() { std::ofstream("/proc/self/clear_refs") << 5; }
double peak_memory() {
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;)
        if (word == "VmHWM:") {
            double kilobytes = 0;
            status >> kilobytes;
            return kilobytes * 1024;
        }
    return 0;
}

/// HyenaDNA's operator with random weights.
hyena_layer<float> genome_layer(index_t D, index_t N) {
    using matrix = implicit_filter<float>::matrix;
    using column = implicit_filter<float>::column;
    constexpr index_t W = 64, E = 5;
    const auto some = [](index_t rows, index_t columns, double spread) {
        const auto x = drawn(rows * columns, static_cast<std::uint64_t>(rows * 31 + columns), spread);
        return matrix(Eigen::Map<const matrix>(x.data(), rows, columns));
    };
    const auto decays = hyena_decays(D);
    const implicit_filter<float> filters(
        {{some(W, E, 1), some(W, 1, 1)}, {some(W, W, 0.3), some(W, 1, 1)}, {some(W, W, 0.3), some(W, 1, 1)}},
        some(D, W, 0.1 / std::sqrt(double(N))), column::Constant(W, 10),
        Eigen::Map<const Eigen::VectorXd>(decays.data(), D).cast<float>(), 0.05f, N);
    const double scale = 3 / std::sqrt(double(D));
    return hyena_layer<float>({2, some(3 * D, D, scale), some(3 * D, 1, 1), some(3 * D, 3, 1), some(3 * D, 1, 1),
                               filters, some(D, 1, 1), some(D, D, scale), some(D, 1, 1)});
}

}  // namespace

std::vector<measurement> hyena_rows(length extent) {
    std::vector<measurement> rows;
    for (index_t N = 2048; N <= (extent == length::whole ? 131072 : 32768); N *= 4)
        for (int workers : {1, 2}) rows.push_back(hyena_of(N, workers));
    rows.push_back(distilled_decode());
    return rows;
}

void hyena_over_attention(bars_table& table) {
    for (const auto& [N, least] : {std::pair<index_t, double>{8192, 2}, {65536, 100}}) {
        const problem p{causal_mask, dtype::f32, 64, N, N, 1, 1, 1};
        const auto lanes = compare({measured(p), hyena_of(N, 1)}, 1, 3);
        table.add("convolution, causal attention over Hyena of order 2, width 64, N " + std::to_string(N), least,
                  time_ratio(lanes[0], lanes[1]), wanted::at_least);
    }
}

void distilled_over_attention(bars_table& table) {
    const problem p{full, dtype::f32, 64, 1, 8192, 1, 1, 1};
    const auto lanes = compare({measured(p), distilled_decode()}, 1, 11);
    table.add("convolution, attention over 8192 keys over distilled decoding, 64 channels", 10,
              time_ratio(lanes[0], lanes[1]), wanted::at_least);
}

void million(bars_table& table) {
    constexpr index_t N = 1'000'000, D = 256;
    forget_peak();
    std::vector<float> x = drawn(N * D, 5, 3.464), y(x.size());
    genome_layer(D, N)(dense(x.data(), {1, N, D}), dense(y.data(), {1, N, D}));
    table.add("convolution, GiB of a process with a million tokens at width 256, operands included", 3,
              std::isfinite(y.back()) ? peak_memory() / (1 << 30) : std::numeric_limits<double>::quiet_NaN(),
              wanted::at_most);
}

}  // namespace bench
