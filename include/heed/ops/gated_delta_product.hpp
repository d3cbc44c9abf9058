// Gated DeltaProduct: n delta steps a token, so that a token's transition is a product of n generalised Householder
// matrices, and can permute or rotate the state.
//
//   S = exp(g_t) S_{t-1};  S <- (I - beta_i k_i k_i^T) S + beta_i k_i v_i^T for the n rows i of t;  o_t = scale S^T q_t
//   q (B, H, N, D), o (B, H, N, E), g (B, H, N) <= 0 natural logs
//   k (B, H, n N, D), v (B, H, n N, E), beta (B, H, n N): token t has rows n t, ..., n t + n - 1
// Keys have length 1. n = 1 is the gated DeltaNet. Default scale 1/sqrt(D). Siems et al., arXiv:2502.10297.
#pragma once

#include "deltanet.hpp"

namespace heed::inline HEED_ABI {

/// Policies as of deltanet.
template <class A = default_arch, class Q, class K, class V, class O, class G, class Beta, class... P>
void gated_delta_product(const Q& q, const K& k, const V& v, O&& o, const view<G, 3>& g, const view<Beta, 3>& beta,
                         index_t n, P&&... policies) {
    detail::delta_recurrence<A>(q, k, v, o, token_decay{g}, householder{beta, n}, policies...);
}

/// The same without a decay.
template <class A = default_arch, class Q, class K, class V, class O, class Beta, class... P>
void delta_product(const Q& q, const K& k, const V& v, O&& o, const view<Beta, 3>& beta, index_t n, P&&... policies) {
    detail::delta_recurrence<A>(q, k, v, o, householder{beta, n}, policies...);
}

/// One token: q and o have one row, k, v and beta n, and s is updated.
template <class A = default_arch, class T, class Q, class K, class V, class O, class G, class Beta, class... P>
void gated_delta_product_step(state<T>& s, const Q& q, const K& k, const V& v, O&& o, const view<G, 3>& g,
                              const view<Beta, 3>& beta, index_t n, P&&... policies) {
    gated_delta_product<A>(q, k, v, o, g, beta, n, s, recurrent{}, policies...);
}
template <class A = default_arch, class T, class Q, class K, class V, class O, class Beta, class... P>
void delta_product_step(state<T>& s, const Q& q, const K& k, const V& v, O&& o, const view<Beta, 3>& beta, index_t n,
                        P&&... policies) {
    delta_product<A>(q, k, v, o, beta, n, s, recurrent{}, policies...);
}

}  // namespace heed::inline HEED_ABI
