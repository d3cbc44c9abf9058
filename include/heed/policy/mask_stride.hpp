// Masks with gaps: dilated windows [16], the strided and fixed patterns of Sparse Transformers [87].
//
//   dilated{a, delta}  |i - j| <= a delta and (i - j) mod delta == 0
//   strided{l}         j <= i and (i - j < l or (i - j) mod l == 0)
//   fixed{l, c}        j <= i and (floor(j / l) == floor(i / l) or j mod l >= l - c)
#pragma once

#include "mask_position.hpp"

namespace heed::inline HEED_ABI {

/// |i - j| <= reach * dilation and (i - j) mod dilation == 0. A negative reach is open. One dilation, or one per head.
struct dilated {
    using role = roles::mask;
    index_t reach;
    index_t dilation = 1;
    std::span<const index_t> per_head;

    constexpr dilated(index_t a, index_t delta) : reach(a), dilation(delta) {}
    constexpr dilated(index_t a, std::span<const index_t> deltas) : reach(a), per_head(deltas) {}

    constexpr bool allows(const where& w) const {
        const index_t delta = step(w.h);
        return band(w.i, delta).contains(w.j) && (w.i - w.j) % delta == 0;
    }
    constexpr index_t next(const rows& r, index_t j) const {
        if (r.size() <= 0) return no_key;
        const index_t delta = step(r.h);
        j = std::max(j, band(r.first, delta).first);
        if (seen(r, j, delta)) return j;
        j = r.first + -detail::floor_div(r.first - j, delta) * delta;  // the next key in step with the first row
        return seen(r, j, delta) ? j : no_key;
    }
    constexpr bool full(const rows& r, range keys) const {
        const index_t delta = step(r.h);
        if (delta > 1 && (r.size() > 1 || keys.size() > 1))
            return keys.empty() || r.size() <= 0;
        const range common{band(r.last - 1, delta).first, band(r.first, delta).last};
        return common.contains(keys) && (keys.empty() || (r.first - keys.first) % delta == 0);
    }
    constexpr lane_bits bits(const rows& r, index_t j, int n) const {
        const index_t delta = step(r.h);
        lane_bits out;
        index_t lane = detail::floor_mod(j - r.first, delta);  // first lane in step with key j
        for (int c = 0; c < n; ++c) {
            unsigned comb = 0;
            for (index_t l = lane; l < r.size(); l += delta) comb |= 1u << l;
            const range in = reach < 0 ? range{0, r.size()}
                                       : range{j + c - reach * delta - r.first, j + c + reach * delta + 1 - r.first};
            out.key[c] = static_cast<std::uint16_t>(comb & detail::span_bits(in.first, in.last, 16));
            lane = lane + 1 == delta ? 0 : lane + 1;
        }
        return out;
    }
    constexpr index_t count(const where& row, index_t keys) const {
        const index_t delta = step(row.h);
        const range k = band(row.i, delta) & range{0, keys};
        return k.empty() ? 0
                         : detail::floor_div(k.last - 1 - row.i, delta) - detail::floor_div(k.first - 1 - row.i, delta);
    }
    void reads(const view_visitor& see) const { see(per_head, "dilated"); }
    void check(const char* op, const extents_of_scores& s) const {
        require_argument(dilation >= 1, op, "dilated has dilation ", dilation, ", the least is 1");
        require_shape(per_head.empty() || static_cast<index_t>(per_head.size()) == s.H, op, "dilated holds ",
                      per_head.size(), " dilations, q has ", s.H, " heads");
        for (index_t delta : per_head)
            require_argument(delta >= 1, op, "dilated has dilation ", delta, ", the least is 1");
    }

private:
    constexpr index_t step(index_t h) const {
        return per_head.empty() ? dilation : per_head[static_cast<std::size_t>(h)];
    }
    constexpr range band(index_t i, index_t delta) const {
        return reach < 0 ? range{0, no_key} : range{i - reach * delta, i + reach * delta + 1};
    }
    /// Whether some row is in step with key j and within reach: the last such row below the upper end decides.
    constexpr bool seen(const rows& r, index_t j, index_t delta) const {
        const range near = reach < 0 ? range{r.first, r.last}
                                     : range{j - reach * delta, j + reach * delta + 1} & range{r.first, r.last};
        return !near.empty() && near.last - 1 - detail::floor_mod(near.last - 1 - j, delta) >= near.first;
    }
};

/// j <= i and i - j < length: the row's own key and length - 1 before it. A1 of strided; the paper's text keeps one key
/// more than its code, which is recent{l + 1}.
struct recent {
    using role = roles::mask;
    static constexpr bool monotone = true;
    index_t length;
    constexpr explicit recent(index_t keys) : length(keys) {}
    constexpr range keys(const where& w) const { return {w.i - length + 1, w.i + 1}; }
    void check(const char* op) const {
        require_argument(length >= 0, op, "recent has length ", length, ", the least is 0");
    }
};

/// j <= i and (i - j) mod stride == 0: A2 of strided.
struct every : both<causal, dilated> {
    constexpr explicit every(index_t stride) : both<causal, dilated>{{}, dilated(-1, stride)} {}
    constexpr index_t count(const where& row, index_t keys) const { return b.count(row, std::min(keys, row.i + 1)); }
    void check(const char* op) const {
        require_argument(b.dilation >= 1, op, "every has stride ", b.dilation, ", the least is 1");
    }
};

/// j <= i and j mod length in [length - (v + 1) cells, length - v cells), v = h mod turns: the cells at the end of each
/// block that sum it up; heads take turns, counted from the block's end. A2 of fixed.
struct summary {
    using role = roles::mask;
    index_t length;
    index_t cells;
    index_t turns = 1;
    constexpr summary(index_t l, index_t c, index_t heads_in_turn = 1) : length(l), cells(c), turns(heads_in_turn) {}

