// The operands of attention: extents they agree on, checks, and how a call is cut into tasks.
#pragma once

#include <span>

#include "../policy/roles.hpp"
#include "../policy/source.hpp"
#include "../simd/micro.hpp"

namespace heed::inline HEED_ABI::detail {

template <class S>
inline constexpr bool is_view_source = false;
template <class K, class V>
inline constexpr bool is_view_source<view_source<K, V>> = true;

/// A source whose keys may stand elsewhere than at their index.
template <class S>
concept placed_source = requires(const S& s, index_t i) { s.positions(i, i); };

template <class S>
const index_t* positions_of(const S& s, index_t b, index_t g) {
    if constexpr (placed_source<S>)
        return s.positions(b, g);
    else
        return nullptr;
}

/// Throws unless every output has elements of its own: they overlap no input and no other output, and no stride is 0.
/// `inputs` and `outputs` call the view_visitor they are given for each view.
template <class Inputs, class Outputs>
void check_memory(const char* op, const Inputs& inputs, const Outputs& outputs) {
    index_t count = 0;
    outputs([&](const any_view& to, const char* name) {
        for (std::size_t a = 0; a < to.rank; ++a)
            require_shape(to.strides[a] != 0 || to.shape[a] <= 1, op, name, " has stride 0 on axis ", a, " of extent ",
                          to.shape[a]);
        const auto apart = [&](const any_view& from, const char* other) {
            require_shape(!overlap(to, from), op, name, " overlaps ", other, " in memory");
        };
        inputs(apart);
        index_t before = 0;
        outputs([&](const any_view& from, const char* other) {
            if (before++ < count) apart(from, other);
        });
        ++count;
    });
}

/// q, o as views, the source of k and v, and the extents they agree on.
template <class Q, class Source, class O>
struct attention_operands {
    using key = typename Source::key_rows::storage;
    using value = typename Source::value_rows::storage;

    view<const Q> q;       // (B, H, N, D)
    const Source& source;  // (B, G, keys, D), (B, G, keys, E)
    view<O> o;             // (B, H, N, E)
    index_t most_keys = 0, last_end = 0;

    attention_operands(view<const Q> queries, const Source& s, view<O> output) : q(queries), source(s), o(output) {
        if constexpr (is_view_source<Source>) most_keys = last_end = source.k.shape[2];
        for (index_t b = 0; b < source.batch() && !is_view_source<Source>; ++b) {
            for (index_t g = 0; g < G(); ++g) most_keys = std::max<index_t>(most_keys, source.keys(b, g));
            last_end = std::max(last_end, end(b));
        }
    }

    index_t B() const { return q.shape[0]; }
    index_t H() const { return q.shape[1]; }
    index_t N() const { return q.shape[2]; }
    index_t D() const { return q.shape[3]; }
    index_t G() const { return source.heads(); }
    index_t M() const { return most_keys; }
    index_t E() const { return source.value_width(); }
    index_t group() const { return G() > 0 ? H() / G() : 0; }
    index_t keys(index_t b, index_t g) const { return source.keys(b, g); }
    /// One past the position of the newest token of a sequence.
    index_t end(index_t b) const {
        if constexpr (requires { source.end(b); })
            return source.end(b);
        else
            return G() > 0 ? source.keys(b, 0) : 0;
    }

    /// Throws unless the extents agree, and o and what the policies record have memory of their own.
    template <class... Policies>
    void check(const char* op, const Policies&... policies) const {
        check_extents(op);
        check_memory(
            op,
            [&](const view_visitor& see) {
                visit_inputs(see);
                (visit_reads(policies, see), ...);
            },
            [&](const view_visitor& see) {
                see(o, "o");
                (visit_writes(policies, see), ...);
            });
    }

private:
    void check_extents(const char* op) const {
        const auto whole = [&](const auto& v) {
            for (index_t extent : v.shape) require_shape(extent >= 0, op, "an extent is negative: ", extent);
        };
        const auto same = [&](index_t a, const char* x, index_t b, const char* y, const char* what) {
            require_shape(a == b, op, x, " has ", what, " ", a, ", ", y, " has ", b);
        };
        constexpr bool views = is_view_source<Source>;
        constexpr const char *k = views ? "k" : "the source", *v = views ? "v" : "the source";
        whole(q);
        if constexpr (views) {
            whole(source.k);
            whole(source.v);
        }
        whole(o);
        same(source.batch(), k, q.shape[0], "q", "batch");
        if constexpr (views) same(source.v.shape[0], "v", q.shape[0], "q", "batch");
        same(o.shape[0], "o", q.shape[0], "q", "batch");
        same(source.key_width(), k, q.shape[3], "q", "width");
        if constexpr (views) {
            same(source.v.shape[1], "v", source.k.shape[1], "k", "heads");
            same(source.v.shape[2], "v", source.k.shape[2], "k", "keys");
        }
        same(o.shape[1], "o", q.shape[1], "q", "heads");
        same(o.shape[2], "o", q.shape[2], "q", "rows");
        same(o.shape[3], "o", source.value_width(), v, "width");
        require_shape(G() > 0 ? H() % G() == 0 : H() == 0, op, "q has ", H(), " heads, not a multiple of the ", G(),
                      " of ", k);
    }
    void visit_inputs(const view_visitor& see) const {
        see(q, "q");
        if constexpr (is_view_source<Source>) {
            see(source.k, "k");
            see(source.v, "v");
        } else if constexpr (requires { source.memory(); }) {
            see(source.memory(), "the source");
        }
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
