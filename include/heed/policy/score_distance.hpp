// Scores that depend on the distance of query and key: ALiBi, tables over distances (T5 buckets and others), positional
// priors [99].
//
//   alibi     x - slope_h |i - j|
//   relative  x + table[h, clip(i - j)]
//   prior     x - exp(log_scale_h) (|j - i - mu_h| + eps)^shape_h,  mu_h = 2 sinh(location_h)
#pragma once

#include <span>
#include <vector>

#include "lanes.hpp"
#include "roles.hpp"

namespace heed::inline HEED_ABI {
namespace detail {
inline void check_heads(std::span<const float> values, const char* op, const char* name, const extents_of_scores& s) {
    require_shape(static_cast<index_t>(values.size()) == s.H, op, name, " holds ", values.size(), " values, q has ",
                  s.H, " heads");
}
}  // namespace detail

/// Attention with linear biases (arXiv:2108.12409): x - slope_h |i - j|.
struct alibi {
    using role = roles::score;
    std::span<const float> slopes;  // H values
    explicit alibi(std::span<const float> per_head) : slopes(per_head) {}

    template <class X>
    HEED_INLINE X operator()(X x, const where& w) const {
        return x - X(slopes[static_cast<std::size_t>(w.h)]) * abs(w.gap(x));
    }
    void reads(const view_visitor& see) const { see(slopes, "alibi"); }
    void check(const char* op, const extents_of_scores& s) const { detail::check_heads(slopes, op, "alibi", s); }
};

/// The slopes of the paper: 2^(-8 (h + 1) / H) for a power of two; else those of the power below, then every second one
/// of the power above.
inline std::vector<float> alibi_slopes(index_t H) {
    require_argument(H >= 0, "alibi_slopes", "heads are ", H);
    index_t power = 1;
    while (power * 2 <= H) power *= 2;
    std::vector<float> slopes;
    for (index_t h = 0; h < H; ++h) {
        const double step = h < power ? double(h + 1) / double(power) : (2 * double(h - power) + 1) / (2 * double(power));
        slopes.push_back(static_cast<float>(std::exp2(-8 * step)));
    }
    return slopes;
}

/// x + table[h, t], t = i - j + ahead clipped to the table: entry 0 is the key `ahead` positions in front of the query,
/// entry `ahead` the query's own, the last one serves everything further back. A table over j - i is the same view with
/// a negative stride. One head broadcasts.
template <class T>
struct relative {
    using role = roles::score;
    view<const std::remove_const_t<T>, 2> table;  // (H, distances)
    index_t ahead;
    explicit relative(view<T, 2> by_distance, index_t entries_ahead = 0)
        : table(by_distance), ahead(entries_ahead) {
        if (table.shape[0] == 1) table.strides[0] = 0;
    }

    template <class X>
    HEED_INLINE X operator()(X x, const where& w) const {
        const auto* of_head = table.data + w.h * table.strides[0];
        if (w.lanes == lane_axis::rows)
            return x + detail::gather(x, of_head, w.i - w.j + ahead, table.shape[1], table.strides[1]);
        return x + detail::each_lane(x, w, [&](const where& one) {
                   const auto entry = static_cast<index_t>(detail::inside(one.i - one.j + ahead, table.shape[1]));
                   return of_head[entry * table.strides[1]];
               });
    }
    void reads(const view_visitor& see) const { see(table, "relative"); }
    void check(const char* op, const extents_of_scores& s) const {
        require_shape(table.shape[0] == 1 || table.shape[0] == s.H, op, "relative has ", table.shape[0],
                      " heads, q has ", s.H);
        require_shape(table.shape[1] >= 1, op, "relative has no entries");
        require_argument(0 <= ahead && ahead < table.shape[1], op, "relative: ", ahead, " entries ahead of ",
                         table.shape[1]);
    }
};

/// A table over distances with its memory; score() reads it.
struct distance_table {
    index_t heads = 0, ahead = 0, entries = 0;
    std::vector<float> values;  // (heads, entries)

