// The product of a call of attention: multiply-adds of numbers, or of pairs of bf16 one by one or by tiles of them.
#pragma once

#include "amx.hpp"
#include "micro.hpp"

namespace heed::inline HEED_ABI {

#if defined(HEED_AMX)
/// The same where the products of a key tile are taken by tile registers (amx.hpp); values then stand channel by channel.
template <class A>
struct tile_bf16 : dot_bf16<A> {
    using typename dot_bf16<A>::scalar;
    static constexpr bool tiled = true;
    using registers = amx_tiles;
    static bool granted() noexcept { return amx_granted(); }

    /// The number in one half of a pair.
    static float half(scalar pair, index_t which) { return std::bit_cast<float>(which ? pair & 0xffff0000u : pair << 16); }

    /// Eight value rows as columns of four pairs: those of channel e at to + e * to_stride. Absent rows (null) read as 0.
    template <class S>
    static void transpose(const S* const (&row)[8], index_t stride, index_t n, scalar* to, index_t to_stride) {
        index_t e = 0;
        if (stride == 1)
            for (; e + 16 <= n; e += 16) {
                const auto pairs = [&](int i) HEED_INLINE_LAMBDA {
                    const auto half = [&](const S* x) HEED_INLINE_LAMBDA {
                        if (!x) return _mm512_setzero_si512();
                        return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + e)));
                    };
                    return _mm512_or_si512(half(row[i]), _mm512_slli_epi32(half(row[i + 1]), 16));
                };
                const __m512i a = pairs(0), b = pairs(2), c = pairs(4), d = pairs(6);
                const __m512i ab = _mm512_unpacklo_epi32(a, b), AB = _mm512_unpackhi_epi32(a, b);
                const __m512i cd = _mm512_unpacklo_epi32(c, d), CD = _mm512_unpackhi_epi32(c, d);
                // Quarter l of column k: channel e + 4 l + k.
                const __m512i column[4] = {_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd),
                                           _mm512_unpacklo_epi64(AB, CD), _mm512_unpackhi_epi64(AB, CD)};
                unroll<16>([&](auto i) HEED_INLINE_LAMBDA {
                    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + (e + i) * to_stride),
                                     _mm512_extracti32x4_epi32(column[i % 4], i / 4));
                });
            }
        const auto bits = [&](int i, index_t at) {
            std::uint16_t x = 0;
            if (row[i]) std::memcpy(&x, row[i] + at * stride, sizeof x);
            return static_cast<scalar>(x);
        };
        for (; e < n; ++e)
            for (int i = 0; i < 4; ++i) to[e * to_stride + i] = bits(2 * i, e) | bits(2 * i + 1, e) << 16;
    }
};
#endif

/// The product of a call: pairs of bf16 where all operands are bf16 and the machine has the instruction.
template <class A, class T, bool AllBf16>
struct product {
    using type = multiply_add<T, A>;
};
#if defined(HEED_DOT_BF16)
template <class A>
    requires has_avx512<A>
struct product<A, float, true> {
#if defined(HEED_AMX)
    using type = tile_bf16<A>;
#else
    using type = dot_bf16<A>;
#endif
};
#endif

}  // namespace heed::inline HEED_ABI
