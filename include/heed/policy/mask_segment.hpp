// Masks told by data about tokens: packed documents, valid lengths, chosen rows, lifetimes of keys.
#pragma once

#include <span>

#include "../core/view.hpp"
#include "lanes.hpp"
#include "mask_position.hpp"

namespace heed::inline HEED_ABI {

/// Packed sequences: document d holds the positions [offsets[d], offsets[d + 1]). A query sees keys of its own document
/// that `inner` allows, with i and j counted from the document's start (b, h and the row index stay). A query outside
/// all documents sees nothing. Masks that read a tensor by key belong outside: document{...} & boolean{...}.
template <class Inner = everything>
struct document {
    static_assert(!detail::additive_mask<Inner>, "heed: an additive mask inside document; use & instead");
    using role = roles::mask;
    static constexpr bool monotone = detail::monotone_mask<Inner>;
    std::span<const index_t> offsets;
    Inner inner;

    constexpr explicit document(std::span<const index_t> starts_and_end) : offsets(starts_and_end), inner{} {}
    constexpr document(std::span<const index_t> starts_and_end, const Inner& within)
        : offsets(starts_and_end), inner(within) {}

    constexpr bool allows(const where& w) const {
        const range d = at(find(w.i));
        return d.contains(w.i) && d.contains(w.j) && detail::allows(inner, within(w, d.first));
    }
    constexpr range keys(const where& w) const requires detail::interval_mask<Inner> {
        const range d = at(find(w.i));
        if (!d.contains(w.i)) return {d.last, d.last};
        const range k = inner.keys(within(w, d.first));
        const auto place = [&](index_t j) { return d.first + std::clamp<index_t>(j, 0, d.size()); };
        return {place(k.first), place(k.last)};
    }
    constexpr index_t next(const rows& r, index_t j) const {
        // Documents that end before j hold nothing more, so the first to ask is that of j or that of the first row.
        std::size_t from = find(r.first);
        if (j >= at(from).last) from = std::max(from, find(j));
        for (std::size_t d = from; d + 1 < offsets.size() && offsets[d] < r.last; ++d) {
            const rows part = rows_of(r, at(d));
            if (part.size() <= 0) continue;
            const index_t key = detail::next(inner, part, std::max<index_t>(0, j - offsets[d]));
            if (key < at(d).size()) return offsets[d] + key;
        }
        return no_key;
    }
    constexpr bool full(const rows& r, range keys) const {
        const range d = at(find(r.first));
        return d.contains(range{r.first, r.last}) && d.contains(keys) &&
               detail::full(inner, rows_of(r, d), {keys.first - d.first, keys.last - d.first});
    }
    constexpr lane_bits bits(const rows& r, index_t j, int n) const {
        lane_bits out;
        for (std::size_t d = find(r.first); d + 1 < offsets.size() && offsets[d] < r.last; ++d) {
            const range k = at(d) & range{j, j + n};
            const rows part = rows_of(r, at(d));
            if (k.empty() || part.size() <= 0) continue;
            const lane_bits in = detail::bits(inner, part, k.first - offsets[d], static_cast<int>(k.size()));
            const index_t lane = part.first + offsets[d] - r.first;
            for (index_t c = 0; c < k.size(); ++c)
                out.key[k.first - j + c] |= static_cast<std::uint16_t>(in.key[c] << lane);
        }
        return out;
    }
    void reads(const view_visitor& see) const {
        see(offsets, "document");
        detail::visit_reads(inner, see);
    }
    void check(const char* op, const extents_of_scores& s) const {
        require_argument(!offsets.empty() && offsets.front() >= 0, op, "document: offsets start with the first token");
        for (std::size_t d = 1; d < offsets.size(); ++d)
            require_argument(offsets[d - 1] <= offsets[d], op, "document: offset ", offsets[d], " stands after ",
                             offsets[d - 1], ", they must not decrease");
        require_shape(offsets.back() <= s.M, op, "document: the last offset is ", offsets.back(), ", k has ", s.M,
                      " keys");
        detail::check_policy(inner, op, s);
    }

private:
    /// The document of a position; 0 before the first, the empty one at the end behind the last.
    constexpr std::size_t find(index_t i) const {
        // Bisection without a branch to mispredict: this is asked several times a tile.
        const index_t* from = offsets.data();
        for (std::size_t n = offsets.size(); n > 1; n -= n / 2) from = from[n / 2] <= i ? from + n / 2 : from;
        return static_cast<std::size_t>(from - offsets.data());
    }
    constexpr range at(std::size_t d) const {
        if (d + 1 < offsets.size()) return {offsets[d], offsets[d + 1]};
        return {offsets.back(), offsets.back()};
    }
    static constexpr where within(where w, index_t start) {
        w.i -= start;
        w.j -= start;
        return w;
    }
    /// The rows of document d, counted from its start.
    static constexpr rows rows_of(const rows& r, range d) {
        const range k = range{r.first, r.last} & d;
        return {r.b, r.h, k.first - d.first, k.last - d.first, r.shift - d.first};
    }
};

/// j < keys[b]: batch b holds that many keys, the rest is padding.
struct lengths {
    using role = roles::mask;
    static constexpr bool monotone = true;
    std::span<const index_t> valid;
    constexpr explicit lengths(std::span<const index_t> keys_of_batch) : valid(keys_of_batch) {}
    constexpr range keys(const where& w) const { return {0, valid[static_cast<std::size_t>(w.b)]}; }
    void reads(const view_visitor& see) const { see(valid, "lengths"); }
    void check(const char* op, const extents_of_scores& s) const {
        require_shape(static_cast<index_t>(valid.size()) == s.B, op, "lengths holds ", valid.size(),
                      " counts, q has batch ", s.B);
        for (index_t n : valid)
            require_argument(0 <= n && n <= s.M, op, "lengths: a batch has ", n, " keys, k has ", s.M);
    }
};

/// Rows whose position is marked see every key, the others none; positions outside the marks count as not marked.
struct queries_where {
    using role = roles::mask;
    std::span<const bool> marks;
    constexpr explicit queries_where(std::span<const bool> marked) : marks(marked) {}
    constexpr range keys(const where& w) const {
        const bool inside = 0 <= w.i && w.i < static_cast<index_t>(marks.size());
        return {0, inside && marks[static_cast<std::size_t>(w.i)] ? no_key : 0};
    }
    void reads(const view_visitor& see) const { see(marks, "queries_where"); }
};

/// Keys that are marked (non-zero) in marks (b, h, j), for every row; or, by `marked` false, those that are not. Axes b
/// and h of extent 1 broadcast; keys beyond the marks are not marked, so marks may be kept while keys are appended.
template <class T>
struct keys_where {
    using role = roles::mask;
    view<const T, 3> marks;
    bool marked;

