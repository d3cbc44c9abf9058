// 01: attention on raw pointers, and what it computes.
//
// Causal attention of two sequences with four query heads, two to a key head, against the definition in plain loops.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <heed/heed.hpp>
#include <vector>

using namespace heed;

int main() {
    const index_t B = 2, H = 4, G = 2, N = 200, D = 64;  // H query heads share G heads of keys and values
    std::vector<float> qs(B * H * N * D), ks(B * G * N * D), vs(B * G * N * D), os(B * H * N * D);
    std::uint64_t draws = 0;
    for (auto* values : {&qs, &ks, &vs})
        for (float& x : *values) x = static_cast<float>(counter_random(1).normal(draws++));

    const auto q = heads(qs.data(), {B, H, N, D});  // a view: pointer, shape, strides; it owns nothing
    const auto k = heads(ks.data(), {B, G, N, D});
    const auto v = heads(vs.data(), {B, G, N, D});
    const auto o = heads(os.data(), {B, H, N, D});
    attention(q, k, v, o, causal{});  // o = softmax(q k^T / sqrt(D)) v, each query over the keys up to its own

    double worst = 0;
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h)
            for (index_t i = 0; i < N; ++i) {
                std::vector<double> sum(D);
                double total = 0;
                for (index_t j = 0; j <= i; ++j) {
                    double logit = 0;
                    for (index_t d = 0; d < D; ++d) logit += q(b, h, i, d) * k(b, h / (H / G), j, d) / std::sqrt(D);
                    total += std::exp(logit);
                    for (index_t d = 0; d < D; ++d) sum[d] += std::exp(logit) * v(b, h / (H / G), j, d);
                }
                for (index_t d = 0; d < D; ++d) worst = std::max(worst, std::abs(o(b, h, i, d) - sum[d] / total));
            }
    std::printf("%td rows of attention; largest difference from plain loops: %.1e\n", B * H * N, worst);
    return worst < 1e-5 ? 0 : 1;
}
