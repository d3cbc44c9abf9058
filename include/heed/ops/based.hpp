// Linear attention by powers of q.k, whose rows sum to 1.
//
//   based     weights 1 + s + s^2 / 2, s = q.k / sqrt(D): e^s to the second degree (Arora et al., arXiv:2402.18668)
//   rebased   weights (q'.k')^2, x' = gamma norm(x) + beta learned (Aksenov et al., arXiv:2402.10644)
// D is small, 16 as a rule: a state has 1 + D + D (D + 1) / 2 rows, or D (D + 1) / 2. based goes with a sliding window
// of softmax in other heads or layers: attention(q, k, v, o, causal{} & window{64}).
#pragma once

#include "../policy/feature_power.hpp"
#include "linear_attention.hpp"

namespace heed::inline HEED_ABI {

/// q (B, Hq, N, D), k (B, Hk, N, D), v (B, Hv, N, E), o (B, max(Hq, Hk, Hv), N, E). Policies of linear_attention but
/// features, not_normalised{} and a state to go on from among them; one token is the same call.
template <class A = default_arch, class Q, class K, class V, class O, class... P>
void based(const Q& q, const K& k, const V& v, O&& o, P&&... policies) {
    const taylor_features features;
    linear_attention<A>(q, k, v, o, features, policies...);
}

/// The same by a learned square. Where all keys stand at right angles to a query, its output is 0.
template <class A = default_arch, class Q, class K, class V, class O, class S, class... P>
void rebased(const Q& q, const K& k, const V& v, O&& o, const rebased_features<S>& features, P&&... policies) {
    linear_attention<A>(q, k, v, o, features, policies...);
}

}  // namespace heed::inline HEED_ABI
