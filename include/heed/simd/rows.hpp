// Transposing L x L tiles in registers, L the lanes of a pack.
#pragma once

#include "pack.hpp"

namespace heed::inline HEED_ABI {

/// x[r] lane c becomes x[c] lane r.
template <class T, class A>
HEED_INLINE void transpose(pack<T, A> (&x)[static_cast<std::size_t>(lanes<T, A>)]) {
    using P = pack<T, A>;
    constexpr int L = lanes<T, A>;
#if defined(__AVX512F__)
    if constexpr (has_avx512<A> && sizeof(T) == 4) {
        // Four perfect shuffles: row i meets row i + 8, element-wise interleaved, log2(16) times.
        const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        const __m512i high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        unroll<4>([&](auto) HEED_INLINE_LAMBDA {
            P y[L];
            unroll<L / 2>([&](auto i) HEED_INLINE_LAMBDA {
                y[2 * i] = P(typename P::raw_type(_mm512_permutex2var_ps(x[i].raw, low, x[i + L / 2].raw)));
                y[2 * i + 1] = P(typename P::raw_type(_mm512_permutex2var_ps(x[i].raw, high, x[i + L / 2].raw)));
            });
            unroll<L>([&](auto i) HEED_INLINE_LAMBDA { x[i] = y[i]; });
        });
        return;
    }
#endif
    alignas(64) T at[L][L];
    for (int r = 0; r < L; ++r) store_aligned(at[r], x[r]);
    for (int r = 0; r < L; ++r)
        for (int c = 0; c < r; ++c) std::swap(at[r][c], at[c][r]);
    for (int r = 0; r < L; ++r) x[r] = load_aligned<P>(at[r]);
}

}  // namespace heed::inline HEED_ABI
