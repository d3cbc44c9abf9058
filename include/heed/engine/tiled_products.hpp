// The two products of a key tile by tile registers (simd/amx.hpp), for bf16: chunks of 32 keys, on a grid from the first key of
// the tile, so that a row's bits do not depend on what others see.
#pragma once

#include "attention_block.hpp"

#if defined(HEED_AMX)
namespace heed::inline HEED_ABI::detail {

/// Bit n: whether some row sees a key of [32 n, 32 n + 32).
template <class A, class T>
std::uint64_t visible_chunks(const tile_plan<A, T>& plan) {
    std::uint64_t among = 0;
    for (int x = 0; x < plan.count; ++x) among |= std::uint64_t(1) << plan.at[x].block * tiling<A, T>::keys / tiled_keys;
    return among;
}

/// products (keys, rows) = K Q^T for the chunks of 32 keys in `among`; beyond the keys, for whole micro-blocks.
template <class T, class Panel, class Op>
HEED_NOINLINE void multiply_queries(amx_tiles& registers, const row_block<T, Panel>& block, const key_tile<Op>& tile,
                                    std::uint64_t among, index_t depth, T* products) {
    const index_t width = block.packs * 16, keys = round_up(tile.keys.size(), 8);
    with_packs(block.packs, [&](auto packs) HEED_INLINE_LAMBDA {
        for (index_t j = 0; j < keys; j += 16)
            if (among >> j / tiled_keys & 1)
                registers.multiply<packs, true>(tile.k + j * tile.k_stride, tile.k_stride, std::min<index_t>(16, keys - j),
                                                block.q, width, depth, products + j * width, width);
    });
}

/// Adds the values of a tile that are not finite to the rows that see them, and puts 0 in their place: 0 * NaN is NaN.
template <class A, class T, class Op>
HEED_NOINLINE void add_values_not_finite(row_block<T, typename Op::scalar>& block, const key_tile<Op>& tile,
                                         const tile_plan<A, T>& plan, index_t E, const typename Op::scalar* p) {
    using shape = tiling<A, T>;
    constexpr index_t L = shape::lanes;
    const index_t width = block.width(L);
    for (index_t j = 0; j < round_up(tile.keys.size(), 2); ++j)
        for (index_t e = 0; e < E; ++e) {
            // Tiled values are in scratch of the call, never in the source.
            auto* const pair = const_cast<typename Op::scalar*>(tile.value(e, j / 2));
            const float value = Op::half(*pair, j % 2);
            if (value * 0 == 0) continue;
            *pair &= j % 2 ? 0x0000ffffu : 0xffff0000u;
            for (int x = 0; x < plan.count; ++x) {
                const visible_keys& at = plan.at[x];
                const index_t k = j - at.block * shape::keys;
                if (k < 0 || k >= at.count) continue;
                for (index_t l = 0; l < width; ++l)
                    if (at.seen(static_cast<int>(l / L), static_cast<int>(k)) >> l % L & 1)
                        block.o[e * width + l] += Op::half(p[j / 2 * width + l], j % 2) * value;
            }
        }
}

/// O += V^T P over the chunks that some row sees; what is hidden in them weighs 0. `guarded`: some values are not finite.
template <class A, class T, class Op>
HEED_NOINLINE void add_values_tiled(amx_tiles& registers, row_block<T, typename Op::scalar>& block, const key_tile<Op>& tile,
                                    const tile_plan<A, T>& plan, std::uint64_t among, index_t E, typename Op::scalar* p,
                                    bool guarded) {
    using shape = tiling<A, T>;
    using scalar = typename Op::scalar;
    constexpr index_t L = shape::lanes, steps = shape::keys / Op::step, chunk = tiled_keys / Op::step;
    const index_t width = block.width(L), depth = ceil_div(tile.keys.size(), Op::step);
    const auto clear = [&](index_t row, index_t first, index_t last) {
        for (scalar* at = p + row * width; at != p + (row + steps) * width; at += width)
            std::fill(at + first * L, at + last * L, scalar(0));
    };
    const visible_keys* next = plan.at;
    for (index_t row = 0; row < depth; row += steps) {
        if (next != plan.at + plan.count && next->block * steps == row) {
            clear(row, 0, next->pack);
            clear(row, next->pack + next->packs, block.packs);
            ++next;
        } else if (among >> row / chunk & 1) {
            clear(row, 0, block.packs);
        }
    }
    if (guarded) add_values_not_finite(block, tile, plan, E, p);
    with_packs(block.packs, [&](auto packs) HEED_INLINE_LAMBDA {
        for (index_t e = 0; e < E; e += 16)
            registers.multiply<packs, false>(tile.v + e * tile.v_stride, tile.v_stride, std::min<index_t>(16, E - e), p, width,
                                             depth, block.o + e * width, width, among);
    });
}

}  // namespace heed::inline HEED_ABI::detail
#endif
