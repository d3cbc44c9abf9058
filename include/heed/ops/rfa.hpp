// Random feature attention: attention of rows of length 1 by the features of a Gaussian, with gates [19].
//
//   o_t = S_t^T phi(q_t) / max(phi(q_t).z_t, 1)     S_t = c S_{t-1} + b phi(k_t) v_t^T,  z_t = c z_{t-1} + b phi(k_t)
//   rfa: c = b = 1     gated_rfa: c = e^g, b = 1 - e^g     sentential_rfa: c < 1 after ends of sentences
// The floor 1 is absolute, and estimates may be negative: see fourier_features. Cost: 8 m E + 4 m D a token and head, m
// directions. Peng et al., arXiv:2103.02143; Wu et al., arXiv:2210.08431.
#pragma once

#include <limits>

#include "../policy/feature_gate.hpp"
#include "../policy/feature_random.hpp"
#include "../policy/random_directions.hpp"
#include "with_default.hpp"

namespace heed::inline HEED_ABI {

/// q (B, Hq, N, D), k (B, Hk, N, D), v (B, Hv, N, E), o (B, max(Hq, Hk, Hv), N, E), w (heads, D, m) as in
/// fourier_features, of spread 1 / tau for a temperature tau^2. Policies of recurrence but features, token_decay{c}
/// with sentence_gates among them, non_causal{}, a state of 2 m rows to go on from (one token is the same call).
template <class A = default_arch, class Q, class K, class V, class O, class S, class... P>
void rfa(const Q& q, const K& k, const V& v, O&& o, const view<S, 3>& w, P&&... policies) {
    const fourier_features features(w);
    detail::with_default(
        sum_of_keys{1}, [&](auto&... all) { recurrence<A>(q, k, v, o, features, all...); }, policies...);
}

/// The same with gates: c (B, heads, N) of what is kept, `written` (B, Hk, N) or (B, 1, N) of what is written, 1 -
/// e^written; logs <= 0.
template <class A = default_arch, class Q, class K, class V, class O, class S, class C, class G, class... P>
void sentential_rfa(const Q& q, const K& k, const V& v, O&& o, const view<S, 3>& w, const view<C, 3>& c,
                    const view<G, 3>& written, P&&... policies) {
    const fourier_features map(w);
    const gated_features features(map, written);
    detail::with_default(
        sum_of_keys{1}, [&](auto&... all) { recurrence<A>(q, k, v, o, features, token_decay{c}, all...); },
        policies...);
}

/// A token replaces what it makes forgotten: c = e^g, b = 1 - e^g, g (B, Hk, N) or (B, 1, N).
template <class A = default_arch, class Q, class K, class V, class O, class S, class G, class... P>
void gated_rfa(const Q& q, const K& k, const V& v, O&& o, const view<S, 3>& w, const view<G, 3>& g, P&&... policies) {
    sentential_rfa<A>(q, k, v, o, w, g, g, policies...);
}

/// The gates of sentences [19]: what ends a sentence is read before anything is forgotten, so its gate acts on the next
/// token. g (B, H, N), logs of gates <= 0, looked at where ends (B, N) is not 0. c (B, H, N) becomes the decay of each
/// token, and `last` (B, H, N) the gate of the most recent end before it (-inf, a gate of 0, before the first):
/// rfa(..., token_decay{c}) is the variant that decays, sentential_rfa(..., c, last) the other. `before` (B, H, 2), if
/// it has data, is what the tokens before gave, and then what these give: {log of c to come, last}; at first {0, -inf}.
template <class G, class I, class C, class L, class S = float>
void sentence_gates(const view<G, 3>& g, const view<I, 2>& ends, const view<C, 3>& c, const view<L, 3>& last,
                    const view<S, 3>& before = {}) {
    static constexpr const char* op = "sentence_gates";
    const auto [B, H, N] = g.shape;
    const auto fits = [&](const auto& x, const char* name) {
        require_shape(x.shape == g.shape, op, name, " is of (", x.shape[0], ", ", x.shape[1], ", ", x.shape[2],
                      "), g of (", g.shape[0], ", ", g.shape[1], ", ", g.shape[2], ")");
    };
    fits(c, "c"), fits(last, "last");
    require_shape(ends.shape[0] == B && ends.shape[1] == N, op, "ends are of (", ends.shape[0], ", ", ends.shape[1],
                  ") tokens, g of (", g.shape[0], ", ", g.shape[2], ")");
    require_shape(!before.data || before.shape == extents<3>{B, H, 2}, op, "before is of ", before.shape[1],
                  " heads, g of ", g.shape[1]);
    require_shape(!overlap(c, g) && !overlap(last, g) && !overlap(c, last), op, "c, last and g overlap in memory");
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h) {
            double decay = before.data ? static_cast<double>(before(b, h, 0)) : 0;
            double recent =
                before.data ? static_cast<double>(before(b, h, 1)) : -std::numeric_limits<double>::infinity();
            for (index_t n = 0; n < N; ++n) {
                c(b, h, n) = static_cast<C>(decay);
                last(b, h, n) = static_cast<L>(recent);
                decay = ends(b, n) ? static_cast<double>(g(b, h, n)) : 0;
                if (ends(b, n)) recent = decay;
            }
            if (before.data) before(b, h, 0) = static_cast<S>(decay), before(b, h, 1) = static_cast<S>(recent);
        }
}

}  // namespace heed::inline HEED_ABI
