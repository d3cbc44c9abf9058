// 18: eight denoising steps over the tokens of an image, a prompt and an answer [11]: whole, and with the visual tokens
// pruned that the answer looks at least. Three schedules: at one layer, more with every layer, and in late steps only.
// The model is made by hand: visual tokens belong to objects, the prompt asks for one of them, and the answer begins as
// noise with a little of it. In early steps the answer looks at all objects, and pruning changes what becomes of it;
// later pruning costs next to nothing.
#include <cmath>
#include <cstdio>
#include <functional>
#include <heed/heed.hpp>
#include <memory>
#include <vector>

using namespace heed;

namespace {

constexpr index_t layers = 4, steps = 8, objects = 6, Nv = 240, prompt = 8, answer = 16, N = Nv + prompt + answer;
constexpr index_t H = 2, D = 32, C = H * D;

using schedule = std::function<double(index_t layer, index_t step)>;

struct run {
    std::vector<float> x = std::vector<float>(N * C);  // (N, C), tokens of H heads
    double flops = 0;

    explicit run(const schedule& rho) {
        const counter_random random(1);
        std::uint64_t draws = 0;
        std::vector<float> things(objects * C);
        for (float& t : things) t = static_cast<float>(random.normal(draws++));
        for (index_t n = 0; n < N; ++n) {
            const index_t of = n < Nv ? n * objects / Nv : 2;  // the prompt asks for object 2
            const float thing = n < Nv + prompt ? 1.0f : 0.3f, noise = n < Nv + prompt ? 0.5f : 0.4f;
            for (index_t c = 0; c < C; ++c)
                x[n * C + c] = thing * things[of * C + c] + noise * static_cast<float>(random.normal(draws++));
        }
        for (index_t step = 0; step < steps; ++step) denoise(rho, step);
    }

    // Every layer over the tokens that are left; those that are gone keep their rows, and come back in the next step.
    void denoise(const schedule& rho, index_t step) {
        std::vector<index_t> alive(N);
        for (index_t n = 0; n < N; ++n) alive[n] = n;
        const std::vector<float> before = x;
        std::vector<double> importance;
        for (index_t layer = 0; layer < layers; ++layer) {
            if (layer > 0) prune(alive, importance, visual_budget(Nv, rho(layer, step)));
            importance = attend(alive);
        }
        for (index_t i = 0; i < Nv + prompt; ++i)  // the image and the prompt are given
            for (index_t c = 0; c < C; ++c) x[i * C + c] = before[i * C + c];
    }

    static void prune(std::vector<index_t>& alive, const std::vector<double>& importance, index_t budget) {
        const auto visual = std::make_unique<bool[]>(alive.size());
        for (std::size_t i = 0; i < alive.size(); ++i) visual[i] = alive[i] < Nv;
        keep_entries(alive, keep_visual(importance, {visual.get(), alive.size()}, budget));
    }

    // x += (attention(x, x, x) - x) / 4, not causal, for the tokens alive at the positions they have always had;
    // returns what the answer's rows gave to each, the mean over heads and rows.
    std::vector<double> attend(const std::vector<index_t>& alive) {
        const auto n = static_cast<index_t>(alive.size());
        std::vector<float> qs(n * C), vs(n * C), os(n * C), masses(H * n);
        std::vector<double> votes(n), importance(n);
        for (index_t i = 0; i < n; ++i) {
            for (index_t c = 0; c < C; ++c) vs[i * C + c] = x[alive[i] * C + c];
            votes[i] = alive[i] >= Nv + prompt ? 1.0 / double(H * answer) : 0;
        }
        const auto q = tokens(qs.data(), {1, n, H, D}), v = tokens(vs.data(), {1, n, H, D}),
                   o = tokens(os.data(), {1, n, H, D});
        rotary(v, q, rotated{8}, positions{dense(alive.data(), {1, n})});
        attention(q, q, v, o, scale{0.5}, weighted_mass{dense(masses.data(), {1, H, n}), votes});
        flops += 4.0 * double(H * n * n * D);
        for (index_t i = 0; i < n; ++i) {
            for (index_t c = 0; c < C; ++c) x[alive[i] * C + c] += (os[i * C + c] - vs[i * C + c]) / 4;
            for (index_t h = 0; h < H; ++h) importance[i] += masses[h * n + i];
        }
        return importance;
    }
};

// How far the answers are apart, over the length of the first.
double error(const run& whole, const run& pruned) {
    double off = 0, size = 0;
    for (std::size_t i = (Nv + prompt) * C; i < whole.x.size(); ++i) {
        off += std::pow(whole.x[i] - pruned.x[i], 2);
        size += std::pow(whole.x[i], 2);
    }
    return std::sqrt(off / size);
}

}  // namespace

int main() {
    const double rates[] = {0, 0.5, 0.7, 0.85};
    const run whole([](index_t, index_t) { return 0.0; });
    bool right = true;
    const auto report = [&](const char* name, const schedule& rho, double most) {
        const run pruned(rho);
        const double off = error(whole, pruned), saved = 1 - pruned.flops / whole.flops;
        std::printf("%-42s %5.1f %% of the flops saved, the answer is off by %.4f\n", name, 100 * saved, off);
        right = right && off <= most && saved >= 0;
    };
    report("nothing pruned", one_shot{1, 0}, 0);
    report("from the second layer on, 3 of 4", one_shot{1, 0.75}, 1);
    report("more with every layer: 0, 1/2, 0.7, 0.85", progressive{rates}, 1);
    report("from the fifth step on, 3 of 4", late_step{4, 0.75}, 0.01);
    return right ? 0 : 1;
}
