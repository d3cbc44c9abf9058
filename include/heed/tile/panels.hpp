// Panels: query rows packed so that lanes are queries, and the way back.
//
//   panel[t][l] = factor * row_l[t]      t < depth, l < width (a multiple of the lanes); rows beyond n are zero
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "../core/range.hpp"
#include "../simd/convert.hpp"
#include "../simd/rows.hpp"

namespace heed::inline HEED_ABI {

/// Rows of storage S as arithmetic T, times a factor.
template <class T, class S>
struct scaled_rows {
    const S* first;
    index_t row_stride, stride;
    T factor;

    bool contiguous() const { return stride == 1; }
    T at(index_t l, index_t t) const { return factor * static_cast<T>(first[l * row_stride + t * stride]); }
    template <class P>
    HEED_INLINE P load(index_t l, index_t t) const {
        return P(factor) * widen<P>(first + l * row_stride + t);
    }
};

/// Rows of bf16 as pairs, each pair in the bits of one float; an odd width ends in a pair with a zero.
struct paired_rows {
    const bf16* first;
    index_t row_stride, stride, width;

    bool contiguous() const { return stride == 1 && width % 2 == 0; }
    float at(index_t l, index_t t) const {
        std::uint16_t pair[2] = {0, 0};
        for (index_t d = 2 * t; d < std::min(2 * t + 2, width); ++d)
            std::memcpy(&pair[d % 2], first + l * row_stride + d * stride, sizeof *pair);
        return std::bit_cast<float>(pair);
    }
    template <class P>
    HEED_INLINE P load(index_t l, index_t t) const {
        return heed::load<P>(reinterpret_cast<const float*>(first + l * row_stride + 2 * t));
    }
};

/// Packs n <= width rows of `depth` elements.
template <class A, class T, class Rows>
void pack_panel(const Rows& rows, index_t n, index_t depth, index_t width, T* panel) {
    using P = pack<T, A>;
    constexpr index_t L = lanes<T, A>;
    for (index_t l0 = 0; l0 < width; l0 += L) {
        const index_t count = std::clamp<index_t>(n - l0, 0, L);
        index_t t = 0;
        if (rows.contiguous() && count == L)
            for (; t + L <= depth; t += L) {
                P x[L];
                unroll<int(L)>([&](auto l) HEED_INLINE_LAMBDA { x[l] = rows.template load<P>(l0 + l, t); });
                transpose(x);
                unroll<int(L)>([&](auto l) HEED_INLINE_LAMBDA { store_aligned(panel + (t + l) * width + l0, x[l]); });
            }
        for (; t < depth; ++t)
            for (index_t l = 0; l < L; ++l) panel[t * width + l0 + l] = l < count ? rows.at(l0 + l, t) : T(0);
    }
}

/// Calls f(row) for each of the first n rows of a panel, in place by way of `row`, which has room for one.
template <class T, class F>
void map_panel_rows(T* panel, index_t width, index_t n, index_t depth, T* row, const F& f) {
    for (index_t l = 0; l < n; ++l) {
        for (index_t t = 0; t < depth; ++t) row[t] = panel[t * width + l];
        f(row);
        for (index_t t = 0; t < depth; ++t) panel[t * width + l] = row[t];
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
