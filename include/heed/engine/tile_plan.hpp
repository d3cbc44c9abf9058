// Which keys of a tile a row block meets: the mask, asked once a tile, for micro-blocks of keys and packs of rows.
#pragma once

#include "../policy/mask.hpp"
#include "../simd/micro.hpp"

namespace heed::inline HEED_ABI::detail {

/// Tile extents; they depend on type and instruction set only.
template <class A, class T>
struct tiling {
    static constexpr index_t lanes = heed::lanes<T, A>;
    static constexpr int keys = tile_scalars<A>;  // of a micro-block
    static constexpr index_t tile_keys = 128;       // amortises the loads and stores of O; P then still fits L1
    static constexpr index_t micro_blocks = tile_keys / keys;
    static constexpr index_t most_rows = tile_packs * lanes;
};

/// A micro-block of keys that some rows see, and the consecutive packs of rows that do.
struct visible_keys {
    int block = 0;      // which micro-block of the tile
    int count = 0;      // valid keys in it (fewer only at the end of the keys)
    int pack = 0;       // the first pack that sees any of them
    int packs = 0;      // how many packs from there on
    bool full = false;  // all rows of these packs see all K keys
    lane_bits bits[tile_packs];

    /// The rows of pack c that see key k, as bits.
    std::uint32_t seen(int c, int k) const {
        if (c < pack || c >= pack + packs) return 0;
        return full ? 0xffff : bits[c].key[static_cast<std::size_t>(k)];
    }
};

/// The visible micro-blocks of a tile: at most one entry each, in order.
template <class A, class T>
struct tile_plan {
    using shape = tiling<A, T>;
    int count = 0;
    bool partial = false;  // some entry is not full
    visible_keys at[shape::micro_blocks];
};

/// Fills in an entry that some row does not see whole: bits, and the packs between the first and the last that see any.
template <bool Hidden, index_t K, index_t L, class Mask>
void look_closely(const Mask& mask, const rows& r, range keys, visible_keys& entry) {
    int first = entry.packs, last = 0;
    bool full = keys.size() == K;
    for (int c = 0; c < entry.packs; ++c) {
        rows part = r;
        part.first = r.first + c * L;
        part.last = std::min(r.last, part.first + L);
        entry.bits[c] = bits(mask, part, keys.first, entry.count);
        std::uint32_t any = 0, every = (1u << part.size()) - 1;
        for (int k = 0; k < entry.count; ++k) {
            any |= entry.bits[c].key[static_cast<std::size_t>(k)];
            every &= entry.bits[c].key[static_cast<std::size_t>(k)];
        }
        if (!any) continue;
        first = std::min(first, c);
        if (last > 0 && last < c) full = false;
        last = c + 1;
        full &= every == (1u << part.size()) - 1;
    }
    if (Hidden) return;
    entry.full = full;
    entry.pack = first;
    entry.packs = std::max(0, last - first);
}

/// Hidden: list every micro-block with every pack, seen or not.
template <class A, class T, bool Hidden = false, class Mask>
HEED_NOINLINE void plan_tile(const Mask& mask, const rows& r, range tile, tile_plan<A, T>& plan) {
    using shape = tiling<A, T>;
    constexpr index_t K = shape::keys, L = shape::lanes;
    const int packs = static_cast<int>(ceil_div(r.size(), L));
    plan.count = 0;
    plan.partial = false;
    const bool all = full(mask, r, tile);
    const auto visible = [&](index_t j) { return all || Hidden ? j : next(mask, r, j); };
    for (index_t j = visible(tile.first); j < tile.last;) {
        const index_t first = tile.first + (j - tile.first) / K * K;
        const range keys{first, std::min(first + K, tile.last)};
        visible_keys& entry = plan.at[plan.count];
        entry.block = static_cast<int>((first - tile.first) / K);
        entry.count = static_cast<int>(keys.size());
        entry.pack = 0;
        entry.packs = packs;
        entry.full = (all || full(mask, r, keys)) && keys.size() == K;
        if (!entry.full) look_closely<Hidden, K, L>(mask, r, keys, entry);
        if (entry.packs > 0) {
            ++plan.count;
            plan.partial |= !entry.full;
        }
        j = keys.last < tile.last ? visible(keys.last) : tile.last;
    }
}

}  // namespace heed::inline HEED_ABI::detail
