// Panels: query rows packed so that lanes are queries, and the way back.
//
//   panel[t][l] = factor * row_l[t]      t < depth, l < width (a multiple of the lanes); rows beyond n are zero
#pragma once

#include <cstring>

#include "../core/range.hpp"
#include "../simd/convert.hpp"
#include "../simd/rows.hpp"

namespace heed::inline HEED_ABI {

/// Packs n <= width rows of `depth` elements of storage S, `row_stride` and `stride` apart.
template <class A, class T, class S>
void pack_panel(const S* rows, index_t row_stride, index_t stride, index_t n, index_t depth, index_t width, T factor, T* panel) {
    using P = pack<T, A>;
    constexpr index_t L = lanes<T, A>;
    const P by(factor);
    for (index_t l0 = 0; l0 < width; l0 += L) {
        const index_t count = std::clamp<index_t>(n - l0, 0, L);
        const S* from = rows + l0 * row_stride;
        index_t t = 0;
        if (stride == 1 && count == L)
            for (; t + L <= depth; t += L) {
                P x[L];
                unroll<int(L)>([&](auto l) HEED_INLINE_LAMBDA { x[l] = by * widen<P>(from + l * row_stride + t); });
                transpose(x);
                unroll<int(L)>([&](auto l) HEED_INLINE_LAMBDA { store_aligned(panel + (t + l) * width + l0, x[l]); });
            }
        for (; t < depth; ++t)
            for (index_t l = 0; l < L; ++l)
                panel[t * width + l0 + l] =
                    l < count ? factor * static_cast<T>(from[l * row_stride + t * stride]) : T(0);
    }
}

/// The panel of q for a product: elements, or pairs of bf16 (an odd depth ends in a zero).
template <class A, class Op, class S>
void pack_queries(const S* rows, index_t row_stride, index_t stride, index_t n, index_t depth, index_t width, auto factor,
                  typename Op::scalar* panel) {
    if constexpr (Op::step == 1) {
        pack_panel<A>(rows, row_stride, stride, n, depth, width, factor, panel);
    } else {
        const auto bits = [&](index_t l, index_t d) {
            typename Op::element x = 0;
            if (l < n && d < depth) std::memcpy(&x, rows + l * row_stride + d * stride, sizeof x);
            return static_cast<typename Op::scalar>(x);
        };
        for (index_t l = 0; l < width; ++l)
            for (index_t t = 0; t < ceil_div(depth, 2); ++t)
                panel[t * width + l] = bits(l, 2 * t) | bits(l, 2 * t + 1) << 16;
    }
}

/// Writes panel[t][l] * factor[l] to row_l[t] of storage S, for l < n and t < depth.
template <class A, class T, class S>
void unpack_panel(const T* panel, index_t width, const T* factor, index_t n, index_t depth, S* rows, index_t row_stride,
                  index_t stride) {
    using P = pack<T, A>;
    constexpr index_t L = lanes<T, A>;
    for (index_t l0 = 0; l0 < n; l0 += L) {
        const index_t count = std::min<index_t>(n - l0, L);
        const P by = load_aligned<P>(factor + l0);
        S* to = rows + l0 * row_stride;
        index_t t = 0;
        if (stride == 1)
            for (; t + L <= depth; t += L) {
                P x[L];
                unroll<int(L)>([&](auto l) HEED_INLINE_LAMBDA { x[l] = by * load_aligned<P>(panel + (t + l) * width + l0); });
                transpose(x);
                if (count == L)
                    unroll<int(L)>([&](auto l) HEED_INLINE_LAMBDA { narrow(to + l * row_stride + t, x[l]); });
                else
                    for (index_t l = 0; l < count; ++l) narrow(to + l * row_stride + t, x[l]);
            }
        for (; t < depth; ++t)
            for (index_t l = 0; l < count; ++l)
                to[l * row_stride + t * stride] = static_cast<S>(panel[t * width + l0 + l] * factor[l0 + l]);
    }
}

}  // namespace heed::inline HEED_ABI
