// Linear attention with gates: what the state forgets is data. One token is the same call with N = 1 and a state.
//
//   simple_gla            S_t = e^g_t S_{t-1} + k_t v_t^T           g (B, heads, N)       o_t = q_t^T S_t / sqrt(D)
//   gla                   S_t = diag(e^g_t) S_{t-1} + k_t v_t^T     g (B, heads, N, D)    likewise (arXiv:2312.06635)
//   hgrn2                 the same with k_t = 1 - e^g_t, o_t = q_t^T S_t                  (arXiv:2404.07904)
//   lightning_attention   S_t = e^g_h S_{t-1} + k_t v_t^T, o_t = q_t^T S_t                (arXiv:2401.04658)
// g <= 0 are logs; heads of g divide those of the state. log_gates makes them. Cost: 4 D E a token and head.
#pragma once

#include "../policy/feature_gate.hpp"
#include "../policy/score.hpp"
#include "../policy/score_distance.hpp"
#include "log_gates.hpp"
#include "with_default.hpp"

namespace heed::inline HEED_ABI {

/// q (B, Hq, N, D), k (B, Hk, N, D), v (B, Hv, N, E), o (B, max(Hq, Hk, Hv), N, E), g (B, heads, N). Policies of
/// recurrence but a decay.
template <class A = default_arch, class Q, class K, class V, class O, class S, class... P>
void simple_gla(const Q& q, const K& k, const V& v, O&& o, const view<S, 3>& g, P&&... policies) {
    recurrence<A>(q, k, v, o, token_decay{g}, policies...);
}

/// The same with a gate of every key channel, g (B, heads, N, D); GLA's own gate is log_gates(x, g, 16).
template <class A = default_arch, class Q, class K, class V, class O, class G, class... P>
void gla(const Q& q, const K& k, const V& v, O&& o, const G& g, P&&... policies) {
    recurrence<A>(q, k, v, o, channel_decay{as_view(g)}, policies...);
}

/// Keys are what the gates let in, 1 - e^g, so there are none to give: q (B, Hq, N, D), v (B, Hv, N, E), g (B, Hg, N,
/// D), Hg a number of heads that recurrence takes for k. A lower bound b of forget gates is log_gates(x, g, 1, b).
template <class A = default_arch, class Q, class V, class O, class G, class... P>
void hgrn2(const Q& q, const V& v, O&& o, const G& g, P&&... policies) {
    recurrence<A>(q, g, v, o, channel_decay{as_view(g)}, complement_of_gate{}, policies...);
}

/// Logs of lightning attention's decays: slopes of ALiBi, which fade from the first layer to the last.
inline std::vector<float> lightning_decays(index_t H, index_t layer, index_t layers) {
    require_argument(0 <= layer && layer < layers, "lightning_decays", "layer ", layer, " is not one of ", layers);
    std::vector<float> g = alibi_slopes(H);
    const double depth = layers > 1 ? static_cast<double>(layer) / static_cast<double>(layers - 1) : 0;
    for (float& one : g) one = static_cast<float>(-one * (1 - depth + 1e-5));
    return g;
}

/// q, k, v and o as in simple_gla; g a log of each head, such as lightning_decays(H, layer, layers). The scale is 1.
template <class A = default_arch, class Q, class K, class V, class O, class... P>
void lightning_attention(const Q& q, const K& k, const V& v, O&& o, std::span<const float> g, P&&... policies) {
    detail::with_default(
        scale{1}, [&](auto&... all) { recurrence<A>(q, k, v, o, head_decay{g}, all...); }, policies...);
}

}  // namespace heed::inline HEED_ABI
