// The register-blocked micro-kernel under every product of the library:
//   acc(r, c) += sum_t  a[r * rs + t * ts] * panel[t][c]        r < R scalars, c < C packs, t < depth
// `panel` is packed, at least C packs a row; `a` is read one scalar at a time and broadcast, so it may have any strides and any
// tail, and nothing beyond its R x depth elements is touched.
// Shape: R * C accumulators + C packs + 1 broadcast fill the register file (8 x 3 of 32, 4 x 3 of 16), which needs
// (R + C) / (R * C) loads a multiply-add: 11 / 24, well below the one load a multiply-add that the ports give.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "pack.hpp"

namespace heed::inline HEED_ABI {

/// Most packs of rows a register tile holds.
inline constexpr int tile_packs = 3;

/// Scalars (keys, or value channels) a register tile holds.
template <class A>
inline constexpr int tile_scalars = vector_registers<A> >= 32 ? 8 : 4;

template <int N>
using static_index = std::integral_constant<index_t, N>;

/// One step of depth is one element: T * T + T.
template <class T, class A>
struct multiply_add {
    using scalar = T;
    using element = T;
    using accumulator = pack<T, A>;
    static constexpr int step = 1;  // elements of depth a step consumes
    static constexpr bool tiled = false;
    struct registers {};

    static HEED_INLINE accumulator panel(const scalar* p) { return load_aligned<accumulator>(p); }
    static HEED_INLINE accumulator operand(const scalar* p) { return broadcast<accumulator>(*p); }
    static HEED_INLINE accumulator apply(const accumulator& x, const accumulator& y, const accumulator& sum) {
        return fma(x, y, sum);
    }
    static HEED_INLINE void store_weights(scalar* p, const accumulator (&x)[1]) { store_aligned(p, x[0]); }
    static HEED_INLINE void rescale(scalar* p, const accumulator& by) {
        store_aligned(p, by * load_aligned<accumulator>(p));
    }
    /// The operand in the lanes of `seen`, elsewhere 0.
    static accumulator operand_where(const std::uint32_t (&seen)[1], const scalar* p) {
        return select(mask_of_bits<T, A>(seen[0]), operand(p), accumulator(T(0)));
    }
};

#if defined(HEED_DOT_BF16)
/// One step of depth is a pair of bf16: x0 * y0 + x1 * y1 + float. Denormals count as zero (the instruction's rule).
template <class A>
struct dot_bf16 {
    using scalar = std::uint32_t;  // two bf16, the earlier in the low half
    using element = std::uint16_t;
    using accumulator = pack<float, A>;
    static constexpr int step = 2;
    static constexpr bool tiled = false;
    struct registers {};

    static HEED_INLINE accumulator wrap(__m512 x) { return accumulator(typename accumulator::raw_type(x)); }
    static HEED_INLINE __m512i panel(const scalar* p) { return _mm512_load_si512(p); }
    static HEED_INLINE __m512i operand(const scalar* p) {
        scalar pair;
        std::memcpy(&pair, p, sizeof pair);  // bf16 rows are only 2-byte aligned
        return _mm512_set1_epi32(static_cast<int>(pair));
    }
    static HEED_INLINE accumulator apply(const __m512i& x, const __m512i& y, const accumulator& sum) {
        return wrap(_mm512_dpbf16_ps(sum.raw, reinterpret_cast<const __m512bh&>(x), reinterpret_cast<const __m512bh&>(y)));
    }
    /// Interleaves two packs of floats, rounded to bf16, as one panel row.
    static HEED_INLINE void store_weights(scalar* p, const accumulator (&x)[2]) {
        // cvtne2 leaves 16 highs above 16 lows; the permutation pairs them.
        alignas(64) static constexpr std::uint16_t at[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                             8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
        const __m512bh both = _mm512_cvtne2ps_pbh(x[1].raw, x[0].raw);
        _mm512_store_si512(p, _mm512_permutexvar_epi16(_mm512_load_si512(at), reinterpret_cast<const __m512i&>(both)));
    }
    static HEED_INLINE void rescale(scalar* p, const accumulator& by) {
        const __m512i x = _mm512_load_si512(p);
        const accumulator low = wrap(_mm512_castsi512_ps(_mm512_slli_epi32(x, 16)));
        const accumulator high = wrap(_mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(static_cast<int>(0xffff0000u)))));
        const accumulator scaled[2] = {by * low, by * high};
        store_weights(p, scaled);
    }
    /// Two value rows as one row of pairs; an absent row reads as zeros.
    template <class S>
    static void interleave(const S* low, const S* high, index_t stride, index_t n, scalar* to) {
        const auto bits = [stride](const S* row, index_t e) {
            element x = 0;
            if (row) std::memcpy(&x, row + e * stride, sizeof x);
            return static_cast<scalar>(x);
        };
        index_t e = 0;
        if (low && high && stride == 1)
            for (; e + 16 <= n; e += 16) {
                const auto half = [&](const S* row) {
                    return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + e)));
                };
                _mm512_storeu_si512(to + e, _mm512_or_si512(half(low), _mm512_slli_epi32(half(high), 16)));
            }
        for (; e < n; ++e) to[e] = bits(low, e) | bits(high, e) << 16;
    }
    /// Each half of the pair in the lanes of its `seen`, elsewhere 0.
    static __m512i operand_where(const std::uint32_t (&seen)[2], const scalar* p) {
        const __m512i both = operand(p), low = _mm512_set1_epi32(0xffff);
        return _mm512_or_si512(_mm512_maskz_and_epi32(static_cast<__mmask16>(seen[0]), low, both),
                               _mm512_maskz_andnot_epi32(static_cast<__mmask16>(seen[1]), low, both));
    }
};
#endif

