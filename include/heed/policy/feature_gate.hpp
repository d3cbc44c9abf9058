// Feature maps with input gates: what is forgotten makes room for what is written, by 1 - e^g, g <= 0 a log of a gate.
#pragma once

#include "../core/view.hpp"
#include "../simd/gates.hpp"
#include "feature.hpp"
#include "token_views.hpp"

namespace heed::inline HEED_ABI {

/// Queries as they are, keys 1 - e^x: for keys that are given as logs of gates (HGRN2).
struct complement_of_gate {
    using role = roles::features;
    index_t width(index_t D) const { return D; }
    template <class T>
    void operator()(const T* x, index_t D, T* y, const feature_place& at) const {
        if (at.query)
            std::copy_n(x, D, y);
        else
            detail::map_channels(x, D, y, [](const auto& p) { return -exp_both_nonpositive(p).expm1; });
    }
};

/// The features of `map`, those of a token's keys times 1 - e^g; g (B, Hk, N), or of one head for all.
template <class Map, class S>
struct gated_features {
    using role = roles::features;
    Map map;
    view<const S, 3> g;
    gated_features(const Map& of_rows, view<const S, 3> logs) : map(of_rows), g(logs) {}

    index_t width(index_t D) const { return map.width(D); }
    template <class T>
    void operator()(const T* x, index_t D, T* y, const feature_place& at) const {
        map(x, D, y, at);
        if (at.query) return;
        const auto by = -std::expm1(static_cast<T>(g(at.b, g.shape[1] == 1 ? 0 : at.h, at.token)));
        detail::map_channels(y, width(D), y, [by](const auto& p) { return p * by; });
    }
    void check(const char* op, const extents<4>& q, const extents<4>& k) const {
        if constexpr (requires { map.check(op, q[3]); }) map.check(op, q[3]);
        if constexpr (requires { map.check(op, q, k); }) map.check(op, q, k);
        require_shape(g.shape[0] == k[0], op, "gates of keys have batch ", g.shape[0], ", k has ", k[0]);
        require_shape(g.shape[1] == 1 || g.shape[1] == k[1], op, "gates of keys have ", g.shape[1], " heads, k has ",
                      k[1]);
        require_shape(g.shape[2] == k[2], op, "gates of keys have ", g.shape[2], " tokens, k has ", k[2]);
    }
    auto token_views() { return std::tuple_cat(detail::token_views(map), std::tie(g)); }
    auto parameters() const { return detail::parameters_of(map); }
};
template <class Map, class S>
gated_features(const Map&, view<S, 3>) -> gated_features<Map, std::remove_const_t<S>>;

}  // namespace heed::inline HEED_ABI
