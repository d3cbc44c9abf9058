// Masks told by positions alone: i, the query's position on the key axis, against j, the key's.
//
// Each has a closed form for what an engine asks, so it costs O(1) or O(log rows) a tile, however it is combined.
#pragma once

#include <span>

#include "mask.hpp"

namespace heed::inline HEED_ABI {

namespace detail {
/// Rounds towards minus infinity: a query may stand before the first key.
constexpr index_t floor_div(index_t a, index_t b) { return a / b - (a % b < 0); }
constexpr index_t floor_mod(index_t a, index_t b) { return a - floor_div(a, b) * b; }
}  // namespace detail

/// j <= i.
struct causal {
    using role = roles::mask;
    static constexpr bool monotone = true;
    constexpr range keys(const where& w) const { return {0, w.i + 1}; }
};

/// i - left <= j <= i + right. A negative side is open: window{4, -1} looks 4 back and any distance ahead.
/// window{w} is window{w, w}; causal{} & window{w} sees w keys back and itself.
struct window {
    using role = roles::mask;
    static constexpr bool monotone = true;
    index_t left = -1;
    index_t right = -1;

    constexpr explicit window(index_t each_side) : left(each_side), right(each_side) {}
    constexpr window(index_t l, index_t r) : left(l), right(r) {}
    constexpr range keys(const where& w) const {
        return {left < 0 ? 0 : w.i - left, right < 0 ? no_key : w.i + right + 1};
    }
};

/// floor(j / size) == floor(i / size): attention inside fixed chunks only, a block diagonal [83].
struct chunk {
    using role = roles::mask;
    static constexpr bool monotone = true;
    index_t size;
    constexpr explicit chunk(index_t n) : size(n) {}
    constexpr range keys(const where& w) const {
        const index_t first = detail::floor_div(w.i, size) * size;
        return {first, first + size};
    }
    void check(const char* op) const { require_argument(size >= 1, op, "chunk has size ", size, ", the least is 1"); }
};

/// floor(j / size) <= floor(i / size): causal between blocks, all visible within one.
struct block_causal {
    using role = roles::mask;
    static constexpr bool monotone = true;
    index_t size;
    constexpr explicit block_causal(index_t n) : size(n) {}
    constexpr range keys(const where& w) const { return {0, (detail::floor_div(w.i, size) + 1) * size}; }
    void check(const char* op) const {
        require_argument(size >= 1, op, "block_causal has size ", size, ", the least is 1");
    }
};

/// i < p and j < p: the first p tokens see each other. The prefix is half-open, [0, p); prefix-LM is
/// causal{} | prefix{p}.
struct prefix {
    using role = roles::mask;
    static constexpr bool monotone = true;
    index_t p;
    constexpr explicit prefix(index_t tokens) : p(tokens) {}
    // Rows behind the prefix have the empty range at its end, which keeps both ends monotone.
    constexpr range keys(const where& w) const { return {w.i < p ? 0 : p, p}; }
    void check(const char* op) const { require_argument(p >= 0, op, "prefix is ", p, ", the least is 0"); }
};

/// j < n: the first keys, for every row (attention sinks).
struct first {
    using role = roles::mask;
    static constexpr bool monotone = true;
    index_t n;
    constexpr explicit first(index_t keys) : n(keys) {}
    constexpr range keys(const where&) const { return {0, n}; }
    void check(const char* op) const { require_argument(n >= 0, op, "first is ", n, ", the least is 0"); }
};

/// from <= j < to: a stretch of keys, for every row. Attention over stretches that tile the keys merges to the whole.
struct between {
    using role = roles::mask;
    static constexpr bool monotone = true;
    range stretch;
    constexpr between(index_t from, index_t to) : stretch{from, to} {}
    constexpr range keys(const where&) const { return stretch; }
};

/// What an interval mask shows a query that stands `back` positions earlier: earlier{chunk{c}, c} is the chunk before.
template <detail::interval_mask Mask>
struct earlier {
    using role = roles::mask;
    static constexpr bool monotone = detail::monotone_mask<Mask>;
    Mask mask;
    index_t back;
    constexpr earlier(const Mask& m, index_t positions) : mask(m), back(positions) {}
    constexpr range keys(where w) const {
        w.i -= back;
        return mask.keys(w);
    }
    void reads(const view_visitor& see) const { detail::visit_reads(mask, see); }
    void check(const char* op, const extents_of_scores& s) const { detail::check_policy(mask, op, s); }
};

/// i >= position: rows from there on see every key.
struct queries_from {
    using role = roles::mask;
    static constexpr bool monotone = true;
    index_t position;
    constexpr explicit queries_from(index_t i) : position(i) {}
    constexpr range keys(const where& w) const { return {0, w.i < position ? 0 : no_key}; }
};

/// i < g or j < g: the first g tokens see every key and are seen by every query.
struct global {
    using role = roles::mask;
    index_t g;
    constexpr explicit global(index_t tokens) : g(tokens) {}
    constexpr range keys(const where& w) const { return {0, w.i < g ? no_key : g}; }
    constexpr index_t next(const rows& r, index_t j) const {
        return r.size() > 0 && (r.first < g || j < g) ? j : no_key;
    }
    constexpr bool full(const rows& r, range keys) const { return r.last <= g || keys.last <= g; }
    void check(const char* op) const { require_argument(g >= 0, op, "global is ", g, ", the least is 0"); }
};

/// i in G or j in G, for positions G in ascending order, each once [16].
struct global_tokens {
    using role = roles::mask;
    std::span<const index_t> tokens;
    constexpr explicit global_tokens(std::span<const index_t> positions) : tokens(positions) {}

    constexpr bool allows(const where& w) const { return holds({w.i, w.i + 1}) || holds({w.j, w.j + 1}); }
    constexpr index_t next(const rows& r, index_t j) const {
        if (nearest(r.first) < r.last) return j;
        return r.size() > 0 ? nearest(j) : no_key;
    }
    constexpr bool full(const rows& r, range keys) const { return holds({r.first, r.last}) || holds(keys); }
    constexpr lane_bits bits(const rows& r, index_t j, int n) const {
        unsigned lanes = 0;
        for (index_t i = nearest(r.first); i < r.last; i = nearest(i + 1)) lanes |= 1u << (i - r.first);
        lane_bits out;
        const unsigned all = detail::span_bits(0, r.size(), 16);
        for (int c = 0; c < n; ++c) out.key[c] = static_cast<std::uint16_t>(holds({j + c, j + c + 1}) ? all : lanes);
        return out;
    }
    constexpr index_t count(const where& row, index_t keys) const {
        return holds({row.i, row.i + 1}) ? keys : before(keys) - before(0);
    }
    void reads(const view_visitor& see) const { see(tokens, "global_tokens"); }
    void check(const char* op) const {
        for (std::size_t x = 1; x < tokens.size(); ++x)
            require_argument(tokens[x - 1] < tokens[x], op, "global_tokens: position ", tokens[x], " stands after ",
                             tokens[x - 1], ", they must ascend");
    }

private:
    /// How many tokens lie before position i.
    constexpr index_t before(index_t i) const {
        return std::lower_bound(tokens.begin(), tokens.end(), i) - tokens.begin();
    }
    constexpr index_t nearest(index_t i) const {
        const auto at = std::lower_bound(tokens.begin(), tokens.end(), i);
        return at == tokens.end() ? no_key : *at;
    }
    constexpr bool holds(range r) const { return before(r.last) - before(r.first) == r.size(); }
};

}  // namespace heed::inline HEED_ABI
