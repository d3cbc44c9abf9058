// Block-sparse masks: which blocks of keys each block of query rows sees, as a list (CSR), shared or per head.
//
//   the blocks of block row r of head h:  blocks[starts[h R + r] .. starts[h R + r + 1]), in ascending order
#pragma once

#include <span>
#include <vector>

#include "../core/view.hpp"
#include "mask.hpp"

namespace heed::inline HEED_ABI {

/// An axis cut into blocks: of one size, or at edges 0 = e_0 <= e_1 <= ...
struct block_axis {
    index_t size = 1;
    std::span<const index_t> edges;

    constexpr block_axis(index_t uniform) : size(uniform) {}
    constexpr block_axis(std::span<const index_t> at) : edges(at) {}

    constexpr index_t of(index_t x) const {
        if (edges.empty()) return x / size;
        return std::upper_bound(edges.begin(), edges.end(), x) - edges.begin() - 1;
    }
    constexpr index_t first(index_t block) const {
        return edges.empty() ? block * size : edges[static_cast<std::size_t>(block)];
    }
    /// How many blocks cover [0, n).
    constexpr index_t count(index_t n) const {
        return edges.empty() ? ceil_div(n, size) : static_cast<index_t>(edges.size()) - 1;
    }
    void check(const char* op, const char* name, index_t n) const {
        if (edges.empty()) {
            require_argument(size >= 1, op, "block_list: ", name, " blocks have size ", size, ", the least is 1");
            return;
        }
        require_shape(edges.front() == 0 && edges.back() == n, op, "block_list: ", name, " edges span [",
                      edges.front(), ", ", edges.back(), "), there are ", n);
        for (std::size_t x = 1; x < edges.size(); ++x)
            require_argument(edges[x - 1] <= edges[x], op, "block_list: ", name, " edge ", edges[x],
                             " stands after ", edges[x - 1]);
    }
};

/// Blocks are cut along the query's row index (not its position) and the key; inside a listed block all is visible.
struct block_list {
    using role = roles::mask;
    block_axis query;
    block_axis key;
    std::span<const index_t> starts;
    std::span<const index_t> blocks;
    index_t heads;          // 1: every head uses the same lists
    index_t rows_per_head;  // block rows, or 0 where heads share them

    constexpr block_list(block_axis query_blocks, block_axis key_blocks, std::span<const index_t> row_starts,
                         std::span<const index_t> key_block_lists, index_t lists_for_heads = 1)
        : query(query_blocks), key(key_blocks), starts(row_starts), blocks(key_block_lists), heads(lists_for_heads),
          rows_per_head(heads > 1 ? (static_cast<index_t>(starts.size()) - 1) / heads : 0) {}

