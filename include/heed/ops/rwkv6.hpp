// RWKV-6 (Finch): a gated linear recurrence that reads the state before the token is written, and the token itself by a
// learned weight, the bonus u.
//
//   o_t = scale r_t^T (S_{t-1} + diag(u) k_t v_t^T)      S_t = diag(exp(w_t)) S_{t-1} + k_t v_t^T
//   r, k, w (B, H, N, D), v, o (B, H, N, E), u (H, D), w <= 0 natural logs (the paper's -exp(w))
// Default scale 1, as published. RWKV-5 is the same with w alike for all tokens. Cost: 4 D E flops a token.
// Peng et al., arXiv:2404.05892.
#pragma once

#include "../policy/score.hpp"
#include "with_default.hpp"

namespace heed::inline HEED_ABI {

/// Policies: scale{}, recurrent{}, chunked{c}, parallel{}, reversed{}, packed{offsets}, on{...}, state<T> (B, H, D, E).
template <class A = default_arch, class R, class K, class V, class O, class W, class U, class... P>
void rwkv6(const R& r, const K& k, const V& v, O&& o, const view<W, 4>& w, const view<U, 2>& u, P&&... policies) {
    detail::with_default(
        scale{1}, [&](auto&... all) { recurrence<A>(r, k, v, o, channel_decay{w}, bonus{u}, all...); }, policies...);
}

/// One token: the operands have N = 1, and s is updated.
template <class A = default_arch, class T, class R, class K, class V, class O, class W, class U, class... P>
void rwkv6_step(state<T>& s, const R& r, const K& k, const V& v, O&& o, const view<W, 4>& w, const view<U, 2>& u,
                P&&... policies) {
    rwkv6<A>(r, k, v, o, w, u, s, recurrent{}, policies...);
}

}  // namespace heed::inline HEED_ABI
