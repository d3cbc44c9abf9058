// Performer: softmax attention estimated by positive random features, so in linear time.
//
//   o_i = sum_j phi(q_i).phi(k_j) v_j / sum_j phi(q_i).phi(k_j),   E[phi(q).phi(k)] = exp(q.k / sqrt(D))
// The error falls as 1/sqrt(m) and grows with |q + k|: it needs rows of moderate length. Cost: 4 m (D + E) a token and
// head. Choromanski et al., arXiv:2009.14794.
#pragma once

#include "../policy/feature_random.hpp"
#include "../policy/random_directions.hpp"
#include "linear_attention.hpp"

namespace heed::inline HEED_ABI {

/// q, k, v, o as in linear_attention; w (heads, D, m), orthogonal_directions(heads, D, m, seed) of one head for all or
/// of as many as q and as k have. Policies of linear_attention but features; a state has m rows.
template <class A = default_arch, class Q, class K, class V, class O, class S, class... P>
void performer(const Q& q, const K& k, const V& v, O&& o, const view<S, 3>& w, P&&... policies) {
    const positive_features features(w);
    linear_attention<A>(q, k, v, o, features, policies...);
}

}  // namespace heed::inline HEED_ABI
