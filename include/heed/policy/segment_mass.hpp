// segment_mass: how much of a row's weight falls on each segment of the keys, in the call that attends [78] [112].
//
//   mass[b, h, n, s] = sum of the weights of the visible keys j with cuts[s] <= j < cuts[s + 1]
#pragma once

#include "../simd/pack.hpp"
#include "probe.hpp"

namespace heed::inline HEED_ABI {

/// Masses (b, h, n, s) of all rows, or of chosen ones only: (b, h, rows.size(), s). Cuts are numbers of keys, as the
/// source holds them; keys before the first and from the last on are in no segment. Rows that are not chosen are not
/// met again: the last row of a prompt costs a walk of one block of rows.
template <class T>
struct segment_mass {
    using role = roles::probe;
    static constexpr bool observes_rows = true;
    view<T, 4> out;
    std::span<const index_t> cuts;
    detail::chosen_rows chosen;

    segment_mass(view<T, 4> masses, std::span<const index_t> at, std::span<const index_t> rows = {})
        : out(masses), cuts(at), chosen{rows} {}

    void reads(const view_visitor& see) const {
        see(cuts, "segment_mass (cuts)");
        see(chosen.rows, "segment_mass (rows)");
    }
    void writes(const view_visitor& see) const { see(out, "segment_mass"); }
    void check(const char* op, const extents_of_scores& s) const {
        require_argument(!cuts.empty(), op, "segment_mass has no cuts, the least is 1");
        require_argument(cuts.front() >= 0, op, "segment_mass: the first cut is ", cuts.front(), ", the least is 0");
        for (std::size_t c = 1; c < cuts.size(); ++c)
            require_argument(cuts[c - 1] <= cuts[c], op, "segment_mass: cut ", cuts[c], " stands after ", cuts[c - 1]);
        const extents<4> want{s.B, s.H, chosen.count(s.N), static_cast<index_t>(cuts.size()) - 1};
        require_shape(out.shape == want, op, "segment_mass has shape (", out.shape[0], ", ", out.shape[1], ", ",
                      out.shape[2], ", ", out.shape[3], "), expected (", want[0], ", ", want[1], ", ", want[2], ", ",
                      want[3], ")");
        chosen.check(op, "segment_mass", s.N);
    }
    void start(index_t b, index_t h, index_t row) const {
        chosen.each_place(row, [&](index_t place) {
            for (index_t s = 0; s < out.shape[3]; ++s) out(b, h, place, s) = T(0);
        });
    }
    bool wants(index_t, index_t, range rows) const { return chosen.some_of(rows); }
    template <class X>
    void observe(const observed<X>& o) const {
        const range keys{o.key, o.key + o.keys};
        const auto after = std::upper_bound(cuts.begin(), cuts.end(), keys.first);
        for (auto s = std::max<index_t>(0, after - cuts.begin() - 1); s < out.shape[3]; ++s) {
            const auto cut = cuts.begin() + s;
            const range mine = range{cut[0], cut[1]} & keys;
            if (cut[0] >= keys.last) return;
            if (mine.empty()) continue;
            for (int r = 0; r < o.rows; ++r)
                chosen.each_place(o.row + r, [&](index_t place) {
                    T& mass = out(o.b, o.h, place, s);
                    const X* first = o.probability + (mine.first - keys.first) * o.stride + r;
                    mass = static_cast<T>(static_cast<X>(mass) + sum(first, mine.size(), o.stride));
                });
        }
    }

private:
    /// By packs where keys are neighbours, as in decoding.
    template <class X>
    static X sum(const X* x, index_t count, index_t stride) {
        using P = pack<X>;
        constexpr auto L = static_cast<index_t>(P::size);
        P part[2] = {P(0), P(0)};
        index_t i = 0;
        if (stride == 1)
            for (; i + 2 * L <= count; i += 2 * L) {
                part[0] += load<P>(x + i);
                part[1] += load<P>(x + i + L);
            }
        X rest = reduce_add(part[0] + part[1]);
        for (; i < count; ++i) rest += x[i * stride];
        return rest;
    }
};

}  // namespace heed::inline HEED_ABI
