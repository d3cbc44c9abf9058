// Masks: sets of (query, key) pairs, who may be seen.
//
// The definition is allows(where). What an engine asks is answered by the free functions below, for any mask:
//   next(m, rows, j)    first key >= j that any of the rows may see; no_key if there is none
//   full(m, rows, keys) whether every pair is allowed (a tile that runs without mask code)
//   bits(m, rows, j, n) the pairs of a micro-block, as lane bits
// A mask answers by members of the same names, or by keys(where) -> range (an interval mask: the row sees exactly these
// keys), or by allows alone. `&` and `|` keep all of it. count(where row, keys) is for area.hpp: visible keys of a row.
#pragma once

#include <array>
#include <cstdint>
#include <limits>

#include "roles.hpp"

namespace heed::inline HEED_ABI {

inline constexpr index_t no_key = std::numeric_limits<index_t>::max();

/// Consecutive query rows of one head: positions [first, last) on the key axis; row index = position - shift.
struct rows {
    index_t b = 0;
    index_t h = 0;
    index_t first = 0;
    index_t last = 0;
    index_t shift = 0;

    constexpr index_t size() const { return last - first; }
    constexpr where at(index_t i, index_t j = 0) const { return {b, h, i - shift, i, j}; }
};

/// Bit l of key[c]: whether row l may see key j + c, for at most 16 rows and 8 keys.
struct lane_bits {
    std::array<std::uint16_t, 8> key{};

    friend constexpr lane_bits operator&(lane_bits a, const lane_bits& b) {
        for (int c = 0; c < 8; ++c) a.key[c] &= b.key[c];
        return a;
    }
    friend constexpr lane_bits operator|(lane_bits a, const lane_bits& b) {
        for (int c = 0; c < 8; ++c) a.key[c] |= b.key[c];
        return a;
    }
};

namespace detail {

template <class M>
concept interval_mask = requires(const M& m, const where& w) {
    { m.keys(w) } -> std::same_as<range>;
};
/// Both ends of keys(i) do not decrease in i, so two rows speak for all between.
template <class M>
concept monotone_mask = interval_mask<M> && requires { requires M::monotone; };

/// An additive mask also moves the logits it lets through: x + bias.
template <class M>
concept additive_mask = requires(const M& m, float x, const where& w) { m.add(x, w); };

/// The same for K neighbouring keys, the first of them w.j.
template <additive_mask M, class X, int K>
HEED_INLINE void add_along_keys_of(const M& m, X (&x)[K], const where& w) {
    if constexpr (requires { m.add_along_keys(x, w); })
        m.add_along_keys(x, w);
    else
        along_keys([&](const X& y, const where& here) { return m.add(y, here); }, x, w);
}

template <class M>
constexpr bool allows(const M& m, const where& w) {
    if constexpr (requires { m.allows(w); })
        return m.allows(w);
    else if constexpr (interval_mask<M>)
        return m.keys(w).contains(w.j);
    else
        return m(w);
}

/// An interval mask whose own `next` is dearer or coarser than one made from keys(): every mask that has no `next`, and
/// intersections of such.
template <class M>
concept plain_interval = interval_mask<M> && (!requires(const M& m, const rows& r) { m.next(r, index_t()); } ||
                                              requires { requires M::plain; });

/// Row after row, one byte of keys each: bit c says whether the row sees key c. Turned into lane bits at the end.
struct byte_rows {
    std::uint64_t low = 0, high = 0;  // rows 0 to 7, rows 8 to 15

