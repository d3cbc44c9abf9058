// Masks as a union of slices, the form in which block-sparse kernels of context-parallel training take them [5].
//
// A slice is a rectangle, a queries (positions of the key axis) by b keys, of which its kind shows a part. With i in
// [0, a) and j in [0, b) counted from its corner:  full: all;  causal: j <= i + b - a (the last row sees its last key);
// inverse_causal: j >= i (the first row sees its first key);  bicausal: i <= j <= i + b - a (nothing where b < a).
#pragma once

#include <span>

#include "mask.hpp"

namespace heed::inline HEED_ABI {

enum class slice_kind : unsigned char { full, causal, inverse_causal, bicausal };

/// One slice; a mask by itself.
struct mask_slice {
    using role = roles::mask;
    static constexpr bool monotone = true;
    range q_range;
    range k_range;
    slice_kind kind = slice_kind::full;

    /// Rows above and below the slice have the empty range at its near corner, which keeps both ends monotone.
    constexpr range keys(const where& w) const {
        if (w.i < q_range.first) return {k_range.first, k_range.first};
        if (w.i >= q_range.last) return {k_range.last, k_range.last};
        const bool upper = kind == slice_kind::causal || kind == slice_kind::bicausal;
        const bool lower = kind == slice_kind::inverse_causal || kind == slice_kind::bicausal;
        const index_t from = k_range.first + w.i - q_range.first, to = k_range.last - (q_range.last - 1 - w.i);
        return {lower ? std::min(from, k_range.last) : k_range.first,
                upper ? std::max(to, k_range.first) : k_range.last};
    }
    void check(const char* op) const {
        require_argument(q_range.first <= q_range.last, op, "a slice of the mask has queries from ", q_range.first,
                         " to ", q_range.last);
        require_argument(0 <= k_range.first && k_range.first <= k_range.last, op,
                         "a slice of the mask has keys from ", k_range.first, " to ", k_range.last);
    }
};

/// The union of slices, in any order; a pair in several of them is visible once. Slices may reach beyond the queries and
/// keys there are, so a list for a whole sequence serves its parts and its decoding. Costs O(slices) a tile.
struct slices {
    using role = roles::mask;
    std::span<const mask_slice> list;
    constexpr explicit slices(std::span<const mask_slice> parts) : list(parts) {}

    constexpr bool allows(const where& w) const {
        return std::any_of(list.begin(), list.end(), [&](const mask_slice& s) { return s.keys(w).contains(w.j); });
    }
    constexpr index_t next(const rows& r, index_t j) const {
        index_t nearest = no_key;
        for (const mask_slice& s : list)
            if (meets(s, r) && s.k_range.last > j) nearest = std::min(nearest, detail::next(s, r, j));
        return nearest;
    }
    constexpr bool full(const rows& r, range keys) const {
        return std::any_of(list.begin(), list.end(), [&](const mask_slice& s) { return detail::full(s, r, keys); });
    }
    constexpr lane_bits bits(const rows& r, index_t j, int n) const {
        lane_bits out;
        for (const mask_slice& s : list)
            if (meets(s, r)) out = out | detail::bits(s, r, j, n);
        return out;
    }
    void reads(const view_visitor& see) const { see(list, "slices"); }
    void check(const char* op) const {
        for (const mask_slice& s : list) s.check(op);
    }

private:
    static constexpr bool meets(const mask_slice& s, const rows& r) {
        return s.q_range.first < r.last && r.first < s.q_range.last;
    }
};

}  // namespace heed::inline HEED_ABI
