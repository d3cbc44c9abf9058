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

/// A logit that stays finite in base 2. Many masks add the lowest number to hide a key; a row of nothing else is the
/// mean of its values, not the NaN of -inf - -inf.
template <class P>
HEED_INLINE P finite_in_base_two(const P& x) {
    using T = typename P::value_type;
    const P least(T(0.69) * no_maximum<T>);  // ln 2, rounded down
    return select(x > P(-std::numeric_limits<T>::infinity()), max(x, least), x);
}

/// Moves m where the tile's logits ask for it. rescale(alpha) is then called: everything summed against the old m is to
/// be multiplied by alpha, per lane; l is multiplied here.
template <class P, int R, int C, class Rescale>
HEED_INLINE void follow_maximum(const register_tile<P, R, C>& s, typename P::value_type* m, typename P::value_type* l,
                                const Rescale& rescale) {
    using T = typename P::value_type;
    constexpr index_t L = static_cast<index_t>(P::size);
    const P slack(softmax_slack<T>);
    P top[C];
    auto moves = load_aligned<P>(m) != load_aligned<P>(m);
    unroll<C>([&](auto c) HEED_INLINE_LAMBDA {
        // Two chains, so that the latency of max does not add up over the R keys.
        P a = s.at[0][c], b = s.at[1][c];
        unroll<R / 2 - 1>([&](auto r) HEED_INLINE_LAMBDA {
            a = max(a, s.at[2 * r + 2][c]);
            b = max(b, s.at[2 * r + 3][c]);
        });
        top[c] = max(a, b);
        moves = moves | (top[c] > load_aligned<P>(m + c * L) + slack);
    });
    if (any(moves)) [[unlikely]] {
        P alpha[C];
        unroll<C>([&](auto c) HEED_INLINE_LAMBDA {
            const P old = load_aligned<P>(m + c * L);
            const P moved = select(top[c] > old + slack, top[c], old);
            alpha[c] = exp2_nonpositive(old - moved);
            store_aligned(m + c * L, moved);
            store_aligned(l + c * L, alpha[c] * load_aligned<P>(l + c * L));
        });
        rescale(alpha);
    }
}

}  // namespace heed::inline HEED_ABI