    constexpr void set(index_t row, unsigned keys) {
        (row < 8 ? low : high) |= std::uint64_t(keys) << (row % 8 * 8);
    }
    constexpr lane_bits lanes() const {
        const std::uint64_t a = transposed(low), b = transposed(high);
        lane_bits out;
        for (int c = 0; c < 8; ++c)
            out.key[c] = static_cast<std::uint16_t>((a >> c * 8 & 0xff) | (b >> c * 8 & 0xff) << 8);
        return out;
    }

private:
    /// Transposes an 8 x 8 bit matrix by swapping 1 x 1, 2 x 2 and 4 x 4 blocks.
    static constexpr std::uint64_t transposed(std::uint64_t x) {
        const auto swap = [&](int by, std::uint64_t at) {
            const std::uint64_t t = (x ^ (x >> by)) & at;
            x ^= t ^ (t << by);
        };
        swap(7, 0x00AA00AA00AA00AAu);
        swap(14, 0x0000CCCC0000CCCCu);
        swap(28, 0x00000000F0F0F0F0u);
        return x;
    }
};

/// The bits c with first <= c < last, for 0 <= c < n <= 16.
constexpr unsigned span_bits(index_t first, index_t last, index_t n) {
    const index_t a = std::clamp<index_t>(first, 0, n), z = std::clamp<index_t>(last, 0, n);
    return a < z ? (1u << z) - (1u << a) : 0u;
}

/// Nearest visible key of an interval mask. Where both ends are monotone, the first row that ends after j decides.
template <interval_mask M>
constexpr index_t next_of_intervals(const M& m, const rows& r, index_t j) {
    if constexpr (monotone_mask<M>) {
        index_t i = r.first;
        for (index_t end = r.last; i < end;) {
            const index_t middle = i + (end - i) / 2;
            if (m.keys(r.at(middle)).last > j)
                end = middle;
            else
                i = middle + 1;
        }
        for (; i < r.last; ++i)
            if (const range k = m.keys(r.at(i)); !k.empty()) return std::max(j, k.first);
        return no_key;
    } else {
        index_t nearest = no_key;
        for (index_t i = r.first; i < r.last; ++i) {
            const range k = m.keys(r.at(i));
            if (k.last > j && !k.empty()) nearest = std::min(nearest, std::max(j, k.first));
        }
        return nearest;
    }
}

/// A mask that can tell how many of the first `keys` keys a row sees, in closed form.
template <class M>
concept row_counted = interval_mask<M> || requires(const M& m, const where& w) { m.count(w, index_t()); };

template <row_counted M>
constexpr index_t count_row(const M& m, const where& row, index_t keys) {
    if constexpr (requires { m.count(row, keys); })
        return m.count(row, keys);
    else
        return (m.keys(row) & range{0, keys}).size();
}

template <class M>
constexpr index_t next(const M& m, const rows& r, index_t j) {
    if constexpr (requires { m.next(r, j); })
        return m.next(r, j);
    else if constexpr (interval_mask<M>)
        return next_of_intervals(m, r, j);
    else
        return r.size() > 0 ? j : no_key;
}

template <class M>
constexpr bool full(const M& m, const rows& r, range keys) {
    if constexpr (requires { m.full(r, keys); }) {
        return m.full(r, keys);
    } else if constexpr (monotone_mask<M>) {
        return m.keys(r.at(r.first)).contains(keys) && m.keys(r.at(r.last - 1)).contains(keys);
    } else if constexpr (interval_mask<M>) {
        for (index_t i = r.first; i < r.last; ++i)
            if (!m.keys(r.at(i)).contains(keys)) return false;
        return true;
    } else {
        return false;
    }
}

template <class M>
constexpr lane_bits bits(const M& m, const rows& r, index_t j, int n) {
    if constexpr (requires { m.bits(r, j, n); }) {
        return m.bits(r, j, n);
    } else {
        byte_rows out;
        if constexpr (monotone_mask<M>) {  // most parts of a tile are hidden or full, which the end rows tell
            if (r.size() <= 0) return {};
            const range a = m.keys(r.at(r.first)), z = m.keys(r.at(r.last - 1));
            if (z.last <= j || a.first >= j + n) return {};
            if (z.first <= j && a.last >= j + n) {
                lane_bits all;
                for (int c = 0; c < n; ++c) all.key[c] = static_cast<std::uint16_t>(span_bits(0, r.size(), 16));
                return all;
            }
        }
        for (index_t i = r.first; i < r.last; ++i) {
            unsigned seen = 0;
            if constexpr (interval_mask<M>) {
                const range k = m.keys(r.at(i)) & range{j, j + n};
                seen = k.empty() ? 0 : span_bits(k.first - j, k.last - j, n);
            } else {
                for (int c = 0; c < n; ++c) seen |= unsigned(allows(m, r.at(i, j + c))) << c;
            }
            out.set(i - r.first, seen);
        }
        return out.lanes();
    }
}

}  // namespace detail

/// Pairs both masks allow.
template <class A, class B>
struct both {
    using role = roles::mask;
    A a;
    B b;

