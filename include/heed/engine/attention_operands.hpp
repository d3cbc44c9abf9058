// The operands of attention: extents they agree on, checks, and how a call is cut into tasks.
#pragma once

#include "../core/view.hpp"
#include "../simd/micro.hpp"

namespace heed::inline HEED_ABI::detail {

/// q, k, v, o as views, and the extents they agree on.
template <class Q, class K, class V, class O>
struct attention_operands {
    view<const Q> q;  // (B, H, N, D)
    view<const K> k;  // (B, G, M, D)
    view<const V> v;  // (B, G, M, E)
    view<O> o;        // (B, H, N, E)

    index_t B() const { return q.shape[0]; }
    index_t H() const { return q.shape[1]; }
    index_t N() const { return q.shape[2]; }
    index_t D() const { return q.shape[3]; }
    index_t G() const { return k.shape[1]; }
    index_t M() const { return k.shape[2]; }
    index_t E() const { return v.shape[3]; }
    index_t group() const { return H() / G(); }

    void check(const char* op) const {
        for (const auto& s : {q.shape, k.shape, v.shape, o.shape})
            for (index_t extent : s) require_shape(extent >= 0, op, "an extent is negative: ", extent);
        const auto same = [&](index_t a, const char* x, index_t b, const char* y, const char* what) {
            require_shape(a == b, op, x, " has ", what, " ", a, ", ", y, " has ", b);
        };
        same(k.shape[0], "k", q.shape[0], "q", "batch");
        same(v.shape[0], "v", q.shape[0], "q", "batch");
        same(o.shape[0], "o", q.shape[0], "q", "batch");
        same(k.shape[3], "k", q.shape[3], "q", "width");
        same(v.shape[1], "v", k.shape[1], "k", "heads");
        same(v.shape[2], "v", k.shape[2], "k", "keys");
        same(o.shape[1], "o", q.shape[1], "q", "heads");
        same(o.shape[2], "o", q.shape[2], "q", "rows");
        same(o.shape[3], "o", v.shape[3], "v", "width");
        require_shape(G() > 0 ? H() % G() == 0 : H() == 0, op, "q has ", H(), " heads, not a multiple of the ", G(),
                      " of k");
        for (std::size_t a = 0; a < 4; ++a)
            require_shape(o.strides[a] != 0 || o.shape[a] <= 1, op, "o has stride 0 on axis ", a, " of extent ",
                          o.shape[a]);
        const auto apart = [&](const auto& x, const char* name) {
            require_shape(!overlap(o, x), op, "o overlaps ", name, " in memory");
        };
        apart(q, "q");
        apart(k, "k");
        apart(v, "v");
    }
};

/// How a call is cut into row blocks and tasks: by shape only.
struct attention_cut {
    index_t blocks_per_head, units_per_group, units_per_task, tasks_per_group;

    attention_cut(index_t B, index_t H, index_t G, index_t N, index_t width, index_t lanes) {
        blocks_per_head = ceil_div(ceil_div(N, lanes), tile_packs);
        units_per_group = G ? blocks_per_head * (H / G) : 0;
        // Row blocks that share a pass over K and V: as many as keep their panels well inside a second-level cache of
        // 512 KiB, but few enough that a small call still has tasks for many threads.
        const index_t fit = std::clamp<index_t>(2560 / std::max<index_t>(width, 1), 1, 8);
        units_per_task = std::clamp<index_t>(B * H * blocks_per_head / 64, 1, fit);
        tasks_per_group = ceil_div(units_per_group, units_per_task);
    }

    /// The packs of row block x: even shares of all packs, so no block is a thin remainder.
    range packs(index_t x, index_t N, index_t lanes) const {
        const index_t all = ceil_div(N, lanes);
        return {x * all / blocks_per_head, (x + 1) * all / blocks_per_head};
    }
};

inline constexpr index_t most_units = 8;

}  // namespace heed::inline HEED_ABI::detail
