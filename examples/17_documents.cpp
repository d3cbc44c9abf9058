// 17: where in a prompt a reader looks, and which document should stand there [112]. The reader is made by hand and
// favours both ends of its prompt, as language models do. Calibration prompts of random documents tell its profile: the
// mean weight of each place. The most relevant document then goes to the place that is looked at most.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <heed/heed.hpp>
#include <heed/ops/attn_rank.hpp>
#include <heed/ops/segments.hpp>
#include <numeric>
#include <string>
#include <vector>

using namespace heed;

namespace {

constexpr index_t documents = 9, length = 40, question = 8, N = documents * length + question, H = 4, D = 32;

// A score of one's own: 0 in the middle of the prompt, more towards its ends, a little more at the later one.
struct basin {
    float depth;
    auto operator()(auto x, const where& p) const {
        const auto place = p.key(x) * (2.0f / N) - 1.0f;  // -1 to 1
        return x + depth * place * (place + 0.2f);
    }
};

std::vector<float> normal(index_t count, std::uint64_t seed) {
    std::vector<float> x(static_cast<std::size_t>(count));
    const counter_random random(seed);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(random.normal(i));
    return x;
}

// What comes to attention where document order[p] stands at place p.
double met(const std::vector<index_t>& order, const std::vector<double>& profile,
           const std::vector<double>& relevance) {
    double sum = 0;
    for (std::size_t p = 0; p < order.size(); ++p) sum += profile[p] * relevance[static_cast<std::size_t>(order[p])];
    return sum;
}

}  // namespace

int main() {
    std::vector<index_t> cuts;  // document p is the keys [cuts[p], cuts[p + 1]); the question is the last segment
    for (index_t p = 0; p <= documents; ++p) cuts.push_back(p * length);
    cuts.push_back(N);

    mean_mass mean(documents + 1);
    for (std::uint64_t prompt = 0; prompt < 20; ++prompt) {
        auto qs = normal(H * question * D, 3 * prompt), ks = normal(H * N * D, 3 * prompt + 1),
             vs = normal(H * N * D, 3 * prompt + 2);
        std::vector<float> os(qs.size()), masses(H * question * (documents + 1));
        const auto mass = dense(masses.data(), {1, H, question, documents + 1});
        segment_attention(heads(qs.data(), {1, H, question, D}), heads(ks.data(), {1, H, N, D}),
                          heads(vs.data(), {1, H, N, D}), heads(os.data(), {1, H, question, D}), cuts, mass, causal{},
                          basin{1.5f});
        mean.add(mass);
    }
    auto profile = mean.mean();
    const double total = std::accumulate(profile.begin(), profile.end(), 0.0);
    profile.pop_back();  // the question itself is no place for a document

    const std::vector<double> relevance{0.2, 0.9, 0.1, 0.5, 0.8, 0.3, 0.6, 0.4, 0.7};  // as a search engine might say
    const auto order = attn_rank(profile, relevance);
    std::vector<index_t> as_found(documents);
    std::iota(as_found.begin(), as_found.end(), index_t(0));
    auto best_first = as_found;
    std::sort(best_first.begin(), best_first.end(), [&](index_t a, index_t b) {
        return relevance[static_cast<std::size_t>(a)] > relevance[static_cast<std::size_t>(b)];
    });

    std::printf("place  weight                            document  relevance\n");
    for (std::size_t p = 0; p < order.size(); ++p) {
        const auto d = static_cast<std::size_t>(order[p]);
        const std::string bar(static_cast<std::size_t>(150 * profile[p]), '#');
        std::printf("%5zu  %.3f %-27s  %8zu  %.1f\n", p, profile[p], bar.c_str(), d, relevance[d]);
    }
    const double ranked = met(order, profile, relevance), found = met(as_found, profile, relevance),
                 first = met(best_first, profile, relevance);
    std::printf("relevance met: %.3f as ranked, %.3f as found, %.3f best first\n", ranked, found, first);
    const double middle = profile[documents / 2];
    const bool is_a_basin = profile.front() > middle && profile.back() > middle;
    return is_a_basin && std::abs(total - 1) < 1e-6 && ranked > found && ranked > first ? 0 : 1;
}
