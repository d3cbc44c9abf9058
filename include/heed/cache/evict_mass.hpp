// Eviction by the attention a key has received: A2SF [20], H2O (arXiv:2306.14048).
//
//   A_j <- alpha A_j + P_ij   after each query i, for the keys held; a new key starts at 0, then gets its own P
// alpha = 1 adds up, alpha = 0 keeps what the last query liked. One statistic per head of keys: the mass P is summed
// over the query heads of a group, unless group_mass is told otherwise. Nothing evicted, A_j = sum_i alpha^(N-1-i)
// P_ij, which one prefill pass takes (see forgetting in policy/probe_decay.hpp). Ties: the older key goes.
#pragma once

#include <cmath>
#include <span>

#include "../core/half.hpp"
#include "../core/view.hpp"
#include "../policy/mask.hpp"
#include "../policy/probe_decay.hpp"
#include "evict_select.hpp"

namespace heed::inline HEED_ABI {

/// How the masses of the query heads of a group become one. Sum and mean rank keys alike.
enum class over_heads { sum, maximum, mean };

/// mass (B, H, M) over the query heads of each group, to out (B, G, M).
template <class T, class O>
void group_mass(const view<T, 3>& mass, const view<O, 3>& out, over_heads how = over_heads::sum) {
    const auto [B, G, M] = out.shape;
    const index_t H = mass.shape[1], group = G > 0 ? H / G : 0;
    require_shape(mass.shape[0] == B && mass.shape[2] == M && group * G == H, "group_mass", "mass is (", mass.shape[0],
                  ", ", H, ", ", mass.shape[2], "), out is (", B, ", ", G, ", ", M, ")");
    for (index_t b = 0; b < B; ++b)
        for (index_t g = 0; g < G; ++g)
            for (index_t j = 0; j < M; ++j) {
                accumulator<T, O> sum = 0, most = group > 0 ? mass(b, g * group, j) : T(0);
                for (index_t h = g * group; h < (g + 1) * group; ++h) {
                    const accumulator<T, O> x = mass(b, h, j);
                    sum += x;
                    if (x > most || x != x) most = x;  // a NaN stays
                }
                if (how == over_heads::mean) sum /= static_cast<accumulator<T, O>>(group);
                out(b, g, j) = static_cast<O>(how == over_heads::maximum ? most : sum);
            }
}

/// What one head of keys has received, and the rule that lets go of the least.
template <class T = float>
class forgetting_mass {
public:
    /// Holds at most `budget` keys, the last `recent` ones always; 0 <= alpha <= 1.
    explicit forgetting_mass(index_t budget, double alpha = 1, index_t recent = 0)
        : budget_(budget), recent_(recent), alpha_(alpha) {
        require_argument(budget >= 0, "forgetting_mass", "budget is ", budget);
        require_argument(0 <= alpha && alpha <= 1, "forgetting_mass", "alpha is ", alpha, ", not in [0, 1]");
        require_argument(0 <= recent && recent <= budget, "forgetting_mass", "recent is ", recent, ", budget is ",
                         budget);
    }

    /// What each of n queries counts in the mass of a step.
    std::vector<double> row_weights(index_t n) const { return forgetting(n, alpha_); }

    /// After n queries: mass is what they gave, weighted by row_weights(n), to every key held before, then to the new
    /// ones. Returns the keys that stay.
    std::vector<index_t> step(std::span<const T> mass, index_t n = 1) {
        require_shape(mass.size() >= values_.size(), "forgetting_mass", "mass has ", mass.size(), " keys, ",
                      values_.size(), " are held");
        values_.resize(mass.size());
        const T decay = static_cast<T>(std::pow(alpha_, static_cast<double>(n)));
        for (std::size_t j = 0; j < mass.size(); ++j) values_[j] = decay * values_[j] + mass[j];
        auto kept = keep_highest(values_, budget_, recent_, ties::higher);
        keep_entries(values_, kept);
        return kept;
    }
    /// Forgets all but the first n keys.
    void cut(index_t n) { values_.resize(std::min(values_.size(), static_cast<std::size_t>(n))); }
    /// A of the keys held.
    std::span<const T> values() const { return values_; }

private:
    index_t budget_, recent_;
    double alpha_;
    std::vector<T> values_;
};

/// H2O: the mass adds up, half of the budget is for the most recent keys.
template <class T = float>
forgetting_mass<T> heavy_hitters(index_t budget) {
    return forgetting_mass<T>(budget, 1, budget / 2);
}

/// The authors' simulation of [20] on the weights (N, N) of causal attention without eviction: from query `budget` on,
/// one key goes after each query, and a row is renormalised over the keys still there. last[j] becomes the last query
/// that sees key j (no_key where it stays), as `lifetime` reads it. This is what a cache does that evicts as it
/// decodes; selecting once after a prefill keeps other keys.
template <class T>
void simulate_forgetting(const view<T, 2>& weights, index_t budget, double alpha, std::span<index_t> last) {
    static constexpr const char* op = "simulate_forgetting";
    const index_t N = weights.shape[0];
    require_shape(weights.shape[1] == N, op, "weights are (", N, ", ", weights.shape[1], ")");
    require_shape(static_cast<index_t>(last.size()) == N, op, "last holds ", last.size(), ", weights have ", N,
                  " keys");
    forgetting_mass<accumulator<T>> rule(budget, alpha);
    std::fill(last.begin(), last.end(), no_key);
    std::vector<index_t> held;
    std::vector<accumulator<T>> row;
    for (index_t i = 0; i < N; ++i) {
        held.push_back(i);
        row.clear();
        accumulator<T> sum = 0;
        for (index_t j : held) sum += row.emplace_back(weights(i, j));
        if (static_cast<index_t>(held.size()) <= i && sum > 0)
            for (auto& p : row) p /= sum;
        for (index_t j : held) last[static_cast<std::size_t>(j)] = i;
        keep_entries(held, rule.step(row));
        for (index_t j : held) last[static_cast<std::size_t>(j)] = no_key;
    }
}

}  // namespace heed::inline HEED_ABI
