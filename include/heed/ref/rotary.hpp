// The definition of rotary position embedding, in double precision and plain loops.
//
//   (x1, x2) -> (c x1 - s x2, s x1 + c x2)   for each pair of the first `width` channels, c = cos a, s = sin a
//   a = position * base^(-2 pair / width)
// The pair p is channels (p, p + width/2), or (2p, 2p + 1) when interleaved. Su et al., RoFormer, arXiv:2104.09864.
#pragma once

#include <cmath>
#include <functional>

#include "../core/view.hpp"

namespace heed::inline HEED_ABI::ref {

struct turn {
    double cos = 1, sin = 0;
};

/// The turn of a pair by its angle.
inline turn rotary_turn(double position, index_t pair, index_t width, double base = 10000) {
    const double angle = position * std::pow(base, -2.0 * static_cast<double>(pair) / static_cast<double>(width));
    return {std::cos(angle), std::sin(angle)};
}

/// x, o: (b, h, n, d), the same view or apart; by(b, n, pair) is the turn of that token and pair.
template <class X, class O>
void rotary(view<X> x, view<O> o, index_t width, bool interleaved,
            const std::function<turn(index_t, index_t, index_t)>& by) {
    const auto [B, H, N, D] = x.shape;
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h)
            for (index_t n = 0; n < N; ++n) {
                for (index_t pair = 0; pair < width / 2; ++pair) {
                    const index_t d1 = interleaved ? 2 * pair : pair;
                    const index_t d2 = interleaved ? 2 * pair + 1 : pair + width / 2;
                    const double x1 = static_cast<double>(x(b, h, n, d1)), x2 = static_cast<double>(x(b, h, n, d2));
                    const auto [c, s] = by(b, n, pair);
                    o(b, h, n, d1) = static_cast<O>(c * x1 - s * x2);
                    o(b, h, n, d2) = static_cast<O>(s * x1 + c * x2);
                }
                for (index_t d = width; d < D; ++d) o(b, h, n, d) = static_cast<O>(static_cast<double>(x(b, h, n, d)));
            }
}

}  // namespace heed::inline HEED_ABI::ref
