// Masks: sets of (query, key) pairs, who may be seen.
//
// The definition is allows(where). What an engine asks is answered by the free functions below, for any mask:
//   next(m, rows, j)    first key >= j that any of the rows may see; no_key if there is none
//   full(m, rows, keys) whether every pair is allowed (a tile that runs without mask code)
//   bits(m, rows, j, n) the pairs of a micro-block, as lane bits
// A mask answers by members of the same names, or by keys(where) -> range (an interval mask: the row sees exactly these
// keys), or by allows alone. `&` and `|` keep all of it.
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

template <class M>
constexpr bool allows(const M& m, const where& w) {
    if constexpr (requires { m.allows(w); })
        return m.allows(w);
    else if constexpr (interval_mask<M>)
        return m.keys(w).contains(w.j);
    else
        return m(w);
}

template <class M>
constexpr index_t next(const M& m, const rows& r, index_t j) {
    if constexpr (requires { m.next(r, j); }) {
        return m.next(r, j);
    } else if constexpr (interval_mask<M>) {
        index_t nearest = no_key;
        for (index_t i = r.first; i < r.last; ++i) {
            const range k = m.keys(r.at(i));
            if (k.last > j && !k.empty()) nearest = std::min(nearest, std::max(j, k.first));
        }
        return nearest;
    } else {
        return r.size() > 0 ? j : no_key;
    }
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
        lane_bits out;
        for (index_t i = r.first; i < r.last; ++i) {
            const int lane = static_cast<int>(i - r.first);
            if constexpr (interval_mask<M>) {
                const range k = m.keys(r.at(i)) & range{j, j + n};
                for (index_t c = k.first; c < k.last; ++c) out.key[c - j] |= static_cast<std::uint16_t>(1u << lane);
            } else {
                for (int c = 0; c < n; ++c)
                    out.key[c] |= static_cast<std::uint16_t>(unsigned(allows(m, r.at(i, j + c))) << lane);
            }
        }
        return out;
    }
}

}  // namespace detail

/// Pairs both masks allow.
template <class A, class B>
struct both {
    using role = roles::mask;
    A a;
    B b;

    constexpr bool allows(const where& w) const { return detail::allows(a, w) && detail::allows(b, w); }
    constexpr index_t next(const rows& r, index_t j) const {
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

/// Key j is visible to the query at position i where j <= i.
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

}  // namespace heed::inline HEED_ABI
