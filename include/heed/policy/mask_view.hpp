// Masks given as tensors (b, h, n, m): boolean (non-zero is visible) and additive (-inf is hidden, else added to the
// logit after the score).
//
// Axes of extent 1 or stride 0 broadcast. Keys behind the last one the tensor holds are hidden (ONNX pads so). Rows are
// the query's index, not its position. Cost: the tensor is read about twice, whole, and hidden tiles are still skipped.
#pragma once

#include <cstring>
#include <limits>

#include "lanes.hpp"
#include "mask.hpp"

namespace heed::inline HEED_ABI {
namespace detail {

/// Starts to bring the cache line of p, where the compiler has a way to say so.
inline void ask_for([[maybe_unused]] const void* p) {
#if defined(__GNUC__)
    __builtin_prefetch(p);
#endif
}

/// What both have in common; Derived says which elements are visible.
template <class Derived, class T>
struct tensor_mask {
    using role = roles::mask;
    view<const T, 4> table;
    index_t held;  // keys

    explicit tensor_mask(view<const T, 4> v) : table(broadcasting(v)), held(v.shape[3] == 1 ? no_key : v.shape[3]) {}

    bool allows(const where& w) const {
        return w.j < held && Derived::visible(row(w.b, w.h, w.row)[w.j * table.strides[3]]);
    }
    index_t next(const rows& r, index_t j) const {
        constexpr index_t step = 256;  // keys looked at for all rows before going on
        if (r.size() <= 0 || j >= held) return no_key;
        if (table.strides[3] == 0) return any(r, j, j + 1) < no_key ? j : no_key;
        if (const index_t k = any(r, j, std::min(j + together, held)); k < no_key) return k;
        for (j += together; j < held; j += step) {
            const range scanned{j, std::min(j + step, held)};
            ahead(r, scanned);
            if (const index_t k = any(r, scanned.first, scanned.last); k < no_key) return k;
        }
        return no_key;
    }
    bool full(const rows& r, range keys) const {
        if (keys.last > held) return false;
        ahead(r, keys);
        for (index_t i = r.first; i < once(r); ++i)
            if (!all(row(r.b, r.h, i - r.shift), keys)) return false;
        return true;
    }
    lane_bits bits(const rows& r, index_t j, int n) const {
        byte_rows out;
        n = static_cast<int>(std::min<index_t>(n, held - j));
        for (index_t i = r.first; i < r.last; ++i) {
            const T* at = row(r.b, r.h, i - r.shift) + j * table.strides[3];
            unsigned seen = 0;
            for (int c = 0; c < n; ++c) seen |= unsigned(Derived::visible(at[c * table.strides[3]])) << c;
            out.set(i - r.first, seen);
        }
        return out.lanes();
    }
    void reads(const view_visitor& see) const { see(table, Derived::name); }
    void check(const char* op, const extents_of_scores& s) const {
        // The key axis may be shorter than the keys, not longer.
        const index_t keys = std::min(table.shape[3], s.M);
        check_broadcast(table, {s.B, s.H, s.N, keys}, op, Derived::name);
    }

protected:
    const T* row(index_t b, index_t h, index_t n) const {
        return table.data + b * table.strides[0] + h * table.strides[1] + n * table.strides[2];
    }
    /// The end of the rows worth asking: one, where all are the same.
    index_t once(const rows& r) const { return table.strides[2] == 0 ? std::min(r.last, r.first + 1) : r.last; }

    /// Asks for the tile's lines before one is needed: rows lie pages apart, where no hardware prefetch goes.
    void ahead(const rows& r, range keys) const {
        constexpr auto line = static_cast<index_t>(64 / sizeof(T));
        if (table.strides[3] != 1 || keys.size() < line) return;
        for (index_t i = r.first; i < once(r); ++i) {
            const T* at = row(r.b, r.h, i - r.shift);
            for (index_t j = keys.first; j < keys.last; j += line) detail::ask_for(at + j);
        }
    }
    /// Keys looked at together, without a branch for each.
    static constexpr index_t together = 16;

    /// Whether some (or, Every: whether all) of 16 neighbours are visible.
    template <bool Every>
    static bool sixteen(const T* at) {
        if constexpr (sizeof(T) == 1 && !Every) {  // non-zero bytes, as two words
            std::uint64_t x[2];
            std::memcpy(x, at, sizeof x);
            return (x[0] | x[1]) != 0;
        } else {
            unsigned count = 0;
            for (int c = 0; c < together; ++c) count += Derived::visible(at[c]);
            return Every ? count == together : count > 0;
        }
    }
    /// The first key of [first, last) that some row sees.
    index_t any(const rows& r, index_t first, index_t last) const {
        index_t nearest = last;
        for (index_t i = r.first; i < once(r) && nearest > first; ++i) {
            const T* at = row(r.b, r.h, i - r.shift);
            index_t j = first;
            if (table.strides[3] == 1)
                while (j + together <= nearest && !sixteen<false>(at + j)) j += together;
            while (j < nearest && !Derived::visible(at[j * table.strides[3]])) ++j;
            nearest = j;
        }
        return nearest < last ? nearest : no_key;
    }
    bool all(const T* at, range keys) const {
        index_t j = keys.first;
        if (table.strides[3] == 1)
            for (; j + together <= keys.last; j += together)
                if (!sixteen<true>(at + j)) return false;
        for (; j < keys.last; ++j)
            if (!Derived::visible(at[j * table.strides[3]])) return false;
        return true;
    }
};

template <class T>
view<T, 4> rows_and_keys(view<T, 2> v) {
    return {v.data, {1, 1, v.shape[0], v.shape[1]}, {0, 0, v.strides[0], v.strides[1]}};
}

}  // namespace detail

/// Non-zero is visible.
template <class T>
struct boolean : detail::tensor_mask<boolean<T>, std::remove_const_t<T>> {
    static constexpr const char* name = "boolean";
    explicit boolean(view<T, 4> v) : detail::tensor_mask<boolean<T>, std::remove_const_t<T>>(v) {}
    explicit boolean(view<T, 2> v) : boolean(detail::rows_and_keys(v)) {}
    static constexpr bool visible(std::remove_const_t<T> x) { return x != std::remove_const_t<T>(0); }
};

/// -inf is hidden; everything else is added to the logit. NaN is visible.
template <class T>
struct additive : detail::tensor_mask<additive<T>, std::remove_const_t<T>> {
    static constexpr const char* name = "additive";
    explicit additive(view<T, 4> v) : detail::tensor_mask<additive<T>, std::remove_const_t<T>>(v) {}
    explicit additive(view<T, 2> v) : additive(detail::rows_and_keys(v)) {}
    static bool visible(std::remove_const_t<T> x) {
        if constexpr (std::is_same_v<std::remove_const_t<T>, double>)
            return !(x == -std::numeric_limits<double>::infinity());
        else
            return !(static_cast<float>(x) == -std::numeric_limits<float>::infinity());
    }
    template <class X>
    HEED_INLINE X add(X x, const where& w) const {
        X one[1] = {x};
        add_along_keys(one, w);
        return one[0];
    }
    template <class X, int K>
    HEED_INLINE void add_along_keys(X (&x)[K], const where& w) const {
        detail::add_along_keys(x, this->table, w);
    }
};

}  // namespace heed::inline HEED_ABI
