// Calls of attention and of convolution against plain loops: the least that every instruction set, compiler and machine
// must do.
#include <cmath>
#include <cstdio>
#include <heed/heed.hpp>
#include <vector>

namespace {

using heed::index_t;

// The first instruction set this file was compiled for and the machine does not have, if any.
const char* missing() {
#if defined(__x86_64__)
    __builtin_cpu_init();
#if defined(__AVX512F__)
    if (!__builtin_cpu_supports("avx512f")) return "avx512f";
#endif
#if defined(__AVX512BW__)
    if (!__builtin_cpu_supports("avx512bw")) return "avx512bw";
#endif
#if defined(__AVX512DQ__)
    if (!__builtin_cpu_supports("avx512dq")) return "avx512dq";
#endif
#if defined(__AVX512VL__)
    if (!__builtin_cpu_supports("avx512vl")) return "avx512vl";
#endif
#if defined(__AVX2__)
    if (!__builtin_cpu_supports("avx2")) return "avx2";
#endif
#if defined(__FMA__)
    if (!__builtin_cpu_supports("fma")) return "fma";
#endif
#if defined(__SSE4_2__)
    if (!__builtin_cpu_supports("sse4.2")) return "sse4.2";
#endif
#endif
    return nullptr;
}

std::vector<float> noise(index_t size, unsigned seed) {
    std::vector<float> x(static_cast<std::size_t>(size));
    for (auto& value : x) {
        seed = seed * 1664525u + 1013904223u;
        value = static_cast<float>(seed >> 8) / 8388608.0f - 1.0f;
    }
    return x;
}

// o = sum over j <= i + M - N of softmax(q k / sqrt D)[j] v[j], the row (b, h, i) in double
std::vector<double> causal_row(heed::view<float> q, heed::view<float> k, heed::view<float> v, index_t b, index_t h,
                               index_t i) {
    const index_t group = h / (q.shape[1] / k.shape[1]), keys = k.shape[2], width = q.shape[3];
    std::vector<double> row(static_cast<std::size_t>(v.shape[3]));
    double sum = 0;
    for (index_t j = 0; j < keys && j <= i + keys - q.shape[2]; ++j) {
        double logit = 0;
        for (index_t d = 0; d < width; ++d) logit += double(q(b, h, i, d)) * double(k(b, group, j, d));
        const double weight = std::exp(logit / std::sqrt(double(width)));
        sum += weight;
        for (std::size_t e = 0; e < row.size(); ++e) row[e] += weight * double(v(b, group, j, e));
    }
    for (double& value : row) value /= sum;
    return row;
}

[[gnu::noinline]] double worst_error(index_t B, index_t H, index_t G, index_t N, index_t M, index_t D, index_t E) {
    auto qs = noise(B * H * N * D, 1), ks = noise(B * G * M * D, 2), vs = noise(B * G * M * E, 3);
    auto os = noise(B * H * N * E, 4);
    const auto q = heed::heads(qs.data(), {B, H, N, D}), k = heed::heads(ks.data(), {B, G, M, D});
    const auto v = heed::tokens(vs.data(), {B, M, G, E}), o = heed::heads(os.data(), {B, H, N, E});
    heed::attention(q, k, v, o, heed::causal{});

    double worst = 0;
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h)
            for (index_t i = 0; i < N; ++i) {
                const auto expected = causal_row(q, k, v, b, h, i);
                for (index_t e = 0; e < E; ++e) {
                    const double error = std::abs(double(o(b, h, i, e)) - expected[static_cast<std::size_t>(e)]);
                    if (!(error <= worst)) worst = error;  // NaN too
                }
            }
    return worst;
}

// A convolution of C channels with filters of N taps, against its sum in double.
[[gnu::noinline]] double worst_error(index_t N, index_t C, bool by_token) {
    auto x = noise(N * C, 1), h = noise(C * N, 2), y = noise(N * C, 3);
    const auto at = [&](std::vector<float>& data) {
        return by_token ? heed::dense(data.data(), {1, N, C}) : heed::channels(data.data(), {1, C, N});
    };
    const heed::convolution_filter<float> filter(heed::dense(h.data(), {C, N}), {.longest = N});
    heed::convolution(at(x), filter, at(y));

    double worst = 0;
    for (index_t c = 0; c < C; ++c)
        for (index_t t = 0; t < N; ++t) {
            double sum = 0;
            for (index_t k = 0; k <= t; ++k)
                sum += double(h[static_cast<std::size_t>(c * N + k)]) * double(at(x)(0, t - k, c));
            const double error = std::abs(double(at(y)(0, t, c)) - sum);
            if (!(error <= worst)) worst = error;
        }
    return worst;
}

}  // namespace

int main() {
    if (const char* feature = missing()) {
        std::printf("skipped: this machine has no %s\n", feature);
        return 0;
    }
    bool good = true;
    const heed::index_t shapes[][7] = {
        {1, 1, 1, 1, 1, 1, 1}, {2, 4, 2, 37, 37, 40, 24}, {1, 2, 1, 131, 257, 64, 64}, {1, 3, 3, 5, 300, 33, 7}};
    for (const auto& s : shapes) {
        const double error = worst_error(s[0], s[1], s[2], s[3], s[4], s[5], s[6]);
        std::printf("q (%td, %td, %td, %td), k %td heads, %td keys, v width %td: error %.1e\n", s[0], s[1], s[3], s[5],
                    s[2], s[4], s[6], error);
        good &= error <= 2e-6;
    }
    for (index_t N : {1, 30, 100, 777})
        for (bool by_token : {false, true}) {
            const double error = worst_error(N, 21, by_token);
            std::printf("convolution of %td tokens, 21 channels: error %.1e\n", N, error);
            good &= error <= 2e-5;
        }
    return good ? 0 : 1;
}
