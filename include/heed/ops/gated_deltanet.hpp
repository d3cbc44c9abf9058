// Gated DeltaNet: the delta rule on a state that forgets, by a number per token and head.
//
//   S_t = exp(g_t) (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T      o_t = scale S_t^T q_t
//   q, k (B, H, N, D), v, o (B, H, N, E), g and beta (B, H, N), g <= 0 a natural log
// Keys and queries have length 1: give unit_norm{}, or normalise before. Default scale 1/sqrt(D).
// Cost: 6 D E flops a token. Yang et al., arXiv:2412.06464. [17]
#pragma once

#include "deltanet.hpp"

namespace heed::inline HEED_ABI {

/// Policies as of deltanet.
template <class A = default_arch, class Q, class K, class V, class O, class G, class Beta, class... P>
void gated_deltanet(const Q& q, const K& k, const V& v, O&& o, const view<G, 3>& g, const view<Beta, 3>& beta,
                    P&&... policies) {
    detail::delta_recurrence<A>(q, k, v, o, token_decay{g}, delta_rule{beta}, policies...);
}

/// One token: the operands have N = 1, and s is updated.
template <class A = default_arch, class T, class Q, class K, class V, class O, class G, class Beta, class... P>
void gated_deltanet_step(state<T>& s, const Q& q, const K& k, const V& v, O&& o, const view<G, 3>& g,
                         const view<Beta, 3>& beta, P&&... policies) {
    gated_deltanet<A>(q, k, v, o, g, beta, s, recurrent{}, policies...);
}

}  // namespace heed::inline HEED_ABI
