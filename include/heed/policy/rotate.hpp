// Rows turned by the angles of rotation.hpp: the loops of ops/rotary.hpp, and of caches that turn keys.
//
//   (x1, x2) -> (c x1 - s x2, s x1 + c x2)   for the pairs of the first `width` channels; the others are copied
#pragma once

#include "rotation.hpp"

namespace heed::inline HEED_ABI::detail {

/// Reads `pairs` of one row as T, turns them, writes them.
template <bool Interleaved, class A, class T, class X, class O>
void turn_row(const X* x, index_t x_step, O* o, index_t o_step, index_t half, range pairs, const T* cos,
              const T* sin) noexcept {
    T y[2 * pairs_at_once];
    const index_t n = pairs.size();
    if constexpr (Interleaved) {
        widen_row<A>(x + 2 * pairs.first * x_step, x_step, 2 * n, y);
        for (index_t p = 0; p < n; ++p) {
            const T x1 = y[2 * p], x2 = y[2 * p + 1];
            y[2 * p] = cos[p] * x1 - sin[p] * x2;
            y[2 * p + 1] = sin[p] * x1 + cos[p] * x2;
        }
        narrow_row<A>(y, 2 * n, o + 2 * pairs.first * o_step, o_step);
    } else {
        T* const z = y + pairs_at_once;
        widen_row<A>(x + pairs.first * x_step, x_step, n, y);
        widen_row<A>(x + (half + pairs.first) * x_step, x_step, n, z);
        for (index_t p = 0; p < n; ++p) {
            const T x1 = y[p], x2 = z[p];
            y[p] = cos[p] * x1 - sin[p] * x2;
            z[p] = sin[p] * x1 + cos[p] * x2;
        }
        narrow_row<A>(y, n, o + pairs.first * o_step, o_step);
        narrow_row<A>(z, n, o + (half + pairs.first) * o_step, o_step);
    }
}

template <class A, class T, class X, class O>
void copy_row(const X* x, index_t x_step, O* o, index_t o_step, range channels) noexcept {
    T y[2 * pairs_at_once];
    for (index_t d = channels.first; d < channels.last; d += 2 * pairs_at_once) {
        const index_t n = std::min(2 * pairs_at_once, channels.last - d);
        widen_row<A>(x + d * x_step, x_step, n, y);
        narrow_row<A>(y, n, o + d * o_step, o_step);
    }
}

/// The given tokens of every sequence and head.
template <bool Interleaved, class A, class T, class X, class O, class Angles, class Position>
void rotate_tokens(const view<const X>& x, const view<O>& o, index_t width, const Angles& angles, const Position& at,
                   range tokens) noexcept {
    using turning = turns<A, T, Angles>;
    const index_t B = x.shape[0], H = x.shape[1], D = x.shape[3];
    for (index_t first = 0; first < width / 2; first += pairs_at_once) {
        const range pairs{first, std::min(width / 2, first + pairs_at_once)};
        turning by(angles, pairs, width);
        for (index_t n0 = tokens.first; n0 < tokens.last; n0 += tokens_at_once) {
            const index_t count = std::min(tokens_at_once, tokens.last - n0);
            for (index_t b = 0; b < B; ++b) {
                if (b == 0 || turning::by_token || !Position::same_in_batch)
                    for (index_t t = 0; t < count; ++t) by.fill(t, b, n0 + t, at(b, n0 + t));
                for (index_t h = 0; h < H; ++h)
                    for (index_t t = 0; t < count; ++t)
                        turn_row<Interleaved, A>(&x(b, h, n0 + t, 0), x.strides[3], &o(b, h, n0 + t, 0), o.strides[3],
                                                 width / 2, pairs, by.cos[t], by.sin[t]);
            }
        }
    }
    const bool in_place = static_cast<const void*>(x.data) == static_cast<const void*>(o.data);
    if (width == D || in_place) return;
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h)
            for (index_t n = tokens.first; n < tokens.last; ++n)
                copy_row<A, T>(&x(b, h, n, 0), x.strides[3], &o(b, h, n, 0), o.strides[3], {width, D});
}

}  // namespace heed::inline HEED_ABI::detail
