// What every cache has in common: its extents, and the checks of what is appended to it.
#pragma once

#include <span>

#include "../policy/source.hpp"

namespace heed::inline HEED_ABI {

/// Extents of a cache: B sequences, G key/value heads, widths D of keys and E of values.
struct cache_shape {
    index_t B = 1, G = 1, D = 0, E = 0;

    void check(const char* op) const {
        require_argument(B >= 0, op, "B is ", B);
        require_argument(G >= 0, op, "G is ", G);
        require_argument(D >= 0, op, "D is ", D);
        require_argument(E >= 0, op, "E is ", E);
    }
};

/// Which keys of a head stay, for caches that let several heads forget at once: ascending indices below the number it
/// holds. Sequences are named as for append.
struct kept_keys {
    index_t sequence = 0, head = 0;
    std::span<const index_t> keys;
};

namespace detail {

/// Checks k (sequences, G, n, D) and v (sequences, G, n, E) against a cache; returns n, the tokens to append.
template <class K, class V>
index_t check_append(const char* op, const cache_shape& shape, index_t sequences, const view<K>& k, const view<V>& v) {
    const auto same = [&](index_t a, const char* name, const char* what, index_t want) {
        require_shape(a == want, op, name, " has ", what, " ", a, ", the cache has ", want);
    };
    same(k.shape[0], "k", "batch", sequences);
    same(v.shape[0], "v", "batch", sequences);
    same(k.shape[1], "k", "heads", shape.G);
    same(v.shape[1], "v", "heads", shape.G);
    same(k.shape[3], "k", "width", shape.D);
    same(v.shape[3], "v", "width", shape.E);
    require_shape(k.shape[2] >= 0, op, "k has ", k.shape[2], " tokens");
    require_shape(v.shape[2] == k.shape[2], op, "v has ", v.shape[2], " tokens, k has ", k.shape[2]);
    return k.shape[2];
}

/// Checks that what is appended lies outside the cache's own memory, which may move.
template <class T>
void check_apart(const char* op, std::span<const std::byte> memory, const view<T>& x, const char* name) {
    const auto [first, last] = footprint(x);
    require_shape(!first || last <= memory.data() || memory.data() + memory.size() <= first, op, name,
                  " overlaps the cache in memory");
}

/// Checks that `i` names one of `count` things.
inline void check_index(const char* op, const char* what, index_t i, index_t count) {
    require_argument(0 <= i && i < count, op, what, " ", i, " of ", count);
}

/// Checks that these are ascending numbers of `count` keys.
inline void check_kept(const char* op, std::span<const index_t> kept, index_t count) {
    for (index_t last = -1; index_t key : kept) {
        check_index(op, "key", key, count);
        require_argument(key > last, op, "key ", key, " follows key ", last);
        last = key;
    }
}

inline void check_skip(const char* op, index_t count) {
    require_argument(count >= 0, op, "cannot skip ", count, " positions");
}

/// Checks that a cache of `size` tokens can lose its last `count`.
inline void check_truncate(const char* op, index_t size, index_t count) {
    require_argument(0 <= count && count <= size, op, "cannot drop ", count, " tokens of ", size);
}

}  // namespace detail
}  // namespace heed::inline HEED_ABI
