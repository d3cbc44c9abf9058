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

/// q (B, H, N, D) unrotated; k_near (B, G, M, D) rotated as ever, k_far by rule.far_keys(); v (B, G, M, E), o (B, H, N,
/// E). Policies, memory and errors as in dual_chunk_attention.
template <class A = default_arch, class Q, class K, class F, class V, class O, class... P>
void self_extend_attention(const Q& q, const K& k_near, const F& k_far, const V& v, O&& o, const self_extend& rule,
                           const P&... policies) {
    static constexpr const char* op = "self_extend_attention";
    const detail::key_views near{as_view(k_near), as_view(v)}, far{as_view(k_far), as_view(v)};
    const auto to = as_view(o);
    rule.check(op);
    far.check(op, as_view(q), to);
    auto parts = detail::parts_of<A>(op, near, as_view(q), to, policies...);
    parts.add(near, recent{rule.near}, 0, [](index_t i) { return i; });
    if (parts.end() > rule.near) parts.add(far, causal{}, rule.near, [&](index_t i) { return rule.far_query(i); });
    parts.deliver();
}

}  // namespace heed::inline HEED_ABI
