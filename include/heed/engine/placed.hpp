// Policies over a source whose keys stand at positions of their own: asked by index, answered by position.
#pragma once

#include "../policy/mask.hpp"

namespace heed::inline HEED_ABI::detail {

/// Positions of the keys of one head, increasing; none: key j stands at j.
struct key_places {
    const index_t* at = nullptr;
    index_t count = 0;

    index_t of(index_t j) const { return at ? at[std::min(j, count - 1)] : j; }
    where place(where w) const {
        w.j = of(w.j);
        return w;
    }
    /// The first key that stands at `position` or later.
    index_t find(index_t position) const {
        return at ? static_cast<index_t>(std::lower_bound(at, at + count, position) - at) : position;
    }
};

template <class Mask>
struct placed_mask {
    const Mask& mask;
    key_places places;

    bool allows(const where& w) const { return detail::allows(mask, places.place(w)); }
    index_t next(const rows& r, index_t j) const {
        while (j < places.count) {
            const index_t position = detail::next(mask, r, places.of(j));
            if (position == no_key) break;
            const index_t key = places.find(position);
            if (key >= places.count || places.of(key) == position) return key < places.count ? key : no_key;
            j = key;
        }
        return no_key;
    }
    bool full(const rows& r, range keys) const {
        return detail::full(mask, r, {places.of(keys.first), places.of(keys.last - 1) + 1});
    }
    lane_bits bits(const rows& r, index_t j, int n) const {
        if (!places.at) return detail::bits(mask, r, j, n);
        lane_bits out;
        for (int c = 0; c < n; ++c) out.key[c] = detail::bits(mask, r, places.of(j + c), 1).key[0];
        return out;
    }
    template <class X>
    HEED_INLINE X add(const X& x, const where& w) const
        requires additive_mask<Mask>
    {
        return mask.add(x, places.place(w));
    }
};

template <class Score>
struct placed_score {
    const Score& score;
    key_places places;

    template <class X>
    HEED_INLINE X operator()(const X& x, const where& w) const {
        return score(x, places.place(w));
    }
};

}  // namespace heed::inline HEED_ABI::detail