    explicit keys_where(view<const T, 3> of_keys, bool those_marked = true)
        : marks(detail::broadcasting_but_last(of_keys)), marked(those_marked) {}

    bool allows(const where& w) const { return seen(w.b, w.h, w.j); }
    index_t next(const rows& r, index_t j) const {
        if (r.size() <= 0) return no_key;
        while (j < held() && !seen(r.b, r.h, j)) ++j;
        return j < held() || !marked ? j : no_key;
    }
    bool full(const rows& r, range keys) const {
        for (index_t j = keys.first; j < keys.last; ++j)
            if (!seen(r.b, r.h, j)) return false;
        return true;
    }
    lane_bits bits(const rows& r, index_t j, int n) const {
        lane_bits out;
        const auto all = static_cast<std::uint16_t>(detail::span_bits(0, r.size(), 16));
        for (int c = 0; c < n; ++c) out.key[c] = seen(r.b, r.h, j + c) ? all : std::uint16_t(0);
        return out;
    }
    void reads(const view_visitor& see) const { see(marks, "keys_where"); }
    void check(const char* op, const extents_of_scores& s) const {
        detail::check_broadcast(marks, {s.B, s.H, held()}, op, "keys_where");
    }

private:
    index_t held() const { return marks.shape[2]; }
    bool seen(index_t b, index_t h, index_t j) const {
        return (j < held() && marks.data[b * marks.strides[0] + h * marks.strides[1] + j * marks.strides[2]] != T(0)) ==
               marked;
    }
};
template <class T>
keys_where(view<T, 3>) -> keys_where<std::remove_const_t<T>>;
template <class T>
keys_where(view<T, 3>, bool) -> keys_where<std::remove_const_t<T>>;

/// j <= i <= last[b, g, j]: every key names the last query position that sees it [75]; last[j] >= j.
/// The view is (B, G, M); axes of extent 1 broadcast; each of its heads serves `group` query heads.
struct lifetime {
    using role = roles::mask;
    view<const index_t, 3> last;
    index_t group = 1;

