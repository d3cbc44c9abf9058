// TransNormer: linear attention normalised by its own size and not by sums of weights, and softmax in blocks [66].
//
//   norm_attention   o_t = RMSNorm(S_t^T phi(q_t)),  S_t = S_{t-1} + phi(k_t) v_t^T,  phi = elu + 1
//   diag_attention   softmax(q k^T / sqrt D) v within blocks of w tokens, for the first layers
// The norm is over the channels of all heads of a token, so positive factors of v, phi(q) or phi(k) do not matter. S
// grows with t: f16 outputs overflow on long runs, before the norm. Cost: 4 D E, 2 w (D + E) a token and head.
// Qin et al., arXiv:2210.10340.
#pragma once

#include "../engine/attention.hpp"
#include "../policy/mask_position.hpp"
#include "row_norm.hpp"
#include "with_default.hpp"

namespace heed::inline HEED_ABI {

/// q (B, Hq, N, D), k (B, Hk, N, D), v (B, Hv, N, E), o (B, max(Hq, Hk, Hv), N, E). Policies of recurrence,
/// non_causal{} and features among them, and a state to go on from; one token is the same call.
template <class A = default_arch, class Q, class K, class V, class O, class... P>
void norm_attention(const Q& q, const K& k, const V& v, O&& o, const rms& by, P&&... policies) {
    by.check("norm_attention", as_view(o).shape[1], as_view(o).shape[3]);
    detail::with_default(
        elu_plus_one{}, [&](auto&... all) { recurrence<A>(q, k, v, o, all...); }, policies...);
    rms_norm<A>(as_view(o), as_view(o), by, detail::pick<roles::context>(detail::calling_thread{}, policies...));
}
/// The same with rms{1e-6, across heads}.
template <class A = default_arch, class Q, class K, class V, class O, class... P>
    requires(!(std::is_same_v<std::remove_cvref_t<P>, rms> || ...))
void norm_attention(const Q& q, const K& k, const V& v, O&& o, P&&... policies) {
    norm_attention<A>(q, k, v, o, rms{1e-6, true}, policies...);
}

/// q (B, H, N, D), k (B, G, M, D), v (B, G, M, E), o (B, H, N, E). Policies of attention but a mask.
template <class A = default_arch, class Q, class K, class V, class O, class... P>
    requires(!(mask_policy<P> || ...))
void diag_attention(const Q& q, const K& k, const V& v, O&& o, index_t w, const P&... policies) {
    attention<A>(q, k, v, o, chunk{w}, policies...);
}
/// The same within a mask, such as causal{}.
template <class A = default_arch, class Q, class K, class V, class O, mask_policy M, class... P>
void diag_attention(const Q& q, const K& k, const V& v, O&& o, index_t w, const M& mask, const P&... policies) {
    attention<A>(q, k, v, o, chunk{w} & mask, policies...);
}

}  // namespace heed::inline HEED_ABI
