// Storage to arithmetic and back: bf16, f16, float, double rows to packs of the accumulation type; signed bytes too.
//
// Widening is exact; narrowing rounds to nearest even and keeps NaN and inf.
#pragma once

#include <bit>

#include "../core/half.hpp"
#include "../core/range.hpp"
#include "pack.hpp"

namespace heed::inline HEED_ABI {

/// The first n elements of p and zeros; what lies beyond them is not read.
template <std::size_t N, class S>
HEED_INLINE void copy_first(S (&to)[N], const S* p, index_t n) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    constexpr std::size_t bytes = N * sizeof(S);
    const auto those = [](std::size_t count) { return count == 64 ? ~std::uint64_t(0) : (std::uint64_t(1) << count) - 1; };
    const std::uint64_t mine = those(static_cast<std::size_t>(n) * sizeof(S));
    const auto* const from = static_cast<const void*>(p);
    if constexpr (bytes == 64) return _mm512_storeu_si512(to, _mm512_maskz_loadu_epi8(mine, from));
    else if constexpr (bytes == 32)
        return _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                                   _mm256_maskz_loadu_epi8(static_cast<__mmask32>(mine), from));
    else if constexpr (bytes == 16)
        return _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm_maskz_loadu_epi8(static_cast<__mmask16>(mine), from));
#endif
    for (std::size_t i = 0; i < N; ++i) to[i] = static_cast<index_t>(i) < n ? p[i] : S(0);
}

/// L contiguous elements of storage type S, as a pack of T.
template <class P, class S>
HEED_INLINE P widen(const S* p) {
    using T = typename P::value_type;
    if constexpr (std::is_same_v<S, T>) {
        return load<P>(p);
    } else {
#if defined(__AVX512F__)
        if constexpr (has_avx512<typename P::arch_type> && std::is_same_v<T, float>) {
            if constexpr (std::is_same_v<S, bf16>) {
                const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
                return P(typename P::raw_type(_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16))));
            } else if constexpr (std::is_same_v<S, f16>) {
                return P(typename P::raw_type(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))));
            } else if constexpr (std::is_same_v<S, std::int8_t>) {
                const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
                return P(typename P::raw_type(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(x))));
            }
        }
#elif defined(__AVX2__) && defined(__F16C__)
        if constexpr (P::size == 8 && std::is_same_v<T, float>) {
            if constexpr (std::is_same_v<S, bf16>) {
                const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
                return P(typename P::raw_type(_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16))));
            } else if constexpr (std::is_same_v<S, f16>) {
                return P(typename P::raw_type(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))));
            } else if constexpr (std::is_same_v<S, std::int8_t>) {
                const __m128i x = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
                return P(typename P::raw_type(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(x))));
            }
        }
#endif
        alignas(64) T at[P::size];
        for (std::size_t l = 0; l < P::size; ++l) at[l] = static_cast<T>(p[l]);
        return load_aligned<P>(at);
    }
}

/// 2 L contiguous bf16: those with even indices, and those with odd ones.
template <class A>
HEED_INLINE void widen_pairs(const bf16* p, pack<float, A>& even, pack<float, A>& odd) {
    static_assert(std::endian::native == std::endian::little);
    const auto both = detail::to_bits(load<pack<float, A>>(reinterpret_cast<const float*>(p)));
    using bits = std::remove_const_t<decltype(both)>;
    even = detail::from_bits<pack<float, A>>(both << 16);
    odd = detail::from_bits<pack<float, A>>(both & bits(0xffff0000u));
}

/// Stores a pack of T as L contiguous elements of storage type S.
template <class P, class S>
HEED_INLINE void narrow(S* p, const P& x) {
    using T = typename P::value_type;
    if constexpr (std::is_same_v<S, T>) {
        store(p, x);
    } else {
#if defined(__AVX512F__)
        if constexpr (has_avx512<typename P::arch_type> && std::is_same_v<T, float>) {
            if constexpr (std::is_same_v<S, bf16>) {
                // Round to nearest even on the bits; a NaN keeps its upper half and is made quiet.
                const __m512i u = _mm512_castps_si512(x.raw);
                const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
                const __m512i rounded = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
                const __mmask16 nan = _mm512_cmp_ps_mask(x.raw, x.raw, _CMP_UNORD_Q);
                const __m512i y =
                    _mm512_mask_or_epi32(rounded, nan, u, _mm512_set1_epi32(0x00400000));
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(y, 16)));
                return;
            } else if constexpr (std::is_same_v<S, f16>) {
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                                    _mm512_cvtps_ph(x.raw, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
                return;
            }
        }
#endif
        alignas(64) T at[P::size];
        store_aligned(at, x);
        for (std::size_t l = 0; l < P::size; ++l) p[l] = static_cast<S>(at[l]);
    }
}

/// n elements of storage type S, `stride` apart, to contiguous T.
template <class A, class S, class T>
void widen_row(const S* from, index_t stride, index_t n, T* to) {
    using P = pack<T, A>;
    constexpr auto width = static_cast<index_t>(P::size);
    index_t i = 0;
    if (stride == 1)
        for (; i + width <= n; i += width) store(to + i, widen<P>(from + i));
    for (; i < n; ++i) to[i] = static_cast<T>(from[i * stride]);
}

/// n contiguous T to elements of storage type S, `stride` apart.
template <class A, class S, class T>
void narrow_row(const T* from, index_t n, S* to, index_t stride) {
    using P = pack<T, A>;
    constexpr auto width = static_cast<index_t>(P::size);
    index_t i = 0;
    if (stride == 1)
        for (; i + width <= n; i += width) narrow(to + i, load<P>(from + i));
    for (; i < n; ++i) to[i * stride] = static_cast<S>(from[i]);
}

/// n elements of storage type S, `stride` apart, to contiguous elements of storage type R. Between equal types the bits
/// are copied.
template <class A, class S, class R>
void convert_row(const S* from, index_t stride, index_t n, R* to) {
    if constexpr (std::is_same_v<S, R>) {
        if (stride == 1) std::copy_n(from, n, to);
        else
            for (index_t i = 0; i < n; ++i) to[i] = from[i * stride];
    } else {
        constexpr index_t at_once = 64;
        accumulator<S, R> numbers[at_once];
        for (index_t i = 0; i < n; i += at_once) {
            const index_t count = std::min(n - i, at_once);
            widen_row<A>(from + i * stride, stride, count, numbers);
            narrow_row<A>(numbers, count, to + i, 1);
        }
    }
}

/// Whether n elements of storage type S, `stride` apart, hold neither inf nor NaN.
template <class A, class T, class S>
bool all_finite(const S* from, index_t stride, index_t n) {
    using P = pack<T, A>;
    constexpr auto width = static_cast<index_t>(P::size);
    index_t i = 0;
    P sum(0);  // x * 0 is 0 or NaN
    if (stride == 1)
        for (; i + width <= n; i += width) sum += widen<P>(from + i) * P(0);
    bool finite = !any(sum != P(0));
    for (; i < n; ++i) finite &= static_cast<T>(from[i * stride]) * T(0) == T(0);
    return finite;
}

}  // namespace heed::inline HEED_ABI
