// Compression of a prompt by what its last queries look at [65]: SnapKV (arXiv:2404.14469), Ada-SnapKV
// (arXiv:2407.11550).
//
//   score_j = pool over |d| <= kernel / 2 of (sum over the last `window` queries i of P_i,j+d),  j < M - window
// The mass of these queries comes from weighted_mass with last_rows(N, window), summed over the heads of a group.
// SnapKV keeps the (budget - window) highest of each head and the window itself; Ada-SnapKV gives each head only a
// share of that, and lets one ranking over all heads of the layer decide the rest.
#pragma once

#include <limits>
#include <span>

#include "../core/view.hpp"
#include "evict_select.hpp"

namespace heed::inline HEED_ABI {

enum class pooling { average, maximum };

struct snap_kv {
    index_t budget = 0;   // keys kept per head, the window among them
    index_t window = 32;  // queries that vote, whose keys stay
    index_t kernel = 7;   // odd; 1 does not pool
    pooling pool = pooling::maximum;

    /// The keys of one head that stay; mass (M).
    template <class Mass>
    std::vector<index_t> kept(const Mass& mass) const {
        check();
        return keep_highest(pooled(mass), budget, window);
    }

    /// The keys that stay of each of G heads, budget G in all; mass (G, M). Each head has floor(share (budget -
    /// window)) of its own, 0 <= share <= 1 (1 is SnapKV).
    template <class T>
    std::vector<std::vector<index_t>> kept(const view<T, 2>& mass, double share) const {
        check();
        require_argument(0 <= share && share <= 1, op, "share is ", share, ", not in [0, 1]");
        const auto [G, M] = mass.shape;
        const auto own = static_cast<index_t>(share * static_cast<double>(budget - window));
        std::vector<double> score;  // (G, M)
        std::vector<bool> sure(static_cast<std::size_t>(G * M));
        for (index_t g = 0; g < G; ++g) {
            std::vector<double> row(static_cast<std::size_t>(M));
            for (index_t j = 0; j < M; ++j) row[static_cast<std::size_t>(j)] = static_cast<double>(mass(g, j));
            row = pooled(row);
            for (index_t j : keep_highest(row, own + window, window)) sure[static_cast<std::size_t>(g * M + j)] = true;
            score.insert(score.end(), row.begin(), row.end());
        }
        std::vector<std::vector<index_t>> kept(static_cast<std::size_t>(G));
        for (index_t x : detail::best_of(G * M, G * budget, [&](index_t i, index_t j) {
                 const auto a = static_cast<std::size_t>(i), b = static_cast<std::size_t>(j);
                 return sure[a] != sure[b] ? sure[a] : detail::larger(score[a], score[b]);
             }))
            kept[static_cast<std::size_t>(x / M)].push_back(x % M);
        return kept;
    }

    /// score, (M); the window takes no part: its entries are 0, and no pool reaches into it.
    template <class Mass>
    std::vector<double> pooled(const Mass& mass) const {
        const auto n = static_cast<index_t>(mass.size()), voted = std::max<index_t>(0, n - window), reach = kernel / 2;
        std::vector<double> out(mass.size());
        for (index_t j = 0; j < voted; ++j) {
            double sum = 0, top = -std::numeric_limits<double>::infinity();
            for (index_t x = std::max<index_t>(0, j - reach); x < std::min(voted, j + reach + 1); ++x) {
                sum += static_cast<double>(mass[static_cast<std::size_t>(x)]);
                top = std::max(top, static_cast<double>(mass[static_cast<std::size_t>(x)]));
            }
            out[static_cast<std::size_t>(j)] = pool == pooling::maximum ? top : sum / static_cast<double>(kernel);
        }
        return out;
    }

private:
    static constexpr const char* op = "snap_kv";
    void check() const {
        require_argument(window >= 0, op, "window is ", window);
        require_argument(budget >= window, op, "budget is ", budget, ", the window alone is ", window);
        require_argument(kernel >= 1 && kernel % 2 == 1, op, "kernel is ", kernel, ", not odd and positive");
    }
};

}  // namespace heed::inline HEED_ABI
