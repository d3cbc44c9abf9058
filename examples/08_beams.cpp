// 08: diverse beam search on a cache of pages: beams share the pages of what they have in common.
//
// Six beams in three groups; a word that an earlier group takes at a step costs the later ones. After each step the cache
// follows the beams: reorder() makes every beam a copy of its parent, page by page, without copying what is full. At the
// end each beam is read again from scratch.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>

#include "toy_model.hpp"

using namespace heed;

namespace {

constexpr index_t words = 60, beams = 6, groups = 3, steps = 100, page = 8;
constexpr index_t G = toy_model::G, D = toy_model::D;

template <class Cache>
void append(const toy_model& model, Cache& cache, index_t sequences, std::span<const index_t> tokens) {
    auto k = model.keys(tokens), v = model.values(tokens);
    const index_t n = std::ssize(tokens) / sequences;
    cache.append(heed::tokens(k.data(), {sequences, n, G, D}), heed::tokens(v.data(), {sequences, n, G, D}));
}

/// Sum of the log probabilities of a text's words but the first, read at once.
double read_again(const toy_model& model, std::span<const index_t> text) {
    contiguous_cache<float> cache(toy_model::shape);
    append(model, cache, 1, text);
    const auto p = model.log_probabilities(cache, text, causal{});
    double sum = 0;
    for (std::size_t i = 0; i + 1 < text.size(); ++i) sum += p[i * words + static_cast<std::size_t>(text[i + 1])];
    return sum;
}

}  // namespace

int main() {
    const toy_model model(words);
    paged_cache<float> cache({beams, G, D, D}, page, 400);
    std::vector<beam> alive = first_beams(beams, groups);
    std::vector<std::vector<index_t>> texts(beams, {0});
    for (index_t step = 0; step < steps; ++step) {
        std::vector<index_t> last;
        for (const auto& text : texts) last.push_back(text.back());
        append(model, cache, beams, last);
        const auto p = model.log_probabilities(cache, last);
        alive = diverse_beam_step(dense(p.data(), {beams, words}), alive, groups, 0.5);
        std::vector<std::vector<index_t>> next;
        for (const beam& x : alive) {
            next.push_back(texts[static_cast<std::size_t>(x.parent)]);
            next.back().push_back(x.token);
        }
        texts = std::move(next);
        cache.reorder(parents_of(alive));
    }

    double worst = 0;
    for (index_t b = 0; b < beams; ++b) {
        const auto at = static_cast<std::size_t>(b);
        const std::set<index_t> used(texts[at].begin(), texts[at].end());
        const double again = read_again(model, texts[at]);
        worst = std::max(worst, std::abs(again - alive[at].log_probability));
        std::printf("group %td: log probability %8.3f, %2zu different words, ends in", b / (beams / groups),
                    alive[at].log_probability, used.size());
        for (std::size_t i = texts[at].size() - 8; i < texts[at].size(); ++i) std::printf(" %td", texts[at][i]);
        std::printf("\n");
    }
    std::printf("%td pages in use, %td without sharing; largest difference to beams read again: %.1e\n",
                400 - cache.free_pages(), beams * ((steps + page - 1) / page), worst);
    return worst < 1e-3 ? 0 : 1;
}