    explicit lifetime(view<const index_t, 3> last_query, index_t heads_per_key_head = 1)
        : last(last_query), group(heads_per_key_head) {}

    bool allows(const where& w) const { return w.j <= w.i && w.i <= of(w.b, w.h)[w.j * last.strides[2]]; }
    index_t next(const rows& r, index_t j) const {
        const index_t* end = of(r.b, r.h);
        for (; j < r.last && j < last.shape[2]; ++j)
            if (end[j * last.strides[2]] >= r.first) return j;
        return no_key;
    }
    bool full(const rows& r, range keys) const {
        if (keys.last > r.first + 1) return false;
        const index_t* end = of(r.b, r.h);
        for (index_t j = keys.first; j < keys.last; ++j)
            if (end[j * last.strides[2]] < r.last - 1) return false;
        return true;
    }
    lane_bits bits(const rows& r, index_t j, int n) const {
        const index_t* end = of(r.b, r.h);
        lane_bits out;
        for (int c = 0; c < n; ++c, ++j)
            out.key[c] = static_cast<std::uint16_t>(
                detail::span_bits(j - r.first, std::min(r.last - 1, end[j * last.strides[2]]) - r.first + 1, 16));
        return out;
    }
    void reads(const view_visitor& see) const { see(last, "lifetime"); }
    void check(const char* op, const extents_of_scores& s) const {
        require_shape(last.shape[0] == 1 || last.shape[0] == s.B, op, "lifetime has batch ", last.shape[0], ", q has ",
                      s.B);
        require_shape(group >= 1 && (last.shape[1] == 1 || last.shape[1] * group == s.H), op, "lifetime has ",
                      last.shape[1], " heads of ", group, " query heads each, q has ", s.H);
        require_shape(last.shape[2] == s.M, op, "lifetime has ", last.shape[2], " keys, k has ", s.M);
    }

private:
    const index_t* of(index_t b, index_t h) const {
        const index_t at_b = last.shape[0] == 1 ? 0 : b, at_h = last.shape[1] == 1 ? 0 : h / group;
        return last.data + at_b * last.strides[0] + at_h * last.strides[1];
    }
};

/// How long a key lives [75].
enum class token_type : unsigned char {
    global,  // for ever
    local,   // up to and including the next global token
    window   // `reach` more tokens
};

/// last[j] for `lifetime`: the last position that sees key j. A local token with no global one behind it lives for
/// ever.
inline void token_lifetimes(std::span<const token_type> types, index_t reach, std::span<index_t> last) {
    require_shape(types.size() == last.size(), "token_lifetimes", "there are ", types.size(), " types and ",
                  last.size(), " results");
    require_argument(reach >= 0, "token_lifetimes", "reach is ", reach, ", the least is 0");
    index_t next_global = no_key;
    for (std::size_t j = types.size(); j-- > 0;) {
        const auto at = static_cast<index_t>(j);
        last[j] = types[j] == token_type::global ? no_key : types[j] == token_type::local ? next_global : at + reach;
        if (types[j] == token_type::global) next_global = at;
    }
}

}  // namespace heed::inline HEED_ABI
