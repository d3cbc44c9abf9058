// Online softmax of one register tile of logits in base 2: rows are lanes, keys are the R scalars.
//
// Per lane, m is a reference the exponents are taken against and l the sum of 2^(s - m). m follows the row maximum
// lazily: it moves only when a logit exceeds it by more than `slack`, so weights stay below 2^slack, sums stay exact to
// rounding, and the running output is rarely rescaled. The rule reads one lane only, so a row's bits do not depend
// on its neighbours.
#pragma once

#include "../simd/math.hpp"
#include "../simd/micro.hpp"

namespace heed::inline HEED_ABI {

template <class T>
inline constexpr T softmax_slack = T(8);

/// The reference before any logit. Finite, so that -inf - m is -inf and never NaN.
template <class T>
inline constexpr T no_maximum = std::numeric_limits<T>::lowest();

/// s becomes 2^(s - m); m and l are updated. rescale(alpha) is called when m moves: everything summed against the old
/// m is to be multiplied by alpha, per lane.
template <class P, int R, int C, class Rescale>
HEED_INLINE void online_softmax(register_tile<P, R, C>& s, typename P::value_type* m, typename P::value_type* l,
                                Rescale&& rescale) {
    using T = typename P::value_type;
    constexpr index_t L = static_cast<index_t>(P::size);
    P top[C], reference[C];
    bool moves = false;
    unroll<C>([&](auto c) {
        // Two chains, so that the latency of max does not add up over the R keys.
        P a = s.at[0][c], b = s.at[1][c];
        unroll<R / 2 - 1>([&](auto r) {
            a = max(a, s.at[2 * r + 2][c]);
            b = max(b, s.at[2 * r + 3][c]);
        });
        top[c] = max(a, b);
        reference[c] = load_aligned<P>(m + c * L);
        moves |= any(top[c] > reference[c] + P(softmax_slack<T>));
    });
    if (moves) [[unlikely]] {
        P alpha[C];
        unroll<C>([&](auto c) {
            const P moved = select(top[c] > reference[c] + P(softmax_slack<T>), top[c], reference[c]);
            alpha[c] = exp2_nonpositive(reference[c] - moved);
            reference[c] = moved;
            store_aligned(m + c * L, moved);
            store_aligned(l + c * L, alpha[c] * load_aligned<P>(l + c * L));
        });
        rescale(alpha);
    }
    unroll<C>([&](auto c) {
        P sum = load_aligned<P>(l + c * L);
        unroll<R>([&](auto r) {
            s.at[r][c] = exp2_nonpositive(s.at[r][c] - reference[c]);
            sum += s.at[r][c];
        });
        store_aligned(l + c * L, sum);
    });
}

}  // namespace heed::inline HEED_ABI
