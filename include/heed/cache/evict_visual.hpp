// Pruning of visual tokens [11]: of the tokens of an image those stay that the answer looks at most.
//
//   m_j = mean over heads and answer queries i of P_ij;  ceil((1 - rho) Nv) visual tokens stay, text always
// The rate rho comes from a schedule over layers and denoising steps. Kept tokens keep their positions. A layer that is
// skipped for the others leaves their rows as they are. Attention then costs O((text + (1 - rho) Nv)^2 D).
#pragma once

#include <cmath>
#include <span>

#include "../core/error.hpp"
#include "evict_select.hpp"

namespace heed::inline HEED_ABI {

/// How many of `total` visual tokens stay at rate rho, 0 <= rho <= 1.
inline index_t visual_budget(index_t total, double rho) {
    require_argument(0 <= rho && rho <= 1, "visual_budget", "rho is ", rho, ", not in [0, 1]");
    return static_cast<index_t>(std::ceil((1 - rho) * static_cast<double>(total)));
}

/// The tokens that stay: all that are not visual, and the `count` visual ones of the highest importance.
template <class Scores>
std::vector<index_t> keep_visual(const Scores& importance, std::span<const bool> visual, index_t count) {
    require_shape(importance.size() == visual.size(), "keep_visual", "there are ", importance.size(),
                  " importances and ", visual.size(), " tokens");
    const auto n = static_cast<index_t>(visual.size());
    const auto text = n - std::count(visual.begin(), visual.end(), true);
    const auto at = [](index_t i) { return static_cast<std::size_t>(i); };
    return detail::best_of(n, text + count, [&](index_t i, index_t j) {
        if (visual[at(i)] != visual[at(j)]) return visual[at(j)];
        return visual[at(i)] && detail::larger(importance[at(i)], importance[at(j)]);
    });
}

/// Schedules: the rate at a layer of a denoising step.
/// All at once, at one layer.
struct one_shot {
    index_t layer = 0;
    double rho = 0;
    double operator()(index_t l, index_t /*step*/) const { return l >= layer ? rho : 0; }
};

/// A rate per layer, which does not decrease; the last one holds for the layers behind it.
struct progressive {
    std::span<const double> rho;
    explicit progressive(std::span<const double> rates) : rho(rates) {
        require_argument(std::is_sorted(rho.begin(), rho.end()), "progressive", "a rate decreases");
    }
    double operator()(index_t l, index_t /*step*/) const {
        if (rho.empty()) return 0;
        return rho[std::min(static_cast<std::size_t>(l), rho.size() - 1)];
    }
};

/// Nothing before a denoising step, all layers from then on.
struct late_step {
    index_t first = 0;
    double rho = 0;
    double operator()(index_t /*l*/, index_t step) const { return step >= first ? rho : 0; }
};

}  // namespace heed::inline HEED_ABI
