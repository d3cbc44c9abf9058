// How a policy reads memory for a pack of queries: one element a lane, never outside what the view holds.
//
// A pack may reach past the last row (and a micro-block past the last key), where the result is thrown away; the index
// is clamped, so that nothing is read there.
#pragma once

#include "../core/half.hpp"
#include "../core/view.hpp"
#include "../simd/convert.hpp"
#include "../simd/math.hpp"
#include "../simd/rows.hpp"
#include "roles.hpp"

namespace heed::inline HEED_ABI::detail {

template <class X>
struct scalar_of {
    using type = X;
};
template <class T, class A>
struct scalar_of<pack<T, A>> {
    using type = T;
};
template <class X>
using scalar_of_t = typename scalar_of<X>::type;

/// The same number in all lanes.
template <class X, class T>
HEED_INLINE X everywhere(const X&, const T& value) {
    return X(static_cast<scalar_of_t<X>>(value));
}

/// Lane l is f(first + l), index clamped to [0, count).
template <class X, class F>
HEED_INLINE X gather_by(const X&, index_t first, index_t count, F&& f) {
    using T = scalar_of_t<X>;
    if constexpr (is_pack<X>::value) {
        alignas(64) T at[X::size];
        for (index_t l = 0; l < static_cast<index_t>(X::size); ++l)
            at[l] = static_cast<T>(f(std::max<index_t>(0, std::min(first + l, count - 1))));
        return load_aligned<X>(at);
    } else {
        return static_cast<T>(f(std::max<index_t>(0, std::min(first, count - 1))));
    }
}

/// Lane l is p[(first + l) * stride], index clamped to [0, count). Neighbours in memory are one load, widened.
template <class X, class T>
HEED_INLINE X gather(const X& like, const T* p, index_t first, index_t count, index_t stride) {
    if constexpr (is_pack<X>::value) {
        constexpr auto L = static_cast<index_t>(X::size);
        if (stride == 0 || first >= count - 1) return everywhere(like, p[std::max<index_t>(0, count - 1) * stride]);
        if (first + L <= 1) return everywhere(like, p[0]);
        if constexpr (storage<std::remove_const_t<T>>)
            if (stride == 1 && first >= 0 && first + L <= count) return widen<X>(p + first);
    }
    return gather_by(like, first, count, [&](index_t i) { return p[i * stride]; });
}

/// Lane l is f(w.lane(l)): for what lies nowhere together in memory.
template <class X, class F>
HEED_INLINE X each_lane(const X&, const where& w, F&& f) {
    using T = scalar_of_t<X>;
    if constexpr (is_pack<X>::value) {
        alignas(64) T at[X::size];
        for (index_t l = 0; l < static_cast<index_t>(X::size); ++l) at[l] = static_cast<T>(f(w.lane(l)));
        return load_aligned<X>(at);
    } else {
        return static_cast<T>(f(w));
    }
}

/// The index an array of `count` is read at: a lane may stand beyond its end, where the result is thrown away.
constexpr std::size_t inside(index_t at, index_t count) {
    return static_cast<std::size_t>(std::max<index_t>(0, std::min(at, count - 1)));
}

/// table(b, h, row, j) for a pack whose lanes are keys.
template <class X, class T>
HEED_INLINE X gather_keys(const X& like, const view<const T, 4>& table, const where& w) {
    const T* at = table.data + w.b * table.strides[0] + w.h * table.strides[1] +
                  std::min(w.row, table.shape[2] - 1) * table.strides[2];
    if (!w.places) return gather(like, at, w.j, table.shape[3], table.strides[3]);
    return each_lane(like, w, [&](const where& one) {
        return at[static_cast<index_t>(inside(one.j, table.shape[3])) * table.strides[3]];
    });
}

/// x[k] + table(b, h, row, j + k) for K neighbouring keys and a pack of rows. A tensor whose keys are neighbours in memory
/// is widened and transposed in registers; at its edges, and in other layouts, it is gathered key by key.
template <class P, int K, class T>
HEED_INLINE void add_along_keys(P (&x)[K], const view<const T, 4>& table, const where& w) {
    if constexpr (is_pack<P>::value)
        if (w.lanes == lane_axis::keys) {
            unroll<K>([&](auto k) HEED_INLINE_LAMBDA {
                where here = w;
                here.j += k;
                x[k] = x[k] + gather_keys(x[k], table, here);
            });
            return;
        }
    const T* at = table.data + w.b * table.strides[0] + w.h * table.strides[1];
    if constexpr (is_pack<P>::value && storage<T>)
        if (table.strides[3] == 1 && table.strides[2] != 0 && w.row >= 0 &&
            w.row + static_cast<index_t>(P::size) <= table.shape[2] && w.j + K <= table.shape[3]) {
            P read[K];
            load_columns(at + w.row * table.strides[2] + w.j, table.strides[2], read);
            unroll<K>([&](auto k) HEED_INLINE_LAMBDA { x[k] = x[k] + read[k]; });
            return;
        }
    unroll<K>([&](auto k) HEED_INLINE_LAMBDA {
        const index_t key = std::min<index_t>(w.j + k, table.shape[3] - 1) * table.strides[3];
        x[k] = x[k] + gather(x[k], at + key, w.row, table.shape[2], table.strides[2]);
    });
}

/// The same view with stride 0 on every axis of extent 1, so that these broadcast.
template <class T, std::size_t Rank>
constexpr view<const std::remove_const_t<T>, Rank> broadcasting(view<T, Rank> v) {
    for (std::size_t a = 0; a < Rank; ++a)
        if (v.shape[a] == 1) v.strides[a] = 0;
    return v;
}

/// The same, but not on the last axis.
template <class T, std::size_t Rank>
constexpr view<const std::remove_const_t<T>, Rank> broadcasting_but_last(view<T, Rank> v) {
    auto out = broadcasting(v);
    out.strides[Rank - 1] = v.strides[Rank - 1];
    return out;
}

/// Throws unless every extent is 1 or that of the logits.
template <class T, std::size_t Rank>
void check_broadcast(const view<T, Rank>& v, const extents<Rank>& want, const char* op, const char* name) {
    static constexpr const char* axes[] = {"batch", "heads", Rank == 4 ? "rows" : "positions", "keys"};
    for (std::size_t a = 0; a < Rank; ++a)
        require_shape(v.shape[a] == 1 || v.shape[a] == want[a], op, name, " has ", axes[a], " ", v.shape[a],
                      ", the logits have ", want[a]);
}

/// Throws unless every id of the pairs (b, n, j) names one of `count` relations, and the ids are as many as the logits.
template <class Id>
void check_ids(const view<const Id, 3>& ids, index_t count, const char* op, const char* name,
               const extents_of_scores& s) {
    const extents<3> pairs{s.B, s.N, s.M};
    for (std::size_t a = 0; a < 3; ++a)
        require_shape(ids.shape[a] == 1 || ids.shape[a] == pairs[a], op, name, ": the ids have extent ", ids.shape[a],
                      " on axis ", a, ", the logits have ", pairs[a]);
    const auto known = [&](const Id& id) {
        return 0 <= static_cast<index_t>(id) && static_cast<index_t>(id) < count;
    };
    for (index_t b = 0; b < ids.shape[0]; ++b)
        for (index_t n = 0; n < ids.shape[1]; ++n) {
            const Id* row = ids.data + b * ids.strides[0] + n * ids.strides[1];
            bool all = true;  // without a branch for each
            for (index_t j = 0; j < ids.shape[2]; ++j) all &= known(row[j * ids.strides[2]]);
            for (index_t j = 0; j < ids.shape[2] && !all; ++j)
                require_argument(known(row[j * ids.strides[2]]), op, name, ": id ",
                                 static_cast<index_t>(row[j * ids.strides[2]]), " of ", count);
        }
}

}  // namespace heed::inline HEED_ABI::detail
