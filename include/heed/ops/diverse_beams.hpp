// Diverse beam search, the choice of a step [109]: B beams in groups; what groups choose costs the groups behind them.
//
//   theta(y) = log p(y | beam) - strength * (how often earlier groups chose y at this step)      Hamming diversity
//   each group keeps the B / groups greatest of score(beam) + theta(y), over its own beams and all tokens y
// One group is beam search; strength 0 makes all groups the same. The parents are what a cache's reorder() takes.
// Cost: O(B V). Vijayakumar et al., arXiv:1610.02424; scores as in the authors' code.
#pragma once

#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "../core/half.hpp"
#include "../core/view.hpp"

namespace heed::inline HEED_ABI {

/// A hypothesis: beam `parent` of the step before, and one token more.
struct beam {
    index_t parent = 0, token = -1;
    double score = 0;            // sum of theta: what is chosen by; -inf: not to be continued
    double log_probability = 0;  // sum of log p: what finished beams are ranked by
};

namespace detail {

inline constexpr double dead_beam = -std::numeric_limits<double>::infinity();

inline void check_groups(const char* op, index_t beams, index_t groups) {
    require_argument(groups >= 1 && beams >= 0 && beams % groups == 0, op, beams, " beams do not make ", groups,
                     " groups");
}

/// Keeps the beams of greatest score, best first, ties to the first that came.
inline void consider(std::vector<beam>& best, std::size_t most, const beam& candidate) {
    if (best.size() == most && !(candidate.score > best.back().score)) return;
    if (best.size() == most) best.pop_back();
    auto at = best.end();
    while (at != best.begin() && candidate.score > (at - 1)->score) --at;
    best.insert(at, candidate);
}

}  // namespace detail

/// The beams before the first step: one alive in each group.
inline std::vector<beam> first_beams(index_t beams, index_t groups) {
    detail::check_groups("first_beams", beams, groups);
    std::vector<beam> out(static_cast<std::size_t>(beams));
    for (index_t b = 0; b < beams; ++b)
        if (b % (beams / groups) != 0) out[static_cast<std::size_t>(b)].score = detail::dead_beam;
    return out;
}

/// The next beams, group after group, best first within each. log_p (B, V) of each beam's next token; groups divides B;
/// strength >= 0. A finished beam is taken out by setting its score to -inf before. Ties go to the lower beam, then the
/// lower token. Beams of score -inf are returned only where a group has nothing better.
template <class T>
std::vector<beam> diverse_beam_step(const view<T, 2>& log_p, std::span<const beam> alive, index_t groups,
                                    double strength) {
    static constexpr const char* op = "diverse_beam_step";
    const auto [B, V] = log_p.shape;
    require_shape(static_cast<index_t>(alive.size()) == B, op, "there are ", alive.size(), " beams, log_p has ", B);
    require_shape(V >= 1, op, "the vocabulary has ", V, " tokens");
    detail::check_groups(op, B, groups);
    require_argument(strength >= 0 && std::isfinite(strength), op, "strength is ", strength, ", the least is 0");

    const index_t each = B / groups;
    std::vector<double> penalty(static_cast<std::size_t>(V));
    std::vector<beam> chosen, best;
    for (index_t first = 0; first < B; first += each) {
        best.clear();
        for (index_t b = first; b < first + each; ++b)
            for (index_t y = 0; y < V; ++y) {
                const auto log = static_cast<double>(log_p(b, y));
                const beam& from = alive[static_cast<std::size_t>(b)];
                const beam next{b, y, from.score + log - penalty[static_cast<std::size_t>(y)],
                                from.log_probability + log};
                require_argument(!std::isnan(next.score), op, "beam ", b, " has no number for token ", y);
                detail::consider(best, static_cast<std::size_t>(each), next);
            }
        for (const beam& x : best)
            if (x.score != detail::dead_beam) penalty[static_cast<std::size_t>(x.token)] += strength;
        chosen.insert(chosen.end(), best.begin(), best.end());
    }
    return chosen;
}

/// The parents of beams, for a cache's reorder().
inline std::vector<index_t> parents_of(std::span<const beam> beams) {
    std::vector<index_t> out;
    for (const beam& x : beams) out.push_back(x.parent);
    return out;
}

}  // namespace heed::inline HEED_ABI
