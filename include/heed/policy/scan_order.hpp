// Orders in which a scan meets the pixels of an image: a list of H W places, r W + c, and its inverse.
//
//   by rows, by columns, serpentine; the nested S of MaIR [34]: stripes of a few columns, each walked in serpentine
//   rows, up and down in turn; Hilbert's curve
// An order is a gather: token t of the sequence is pixel order[t]. Cost: O(H W), once for a shape.
#pragma once

#include <algorithm>
#include <vector>

#include "../core/error.hpp"
#include "../core/range.hpp"

namespace heed::inline HEED_ABI {

using scan_order = std::vector<index_t>;

inline scan_order row_order(index_t H, index_t W) {
    scan_order order;
    for (index_t i = 0; i < H * W; ++i) order.push_back(i);
    return order;
}
inline scan_order column_order(index_t H, index_t W) {
    scan_order order;
    for (index_t c = 0; c < W; ++c)
        for (index_t r = 0; r < H; ++r) order.push_back(r * W + c);
    return order;
}

/// Stripes of `stripe` >= 1 columns, the first of `shift` if that is not 0, the last as wide as what remains. Inside a
/// stripe neighbours in the order are neighbours in the image. A stripe of W columns is a serpentine.
inline scan_order nested_s_order(index_t H, index_t W, index_t stripe, index_t shift = 0) {
    require_argument(stripe >= 1, "nested_s_order", "stripes have ", stripe, " columns, the least is 1");
    require_argument(shift >= 0, "nested_s_order", "the first stripe has ", shift, " columns, the least is 0");
    scan_order order;
    bool down = true;
    for (index_t first = 0, last; first < W; first = last, down = !down) {
        last = std::min(W, first + (first == 0 && shift > 0 ? shift : stripe));
        for (index_t i = 0; i < H; ++i)
            for (index_t c = 0; c < last - first; ++c)
                order.push_back((down ? i : H - 1 - i) * W + (i % 2 == 0 ? first + c : last - 1 - c));
    }
    return order;
}

namespace detail {
struct grid_step {
    index_t r, c;
    constexpr grid_step operator*(index_t n) const { return {r * n, c * n}; }
    constexpr grid_step operator+(grid_step o) const { return {r + o.r, c + o.c}; }
    constexpr grid_step operator-() const { return {-r, -c}; }
};
/// Hilbert's curve over the square of `side` places along a and b from a corner to the one beyond a: four curves of
/// half the side, the first and last of them transposed. What lies outside the image is left out.
inline void hilbert_square(scan_order& order, index_t H, index_t W, grid_step corner, grid_step a, grid_step b,
                           index_t side) {
    const grid_step end = corner + a * (side - 1) + b * (side - 1);
    if (std::min(corner.r, end.r) >= H || std::min(corner.c, end.c) >= W) return;
    if (side == 1) {
        order.push_back(corner.r * W + corner.c);
        return;
    }
    const index_t half = side / 2;
    hilbert_square(order, H, W, corner, b, a, half);
    hilbert_square(order, H, W, corner + b * half, a, b, half);
    hilbert_square(order, H, W, corner + b * half + a * half, a, b, half);
    hilbert_square(order, H, W, corner + b * (half - 1) + a * (side - 1), -b, -a, half);
}
}  // namespace detail

/// Hilbert's curve over the smallest square of side 2^k that holds the image, without what lies outside. If the image
/// is that square, neighbours in the order are neighbours in the image.
inline scan_order hilbert_order(index_t H, index_t W) {
    scan_order order;
    index_t side = 1;
    while (side < std::max(H, W)) side *= 2;
    if (H > 0 && W > 0) detail::hilbert_square(order, H, W, {0, 0}, {0, 1}, {1, 0}, side);
    return order;
}

/// The order of the image turned by 180 degrees: from the other end.
inline scan_order turned(scan_order order) {
    for (index_t& place : order) place = static_cast<index_t>(order.size()) - 1 - place;
    return order;
}
/// An order of the transposed image (W x H), as one of the image (H x W).
inline scan_order transposed(scan_order order, index_t H, index_t W) {
    for (index_t& place : order) place = place % H * W + place / H;
    return order;
}
/// inverse[order[t]] = t.
inline scan_order inverse(const scan_order& order) {
    scan_order back(order.size());
    for (std::size_t t = 0; t < order.size(); ++t) back[static_cast<std::size_t>(order[t])] = static_cast<index_t>(t);
    return back;
}

}  // namespace heed::inline HEED_ABI
