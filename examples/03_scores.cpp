// 03: a score of your own: what happens to a logit between q.k and the softmax.
//
// The values here are the keys' positions, so the output of a row is the mean position it looks at.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <heed/heed.hpp>
#include <vector>

using namespace heed;

// Far keys weigh less. Written once: x is a float or a double, or a SIMD pack of logits, one lane to a query. p.gap(x)
// is query - key as the same type; p.query(x) and p.key(x) are the two positions. abs, exp, tanh, ... take packs as
// well.
struct nearby {
    float w;
    auto operator()(auto x, const where& p) const { return x - w * abs(p.gap(x)); }
};

template <class T>
struct sequence {
    static constexpr index_t N = 300, D = 32;
    std::vector<T> qs = std::vector<T>(N * D), ks = qs, vs = std::vector<T>(N), os = vs;
    view<T> q = heads(qs.data(), {1, 1, N, D}), k = heads(ks.data(), {1, 1, N, D});
    view<T> v = heads(vs.data(), {1, 1, N, 1}), o = heads(os.data(), {1, 1, N, 1});

    sequence() {
        for (index_t x = 0; x < N * D; ++x) {
            qs[x] = static_cast<T>(counter_random(3, 0).normal(x));
            ks[x] = static_cast<T>(counter_random(3, 1).normal(x));
        }
        for (index_t j = 0; j < N; ++j) vs[j] = static_cast<T>(j);
    }
    sequence(const sequence&) = delete;

    // Says how far back the rows look, and returns the largest difference from plain loops over the same functor.
    double look(const char* name, double scale, const auto& score, const auto&... policies) {
        attention(q, k, v, o, causal{}, policies...);
        double back = 0, worst = 0;
        for (index_t i = 0; i < N; ++i) {
            double sum = 0, total = 0;
            for (index_t j = 0; j <= i; ++j) {
                double x = 0;
                for (index_t d = 0; d < D; ++d) x += scale * q(0, 0, i, d) * k(0, 0, j, d);
                const double p = std::exp(score(x, where{0, 0, i, i, j}));
                total += p;
                sum += p * double(j);
            }
            worst = std::max(worst, std::abs(sum / total - o(0, 0, i, 0)) / N);
            back += (double(i) - o(0, 0, i, 0)) / N;
        }
        std::printf("%-28s %-6s looks back %6.2f tokens on average; off by %.0e\n", name,
                    sizeof(T) == 4 ? "float" : "double", back, worst);
        return worst;
    }
};

int main() {
    sequence<float> f;
    sequence<double> d;
    const double usual = 1 / std::sqrt(double(f.D));
    const nearby near{0.05f};
    double worst = f.look("no score", usual, identity{});
    worst = std::max(worst, f.look("nearby", usual, near, near));
    worst = std::max(worst, 1e3 * d.look("nearby", usual, near, near));

    // Scores are piped with >>, left first. The order matters: a cap after the distance forgets how far a key is.
    const auto cap_first = softcap{2} >> near;
    const auto cap_last = near >> softcap{2};
    worst = std::max(worst, f.look("softcap{2} >> nearby", usual, cap_first, cap_first));
    worst = std::max(worst, f.look("nearby >> softcap{2}", usual, cap_last, cap_last));

    // scale alone, or first in a pipe, replaces 1 / sqrt(D). A lambda is a score too.
    const auto even = [](auto x, const where& p) { return x - 0.1f * abs(p.gap(x) - 20.0f); };
    worst = std::max(worst, f.look("scale{1} >> 20 tokens back", 1.0, even, scale{1} >> even));
    return worst < 1e-5 ? 0 : 1;
}
