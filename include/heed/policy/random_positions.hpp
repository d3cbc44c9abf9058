// Randomised positions [103]: n tokens take n positions drawn from a much longer axis, in order, so that a model meets
// distances beyond its training lengths.
//
//   positions{view<const index_t, 2>{drawn.data(), {B, n}, {0, 1}}}     queries and keys take the same draw
// Relative encodings take a distance |i - j| to distances[|i - j|] instead, one draw for all pairs. Old tokens must not
// move while decoding: draw once, for the greatest length. Cost: O(length).
#pragma once

#include <cstdint>
#include <vector>

#include "../core/error.hpp"
#include "../core/random.hpp"
#include "../core/range.hpp"

namespace heed::inline HEED_ABI {
namespace detail {

/// n distinct numbers of the range, ascending; every such set is equally likely (Knuth's algorithm S).
inline std::vector<index_t> ascending_sample(index_t n, range from, std::uint64_t seed) {
    const counter_random random(seed);
    std::vector<index_t> drawn;
    drawn.reserve(static_cast<std::size_t>(n));
    for (index_t x = from.first; x < from.last && n > 0; ++x)
        if (random.integer(static_cast<std::uint64_t>(x), 0, from.last - x) < n) {
            drawn.push_back(x);
            --n;
        }
    return drawn;
}

}  // namespace detail

/// n positions of [0, length), ascending, each once; n <= length. A function of the arguments alone.
inline std::vector<index_t> random_positions(index_t n, index_t length, std::uint64_t seed) {
    require_argument(0 <= n && n <= length, "random_positions", "cannot draw ", n, " positions of ", length);
    return detail::ascending_sample(n, {0, length}, seed);
}

/// What the distances 0, ..., n - 1 become: 0, then n - 1 distances of [1, length), ascending; 1 <= n <= length.
inline std::vector<index_t> random_distances(index_t n, index_t length, std::uint64_t seed) {
    require_argument(1 <= n && n <= length, "random_distances", "cannot draw ", n, " distances below ", length);
    auto drawn = detail::ascending_sample(n - 1, {1, length}, seed);
    drawn.insert(drawn.begin(), 0);
    return drawn;
}

}  // namespace heed::inline HEED_ABI
