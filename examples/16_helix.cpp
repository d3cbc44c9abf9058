// 16: Helix [39], a hybrid for mRNA: eight layers "M+M*M+M+", where M is a Mamba-2 block, * causal grouped-query
// attention and + a perceptron, with random weights, over a synthetic sequence.
//
//   16_helix        up to 3072 tokens, a few seconds
//   16_helix 12288  up to the published context, half a minute
// Where the time goes as the sequence grows, and what attention in the place of every Mamba-2 block would take.
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <heed/heed.hpp>
#include <map>
#include <string>

#include "drawn.hpp"

using namespace heed;

namespace {

constexpr index_t width = 256;

matrix projection(index_t from, index_t to, std::uint64_t seed) {
    return drawn(from, to, seed, 1 / std::sqrt(static_cast<double>(from)));
}

/// Columns of a matrix, from `first` on, as H heads of D: (1, H, N, D).
view<float> heads_of(matrix& x, index_t first, index_t H, index_t D) {
    return {x.data() + first, {1, H, x.rows(), D}, {0, D, x.cols(), 1}};
}

/// Token n of the synthetic mRNA: a mark before every codon, and its three nucleotides; the embedding has 14 rows.
index_t token(index_t n) { return n % 4 == 0 ? 4 : counter_random(7).integer(static_cast<std::uint64_t>(n), 0, 4); }
matrix sequence(index_t N) {
    const matrix embedding = drawn(14, width, 1, 1);
    matrix x(N, width);
    for (index_t n = 0; n < N; ++n) x.row(n) = embedding.row(token(n));
    return x;
}

view<float, 3> rows_of(matrix& x) { return dense(x.data(), {1, x.rows(), x.cols()}); }
view<const float, 2> as_weight(const matrix& w) { return dense(w.data(), {w.rows(), w.cols()}); }

struct state_space_block {
    static constexpr index_t H = 16, P = 32, E = H * P, S = 128, K = 4;  // heads, their width, inner, states, taps
    static constexpr index_t mixed = E + 2 * S;                          // x, B and C
    matrix in, out, taps;
    std::array<float, H> decay, bias, skip;

    static mamba2_state<float> start() { return {1, H, P, 1, S, K}; }

    explicit state_space_block(std::uint64_t seed)
        : in(projection(width, E + mixed + H, seed)),
          out(projection(E, width, seed + 1)),
          taps(drawn(K, mixed, seed + 2, 0.5)) {
        for (index_t h = 0; h < H; ++h) {
            const auto i = static_cast<std::size_t>(h);
            decay[i] = -static_cast<float>(h + 1);
            bias[i] = -4 + 0.125f * static_cast<float>(h);  // steps about log(1 + e^bias), 0.02 to 0.12
            skip[i] = 1;
        }
    }

    matrix operator()(matrix a, mamba2_state<float>& before) const {
        const mamba2_weights<float> weights{1,
                                            as_weight(in),
                                            {taps.data(), {mixed, K}, {1, mixed}},
                                            {},
                                            dense(decay.data(), {H}),
                                            dense(bias.data(), {H}),
                                            dense(skip.data(), {H}),
                                            {},
                                            as_weight(out)};
        mamba2_block(before, rows_of(a), weights, rows_of(a));
        return a;
    }
};

/// 32 heads of queries over 8 of keys and values; the Mamba-2 blocks before it know the order of tokens.
struct attention_block {
    static constexpr index_t H = 32, G = 8, D = width / H;
    matrix in, out;

