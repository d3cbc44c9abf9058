// Eviction by the norm of keys [41]: those of LOW norm stay, for they draw much attention. No attention is looked at.
//
//   score_j = ||k_j||_2 in float; of n keys the ceil(share n) lowest stay, each head by itself
// Turning keys (RoPE) does not change norms, so it does not matter when they are taken. Cost: one pass over the keys.
#pragma once

#include <cmath>
#include <span>

#include "../policy/source.hpp"
#include "evict_select.hpp"

namespace heed::inline HEED_ABI {

/// ||k_j||_2 of all keys of one head, (keys).
template <class A = default_arch, key_value_source S>
std::vector<float> key_norms(const S& source, index_t b, index_t g) {
    std::vector<float> norms(static_cast<std::size_t>(source.keys(b, g)));
    std::vector<float> row(static_cast<std::size_t>(source.key_width()));
    for (index_t j = 0; j < source.keys(b, g);) {
        const auto run = source.run(b, g, j);
        for (; j < run.keys.last; ++j) {
            widen_row<A>(run.k, j - run.keys.first, source.key_width(), row.data());
            float sum = 0;
            for (float x : row) sum += x * x;
            norms[static_cast<std::size_t>(j)] = std::sqrt(sum);
        }
    }
    return norms;
}

struct low_norm {
    double share = 1;                           // of the keys that stay, 0 < share <= 1
    index_t prune_after = 2048;                 // fewer keys than that all stay
    index_t recent = 0;                         // the last ones stay, within the share
    std::span<const index_t> skip_layers = {};  // where all stay; the paper spares the first two

    /// The keys of a head that stay, of these norms.
    template <class Norms>
    std::vector<index_t> kept(const Norms& norms, index_t layer = 0) const {
        check();
        const auto n = static_cast<index_t>(norms.size());
        return keep_lowest(norms, stays(n, layer), recent);
    }
    /// The same of head (b, g) of a source, whose keys are read where some will go. `evicting` asks after every step,
    /// so that it prunes each time a head has grown to prune_after.
    template <key_value_source S>
    std::vector<index_t> kept(const S& source, index_t b, index_t g, index_t layer = 0) const {
        const index_t n = source.keys(b, g);
        if (stays(n, layer) < n) return kept(key_norms(source, b, g), layer);
        return kept(std::vector<float>(static_cast<std::size_t>(n)), layer);
    }
    void check() const {
        require_argument(0 < share && share <= 1, "low_norm", "share is ", share, ", not in (0, 1]");
        require_argument(recent >= 0, "low_norm", "recent is ", recent);
    }

private:
    /// How many of n keys stay.
    index_t stays(index_t n, index_t layer) const {
        const bool all =
            n < prune_after || std::find(skip_layers.begin(), skip_layers.end(), layer) != skip_layers.end();
        return all ? n : static_cast<index_t>(std::ceil(share * static_cast<double>(n)));
    }
};

}  // namespace heed::inline HEED_ABI