    constexpr bool allows(const where& w) const {
        return w.j <= w.i && cells_of(w.h).contains(detail::floor_mod(w.j, length));
    }
    constexpr index_t next(const rows& r, index_t j) const {
        const range at = cells_of(r.h);
        const index_t block = detail::floor_div(j, length) * length;
        if (j - block >= at.last)
            j = block + length + at.first;
        else
            j = std::max(j, block + at.first);
        return r.size() > 0 && j < r.last && cells > 0 ? j : no_key;
    }
    constexpr bool full(const rows& r, range keys) const {
        const index_t block = detail::floor_div(keys.first, length) * length;
        const range at = cells_of(r.h);
        return keys.last <= r.first + 1 && range{block + at.first, block + at.last}.contains(keys);
    }
    constexpr lane_bits bits(const rows& r, index_t j, int n) const {
        const range at = cells_of(r.h);
        lane_bits out;
        index_t within = detail::floor_mod(j, length);
        for (int c = 0; c < n; ++c) {
            if (at.contains(within))
                out.key[c] = static_cast<std::uint16_t>(detail::span_bits(j + c - r.first, r.size(), 16));
            within = within + 1 == length ? 0 : within + 1;
        }
        return out;
    }
    constexpr index_t count(const where& row, index_t keys) const {
        const index_t end = std::max<index_t>(0, std::min(keys, row.i + 1));
        const range at = cells_of(row.h);
        return end / length * at.size() + (range{0, end % length} & at).size();
    }
    void check(const char* op) const {
        require_argument(length >= 1, op, "summary has length ", length, ", the least is 1");
        require_argument(cells >= 0 && turns >= 1 && cells * turns <= length, op, "summary: ", turns, " turns of ",
                         cells, " cells do not fit a block of ", length);
    }

private:
    constexpr range cells_of(index_t h) const {
        const index_t v = h % turns;
        return {length - (v + 1) * cells, length - v * cells};
    }
};

/// One softmax over both sets of the strided pattern.
struct strided : either<recent, every> {
    constexpr explicit strided(index_t l) : either<recent, every>{recent(l), every(l)} {}
};

/// One softmax over both sets of the fixed pattern.
struct fixed : either<both<causal, chunk>, summary> {
    constexpr fixed(index_t l, index_t c, index_t heads_in_turn = 1)
        : either<both<causal, chunk>, summary>{{{}, chunk(l)}, summary(l, c, heads_in_turn)} {}
};

}  // namespace heed::inline HEED_ABI
