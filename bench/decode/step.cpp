#include "step.hpp"

#include <cstdio>
#include <heed/ref/attention.hpp>
#include <thread>

namespace bench {
namespace {

constexpr index_t H = decode_step::H, G = decode_step::G, D = decode_step::D;

/// How strongly token j of M draws the queries: about 6 in the logits for each 1.
float pull(index_t j, index_t M) {
    if (j < 4) return 1.4f;
    const float recent = 1.4f - static_cast<float>(M - 1 - j) / 180.0f;
    return std::max(recent, j % 1024 == 700 ? 1.1f : 0.0f);
}

/// Calls body(g) for every head of keys, on all cores.
template <class Body>
void each_group(const Body& body) {
    threads pool(static_cast<index_t>(std::max(1u, std::thread::hardware_concurrency())));
    for_tasks(pool, G, [&](index_t g, index_t) { body(g); });
}

}  // namespace

std::string decode_step::name() const {
    return "d:" + std::to_string(D) + "/m:" + std::to_string(M) + "/h:" + std::to_string(H) +
           "/g:" + std::to_string(G) + "/threads:" + std::to_string(threads);
}

prompt::prompt(index_t M) : memory_(static_cast<std::size_t>((H + 2 * G * M) * D)) {
    q = heads(memory_.data(), {1, H, 1, D});
    k = heads(q.data + H * D, {1, G, M, D});
    v = heads(k.data + G * M * D, {1, G, M, D});
    each_group([&](index_t g) {
        const counter_random random(1, static_cast<std::uint64_t>(g));
        auto unit = [&random, i = std::uint64_t(0)]() mutable {  // variance 1
            return static_cast<float>((random.uniform(i++) - 0.5) * 3.464);
        };
        float drawn[D] = {};
        for (index_t d = D / 2; d < D; ++d) drawn[d] = unit() < 0 ? -1.0f : 1.0f;
        for (index_t h = g * (H / G); h < (g + 1) * (H / G); ++h)
            for (index_t d = 0; d < D; ++d) q(0, h, 0, d) = unit() + drawn[d];
        for (index_t j = 0; j < M; ++j) {
            const float by = pull(j, M);
            for (index_t d = 0; d < D; ++d) {
                k(0, g, j, d) = unit() * (d % 32 == 0 ? 4.0f : 1.0f) + by * drawn[d];
                v(0, g, j, d) = unit() * (j < 4 ? 0.1f : 1.0f);
            }
        }
    });
    exact = exactly(q, k, v);
}

std::shared_ptr<const prompt> prompt_of(index_t M) {
    return at_hand("prompt " + std::to_string(M), [&] { return prompt(M); });
}

std::vector<double> exactly(const view<float>& q, const view<float>& k, const view<float>& v) {
    std::vector<double> out(static_cast<std::size_t>(H * D));
    const auto o = heads(out.data(), {1, H, 1, D});
    each_group([&](index_t g) {
        const range mine{g * (H / G), (g + 1) * (H / G)}, group{g, g + 1};
        ref::attention(slice(q, 1, mine), slice(k, 1, group), slice(v, 1, group), slice(o, 1, mine));
    });
    return out;
}

double answer::error(const std::vector<double>& exact) const {
    double most = 0, largest = 0;
    for (std::size_t i = 0; i < exact.size(); ++i) {
        const double off = std::abs(static_cast<double>(memory_[i]) - exact[i]);
        if (std::isnan(off)) return off;
        most = std::max(most, off);
        largest = std::max(largest, std::abs(exact[i]));
    }
    return most / largest;
}

prepared judged(const prompt& x, const answer& to, job run, const promise& given) {
    run();
    const double error = to.error(given.right.empty() ? x.exact : given.right);
    char wrong[80] = "";
    if (!(error <= given.tolerance)) std::snprintf(wrong, sizeof wrong, "wrong: off by %.1e of the largest", error);
    return {.run = std::move(run),
            .wrong = wrong,
            .flops = 4.0 * static_cast<double>(H * given.keys * D),
            .bytes = static_cast<double>(given.keys) * given.key_bytes,
            .columns = {{"error", to.error(x.exact)}},
            .output = to.bytes()};
}

}  // namespace bench
