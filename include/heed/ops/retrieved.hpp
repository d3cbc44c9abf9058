// What a decoding step that retrieves keys left out, and what it read.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "../core/config.hpp"

namespace heed::inline HEED_ABI {

struct retrieved {
    std::vector<double> missed;  // estimated share of weight on the keys that were not chosen, of each row, (b, h, n)
    index_t bytes = 0;           // of chosen keys and values, and of what they were chosen by
};

namespace detail {

/// The share of weight on keys outside, from the logs of both masses.
inline double missed_share(double inside, double outside) {
    return outside == -std::numeric_limits<double>::infinity() ? 0 : 1 / (1 + std::exp(inside - outside));
}

}  // namespace detail
}  // namespace heed::inline HEED_ABI
