// GateLoop: linear attention whose decay is complex and data, so that memories fade and turn [88].
//
//   S_t = diag(e^(m_t + i p_t)) S_{t-1} + k_t v_t^T,   o_t = q_t^T Re(S_t)     q, k, v real, S complex
//   o_t = sum_{s <= t} sum_c q_t[c] k_s[c] e^(sum m) cos(sum p) v_s, sums over s < j <= t
// No cumulated product is divided by another, so no length overflows. Cost: 10 D E a token and head. Katsch,
// arXiv:2311.01927.
#pragma once

#include "../policy/score.hpp"
#include "log_gates.hpp"
#include "with_default.hpp"

namespace heed::inline HEED_ABI {

/// q, k (B, H, N, D), v and o (B, H, N, E), heads as in recurrence; magnitude (logs <= 0, such as log_gates makes) and
/// phase (radians) (B, heads, N, D), or of width 1. A state to go on from has 2 D rows: state<float>{B, H, 2 * D, E}.
/// Policies of recurrence but a decay or a normaliser. The scale is 1. With complex_rows{}, q and k are of width 2 D,
/// Re and Im: with a = gamma e^(i theta) and the conjugate of k, retention of rotated rows [113].
template <class A = default_arch, class Q, class K, class V, class O, class M, class Phase, class... P>
void gateloop(const Q& q, const K& k, const V& v, O&& o, const M& magnitude, const Phase& phase, P&&... policies) {
    const complex_decay decay{as_view(magnitude), as_view(phase)};
    detail::with_default(
        scale{1}, [&](auto&... all) { recurrence<A>(q, k, v, o, decay, all...); }, policies...);
}

}  // namespace heed::inline HEED_ABI
