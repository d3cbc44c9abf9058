// Scores per row and per head: factors (scalable softmax [99], Mega's 1 / len [83]) and forgetting gates.
#pragma once

#include <span>

#include "area.hpp"
#include "score_distance.hpp"

namespace heed::inline HEED_ABI {

/// x * factor[h].
struct head_scale {
    using role = roles::score;
    std::span<const float> factors;  // H values
    explicit head_scale(std::span<const float> per_head) : factors(per_head) {}
    template <class X>
    HEED_INLINE X operator()(X x, const where& w) const {
        return x * slope(x, w);
    }
    template <class X>
    HEED_INLINE X slope(X, const where& w) const {
        return X(factors[static_cast<std::size_t>(w.h)]);
    }
    void reads(const view_visitor& see) const { see(factors, "head_scale"); }
    void check(const char* op, const extents_of_scores& s) const { detail::check_heads(factors, op, "head_scale", s); }
};

/// x * factor[b, h, n]; axes of extent 1 broadcast.
template <class T>
struct rows_scale {
    using role = roles::score;
    view<const std::remove_const_t<T>, 3> factors;  // (B, H, N)
    explicit rows_scale(view<T, 3> v) : factors(detail::broadcasting(v)) {}
    template <class X>
    HEED_INLINE X operator()(X x, const where& w) const {
        return x * slope(x, w);
    }
    template <class X>
    HEED_INLINE X slope(X x, const where& w) const {
        const auto* of_head = factors.data + w.b * factors.strides[0] + w.h * factors.strides[1];
        if (w.lanes == lane_axis::keys) return X(static_cast<detail::scalar_of_t<X>>(of_head[w.row * factors.strides[2]]));
        return detail::gather(x, of_head, w.row, factors.shape[2], factors.strides[2]);
    }
    void reads(const view_visitor& see) const { see(factors, "rows_scale"); }
    void check(const char* op, const extents_of_scores& s) const {
        detail::check_broadcast(factors, {s.B, s.H, s.N}, op, "rows_scale");
    }
};

/// Scalable softmax [99]: factors(b, h, n) = s_h ln(visible keys of the row), 0 where there is at most one, for
/// rows_scale. Row 0 stands at position `shift`.
template <mask_policy M, class T>
void ssmax_factors(const M& mask, std::span<const float> s, index_t keys, index_t shift, view<T, 3> factors) {
    require_shape(static_cast<index_t>(s.size()) == factors.shape[1], "ssmax_factors", "there are ", s.size(),
                  " factors, the view has ", factors.shape[1], " heads");
    count_rows(mask, keys, shift, factors);
    for (index_t b = 0; b < factors.shape[0]; ++b)
        for (index_t h = 0; h < factors.shape[1]; ++h)
            for (index_t n = 0; n < factors.shape[2]; ++n) {
                T& x = factors(b, h, n);
                x = x > T(1) ? static_cast<T>(double(s[static_cast<std::size_t>(h)]) * std::log(double(x))) : T(0);
            }
}

/// Forgetting gates: x + c_i - c_j, c the running sum of log gates (<= 0 each), so a key fades by all gates after it.
/// Of one view (B, H, M) the query takes the entry at its position; of two, rows (B, H, N) stand for the queries.
/// Sums of long sequences want double: the difference is taken before it is rounded to the logit's type.
template <class T>
struct forget {
    using role = roles::score;
    view<const std::remove_const_t<T>, 3> rows;
    view<const std::remove_const_t<T>, 3> keys;
    bool by_position;

    explicit forget(view<T, 3> sums) : rows(detail::broadcasting_but_last(sums)), keys(rows), by_position(true) {}
    forget(view<T, 3> of_rows, view<T, 3> of_keys)
        : rows(detail::broadcasting_but_last(of_rows)), keys(detail::broadcasting_but_last(of_keys)),
          by_position(false) {}

    template <class X>
    HEED_INLINE X operator()(X x, const where& w) const {
        const auto* of_rows = rows.data + w.b * rows.strides[0] + w.h * rows.strides[1];
        const auto* of_keys = keys.data + w.b * keys.strides[0] + w.h * keys.strides[1];
        return x + detail::each_lane(x, w, [&](const where& one) {
                   const auto n = static_cast<index_t>(detail::inside(by_position ? one.i : one.row, rows.shape[2]));
                   const auto j = static_cast<index_t>(detail::inside(one.j, keys.shape[2]));
                   return of_rows[n * rows.strides[2]] - of_keys[j * keys.strides[2]];
               });
    }
    void reads(const view_visitor& see) const {
        see(rows, "forget");
        see(keys, "forget");
    }
    void check(const char* op, const extents_of_scores& s) const {
        detail::check_broadcast(keys, {s.B, s.H, keys.shape[2]}, op, "forget");
        detail::check_broadcast(rows, {s.B, s.H, rows.shape[2]}, op, "forget");
        require_shape(keys.shape[2] == s.M, op, "forget has ", keys.shape[2], " keys, k has ", s.M);
        require_shape(by_position || rows.shape[2] == s.N, op, "forget has ", rows.shape[2], " rows, q has ", s.N);
    }
};

}  // namespace heed::inline HEED_ABI
