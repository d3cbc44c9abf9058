// 09: one operator in four forms: a gated DeltaNet, whose state of 64 x 64 numbers a head is all it remembers.
//
// Token by token, in chunks of matrix products, all tokens at once, and as a stream of steps, as in decoding: the same
// outputs and the same state at the end, to rounding. The form the library chooses is among them. Its mixing matrix,
// applied to the values as attention's weights are, is a fifth.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <heed/heed.hpp>
#include <vector>

using namespace heed;

namespace {

constexpr index_t B = 1, H = 4, N = 1024, D = 64, E = 64;

/// Memory of a tensor, filled with f(normal number).
template <class F>
std::vector<float> filled(index_t n, std::uint64_t seed, F&& f) {
    const counter_random r(seed);
    std::vector<float> x(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(f(r.normal(i)));
    return x;
}
double logistic(double x) { return 1 / (1 + std::exp(-x)); }

double largest_gap(const std::vector<float>& a, const std::vector<float>& b) {
    double worst = 0;
    for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(static_cast<double>(a[i]) - b[i]));
    return worst;
}

}  // namespace

int main() {
    const auto same = [](double x) { return x; };
    const auto qm = filled(B * H * N * D, 1, same), km = filled(B * H * N * D, 2, same),
               vm = filled(B * H * N * E, 3, same);
    const auto gm =
        filled(B * H * N, 4, [](double x) { return std::log(logistic(x + 4)); });  // keep about 0.98 a token
    const auto bm = filled(B * H * N, 5, logistic);
    const auto q = heads(qm.data(), {B, H, N, D}), k = heads(km.data(), {B, H, N, D}),
               v = heads(vm.data(), {B, H, N, E});
    const auto g = dense(gm.data(), {B, H, N}), beta = dense(bm.data(), {B, H, N});

    std::vector<float> first;
    double worst = 0;
    const auto show = [&](const char* name, auto&& run) {
        std::vector<float> out(static_cast<std::size_t>(B * H * N * E));
        state<float> s(B, H, D, E);
        const auto begin = std::chrono::steady_clock::now();
        run(heads(out.data(), {B, H, N, E}), s);
        const std::chrono::duration<double, std::micro> time = std::chrono::steady_clock::now() - begin;
        if (first.empty()) first = out;
        worst = std::max(worst, largest_gap(out, first));
        std::printf("%-20s %6.2f us a token, differs by at most %.1e, S[0][0] ends at % .6f\n", name, time.count() / N,
                    largest_gap(out, first), static_cast<double>(s.values()(0, 0, 0, 0)));
    };
    show("recurrent", [&](auto o, auto& s) { gated_deltanet(q, k, v, o, g, beta, unit_norm{}, recurrent{}, s); });
    show("chunks of 64", [&](auto o, auto& s) { gated_deltanet(q, k, v, o, g, beta, unit_norm{}, chunked{64}, s); });
    show("all at once", [&](auto o, auto& s) { gated_deltanet(q, k, v, o, g, beta, unit_norm{}, parallel{}, s); });
    show("one token at a time", [&](auto o, auto& s) {
        for (index_t n = 0; n < N; ++n) {
            const auto at = [n](const auto& x) { return slice(x, 2, {n, n + 1}); };
            gated_deltanet_step(s, at(q), at(k), at(v), at(o), at(g), at(beta), unit_norm{});
        }
    });
    show("as the library likes", [&](auto o, auto& s) { gated_deltanet(q, k, v, o, g, beta, unit_norm{}, s); });

    std::vector<float> weights(static_cast<std::size_t>(B * H * N * N)), product(first.size());
    const auto m = heads(weights.data(), {B, H, N, N});
    mixing_matrix([&](const auto& x, const auto& o) { gated_deltanet(q, k, x, o, g, beta, unit_norm{}); }, m);
    for (index_t h = 0; h < H; ++h)
        for (index_t i = 0; i < N; ++i)
            for (index_t j = 0; j <= i; ++j)
                for (index_t e = 0; e < E; ++e)
                    product[static_cast<std::size_t>((h * N + i) * E + e)] += m(0, h, i, j) * v(0, h, j, e);
    worst = std::max(worst, largest_gap(product, first));
    std::printf("its %td x %td matrix times the values differs by at most %.1e\n", N, N, largest_gap(product, first));
    return worst < 1e-4 ? 0 : 1;
}