    explicit attention_block(std::uint64_t seed)
        : in(projection(width, (H + 2 * G) * D, seed)), out(projection(width, width, seed + 1)) {}
    matrix operator()(const matrix& a) const {
        matrix qkv = a * in, o(a.rows(), width);
        attention(heads_of(qkv, 0, H, D), heads_of(qkv, H * D, G, D), heads_of(qkv, (H + G) * D, G, D),
                  heads_of(o, 0, H, D), causal{});
        return o * out;
    }
};

struct perceptron {
    matrix in, out;
    explicit perceptron(std::uint64_t seed)
        : in(projection(width, 4 * width, seed)), out(projection(4 * width, width, seed + 1)) {}
    matrix operator()(const matrix& a) const { return (a * in).cwiseMax(0.0f) * out; }
};

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// x += layer(norm(x)) for each letter of the pattern: seconds of each kind.
std::map<char, double> run(const std::string& pattern, matrix& x) {
    std::map<char, double> seconds;
    for (std::size_t l = 0; l < pattern.size(); ++l) {
        const std::uint64_t seed = 100 + 10 * l;
        const auto time = [&](const auto& layer) {
            const double start = now();
            matrix a(x.rows(), width);
            rms_norm(heads_of(x, 0, 1, width), heads_of(a, 0, 1, width));
            x += layer(a);
            seconds[pattern[l]] += now() - start;
        };
        if (pattern[l] == 'M')
            time([block = state_space_block(seed)](const matrix& a) {
                auto none = block.start();
                return block(a, none);
            });
        else if (pattern[l] == '*')
            time(attention_block(seed));
        else
            time(perceptron(seed));
    }
    return seconds;
}

/// A Mamba-2 block over some tokens at once and one by one: the largest difference of outputs and of states.
float difference_of_steps(index_t N) {
    const state_space_block block(100);
    const matrix x = sequence(N);
    auto at_once = block.start(), stepped = block.start();
    const matrix whole = block(x, at_once);
    matrix steps(N, width);
    for (index_t n = 0; n < N; ++n) steps.row(n) = block(x.row(n), stepped);
    float apart = (whole - steps).cwiseAbs().maxCoeff();
    const auto compare = [&](const auto& one, const auto& other) { apart = std::max(apart, std::abs(one - other)); };
    const auto S = at_once.memories().values(), s = stepped.memories().values();
    for (index_t h = 0; h < block.H; ++h)
        for (index_t i = 0; i < block.S; ++i)
            for (index_t p = 0; p < block.P; ++p) compare(S(0, h, i, p), s(0, h, i, p));
    for (index_t c = 0; c < block.mixed; ++c)
        for (index_t k = 0; k < block.K - 1; ++k) compare(at_once.inputs()(0, c, k), stepped.inputs()(0, c, k));
    std::printf(
        "a Mamba-2 block over %td tokens, at once and one by one: outputs to %.1f, they and the states differ by "
        "at most %.1e\n",
        N, double(whole.cwiseAbs().maxCoeff()), double(apart));
    return apart;
}

}  // namespace

int main(int argc, char** argv) {
    // ctest gives the path of the repository, which is no number.
    const index_t given = argc > 1 ? std::atol(argv[1]) : 0, longest = given >= 6 ? given : 3072;
    bool right = difference_of_steps(300) < 1e-4f;

    double hybrid = 0;
    std::printf("%8s %10s %10s %10s %12s %8s\n", "tokens", "M, ms", "*, ms", "+, ms", "share of *", "* / M");
    for (index_t sixths = 1; sixths <= 6; ++sixths) {
        matrix x = sequence(longest * sixths / 6);
        const auto seconds = run("M+M*M+M+", x);
        right = right && x.allFinite();
        const double M = seconds.at('M'), attended = seconds.at('*'), rest = seconds.at('+');
        hybrid = M + attended + rest;
        std::printf("%8td %10.1f %10.1f %10.1f %11.1f%% %8.2f\n", x.rows(), 1e3 * M, 1e3 * attended, 1e3 * rest,
                    100 * attended / hybrid, attended / M);
    }
    matrix x = sequence(longest);
    const auto seconds = run("*+***+*+", x);
    const double all = seconds.at('*') + seconds.at('+');
    std::printf("%td tokens: %.2f s; with attention in the place of every M %.2f s, %.1f times as long\n", longest,
                hybrid, all, all / hybrid);
    return right && x.allFinite() ? 0 : 1;
}
