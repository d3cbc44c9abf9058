// 11: a layer of RetNet [113], over a prompt at once and token by token. What it keeps of the past is one state of
// fixed size, from which a rollback takes back tokens: a draft is refused in part, and a second continuation starts
// where the first did.
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
view<float> rows_of(std::vector<float>& x, index_t width, range tokens_of) {
    const auto n = static_cast<index_t>(x.size()) / (H * width);
    return slice(tokens(x.data(), {1, n, H, width}), 2, tokens_of);
}

/// The tokens `these` of x, `past` tokens behind them: turn, retain(q, k, v, o), normalise each head, gate.
template <class Retain>
std::vector<float> layer(operands& x, range these, index_t past, const Retain& retain) {
    const index_t n = these.size();
    std::vector<float> qs(static_cast<std::size_t>(n * H * D)), ks(qs.size()), out(static_cast<std::size_t>(n * H * E));
    const auto q = rows_of(qs, D, {0, n}), k = rows_of(ks, D, {0, n}), o = rows_of(out, E, {0, n});
    rotary(rows_of(x.q, D, these), q, interleaved{}, retention_angles{}, offset{past});
    rotary(rows_of(x.k, D, these), k, interleaved{}, retention_angles{}, offset{past});
    retain(q, k, rows_of(x.v, E, these), o);
    rms_norm(o, o);
    silu_gate(o, rows_of(x.g, E, these), o);
    return out;
}

/// Retention from the state s, which is updated.
auto retain_in(state<float>& s) {
    return [&s](const auto& q, const auto& k, const auto& v, const auto& o) { retention(q, k, v, o, s); };
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
    const std::vector<float> whole = layer(prompt, {0, N}, 0, retain_in(s));
    std::printf("%td tokens at once: %.2f us a token\n", N, microseconds(clock::now() - start) / N);

    state<float> stepped(1, H, D, E);
    double apart = 0;
    start = clock::now();
    for (index_t n = 0; n < N; ++n) {
        const auto o = layer(prompt, {n, n + 1}, n, retain_in(stepped));
        apart = std::max(apart, distance(o, whole.data() + n * H * E));
    }
    std::printf("token by token: %.2f us a token, which differs by %.1e\n", microseconds(clock::now() - start) / N,
                apart);

    // Continuations of the prompt, token by token; the last 64 tokens can be undone.
    rollback past(s, 64, rows_of(one.k, D, {0, 1}), rows_of(one.v, E, {0, 1}), retention_decay{});
    const auto remembered = [&](const auto& q, const auto& k, const auto& v, const auto& o) {
        past.step(q, k, v, o, retention_decay{});
    };
    const auto stream = [&](operands& x, range these) {
        std::vector<float> all;
        for (index_t n = these.first; n < these.last; ++n) {
            const auto o = layer(x, {n, n + 1}, N + n, remembered);
            all.insert(all.end(), o.begin(), o.end());
        }
        return all;
    };
    const auto first = stream(one, {0, 64});
    past.undo(24);  // 40 tokens of the draft are kept
    const auto rest = stream(one, {40, 64});
    past.undo(64);
    const auto second = stream(other, {0, 64});
    const double replayed = distance(rest, first.data() + 40 * H * E), branches = distance(first, second.data());
    std::printf("24 tokens undone and made again: off by %g; a second continuation: by %.2f\n", replayed, branches);
    std::printf("the state holds %zu bytes; keys and values of %td tokens would be %td\n", s.bytes(), N,
                N * H * (D + E) * static_cast<index_t>(sizeof(float)));
    return apart < 1e-3 && replayed == 0 && branches > 0.1 ? 0 : 1;
}
