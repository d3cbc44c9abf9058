// Matrix products of bf16 by the tile registers of AMX: up to 16 x 16 sums of up to 16 pairs each, an instruction.
//
//   c (m, 16 W) += a (m, depth) * b (depth, 16 W)      a, b in pairs of bf16, c in float; m <= 16, W <= 3
// 16 pairs are summed apart from c, so the grid of those, and nothing else, decides a sum's bits. Denormals count as zero.
// Linux grants the registers to a process that asks.
#pragma once

#include <cstdint>

#include "../core/tile_registers.hpp"
#include "pack.hpp"

#if defined(HEED_AMX)
namespace heed::inline HEED_ABI {

/// The tile registers of this thread, from the first product to the end of the object.
class amx_tiles {
public:
    using pair = std::uint32_t;
    static constexpr index_t depth_at_once = 16;

    amx_tiles() = default;
    amx_tiles(const amx_tiles&) = delete;
    amx_tiles& operator=(const amx_tiles&) = delete;
    ~amx_tiles() {
        if (rows_ > 0) _tile_release();
    }

    /// c += a b, or c = a b if Fresh; strides in elements of each. Bit n of `among`: whether pairs [16 n, 16 n + 16) are added;
    /// Fresh takes all.
    template <int W, bool Fresh>
    HEED_INLINE void multiply(const pair* a, index_t a_stride, index_t m, const pair* b, index_t b_stride, index_t depth,
                              float* c, index_t c_stride, std::uint64_t among = ~std::uint64_t(0)) {
        const index_t whole = depth / depth_at_once, rest = depth % depth_at_once;
        barrier();
        shape(static_cast<int>(m), static_cast<int>(rest));
        const auto a_bytes = static_cast<std::size_t>(a_stride) * sizeof *a;
        const auto b_bytes = static_cast<std::size_t>(b_stride) * sizeof *b;
        const auto c_bytes = static_cast<std::size_t>(c_stride) * sizeof *c;
        if constexpr (Fresh) {
            _tile_zero(0);
            if constexpr (W > 1) _tile_zero(1);
            if constexpr (W > 2) _tile_zero(2);
        } else {
            _tile_loadd(0, c, c_bytes);
            if constexpr (W > 1) _tile_loadd(1, c + 16, c_bytes);
            if constexpr (W > 2) _tile_loadd(2, c + 32, c_bytes);
        }
        for (index_t n = 0; n < whole; ++n) {
            if (!Fresh && !(among >> n & 1)) continue;
            const pair* const from = b + n * depth_at_once * b_stride;
            _tile_loadd(3, a + n * depth_at_once, a_bytes);
            _tile_loadd(4, from, b_bytes);
            _tile_dpbf16ps(0, 3, 4);
            if constexpr (W > 1) {
                _tile_loadd(7, from + 16, b_bytes);
                _tile_dpbf16ps(1, 3, 7);
            }
            if constexpr (W > 2) {
                _tile_loadd(4, from + 32, b_bytes);
                _tile_dpbf16ps(2, 3, 4);
            }
        }
        if (rest > 0 && (Fresh || among >> whole & 1)) {
            const pair* const from = b + whole * depth_at_once * b_stride;
            _tile_loadd(5, a + whole * depth_at_once, a_bytes);
            _tile_loadd(6, from, b_bytes);
            _tile_dpbf16ps(0, 5, 6);
            if constexpr (W > 1) {
                _tile_loadd(6, from + 16, b_bytes);
                _tile_dpbf16ps(1, 5, 6);
            }
            if constexpr (W > 2) {
                _tile_loadd(6, from + 32, b_bytes);
                _tile_dpbf16ps(2, 5, 6);
            }
        }
        _tile_stored(0, c, c_bytes);
        if constexpr (W > 1) _tile_stored(1, c + 16, c_bytes);
        if constexpr (W > 2) _tile_stored(2, c + 32, c_bytes);
        barrier();
    }

private:
    /// gcc's intrinsics do not say that they read and write memory.
    static HEED_INLINE void barrier() { asm volatile("" ::: "memory"); }

    /// Registers 0 to 2: c. 3: a. 4 and 7: b. 5 and 6: a and b where only `rest` pairs are left.
    HEED_INLINE void shape(int m, int rest) {
        if (m == rows_ && rest == rest_) return;
        rows_ = m, rest_ = rest;
        struct alignas(64) {
            std::uint8_t palette = 1, start = 0, unused[14] = {};
            std::uint16_t bytes[16] = {};
            std::uint8_t rows[16] = {};
        } to;
        const auto set = [&](int tile, int rows, int pairs) {
            to.rows[tile] = static_cast<std::uint8_t>(rows);
            to.bytes[tile] = static_cast<std::uint16_t>(4 * pairs);
        };
        for (int c : {0, 1, 2, 3}) set(c, m, 16);
        for (int b : {4, 7}) set(b, 16, 16);
        if (rest > 0) set(5, m, rest), set(6, rest, 16);
        _tile_loadconfig(&to);
    }

    int rows_ = 0, rest_ = 0;
};

}  // namespace heed::inline HEED_ABI
#endif
