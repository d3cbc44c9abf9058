// Self-extend: causal attention with exact rotary distances to the nearest keys, and distances in steps of a group
// beyond, so that a model meets none longer than near + (N - near) / group [105].
//
//   i - j < near:  query at i, key at j        otherwise:  query at i / group + near - near / group, key at j / group
// Keys are rotated, and cached, both ways. Cost: causal attention in two disjoint parts. Jin et al., arXiv:2401.01325.
#pragma once

#include "../policy/mask_stride.hpp"
#include "rotated_parts.hpp"

namespace heed::inline HEED_ABI {

/// The rule of positions: groups of `group` >= 1 tokens, `near` >= 0 keys at their own distance.
struct self_extend {
    index_t group, near;
    constexpr self_extend(index_t tokens, index_t neighbours) : group(tokens), near(neighbours) {}

    constexpr index_t far_query(index_t i) const { return i / group + near - near / group; }
    /// Far keys `first`, first + 1, ...: rotary(k, k_far, rule.far_keys(past), theta{...}).
    auto far_keys(index_t first = 0) const {
        return positions_by{[g = group, first](index_t n) { return (first + n) / g; }};
    }
    void check(const char* op) const {
        require_argument(group >= 1, op, "groups have ", group, " tokens, the least is 1");
        require_argument(near >= 0, op, near, " keys are near, the least is 0");
    }
};

/// q (B, H, N, D) unrotated; keys rotated as ever, and rotated by rule.far_keys(), as two sources of the same tokens;
/// o (B, H, N, E). Policies, memory and errors as in dual_chunk_attention.
template <class A = default_arch, class Q, key_value_source Near, key_value_source Far, class O, class... P>
void self_extend_attention(const Q& q, const Near& near, const Far& far, O&& o, const self_extend& rule,
                           const P&... policies) {
    static constexpr const char* op = "self_extend_attention";
    rule.check(op);
    detail::operands_of(as_view(q), far, as_view(o)).check(op, policies...);
    auto parts = detail::parts_of<A>(op, as_view(q), near, as_view(o), policies...);
    parts.add(near, recent{rule.near}, [](index_t i) { return i; });
    if (parts.end() > rule.near)
        parts.add(far, earlier{causal{}, rule.near}, [&](index_t i) { return rule.far_query(i); });
    parts.deliver();
}

/// The same over k_near (B, G, M, D), k_far (B, G, M, D) and v (B, G, M, E).
template <class A = default_arch, class Q, class K, class F, class V, class O, class... P>
    requires(!key_value_source<K>)
void self_extend_attention(const Q& q, const K& k_near, const F& k_far, const V& v, O&& o, const self_extend& rule,
                           const P&... policies) {
    self_extend_attention<A>(q, detail::source_of(as_view(k_near), as_view(v)),
                             detail::source_of(as_view(k_far), as_view(v)), o, rule, policies...);
}

}  // namespace heed::inline HEED_ABI
