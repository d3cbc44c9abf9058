// What a mask covers: the exact number of visible pairs, of keys a row sees, and its picture for small extents.
//
// Cost: O(rows) where the mask tells a row's count in closed form (interval masks, their unions, the regular patterns);
// else the rectangle is halved until a piece is hidden, full or 16 x 8, so only the outline is looked at closely.
#pragma once

#include <bit>
#include <vector>

#include "../core/view.hpp"
#include "mask.hpp"

namespace heed::inline HEED_ABI {

/// Visible pairs among the rows and keys.
template <mask_policy M>
constexpr index_t count(const M& mask, const rows& r, range keys) {
    if (r.size() <= 0 || keys.empty()) return 0;
    if constexpr (detail::row_counted<M>) {
        if (keys.first == 0) {
            index_t sum = 0;
            for (index_t i = r.first; i < r.last; ++i) sum += detail::count_row(mask, r.at(i), keys.last);
            return sum;
        }
    }
    keys.first = detail::next(mask, r, keys.first);
    if (keys.first >= keys.last) return 0;
    if (detail::full(mask, r, keys)) return r.size() * keys.size();
    if (r.size() <= 16 && keys.size() <= 8) {
        index_t sum = 0;
        for (std::uint16_t key : detail::bits(mask, r, keys.first, static_cast<int>(keys.size())).key)
            sum += std::popcount(key);
        return sum;
    }
    rows a = r, b = r;
    range left = keys, right = keys;
    if (r.size() > 16 && r.size() >= keys.size())
        a.last = b.first = r.first + r.size() / 2;
    else
        left.last = right.first = keys.first + keys.size() / 2;
    return count(mask, a, left) + count(mask, b, right);
}

/// Visible keys among the first `keys`, for one row (w.j does not matter): n_i of scalable softmax [99], len of [83].
template <mask_policy M>
constexpr index_t count(const M& mask, const where& w, index_t keys) {
    return count(mask, rows{w.b, w.h, w.i, w.i + 1, w.i - w.row}, {0, keys});
}

/// Visible pairs of all heads together: B, H, N rows, `keys` keys, row 0 at position `shift`.
template <mask_policy M>
constexpr index_t area(const M& mask, index_t B, index_t H, index_t N, index_t keys, index_t shift) {
    index_t sum = 0;
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h) sum += count(mask, rows{b, h, shift, shift + N, shift}, {0, keys});
    return sum;
}
/// The same with the last query at the last key.
template <mask_policy M>
constexpr index_t area(const M& mask, index_t B, index_t H, index_t N, index_t keys) {
    return area(mask, B, H, N, keys, keys - N);
}

/// counts(b, h, n) = visible keys of each row.
template <mask_policy M, class T>
void count_rows(const M& mask, index_t keys, index_t shift, view<T, 3> counts) {
    for (index_t b = 0; b < counts.shape[0]; ++b)
        for (index_t h = 0; h < counts.shape[1]; ++h)
            for (index_t n = 0; n < counts.shape[2]; ++n)
                counts(b, h, n) = static_cast<T>(count(mask, where{b, h, n, n + shift, 0}, keys));
}

/// The set as rows of truth values, by the definition; for looking at.
template <mask_policy M>
std::vector<std::vector<bool>> draw(const M& mask, index_t N, index_t keys, index_t shift, index_t b = 0, index_t h = 0) {
    std::vector<std::vector<bool>> picture(static_cast<std::size_t>(N), std::vector<bool>(static_cast<std::size_t>(keys)));
    for (index_t n = 0; n < N; ++n)
        for (index_t j = 0; j < keys; ++j)
            picture[static_cast<std::size_t>(n)][static_cast<std::size_t>(j)] =
                detail::allows(mask, where{b, h, n, n + shift, j});
    return picture;
}
template <mask_policy M>
std::vector<std::vector<bool>> draw(const M& mask, index_t N, index_t keys) {
    return draw(mask, N, keys, keys - N);
}

}  // namespace heed::inline HEED_ABI
