// 14: a long filter distilled to a recurrence [9], and decoded token by token at a cost that does not grow.
//
// 64 filters of 4096 taps, smooth and decaying as trained ones are. A prompt goes through the convolution and, at the
// same time, fills the state; then tokens come one by one, and are compared with what the convolution gives.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <heed/heed.hpp>
#include <heed/ops/distillation.hpp>
#include <vector>

using namespace heed;

namespace {

constexpr index_t C = 64, taps = 4096, prompt = 3000, generated = 1000, N = prompt + generated;

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// Tap t of channel c: a few decaying waves under a slower decay that is no exponential.
double tap(index_t c, index_t t) {
    const double x = static_cast<double>(t), rate = 0.002 * (1 + static_cast<double>(c % 8));
    return std::exp(-rate * x) * (std::cos(0.05 * static_cast<double>(1 + c % 5) * x) + 0.5 / (1 + 0.02 * x));
}

}  // namespace

int main() {
    std::vector<float> h(C * taps), x(N * C), exact(N * C), y(N * C);
    const counter_random random(1);
    for (index_t i = 0; i < N * C; ++i) x[i] = static_cast<float>(random.normal(static_cast<std::uint64_t>(i)));

    // Channel by channel: how many states does the filter want, and what are they?
    std::vector<modal_form> forms;
    double kept = 0, all = 0;
    index_t order = 0;
    for (index_t c = 0; c < C; ++c) {
        std::vector<double> samples(taps);
        for (index_t t = 0; t < taps; ++t) h[c * taps + t] = static_cast<float>(samples[t] = tap(c, t));
        if (c == 0) {
            const auto sigma = hankel_singular_values(samples, 128);
            order = distillation_order(sigma, 1e-6);
            std::printf("singular values 1, 4, 8, 12 of the first filter: %.1e %.1e %.1e %.1e; order %td\n", sigma[0],
                        sigma[3], sigma[7], sigma[11], order);
        }
        forms.push_back(distil(samples, 16, 128));
        const auto near = forms.back().samples(taps);
        for (index_t t = 0; t < taps; ++t) kept += std::pow(near[t] - samples[t], 2), all += std::pow(samples[t], 2);
    }
    std::printf("distilled to order 16: relative error of the filters %.1e\n", std::sqrt(kept / all));

    // The exact answer: one convolution of prompt and continuation.
    const auto in = dense(x.data(), {1, N, C}), out = dense(y.data(), {1, N, C});
    const convolution_filter<float> filter(dense(h.data(), {C, taps}));
    convolution(in, filter, dense(exact.data(), {1, N, C}));

    const modal_filter<float> recurrence(forms);
    auto state = recurrence.start(1);
    double start = seconds();
    recurrence(slice(in, 1, range{0, prompt}), slice(out, 1, range{0, prompt}), state);
    std::printf("prompt of %td tokens: %.1f ms, %zu bytes of state for %td channels\n", prompt,
                1e3 * (seconds() - start), state.bytes(), C);
    start = seconds();
    for (index_t t = prompt; t < N; ++t)
        recurrence(slice(in, 1, range{t, t + 1}), slice(out, 1, range{t, t + 1}), state);
    std::printf("decoding: %.2f us a token\n", 1e6 * (seconds() - start) / generated);

    double off = 0, size = 0;
    for (index_t i = 0; i < N * C; ++i) off += std::pow(y[i] - exact[i], 2), size += std::pow(exact[i], 2);
    std::printf("relative difference from the convolution: %.1e\n", std::sqrt(off / size));
    return off <= 1e-6 * size ? 0 : 1;
}
