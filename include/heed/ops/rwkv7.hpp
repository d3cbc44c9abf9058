// RWKV-7 (Goose) and its kin, DPLR and IPLR: transitions that are a diagonal plus a matrix of rank one.
//
//   S_t = (diag(exp(w_t)) + b_t a_t^T) S_{t-1} + k_t v_t^T      o_t = scale r_t^T S_t
//   r, k, a, b, w (B, H, N, D), v, o (B, H, N, E), w <= 0 natural logs; a_t reads S_{t-1} before its decay
// RWKV-7 has a = -kappa, b = eta kappa, |kappa| = 1, eta of [0, 1]. IPLR has w = 0; with a = -beta k, b = k it is the
// delta rule. Default scales as published: 1 for rwkv7, 1/sqrt(D) for dplr and iplr. Cost: 9 D E flops a token.
// Peng et al., arXiv:2503.14456.
#pragma once

#include "../policy/score.hpp"
#include "with_default.hpp"

namespace heed::inline HEED_ABI {

/// Diagonal plus low rank. Policies: scale{}, recurrent{}, chunked{c}, parallel{}, reversed{}, packed{offsets},
/// on{...}, state<T> (B, H, D, E).
template <class A = default_arch, class Q, class K, class V, class O, class X, class G, class... P>
void dplr(const Q& q, const K& k, const V& v, O&& o, const view<X, 4>& a, const view<X, 4>& b, const view<G, 4>& g,
          P&&... policies) {
    recurrence<A>(q, k, v, o, channel_decay{g}, low_rank{b, a}, policies...);
}

/// The identity plus low rank.
template <class A = default_arch, class Q, class K, class V, class O, class X, class... P>
void iplr(const Q& q, const K& k, const V& v, O&& o, const view<X, 4>& a, const view<X, 4>& b, P&&... policies) {
    recurrence<A>(q, k, v, o, low_rank{b, a}, policies...);
}

/// dplr with its published scale.
template <class A = default_arch, class R, class K, class V, class O, class W, class X, class... P>
void rwkv7(const R& r, const K& k, const V& v, O&& o, const view<W, 4>& w, const view<X, 4>& a, const view<X, 4>& b,
           P&&... policies) {
    detail::with_default(
        scale{1}, [&](auto&... all) { dplr<A>(r, k, v, o, a, b, w, all...); }, policies...);
}

/// One token: the operands have N = 1, and s is updated.
template <class A = default_arch, class T, class R, class K, class V, class O, class W, class X, class... P>
void rwkv7_step(state<T>& s, const R& r, const K& k, const V& v, O&& o, const view<W, 4>& w, const view<X, 4>& a,
                const view<X, 4>& b, P&&... policies) {
    rwkv7<A>(r, k, v, o, w, a, b, s, recurrent{}, policies...);
}
template <class A = default_arch, class T, class Q, class K, class V, class O, class X, class G, class... P>
void dplr_step(state<T>& s, const Q& q, const K& k, const V& v, O&& o, const view<X, 4>& a, const view<X, 4>& b,
               const view<G, 4>& g, P&&... policies) {
    dplr<A>(q, k, v, o, a, b, g, s, recurrent{}, policies...);
}
template <class A = default_arch, class T, class Q, class K, class V, class O, class X, class... P>
void iplr_step(state<T>& s, const Q& q, const K& k, const V& v, O&& o, const view<X, 4>& a, const view<X, 4>& b,
               P&&... policies) {
    iplr<A>(q, k, v, o, a, b, s, recurrent{}, policies...);
}

}  // namespace heed::inline HEED_ABI
