// Kimi delta attention (KDA): the delta rule on a state that forgets, channel by channel of the keys.
//
//   S_t = (I - beta_t k_t k_t^T) diag(exp(g_t)) S_{t-1} + beta_t k_t v_t^T      o_t = scale S_t^T q_t
//   q, k (B, H, N, D), v, o (B, H, N, E), g (B, H, N, D) <= 0 natural logs, beta (B, H, N)
// With equal channels it is the gated DeltaNet. Keys and queries have length 1: give unit_norm{}, or normalise before.
// Default scale 1/sqrt(D). Cost: 7 D E flops a token. Kimi Team, arXiv:2510.26692.
#pragma once

#include "deltanet.hpp"

namespace heed::inline HEED_ABI {

/// Policies as of deltanet.
template <class A = default_arch, class Q, class K, class V, class O, class G, class Beta, class... P>
void kda(const Q& q, const K& k, const V& v, O&& o, const view<G, 4>& g, const view<Beta, 3>& beta, P&&... policies) {
    detail::delta_recurrence<A>(q, k, v, o, channel_decay{g}, delta_rule{beta}, policies...);
}

/// One token: the operands have N = 1, and s is updated.
template <class A = default_arch, class T, class Q, class K, class V, class O, class G, class Beta, class... P>
void kda_step(state<T>& s, const Q& q, const K& k, const V& v, O&& o, const view<G, 4>& g, const view<Beta, 3>& beta,
              P&&... policies) {
    kda<A>(q, k, v, o, g, beta, s, recurrent{}, policies...);
}

}  // namespace heed::inline HEED_ABI
