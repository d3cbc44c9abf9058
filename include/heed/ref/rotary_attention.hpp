// Causal attention over rotated queries and keys, where the position of either may depend on the pair: the definition
// of dual chunk attention [63] and of self-extend (arXiv:2401.01325). q and k are not rotated yet.
//
//   x = scale (R(p) q) . (R(r) k), where (p, r) = places(i, j) and R turns channel pairs (c, c + D / 2) as rotary does
#pragma once

#include "attention.hpp"
#include "rotary.hpp"

namespace heed::inline HEED_ABI::ref {

/// The positions at which the query and the key of a pair are rotated.
struct places {
    index_t query = 0, key = 0;
};

/// Chunks of s keys, distances capped at c [63].
inline places dual_chunk_places(index_t i, index_t j, index_t s, index_t c) {
    if (i / s == j / s) return {i % s, j % s};
    if (i / s == j / s + 1) return {std::min(i % s + s, c), j % s};
    return {std::min(2 * s - 1, c), j % s};
}

/// `near` keys at their own distance, groups of `group` beyond.
inline places self_extend_places(index_t i, index_t j, index_t group, index_t near) {
    if (i - j < near) return {i, j};
    return {i / group + near - near / group, j / group};
}

/// The options of ref::attention under which it is this.
template <class Real, class Q, class K>
options<Real> rotary_options(view<Q> q, view<K> k, std::function<places(index_t i, index_t j)> at,
                             double base = 10000) {
    const index_t D = q.shape[3], group = q.shape[1] / k.shape[1];
    options<Real> with;
    with.visible = [](index_t, index_t, index_t, index_t i, index_t j) { return j <= i; };
    with.score = [=](Real, index_t b, index_t h, index_t row, index_t i, index_t j) {
        if (j > i) return Real(0);
        const places p = at(i, j);
        Real dot = 0;
        for (index_t d = 0; d < D / 2; ++d) {
            const turn a = rotary_turn(static_cast<double>(p.query), d, D, base);
            const turn c = rotary_turn(static_cast<double>(p.key), d, D, base);
            const auto real = [](auto x) { return static_cast<Real>(x); };
            const Real q1 = real(q(b, h, row, d)), q2 = real(q(b, h, row, d + D / 2));
            const Real k1 = real(k(b, h / group, j, d)), k2 = real(k(b, h / group, j, d + D / 2));
            dot += (real(a.cos) * q1 - real(a.sin) * q2) * (real(c.cos) * k1 - real(c.sin) * k2) +
                   (real(a.sin) * q1 + real(a.cos) * q2) * (real(c.sin) * k1 + real(c.cos) * k2);
        }
        return dot / std::sqrt(static_cast<Real>(D));
    };
    return with;
}

}  // namespace heed::inline HEED_ABI::ref
