// Across the lanes of packs: transposing L x L tiles, K columns of L rows, and the sums of L packs, L their lanes.
#pragma once

#include "../core/half.hpp"
#include "pack.hpp"

namespace heed::inline HEED_ABI {

/// a and b interleaved, element by element: a becomes the lower half of the result, b the upper one.
template <class T, class A>
HEED_INLINE void interleave(pack<T, A>& a, pack<T, A>& b) {
    using P = pack<T, A>;
    [[maybe_unused]] const auto is = [&](auto low, auto high) HEED_INLINE_LAMBDA {
        a = P(typename P::raw_type(low)), b = P(typename P::raw_type(high));
    };
#if defined(__AVX512F__)
    if constexpr (has_avx512<A> && sizeof(T) == 4) {
        const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        const __m512i high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        return is(_mm512_permutex2var_ps(a.raw, low, b.raw), _mm512_permutex2var_ps(a.raw, high, b.raw));
    }
    if constexpr (has_avx512<A> && sizeof(T) == 8) {
        const __m512i low = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
        const __m512i high = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
        return is(_mm512_permutex2var_pd(a.raw, low, b.raw), _mm512_permutex2var_pd(a.raw, high, b.raw));
    }
#elif defined(__AVX__)
    if constexpr (sizeof(typename P::raw_type) == 32 && sizeof(T) == 4) {
        const __m256 low = _mm256_unpacklo_ps(a.raw, b.raw), high = _mm256_unpackhi_ps(a.raw, b.raw);
        return is(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31));
    }
    if constexpr (sizeof(typename P::raw_type) == 32 && sizeof(T) == 8) {
        const __m256d low = _mm256_unpacklo_pd(a.raw, b.raw), high = _mm256_unpackhi_pd(a.raw, b.raw);
        return is(_mm256_permute2f128_pd(low, high, 0x20), _mm256_permute2f128_pd(low, high, 0x31));
    }
#elif defined(__SSE2__)
    if constexpr (P::size == 4) return is(_mm_unpacklo_ps(a.raw, b.raw), _mm_unpackhi_ps(a.raw, b.raw));
    if constexpr (P::size == 2) return is(_mm_unpacklo_pd(a.raw, b.raw), _mm_unpackhi_pd(a.raw, b.raw));
#elif defined(__aarch64__)
    if constexpr (P::size == 4) return is(vzip1q_f32(a.raw, b.raw), vzip2q_f32(a.raw, b.raw));
    if constexpr (P::size == 2) return is(vzip1q_f64(a.raw, b.raw), vzip2q_f64(a.raw, b.raw));
#endif
    alignas(64) T from[2][P::size], to[2 * P::size];
    store_aligned(from[0], a), store_aligned(from[1], b);
    for (std::size_t l = 0; l < 2 * P::size; ++l) to[l] = from[l % 2][l / 2];
    a = load_aligned<P>(to), b = load_aligned<P>(to + P::size);
}

/// x[r] lane c becomes x[c] lane r.
template <class T, class A>
HEED_INLINE void transpose(pack<T, A> (&x)[static_cast<std::size_t>(lanes<T, A>)]) {
    constexpr int L = lanes<T, A>;
    constexpr int rounds = L == 16 ? 4 : L == 8 ? 3 : L == 4 ? 2 : 1;  // log2 L
    // Perfect shuffles: row i meets row i + L / 2.
    unroll<rounds>([&](auto) HEED_INLINE_LAMBDA {
        pack<T, A> y[L];
        unroll<L / 2>([&](auto i) HEED_INLINE_LAMBDA {
            y[2 * i] = x[i], y[2 * i + 1] = x[i + L / 2];
            interleave(y[2 * i], y[2 * i + 1]);
        });
        unroll<L>([&](auto i) HEED_INLINE_LAMBDA { x[i] = y[i]; });
    });
}

/// p[0], ..., p[Q - 1], again and again.
template <class P, int Q>
HEED_INLINE P load_repeated(const typename P::value_type* p) {
    using T = typename P::value_type;
    static_assert(P::size % Q == 0);
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    if constexpr (has_avx512<typename P::arch_type> && Q == 4) {
        if constexpr (sizeof(T) == 4) return P(typename P::raw_type(_mm512_broadcast_f32x4(_mm_loadu_ps(p))));
        else return P(typename P::raw_type(_mm512_broadcast_f64x4(_mm256_loadu_pd(p))));
    } else
#endif
#if defined(__AVX__)
    if constexpr (P::size == 8 && sizeof(T) == 4 && Q == 4) {
        return P(typename P::raw_type(_mm256_broadcast_ps(reinterpret_cast<const __m128*>(p))));
    } else
#endif
    if constexpr (P::size == Q) {
        return load<P>(p);
    } else {
        alignas(64) T at[P::size];
        for (std::size_t l = 0; l < P::size; ++l) at[l] = p[l % Q];
        return load_aligned<P>(at);
    }
}

