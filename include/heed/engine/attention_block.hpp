// What meets in a step of attention: a block of query rows and a tile of keys.
#pragma once

#include "../simd/product.hpp"
#include "tile_plan.hpp"

namespace heed::inline HEED_ABI::detail {

/// Up to tile_packs packs of query rows of one head, and what is carried for them along the keys.
template <class T, class Panel>
struct row_block {
    rows at;         // positions of its rows
    int packs = 0;   // of lanes
    Panel* q;        // (D, packs * lanes)
    T* o;            // (E, packs * lanes), unnormalised
    T* m;            // reference of the exponents, base 2
    T* l;            // sum of weights
    std::uint64_t seen = 0;  // bit r: row r has met a visible key
    bool hides = false;      // some row has met a micro-block that it does not see whole

    index_t width(index_t lanes) const { return packs * lanes; }
};

/// Keys that one tiled product meets.
inline constexpr index_t tiled_keys = 32;

/// Where a key tile's K and V stand: K rows of scalars, V rows (or interleaved pair rows) of scalars, or columns of them where
/// products are tiled.
template <class Op>
struct key_tile {
    using scalar = typename Op::scalar;
    range keys;
    const scalar* k = nullptr;
    index_t k_stride = 0;  // in scalars
    const scalar* v = nullptr;
    index_t v_stride = 0;

    /// Channel e of step t of the values.
    const scalar* value(index_t e, index_t t) const { return Op::tiled ? v + e * v_stride + t : v + t * v_stride + e; }
    HEED_INLINE auto channel_stride() const {
        if constexpr (Op::tiled) return v_stride;
        else return static_index<1>{};
    }
    HEED_INLINE auto step_stride() const {
        if constexpr (Op::tiled) return static_index<1>{};
        else return v_stride;
    }
};

/// Calls f(std::integral_constant<int, packs>{}).
template <class F>
HEED_INLINE void with_packs(int packs, F&& f) {
    switch (packs) {
        case 1: return f(std::integral_constant<int, 1>{});
        case 2: return f(std::integral_constant<int, 2>{});
        default: return f(std::integral_constant<int, 3>{});
    }
}

}  // namespace heed::inline HEED_ABI::detail
