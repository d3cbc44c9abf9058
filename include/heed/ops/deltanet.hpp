// DeltaNet: linear attention whose state is an associative memory, corrected by the delta rule.
//
//   S_t = (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T      o_t = scale S_t^T q_t
//   q, k (B, H, N, D), v, o (B, H, N, E), beta (B, H, N) of [0, 1], or [0, 2] where keys may be turned over
// Keys (and, as published, queries) have length 1: give unit_norm{}, or normalise before. Default scale 1/sqrt(D).
// Cost: 6 D E flops a token. Yang et al., arXiv:2406.06484; Schlag et al., arXiv:2102.11174. [17]
#pragma once

#include "../policy/score.hpp"
#include "../policy/unit_norm.hpp"
#include "with_default.hpp"

namespace heed::inline HEED_ABI {
namespace detail {

/// A recurrence whose default scale is 1/sqrt(D), whatever its features.
template <class A, class Q, class K, class V, class O, class... P>
void delta_recurrence(const Q& q, const K& k, const V& v, O&& o, P&&... policies) {
    const index_t D = as_view(q).shape[3];
    with_default(
        scale{D > 0 ? 1 / std::sqrt(static_cast<double>(D)) : 1.0},
        [&](auto&... all) { recurrence<A>(q, k, v, o, all...); }, policies...);
}

}  // namespace detail

/// Policies: unit_norm{}, scale{}, recurrent{}, chunked{c}, parallel{}, reversed{}, packed{offsets}, on{...}, and a
/// state<T> (B, H, D, E), where the recurrence starts and what it ends with. Heads are shared as in recurrence.
template <class A = default_arch, class Q, class K, class V, class O, class Beta, class... P>
void deltanet(const Q& q, const K& k, const V& v, O&& o, const view<Beta, 3>& beta, P&&... policies) {
    detail::delta_recurrence<A>(q, k, v, o, delta_rule{beta}, policies...);
}

/// One token: the operands have N = 1, and s is updated.
template <class A = default_arch, class T, class Q, class K, class V, class O, class Beta, class... P>
void deltanet_step(state<T>& s, const Q& q, const K& k, const V& v, O&& o, const view<Beta, 3>& beta, P&&... policies) {
    deltanet<A>(q, k, v, o, beta, s, recurrent{}, policies...);
}

}  // namespace heed::inline HEED_ABI
