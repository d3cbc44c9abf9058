// Linear attention: a kernel phi(q).phi(k) in place of exp(q.k), so that the keys and values of the past are a matrix.
//
//   o_t = S_t^T phi(q_t) / (phi(q_t).z_t),   S_t = sum_{j <= t} phi(k_j) v_j^T,   z_t = sum_{j <= t} phi(k_j)
// Cost: 4 F E a token and head for F features, whatever the length. Katharopoulos et al., arXiv:2006.16236; with
// cosformer_features{length}, cosFormer (arXiv:2202.08791).
#pragma once

#include "with_default.hpp"

namespace heed::inline HEED_ABI {

/// q (B, Hq, N, D), k (B, Hk, N, D), v (B, Hv, N, E), o (B, max(Hq, Hk, Hv), N, E); heads, types and errors as in
/// recurrence. Policies: those of recurrence, and of features elu_plus_one{} if there are none, of normalisers
/// sum_of_keys{}; identity_features{} and not_normalised{} take them away. Causal, unless non_causal{},
/// whose queries may be of other tokens than keys and values (cross attention). With a state<T>
/// among the policies a call goes on where the last one ended, so one token is the same call with N = 1.
template <class A = default_arch, class Q, class K, class V, class O, class... P>
void linear_attention(const Q& q, const K& k, const V& v, O&& o, P&&... policies) {
    const auto run = [&](auto&... all) { recurrence<A>(q, k, v, o, all...); };
    const auto normalised = [&](auto&... all) { detail::with_default(sum_of_keys{}, run, all...); };
    detail::with_default(elu_plus_one{}, normalised, policies...);
}

}  // namespace heed::inline HEED_ABI