    static constexpr bool monotone = detail::monotone_mask<A> && detail::monotone_mask<B>;
    static constexpr bool plain = detail::plain_interval<A> && detail::plain_interval<B>;

    constexpr bool allows(const where& w) const { return detail::allows(a, w) && detail::allows(b, w); }
    constexpr range keys(const where& w) const
        requires(detail::interval_mask<A> && detail::interval_mask<B>)
    {
        return a.keys(w) & b.keys(w);
    }
    constexpr index_t next(const rows& r, index_t j) const {
        if constexpr (plain) return detail::next_of_intervals(*this, r, j);
        for (;;) {  // leapfrog: each jumps to the other's next until they agree
            const index_t x = detail::next(a, r, j);
            if (x == no_key) return no_key;
            const index_t y = detail::next(b, r, x);
            if (y == x || y == no_key) return y;
            j = y;
        }
    }
    constexpr bool full(const rows& r, range keys) const {
        return detail::full(a, r, keys) && detail::full(b, r, keys);
    }
    constexpr lane_bits bits(const rows& r, index_t j, int n) const {
        return detail::bits(a, r, j, n) & detail::bits(b, r, j, n);
    }
    template <class X>
    HEED_INLINE X add(X x, const where& w) const
        requires(detail::additive_mask<A> || detail::additive_mask<B>)
    {
        if constexpr (detail::additive_mask<A>) x = a.add(x, w);
        if constexpr (detail::additive_mask<B>) x = b.add(x, w);
        return x;
    }
    template <class X, int K>
    HEED_INLINE void add_along_keys(X (&x)[K], const where& w) const
        requires(detail::additive_mask<A> || detail::additive_mask<B>)
    {
        if constexpr (detail::additive_mask<A>) detail::add_along_keys_of(a, x, w);
        if constexpr (detail::additive_mask<B>) detail::add_along_keys_of(b, x, w);
    }
    void reads(const view_visitor& see) const {
        detail::visit_reads(a, see);
        detail::visit_reads(b, see);
    }
    void check(const char* op, const extents_of_scores& s) const {
        detail::check_policy(a, op, s);
        detail::check_policy(b, op, s);
    }
};

/// Pairs either mask allows.
template <class A, class B>
struct either {
    static_assert(!detail::additive_mask<A> && !detail::additive_mask<B>,
                  "heed: an additive mask has no union; use & or a score");
    using role = roles::mask;
    A a;
    B b;

    constexpr bool allows(const where& w) const { return detail::allows(a, w) || detail::allows(b, w); }
    constexpr index_t next(const rows& r, index_t j) const {
        return std::min(detail::next(a, r, j), detail::next(b, r, j));
    }
    constexpr bool full(const rows& r, range keys) const {
        return detail::full(a, r, keys) || detail::full(b, r, keys);
    }
    constexpr lane_bits bits(const rows& r, index_t j, int n) const {
        return detail::bits(a, r, j, n) | detail::bits(b, r, j, n);
    }
    constexpr index_t count(const where& row, index_t keys) const
        requires(detail::row_counted<A> && detail::row_counted<B> && detail::row_counted<both<A, B>>)
    {
        return detail::count_row(a, row, keys) + detail::count_row(b, row, keys) -
               detail::count_row(both<A, B>{a, b}, row, keys);
    }
    void reads(const view_visitor& see) const {
        detail::visit_reads(a, see);
        detail::visit_reads(b, see);
    }
    void check(const char* op, const extents_of_scores& s) const {
        detail::check_policy(a, op, s);
        detail::check_policy(b, op, s);
    }
};

template <mask_policy A, mask_policy B>
constexpr both<A, B> operator&(const A& a, const B& b) {
    return {a, b};
}
template <mask_policy A, mask_policy B>
constexpr either<A, B> operator|(const A& a, const B& b) {
    return {a, b};
}

/// Everything is visible (the default).
struct everything {
    using role = roles::mask;
    static constexpr bool monotone = true;
    constexpr range keys(const where&) const { return {0, no_key}; }
};

/// Nothing is visible: every row gives 0.
struct nothing {
    using role = roles::mask;
    static constexpr bool monotone = true;
    constexpr range keys(const where&) const { return {0, 0}; }
};

}  // namespace heed::inline HEED_ABI