    /// Entry of the gap i - j is f(h, gap), for gaps from -entries_ahead to back.
    template <class F>
    distance_table(index_t H, index_t entries_ahead, index_t back, F&& f)
        : heads(H), ahead(entries_ahead), entries(entries_ahead + back + 1) {
        for (index_t h = 0; h < heads; ++h)
            for (index_t gap = -ahead; gap <= back; ++gap) values.push_back(static_cast<float>(f(h, gap)));
    }
    relative<const float> score() const {
        return relative<const float>({values.data(), {heads, entries}, {entries, 1}}, ahead);
    }
};

/// T5's bucket of a distance j - i (arXiv:1910.10683): half of the buckets are exact, the others grow with the log up to
/// max_distance. Bidirectional: half for each direction; else keys ahead fall in bucket 0.
inline index_t t5_bucket(index_t key_minus_query, bool bidirectional, index_t buckets = 32, index_t max_distance = 128) {
    index_t base = 0, distance = key_minus_query;
    if (bidirectional) {
        buckets /= 2;
        if (distance > 0) base = buckets;
        distance = distance < 0 ? -distance : distance;
    } else {
        distance = std::max<index_t>(0, -distance);
    }
    const index_t exact = buckets / 2;
    if (distance < exact) return base + distance;
    // The tiny addend keeps exact powers on their own side of the floor.
    const double grown = std::log(double(distance) / double(exact)) / std::log(double(max_distance) / double(exact)) *
                             double(buckets - exact) + 1e-9;
    return base + std::min(buckets - 1, exact + static_cast<index_t>(grown));
}

/// The bias of T5 by distance, from its learned table (buckets, H). Past max_distance nothing changes any more.
template <class T>
distance_table t5_table(view<T, 2> learned, bool bidirectional, index_t max_distance = 128) {
    const index_t buckets = learned.shape[0];
    require_argument(buckets >= (bidirectional ? 4 : 2), "t5_table", "there are ", buckets, " buckets");
    require_argument(max_distance > buckets / (bidirectional ? 4 : 2), "t5_table", "max_distance is ", max_distance,
                     ", the exact buckets alone reach further");
    return {learned.shape[1], bidirectional ? max_distance : 0, max_distance, [&](index_t h, index_t gap) {
                return static_cast<float>(learned(t5_bucket(-gap, bidirectional, buckets, max_distance), h));
            }};
}

/// Log of a generalised Gaussian over distances, up to a constant [99]: shape 1 is ALiBi with slope exp(log_scale), 2 a
/// Gaussian, 0 no bias at all. A negative shape keeps near keys away; its exponent is capped so that nothing turns NaN.
struct prior {
    using role = roles::score;
    static constexpr double eps = 1e-5;
    static constexpr double most = 80;        // exp(80) is finite in float
    std::span<const float> log_scale, shape;  // H values each
    std::span<const float> location;          // H values, or none for 0

    prior(std::span<const float> log_scales, std::span<const float> shapes, std::span<const float> locations = {})
        : log_scale(log_scales), shape(shapes), location(locations) {}

    template <class X>
    HEED_INLINE X operator()(X x, const where& w) const {
        const auto h = static_cast<std::size_t>(w.h);
        const double mu = location.empty() ? 0.0 : 2 * std::sinh(double(location[h]));
        const X distance = abs(w.gap(x) + X(mu)) + X(eps);
        return x - exp(min(X(shape[h]) * log(distance) + X(log_scale[h]), X(most)));
    }
    void reads(const view_visitor& see) const {
        see(log_scale, "prior (log_scale)");
        see(shape, "prior (shape)");
        see(location, "prior (location)");
    }
    void check(const char* op, const extents_of_scores& s) const {
        detail::check_heads(log_scale, op, "prior (log_scale)", s);
        detail::check_heads(shape, op, "prior (shape)", s);
        if (!location.empty()) detail::check_heads(location, op, "prior (location)", s);
    }
};

/// A prior as a table, exact for gaps from -ahead to back: one load a pack instead of a power.
inline distance_table prior_table(const prior& p, index_t ahead, index_t back) {
    return {static_cast<index_t>(p.shape.size()), ahead, back,
            [&](index_t h, index_t gap) { return p(0.0, where{0, h, 0, gap, 0}); }};
}

}  // namespace heed::inline HEED_ABI
