// Key mass in which some queries count more than others: what a rule of eviction asks a prefill for.
//
//   out(b, h, j) = sum_i weights[i] P_ij
// Weights: forgetting(N, alpha) [20], last_rows(N, w) [65], a mark for each query of the answer [11].
#pragma once

#include "probe.hpp"

namespace heed::inline HEED_ABI {

/// Weight each key receives, (b, h, m), with a factor for each query row (N). Rows of factor 0 are not looked at, so
/// what they hold, NaN too, does not count.
template <class T>
struct weighted_mass : detail::numbers_probe<T, true> {
    static constexpr bool observes_keys = true;
    std::span<const double> weights;
    weighted_mass(view<T, 3> v, std::span<const double> of_rows)
        : detail::numbers_probe<T, true>{v, "weighted_mass"}, weights(of_rows) {}
    void reads(const view_visitor& see) const { see(weights, "weighted_mass (weights)"); }
    void check(const char* op, const extents_of_scores& s) const {
        detail::numbers_probe<T, true>::check(op, s);
        require_shape(static_cast<index_t>(weights.size()) == s.N, op, "weighted_mass holds ", weights.size(),
                      " weights, q has ", s.N, " rows");
    }
    void start_key(index_t b, index_t h, index_t key) const { this->out(b, h, key) = T(0); }
    bool wants(index_t, index_t, range rows) const {
        const auto first = weights.begin() + rows.first;
        return std::any_of(first, first + rows.size(), [](double w) { return w != 0; });
    }
    template <class X>
    void observe(const observed<X>& o) const {
        this->add(o, [&](int r) { return static_cast<X>(weights[static_cast<std::size_t>(o.row + r)]); });
    }
};

/// alpha^(rows - 1 - i): a query counts less the older it is. 0 <= alpha <= 1, 0^0 = 1.
inline std::vector<double> forgetting(index_t rows, double alpha) {
    require_argument(0 <= alpha && alpha <= 1, "forgetting", "alpha is ", alpha, ", not in [0, 1]");
    std::vector<double> weights(static_cast<std::size_t>(rows));
    double weight = 1;
    for (auto at = weights.rbegin(); at != weights.rend(); ++at, weight *= alpha) *at = weight;
    return weights;
}

/// 1 for the last `count` rows, 0 for those before.
inline std::vector<double> last_rows(index_t rows, index_t count) {
    std::vector<double> weights(static_cast<std::size_t>(rows));
    std::fill(weights.end() - std::clamp<index_t>(count, 0, rows), weights.end(), 1.0);
    return weights;
}

}  // namespace heed::inline HEED_ABI