    constexpr bool allows(const where& w) const {
        const auto seen = list(w.h, query.of(w.row));
        return std::binary_search(seen.begin(), seen.end(), key.of(w.j));
    }
    constexpr index_t next(const rows& r, index_t j) const {
        if (r.size() <= 0) return no_key;
        index_t nearest = no_key;
        const index_t at = key.of(j), end = query.of(r.last - 1 - r.shift);
        for (index_t x = query.of(r.first - r.shift); x <= end && nearest > j; ++x) {
            const auto seen = list(r.h, x);
            for (auto k = std::lower_bound(seen.begin(), seen.end(), at); k != seen.end(); ++k) {
                if (past(*k) <= std::max(j, key.first(*k))) continue;  // an empty block
                nearest = std::min(nearest, std::max(j, key.first(*k)));
                break;
            }
        }
        return nearest;
    }
    constexpr bool full(const rows& r, range keys) const {
        if (keys.empty() || r.size() <= 0) return true;
        const index_t first = key.of(keys.first), last = key.of(keys.last - 1), end = query.of(r.last - 1 - r.shift);
        for (index_t x = query.of(r.first - r.shift); x <= end; ++x) {
            const auto seen = list(r.h, x);
            auto k = std::lower_bound(seen.begin(), seen.end(), first);
            for (index_t block = first; block <= last; ++block, ++k)
                if (k == seen.end() || *k != block) return false;
        }
        return true;
    }
    constexpr lane_bits bits(const rows& r, index_t j, int n) const {
        lane_bits out;
        const index_t row = r.first - r.shift, end = query.of(r.last - 1 - r.shift);
        for (index_t x = query.of(row); x <= end; ++x) {
            const unsigned lanes =
                detail::span_bits(query.first(x) - row, std::min(query.first(x + 1) - row, r.size()), 16);
            const auto seen = list(r.h, x);
            for (auto k = std::lower_bound(seen.begin(), seen.end(), key.of(j)); k != seen.end(); ++k) {
                if (key.first(*k) >= j + n) break;
                for (index_t c = std::max(j, key.first(*k)); c < std::min(j + n, past(*k)); ++c)
                    out.key[c - j] |= static_cast<std::uint16_t>(lanes);
            }
        }
        return out;
    }
    constexpr index_t count(const where& row, index_t keys) const {
        index_t sum = 0;
        for (index_t k : list(row.h, query.of(row.row))) sum += (range{key.first(k), past(k)} & range{0, keys}).size();
        return sum;
    }
    void reads(const view_visitor& see) const {
        for (const auto& part : {query.edges, key.edges, starts, blocks}) see(part, "block_list");
    }
    void check(const char* op, const extents_of_scores& s) const {
        query.check(op, "query", s.N);
        key.check(op, "key", s.M);
        const index_t R = query.count(s.N), C = key.count(s.M);
        require_shape(heads >= 1 && (heads == 1 || heads == s.H), op, "block_list has lists for ", heads, " heads, q has ", s.H);
        require_shape(static_cast<index_t>(starts.size()) == heads * R + 1, op, "block_list has ", starts.size(),
                      " starts, ", heads, " heads of ", R, " block rows need ", heads * R + 1);
        require_shape(starts.front() == 0 && starts.back() == static_cast<index_t>(blocks.size()), op,
                      "block_list: starts end at ", starts.back(), ", there are ", blocks.size(), " blocks");
        for (std::size_t x = 1; x < starts.size(); ++x) {
            require_argument(starts[x - 1] <= starts[x], op, "block_list: start ", starts[x], " stands after ",
                             starts[x - 1]);
            for (index_t k = starts[x - 1]; k < starts[x]; ++k) {
                const index_t block = blocks[static_cast<std::size_t>(k)];
                require_argument(0 <= block && block < C, op, "block_list names key block ", block, " of ", C);
                require_argument(k == starts[x - 1] || blocks[static_cast<std::size_t>(k - 1)] < block, op,
                                 "block_list: the blocks of a row do not ascend at ", block);
            }
        }
    }

private:
    constexpr index_t past(index_t block) const { return key.first(block + 1); }
    constexpr std::span<const index_t> list(index_t h, index_t block_row) const {
        const auto at = static_cast<std::size_t>(h * rows_per_head + block_row);
        const auto first = static_cast<std::size_t>(starts[at]);
        return blocks.subspan(first, static_cast<std::size_t>(starts[at + 1]) - first);
    }
};

/// The lists of a dense table of kept blocks, (heads, block rows, block columns).
struct block_lists {
    std::vector<index_t> starts{0};
    std::vector<index_t> blocks;

    template <class T>
    explicit block_lists(view<T, 3> kept) {
        for (index_t h = 0; h < kept.shape[0]; ++h)
            for (index_t r = 0; r < kept.shape[1]; ++r) {
                for (index_t c = 0; c < kept.shape[2]; ++c)
                    if (kept(h, r, c)) blocks.push_back(c);
                starts.push_back(static_cast<index_t>(blocks.size()));
            }
    }
};

}  // namespace heed::inline HEED_ABI
