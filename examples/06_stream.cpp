// 06: a million tokens through a cache that does not grow: attention sinks and a sliding window.
//
// Keys are rotary, by their number among all tokens, as without a cache; the stream keeps four sinks and the last 252
// tokens, and what attention sees stands at positions 0 to 255. At the end the answer is computed again from scratch.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <heed/heed.hpp>
#include <vector>

using namespace heed;

namespace {

constexpr index_t H = 4, G = 1, D = 32, sinks = 4, window_size = 252, length = 1'000'000;

/// Query, key and value of token t: any token's can be made again at any time.
struct token {
    float q[H * D], k[G * D], v[G * D];
    explicit token(index_t t) {
        static const std::vector<float> drawn = [] {
            std::vector<float> x(1 << 16);
            for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(counter_random(1).normal(i));
            return x;
        }();
        const auto from = drawn.begin() + t * 7919 % ((1 << 16) - (H + 2 * G) * D);
        std::copy_n(from, H * D, q);
        std::copy_n(from + H * D, G * D, k);
        std::copy_n(from + (H + G) * D, G * D, v);
    }
};

}  // namespace

int main() {
    stream_cache<float> cache({1, G, D, D}, {sinks, window_size}, theta{10000});
    std::vector<float> out(H * D);
    const auto o = heads(out.data(), {1, H, 1, D});
    auto start = std::chrono::steady_clock::now();
    for (index_t t = 0; t < length; ++t) {
        token x(t);
        const auto q = heads(x.q, {1, H, 1, D}), k = heads(x.k, {1, G, 1, D});
        rotary(q, q, theta{10000}, offset{t});
        rotary(k, k, theta{10000}, offset{t});
        cache.append(k, heads(x.v, {1, G, 1, D}));
        attention(q, cache, o);
        if ((t + 1) % (length / 5) == 0) {
            const auto end = std::chrono::steady_clock::now();
            const double seconds = std::chrono::duration<double>(end - start).count();
            std::printf("%8td tokens seen, %td held, %td bytes, %.1f us a token\n", t + 1, cache.keys(0, 0),
                        cache.bytes(), seconds * 5e6 / length);
            start = end;
        }
    }

    // The last step again: the tokens that are held, at the positions they have inside the cache.
    const index_t held = sinks + window_size;
    std::vector<float> ks(held * D), vs(held * D), again(H * D);
    for (index_t j = 0; j < held; ++j) {
        const token x(j < sinks ? j : length - held + j);
        std::copy_n(x.k, D, ks.data() + j * D);
        std::copy_n(x.v, D, vs.data() + j * D);
    }
    token last(length - 1);
    const auto q = heads(last.q, {1, H, 1, D}), k = heads(ks.data(), {1, G, held, D});
    rotary(q, q, theta{10000}, offset{held - 1});
    rotary(k, k, theta{10000});
    attention(q, k, heads(vs.data(), {1, G, held, D}), heads(again.data(), {1, H, 1, D}));
    double worst = 0;
    for (std::size_t i = 0; i < out.size(); ++i) worst = std::max(worst, double(std::abs(out[i] - again[i])));
    std::printf("largest difference from the last step computed from scratch: %.1e\n", worst);
    return worst < 1e-3 ? 0 : 1;  // float angles a million positions away
}
