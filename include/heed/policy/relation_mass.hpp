// relation_mass: how much of a row's weight falls on each relation, the value side of structure-aware attention [86].
//
//   mass[b, h, n, p] = sum of the weights of the visible keys j with id(b, n, j) = p
#pragma once

#include "lanes.hpp"
#include "probe.hpp"

namespace heed::inline HEED_ABI {

/// Ids (B, N, M) in [0, P), axes of extent 1 broadcast; masses (B, H, N, P). A relation no visible key has gets -0, so
/// that it can be told from one whose weights vanish: only the latter's vector may spread a NaN.
template <class T, class Id>
struct relation_mass {
    using role = roles::probe;
    static constexpr bool observes_rows = true;
    view<T, 4> out;
    view<const std::remove_const_t<Id>, 3> ids;

    relation_mass(view<T, 4> masses, view<Id, 3> id_of_pair) : out(masses), ids(detail::broadcasting(id_of_pair)) {}

    void reads(const view_visitor& see) const { see(ids, "relation_mass (ids)"); }
    void writes(const view_visitor& see) const { see(out, "relation_mass"); }
    void check(const char* op, const extents_of_scores& s) const {
        require_shape(out.shape[0] == s.B && out.shape[1] == s.H && out.shape[2] == s.N, op,
                      "relation_mass has rows (", out.shape[0], ", ", out.shape[1], ", ", out.shape[2],
                      "), the rows are (", s.B, ", ", s.H, ", ", s.N, ")");
        detail::check_ids(ids, out.shape[3], op, "relation_mass", s);
    }
    void start(index_t b, index_t h, index_t row) const {
        for (index_t p = 0; p < out.shape[3]; ++p) out(b, h, row, p) = T(-0.0f);
    }
    template <class X>
    void observe(const observed<X>& o) const {
        for (int c = 0; c < o.keys; ++c)
            for (int r = 0; r < o.rows; ++r) {
                const index_t at = c * o.stride + r, row = o.row + r;
                if (o.masked[at] == -std::numeric_limits<X>::infinity()) continue;
                T& mass = out(o.b, o.h, row, id(o.b, row, o.key + c));
                mass = static_cast<T>(static_cast<X>(mass) + o.probability[at]);
            }
    }

private:
    index_t id(index_t b, index_t n, index_t j) const { return static_cast<index_t>(ids(b, n, j)); }
};

}  // namespace heed::inline HEED_ABI
