// 11: a layer of RetNet [113], over a prompt at once and token by token. What it keeps of the past is one state of
// fixed size; a copy of it is a snapshot, from which a second continuation starts.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <heed/heed.hpp>
#include <vector>

using namespace heed;

namespace {

constexpr index_t H = 8, D = 64, E = 128, N = 4096;

/// Rows of a projection, drawn at random: (1, H, n, width) in memory order n h d, and the gate of the output.
struct operands {
    index_t n;
    std::vector<float> q, k, v, g;
    operands(index_t tokens, std::uint64_t seed)
        : n(tokens), q(drawn(D, seed)), k(drawn(D, seed + 1)), v(drawn(E, seed + 2)), g(drawn(E, seed + 3)) {}
    std::vector<float> drawn(index_t width, std::uint64_t seed) const {
        std::vector<float> x(static_cast<std::size_t>(n * H * width));
        for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(counter_random(seed).normal(i));
        return x;
    }
};
view<float> rows(std::vector<float>& x, index_t width, range tokens_of) {
    const auto n = static_cast<index_t>(x.size()) / (H * width);
    return slice(tokens(x.data(), {1, n, H, width}), 2, tokens_of);
}

/// The tokens `these` of x, `past` tokens behind them: turn, retain, normalise each head, gate.
std::vector<float> layer(operands& x, range these, index_t past, state<float>& s) {
    const index_t n = these.size();
    std::vector<float> qs(static_cast<std::size_t>(n * H * D)), ks(qs.size()), out(static_cast<std::size_t>(n * H * E));
    const auto q = rows(qs, D, {0, n}), k = rows(ks, D, {0, n}), o = rows(out, E, {0, n});
    rotary(rows(x.q, D, these), q, interleaved{}, retention_angles{}, offset{past});
    rotary(rows(x.k, D, these), k, interleaved{}, retention_angles{}, offset{past});
    retention(q, k, rows(x.v, E, these), o, s);
    rms_norm(o, o);
    silu_gate(o, rows(x.g, E, these), o);
    return out;
}

double distance(const std::vector<float>& a, const float* b) {
    double most = 0;
    for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(double(a[i]) - double(b[i])));
    return most;
}

}  // namespace

int main() {
    using clock = std::chrono::steady_clock;
    const auto microseconds = [](clock::duration d) { return std::chrono::duration<double, std::micro>(d).count(); };
    operands prompt(N, 1), one(64, 11), other(64, 21);

    state<float> s(1, H, D, E);
    auto start = clock::now();
    const std::vector<float> whole = layer(prompt, {0, N}, 0, s);
    std::printf("%td tokens at once: %.2f us a token\n", N, microseconds(clock::now() - start) / N);

    state<float> stepped(1, H, D, E);
    double apart = 0;
    start = clock::now();
    for (index_t n = 0; n < N; ++n) {
        const auto o = layer(prompt, {n, n + 1}, n, stepped);
        apart = std::max(apart, distance(o, whole.data() + n * H * E));
    }
    std::printf("token by token: %.2f us a token, which differs by %.1e\n", microseconds(clock::now() - start) / N,
                apart);

    // Two continuations of the prompt: the snapshot is taken once, and the second starts from it.
    const state<float> snapshot = s;
    const auto first = layer(one, {0, 64}, N, s);
    s = snapshot;
    const auto second = layer(other, {0, 64}, N, s);
    s = snapshot;
    const auto again = layer(one, {0, 64}, N, s);
    const double replayed = distance(first, again.data()), branches = distance(first, second.data());
    std::printf("the first continuation again: off by %g, from the second by %.2f\n", replayed, branches);
    std::printf("the state holds %zu bytes; keys and values of %td tokens would be %td\n", s.bytes(), N,
                N * H * (D + E) * static_cast<index_t>(sizeof(float)));
    return apart < 1e-3 && replayed == 0 && branches > 0.1 ? 0 : 1;
}
