// Quest (arXiv:2406.10774) [65]: attention over the pages of keys whose scores can be the largest.
//
//   pages by bounds, one choice for the rows of a group      select/page_scores.hpp
//   o = attention(q, k, v) over the keys of the chosen pages
// Numbers read per head of keys: 2 n D / page of bounds, and (D + E) of each chosen key, of n (D + E).
#pragma once

#include "../select/page_bounds.hpp"
#include "partials.hpp"
#include "retrieved.hpp"

namespace heed::inline HEED_ABI {

/// q (B, H, N, D) over a source of G heads and the index that follows it; o (B, H, N, E). Policies: mask, score, scale,
/// offset, sink, lse (of what was chosen, the sink included), on. The choice, and what is told of the keys that were not
/// chosen, are blind to mask, score and sink: pages are bounded by q.k alone. Memory beside: the lists of keys. Throws
/// shape_error or argument_error before o is touched.
template <class A = default_arch, class Q, key_value_source Source, storage S, class O, class... P>
retrieved quest_attention(const Q& q, const Source& source, page_bounds<S>& index, O&& o, const quest& rule,
                          const P&... policies) {
    static constexpr const char* op = "quest_attention";
    const auto x = detail::operands_of(as_view(q), source, as_view(o));
    detail::check_parts_and_weight(op, x, policies...);
    rule.check(op);
    auto choice = index.template choose<A>(x.q, source, rule, detail::scale_of(x.D(), policies...), policies...);
    const gathered chosen(source, std::move(choice.keys));
    std::vector<double> inside(choice.outside.size());
    const auto logs = dense(inside.data(), {x.B(), x.H(), x.N()});
    attention<A>(q, chosen, o, policies..., lse{logs});
    for (std::size_t r = 0; r < inside.size(); ++r) inside[r] = detail::missed_share(inside[r], choice.outside[r]);
    return {std::move(inside), choice.numbers * static_cast<index_t>(sizeof(S)) + chosen.bytes()};
}

}  // namespace heed::inline HEED_ABI
