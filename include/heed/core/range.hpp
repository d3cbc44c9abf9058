// Half-open ranges of positions.
#pragma once

#include <algorithm>

#include "config.hpp"

namespace heed::inline HEED_ABI {

/// The positions first, ..., last - 1. Empty where last <= first.
struct range {
    index_t first = 0;
    index_t last = 0;

    constexpr index_t size() const { return std::max<index_t>(0, last - first); }
    constexpr bool empty() const { return last <= first; }
    constexpr bool contains(index_t i) const { return first <= i && i < last; }
    constexpr bool contains(range r) const { return r.empty() || (first <= r.first && r.last <= last); }
    friend constexpr range operator&(range a, range b) {
        return {std::max(a.first, b.first), std::min(a.last, b.last)};
    }
    friend constexpr bool operator==(range, range) = default;
};

constexpr index_t ceil_div(index_t a, index_t b) { return (a + b - 1) / b; }
constexpr index_t round_up(index_t a, index_t b) { return ceil_div(a, b) * b; }

}  // namespace heed::inline HEED_ABI