/// x[k] lane r = p[r * row_stride + k]: K neighbours of each of L rows, of any storage type.
template <int K, storage S, class T, class A>
HEED_INLINE void load_columns(const S* p, index_t row_stride, pack<T, A> (&x)[K]) {
    using P = pack<T, A>;
    constexpr int L = lanes<T, A>;
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    if constexpr (has_avx512<A> && sizeof(T) == 4 && K == 8 && sizeof(S) <= 4) {
        // Rows r and r + 8 share a register; 8 x 8 is then transposed in both halves at once.
        __m512 a[8], b[8];
        unroll<8>([&](auto r) HEED_INLINE_LAMBDA {
            const S *low = p + r * row_stride, *high = p + (r + 8) * row_stride;
            if constexpr (std::is_same_v<S, float>) {
                a[r] = _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(low)), _mm256_loadu_ps(high), 1);
            } else {
                const auto eight = [](const S* at) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at)); };
                const __m256i x2 = _mm256_inserti128_si256(_mm256_castsi128_si256(eight(low)), eight(high), 1);
                if constexpr (std::is_same_v<S, bf16>)
                    a[r] = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x2), 16));
                else
                    a[r] = _mm512_cvtph_ps(x2);
            }
        });
        unroll<4>([&](auto i) HEED_INLINE_LAMBDA {  // pairs of rows: 2 x 2
            b[2 * i] = _mm512_unpacklo_ps(a[2 * i], a[2 * i + 1]);
            b[2 * i + 1] = _mm512_unpackhi_ps(a[2 * i], a[2 * i + 1]);
        });
        unroll<2>([&](auto i) HEED_INLINE_LAMBDA {  // four rows: 4 x 4, keys 0 to 3 and 4 to 7 in alternate quarters
            const auto wide = [](__m512 v) { return _mm512_castps_pd(v); };
            const auto back = [](__m512d v) { return _mm512_castpd_ps(v); };
            a[4 * i + 0] = back(_mm512_unpacklo_pd(wide(b[4 * i]), wide(b[4 * i + 2])));
            a[4 * i + 1] = back(_mm512_unpackhi_pd(wide(b[4 * i]), wide(b[4 * i + 2])));
            a[4 * i + 2] = back(_mm512_unpacklo_pd(wide(b[4 * i + 1]), wide(b[4 * i + 3])));
            a[4 * i + 3] = back(_mm512_unpackhi_pd(wide(b[4 * i + 1]), wide(b[4 * i + 3])));
        });
        const __m512i even = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27);
        const __m512i odd = _mm512_setr_epi32(4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
        unroll<4>([&](auto k) HEED_INLINE_LAMBDA {
            x[k] = P(typename P::raw_type(_mm512_permutex2var_ps(a[k], even, a[4 + k])));
            x[4 + k] = P(typename P::raw_type(_mm512_permutex2var_ps(a[k], odd, a[4 + k])));
        });
        return;
    }
#endif
    alignas(64) T at[K][L];
    for (int r = 0; r < L; ++r)
        for (int k = 0; k < K; ++k) at[k][r] = static_cast<T>(p[r * row_stride + k]);
    for (int k = 0; k < K; ++k) x[k] = load_aligned<P>(at[k]);
}

/// Lane i is the sum of the lanes of x[i].
template <class T, class A>
HEED_INLINE pack<T, A> lane_sums(const pack<T, A> (&x)[static_cast<std::size_t>(lanes<T, A>)]) {
    using P = pack<T, A>;
    constexpr int L = lanes<T, A>;
#if defined(__AVX512F__)
    if constexpr (has_avx512<A> && sizeof(T) == 4) {
        // Halves of pairs are added while they are interleaved: 16 packs become 8, 4 (by quarter), 2 and 1.
        const auto wide = [](__m512 v) { return _mm512_castps_pd(v); };
        const auto back = [](__m512d v) { return _mm512_castpd_ps(v); };
        __m512 a[8], b[4], c[2];
        unroll<8>([&](auto i) HEED_INLINE_LAMBDA {
            const __m512 p = x[2 * i].raw, q = x[2 * i + 1].raw;
            a[i] = _mm512_add_ps(_mm512_unpacklo_ps(p, q), _mm512_unpackhi_ps(p, q));
        });
        unroll<4>([&](auto i) HEED_INLINE_LAMBDA {
            const __m512d p = wide(a[2 * i]), q = wide(a[2 * i + 1]);
            b[i] = _mm512_add_ps(back(_mm512_unpacklo_pd(p, q)), back(_mm512_unpackhi_pd(p, q)));
        });
        const auto quarters = [](__m512 p, __m512 q) HEED_INLINE_LAMBDA {
            return _mm512_add_ps(_mm512_shuffle_f32x4(p, q, 0x88), _mm512_shuffle_f32x4(p, q, 0xdd));
        };
        unroll<2>([&](auto i) HEED_INLINE_LAMBDA { c[i] = quarters(b[2 * i], b[2 * i + 1]); });
        return P(typename P::raw_type(quarters(c[0], c[1])));
    }
#endif
    P y[L];
    unroll<L>([&](auto i) HEED_INLINE_LAMBDA { y[i] = x[i]; });
    transpose(y);
    for (int n = L / 2; n > 0; n /= 2)
        for (int i = 0; i < n; ++i) y[i] += y[i + n];
    return y[0];
}

}  // namespace heed::inline HEED_ABI