/// The accumulators of a register tile.
template <class P, int R, int C>
struct register_tile {
    P at[R][C];

    HEED_INLINE void clear() {
        unroll<R>([&](auto r) HEED_INLINE_LAMBDA { unroll<C>([&](auto c) HEED_INLINE_LAMBDA { at[r][c] = P(typename P::value_type(0)); }); });
    }
    /// Rows of C packs, `stride` elements apart.
    HEED_INLINE void load_rows(const typename P::value_type* p, index_t stride) {
        unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
            unroll<C>([&](auto c) HEED_INLINE_LAMBDA { at[r][c] = load_aligned<P>(p + r * stride + c * static_cast<index_t>(P::size)); });
        });
    }
    HEED_INLINE void store_rows(typename P::value_type* p, index_t stride) const {
        unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
            unroll<C>([&](auto c) HEED_INLINE_LAMBDA { store_aligned(p + r * stride + c * static_cast<index_t>(P::size), at[r][c]); });
        });
    }
};

/// Cache lines to ask for while a product runs: one a step of depth. Never dereferenced, so it may point anywhere.
struct prefetch {
    const void* first = nullptr;
    index_t bytes = 0;  // between steps
};
/// Asks for nothing: what the product reads is at hand.
struct no_prefetch {};

/// The micro-kernel. `rs` and `ts` are strides in scalars: an index, or static_index<1> where the axis is contiguous.
template <class Op, int R, int C, class RowStride, class DepthStride, class Prefetch = no_prefetch>
HEED_INLINE void multiply(register_tile<typename Op::accumulator, R, C>& acc, const typename Op::scalar* a,
                          RowStride rs, DepthStride ts, const typename Op::scalar* panel, index_t panel_stride,
                          index_t depth, Prefetch ahead = {}) {
    constexpr index_t width = static_cast<index_t>(Op::accumulator::size);
    constexpr bool asks = std::is_same_v<Prefetch, prefetch>;
    std::uintptr_t line = 0;
    if constexpr (asks) line = reinterpret_cast<std::uintptr_t>(ahead.first);
#pragma GCC unroll 2
    for (index_t t = 0; t < depth; ++t) {
        decltype(Op::panel(panel)) x[C];
        unroll<C>([&](auto c) HEED_INLINE_LAMBDA { x[c] = Op::panel(panel + c * width); });
        unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
            const auto y = Op::operand(a + r * rs);
            unroll<C>([&](auto c) HEED_INLINE_LAMBDA { acc.at[r][c] = Op::apply(x[c], y, acc.at[r][c]); });
        });
        a += ts;
        panel += panel_stride;
        if constexpr (asks) {
            __builtin_prefetch(reinterpret_cast<const void*>(line));
            line += static_cast<std::uintptr_t>(ahead.bytes);
        }
    }
}

}  // namespace heed::inline HEED_ABI
