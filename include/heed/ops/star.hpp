// Star attention on one machine [59]: context blocks that see themselves and the first, questions that see everything.
//
//   phase 1  context token i sees j <= i of its own block and of block 0: about b^2 (1.5 n - 1) pairs for n blocks of b
//   phase 2  each host h answers with o_h = attention over its keys and lse_h; the answers merge
// Block 0 sees only itself, so one machine computes it once; every token keeps its own position (Acharya et al., 2024).
#pragma once

#include "../policy/mask_patterns.hpp"
#include "segments.hpp"

namespace heed::inline HEED_ABI {

/// Phase 1: q (B, H, N, D), k (B, G, N, D), v (B, G, N, E), o (B, H, N, E) of the context. Policies of attention but a
/// mask.
template <class A = default_arch, class Q, class K, class V, class O, class... P>
void star_context(const Q& q, const K& k, const V& v, O&& o, index_t block, const P&... policies) {
    attention<A>(q, k, v, o, star(block), policies...);
}

/// Phase 2: the last rows, questions and what is generated, over keys that hosts hold: host s those at positions
/// [cuts[s], cuts[s + 1]); cuts go from 0 to the end of the keys or beyond. Policies: score, scale, offset, lse, on.
template <class A = default_arch, class Q, key_value_source Source, class O, class... P>
void star_query(const Q& q, const Source& source, O&& o, std::span<const index_t> cuts, const P&... policies) {
    const auto x = detail::operands_of(as_view(q), source, as_view(o));
    detail::check_segments("star_query", x, cuts, causal{}, policies...);
    auto whole = detail::attend_segments<A>(
        x, cuts, [](auto&&...) {}, causal{}, policies...);
    detail::deliver(whole, x.o, detail::pick_all<roles::probe>(policies...));
}
template <class A = default_arch, class Q, class K, class V, class O, class... P>
    requires(!key_value_source<K>)
void star_query(const Q& q, const K& k, const V& v, O&& o, std::span<const index_t> cuts, const P&... policies) {
    star_query<A>(q, detail::source_of(as_view(k), as_view(v)), o, cuts, policies...);
}

}  // namespace heed::inline HEED_ABI
