// Directions of random features (feature_random.hpp): (heads, D, m), the columns of a head normal, or orthogonal in
// groups of D, which has less variance (Choromanski et al., arXiv:2009.14794).
#pragma once

#include <vector>

#include "../core/random.hpp"
#include "../core/view.hpp"

namespace heed::inline HEED_ABI {

/// heads D m independent normal numbers of the given spread; a function of the seed.
inline std::vector<float> normal_directions(index_t heads, index_t D, index_t m, std::uint64_t seed,
                                            double spread = 1) {
    require_argument(heads >= 0 && D >= 0 && m >= 0, "normal_directions", "extents are ", heads, ", ", D, ", ", m);
    const counter_random random(seed);
    std::vector<float> w(static_cast<std::size_t>(heads * D * m));
    for (std::size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>(spread * random.normal(i));
    return w;
}

/// The same, but groups of D columns are made orthogonal (Gram-Schmidt), each of its own length still.
inline std::vector<float> orthogonal_directions(index_t heads, index_t D, index_t m, std::uint64_t seed,
                                                double spread = 1) {
    std::vector<float> w = normal_directions(heads, D, m, seed, spread);
    if (D == 0) return w;
    const auto all = dense(w.data(), {heads, D, m});
    std::vector<double> group, column(static_cast<std::size_t>(D));  // unit columns so far
    for (index_t h = 0; h < heads; ++h)
        for (index_t i = 0; i < m; ++i) {
            if (i % D == 0) group.clear();
            const auto length = [&] {
                double sum = 0;
                for (double x : column) sum += x * x;
                return std::sqrt(sum);
            };
            for (index_t d = 0; d < D; ++d) column[static_cast<std::size_t>(d)] = all(h, d, i);
            const double drawn = length();
            for (auto other = group.begin(); other != group.end(); other += D) {
                double along = 0;
                for (index_t d = 0; d < D; ++d) along += column[static_cast<std::size_t>(d)] * other[d];
                for (index_t d = 0; d < D; ++d) column[static_cast<std::size_t>(d)] -= along * other[d];
            }
            const double left = length();
            for (double& x : column) x /= left;
            for (index_t d = 0; d < D; ++d)
                all(h, d, i) = static_cast<float>(drawn * column[static_cast<std::size_t>(d)]);
            group.insert(group.end(), column.begin(), column.end());
        }
    return w;
}

}  // namespace heed::inline HEED_ABI
