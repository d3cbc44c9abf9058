// 05: an attention heat map of real text: where each byte of the README looks, with all keys before it and with a
// window and sinks. Draws heat_map.ppm (left: all, right: window and sinks) and says how much of the weight the window
// keeps.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <heed/heed.hpp>
#include <iterator>
#include <string>
#include <vector>

using namespace heed;

// Random features: every (byte, place) has its own direction, so q.k counts the places where two pieces of text agree.
// A token stands for the bytes text[end - 4, end).
void embed(const std::string& text, index_t end, float* x, index_t D) {
    for (index_t place = 1; place <= std::min<index_t>(4, end); ++place) {
        const counter_random feature(static_cast<unsigned char>(text[end - place]), place);
        for (index_t d = 0; d < D; ++d) x[d] += static_cast<float>(feature.normal(d) / std::sqrt(4.0 * double(D)));
    }
}

// Black, red, yellow, white for 0.0001, 0.002, 0.05, 1.
void paint(std::ostream& out, float p) {
    const float level = 3 + 3 * std::log10(std::max(p, 1e-4f)) / 4;
    for (float channel : {0.0f, 1.0f, 2.0f}) out.put(static_cast<char>(255 * std::clamp(level - channel, 0.0f, 1.0f)));
}

int main(int argc, char** argv) {
    const std::string name = std::string(argc > 1 ? argv[1] : ".") + "/README.md";
    std::ifstream file(name, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    const index_t N = std::min<index_t>(640, static_cast<index_t>(text.size())), D = 512;
    if (N < 100) return std::printf("no text in %s\n", name.c_str()), 1;

    // The query of byte i is the text up to and with it, the key of byte j the text before it: a row looks for what
    // came next where the same letters stood earlier. Language models learn such heads; this one is made by hand.
    std::vector<float> qs(N * D), ks(N * D), vs(N * D), os(N * D), full(N * N), near(N * N), lse_full(N), lse_near(N);
    for (index_t i = 0; i < N; ++i) {
        embed(text, i + 1, &qs[i * D], D);
        embed(text, i, &ks[i * D], D);
    }
    const auto q = heads(qs.data(), {1, 1, N, D}), k = heads(ks.data(), {1, 1, N, D});
    const auto v = heads(vs.data(), {1, 1, N, D}), o = heads(os.data(), {1, 1, N, D});
    rotary(q, q, theta{500000});  // positions, in place: places that agree count for more when they are near
    rotary(k, k, theta{500000});

    // Probes record what passes by; the output does not change by a bit. Two are asked for here: the weights themselves
    // and the log of each row's sum.
    const auto window_and_sinks = causal{} & (window{64} | first{4});
    const auto weights = [&](std::vector<float>& x) {
        return logits(dense(x.data(), {1, 1, N, N}), stage::probability);
    };
    const auto sums = [&](std::vector<float>& x) { return lse(dense(x.data(), {1, 1, N})); };
    attention(q, k, v, o, scale{16}, causal{}, weights(full), sums(lse_full));
    attention(q, k, v, o, scale{16}, window_and_sinks, weights(near), sums(lse_near));

    std::ofstream picture("heat_map.ppm", std::ios::binary);
    picture << "P6\n" << 2 * N << ' ' << N << "\n255\n";
    double kept = 0, kept_by_sums = 0, total = 0;
    index_t best = 0;  // the strongest link that the window cuts, as i * N + j
    for (index_t i = 0; i < N; ++i) {
        for (index_t j = 0; j < N; ++j) paint(picture, full[i * N + j]);
        for (index_t j = 0; j < N; ++j) paint(picture, near[i * N + j]);
        for (index_t j = 0; j < N; ++j) {
            const index_t at = i * N + j;
            total += full[at] / double(N);
            if (near[at] > 0)
                kept += full[at] / double(N);
            else if (full[at] > full[best] || best == 0)
                best = at;
        }
        // What a mask keeps of a softmax needs no picture: the ratio of the two sums.
        kept_by_sums += std::exp(lse_near[i] - lse_full[i]) / double(N);
    }
    const auto quote = [&](index_t end) {
        std::string piece = text.substr(std::max<index_t>(0, end - 12), std::min<index_t>(12, end));
        std::replace(piece.begin(), piece.end(), '\n', ' ');
        return piece;
    };
    std::printf("%td bytes; window and sinks see %.1f %% of the causal pairs and keep %.1f %% of the weight\n", N,
                100.0 * double(area(window_and_sinks, 1, 1, N, N)) / double(area(causal{}, 1, 1, N, N)), 100 * kept);
    std::printf("strongest link cut: after \"%s\" to what came after \"%s\", %td bytes back, weight %.2f\n",
                quote(best / N + 1).c_str(), quote(best % N).c_str(), best / N - best % N, double(full[best]));
    std::printf("drawn: heat_map.ppm\n");
    return picture && std::abs(total - 1) < 1e-4 && std::abs(kept - kept_by_sums) < 1e-4 && kept < 1 ? 0 : 1;
}
