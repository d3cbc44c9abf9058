// Scores that add a tensor to the logit: a bias (b, h, n, m), relations between tokens by id [86].
//
// Axes of extent 1 or stride 0 broadcast. Lanes run over queries: a tensor whose keys or rows are neighbours in memory is
// read in registers, others element by element.
#pragma once

#include "lanes.hpp"
#include "roles.hpp"

namespace heed::inline HEED_ABI {

/// x + table[b, h, n, j].
template <class T>
struct bias {
    using role = roles::score;
    view<const std::remove_const_t<T>, 4> table;
    explicit bias(view<T, 4> v) : table(detail::broadcasting(v)) {}

    template <class X>
    HEED_INLINE X operator()(X x, const where& w) const {
        X one[1] = {x};
        along_keys(one, w);
        return one[0];
    }
    template <class X, int K>
    HEED_INLINE void along_keys(X (&x)[K], const where& w) const {
        detail::add_along_keys(x, table, w);
    }
    void reads(const view_visitor& see) const { see(table, "bias"); }
    void check(const char* op, const extents_of_scores& s) const {
        detail::check_broadcast(table, {s.B, s.H, s.N, s.M}, op, "bias");
    }
};

/// x + factor * table[b, h, n, id[b, n, j]]: the key side of structure-aware attention [86]. The table holds q.r for each
/// of the P distinct relations, so the relation vectors of pairs are never formed. Shaw's vectors are the case where id
/// is the clipped distance.
template <class T, class Id>
struct relation {
    using role = roles::score;
    view<const std::remove_const_t<T>, 4> table;  // (B, H, N, P)
    view<const std::remove_const_t<Id>, 3> ids;   // (B, N, M)
    double factor;

    relation(view<T, 4> products, view<Id, 3> id_of_pair, double by = 1)
        : table(detail::broadcasting_but_last(products)), ids(detail::broadcasting(id_of_pair)), factor(by) {}

    template <class X>
    HEED_INLINE X operator()(X x, const where& w) const {
        const index_t rows = std::max(table.shape[2], ids.shape[1]);
        const auto* of_head = table.data + w.b * table.strides[0] + w.h * table.strides[1];
        const auto* of_batch = ids.data + w.b * ids.strides[0];
        const X bias = detail::each_lane(x, w, [&](const where& one) {
            const auto n = static_cast<index_t>(detail::inside(one.row, rows));
            const auto j = static_cast<index_t>(detail::inside(one.j, ids.shape[2]));
            const auto id = static_cast<index_t>(of_batch[n * ids.strides[1] + j * ids.strides[2]]);
            return of_head[n * table.strides[2] + id * table.strides[3]];
        });
        return x + bias * X(factor);
    }
    void reads(const view_visitor& see) const {
        see(table, "relation's table");
        see(ids, "relation's ids");
    }
    void check(const char* op, const extents_of_scores& s) const {
        detail::check_broadcast(table, {s.B, s.H, s.N, table.shape[3]}, op, "relation's table");
        detail::check_ids(ids, table.shape[3], op, "relation", s);
    }
};

}  // namespace heed::inline HEED_ABI
