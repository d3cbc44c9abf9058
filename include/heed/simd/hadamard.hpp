// Walsh-Hadamard transform of a row, orthonormal and in place: y_i = n^(-1/2) sum_j (-1)^popcount(i & j) x_j.
//
// It is its own inverse and keeps dot products, so keys may be stored transformed if queries are transformed too. It
// spreads an outlier over the whole row, which is what makes rows easy to quantise (QuaRot, arXiv:2404.00456).
// A width that is no power of two is cut into blocks of the largest power of two that divides it: 80 is five blocks of
// 16, and a row of odd width stays as it is. Cost: n log2(block) additions.
#pragma once

#include <cmath>

#include "pack.hpp"

namespace heed::inline HEED_ABI {

/// The block length of a row of n numbers: the largest power of two that divides n. n >= 1.
constexpr index_t hadamard_block(index_t n) { return n & -n; }

/// Transforms n contiguous numbers, float or double. n may be 0.
template <class A = default_arch, class T>
void hadamard_transform(T* x, index_t n) noexcept {
    using P = pack<T, A>;
    constexpr auto width = static_cast<index_t>(P::size);
    if (n == 0) return;
    const index_t block = hadamard_block(n);
    // Butterflies never leave a block, so that one walk over the row serves all blocks.
    for (index_t half = 1; half < block; half *= 2)
        for (index_t first = 0; first < n; first += 2 * half) {
            T *low = x + first, *high = low + half;
            if (half < width) {
                for (index_t i = 0; i < half; ++i) {
                    const T a = low[i], b = high[i];
                    low[i] = a + b, high[i] = a - b;
                }
            } else {
                for (index_t i = 0; i < half; i += width) {
                    const P a = load<P>(low + i), b = load<P>(high + i);
                    store(low + i, a + b), store(high + i, a - b);
                }
            }
        }
    if (block == 1) return;
    const T norm = 1 / std::sqrt(static_cast<T>(block));
    for (index_t i = 0; i < n; ++i) x[i] *= norm;
}

}  // namespace heed::inline HEED_ABI
