// Ltri-LLM [100]: a stream whose queries see the first keys, the last ones, and the spans of tokens they look for.
//
//   spans of the past that the new queries look for, one choice for the rows of a group      select/span_index.hpp
//   o = attention(q, k, v), causal, over [sinks | retrieved spans | local window]; then the index learns the new tokens
//
//   cache.append(k, v), ltri_attention(q, cache, index, o, ltri(1024, 4, 256));      // a token, or a block of a prompt
// Every head attends to its own spans; where heads or layers are to agree on some, key_votes (select/) counts choices.
// With retrieved spans of 0 keys it is a stream of sinks and window; with room for all it is causal attention. Numbers
// read per head of keys: D of every key that tells a span, (D + E) of each chosen key.
#pragma once

#include "../select/span_index.hpp"
#include "partials.hpp"
#include "retrieved.hpp"

namespace heed::inline HEED_ABI {

/// q (B, H, N, D), the queries of the newest N tokens of a source of G heads, whose others the index knows; o (B, H, N,
/// E). Keys stand at their positions among all. Policies: mask (beside causal), score, scale, sink, lse (of what was
/// chosen, the sink included), on; the choice and the maps look at q.k alone. The local window is that of the first query, rule.recent keys up to
/// its own, and what follows, the keys in no span yet among them. Memory beside: the lists of keys, and the map of a
/// block for each head. Throws shape_error or argument_error before o is touched.
template <class A = default_arch, class Q, key_value_source Source, storage S, class O, class... P>
retrieved ltri_attention(const Q& q, const Source& source, span_index<S>& index, O&& o, const ltri& rule,
                         const P&... policies) {
    static constexpr const char* op = "ltri_attention";
    using kept = detail::role_list<roles::score, roles::scale, roles::weight, roles::context, roles::probe>;
    static_assert(((kept::has<P> || has_role<P, roles::mask>)&&...),
                  "heed: ltri_attention takes a mask, a score, scale, sink, lse and on");
    const auto x = detail::operands_of(as_view(q), source, as_view(o));
    detail::check_parts_and_weight(op, x, policies...);
    rule.check(op);
    const double factor = detail::scale_of(x.D(), policies...);
    auto choice = index.template choose<A>(x.q, source, rule, factor, policies...);
    const gathered chosen(source, std::move(choice.keys));
    retrieved out{std::vector<double>(static_cast<std::size_t>(x.B() * x.H() * x.N())), 0};
    const auto logs = dense(out.missed.data(), {x.B(), x.H(), x.N()});
    const auto mask = causal{} & detail::pick<roles::mask>(everything{}, policies...);
    std::apply([&](const auto&... p) { attention<A>(x.q, chosen, x.o, mask, lse{logs}, p...); },
               detail::policies_of<kept>(policies...));
    detail::each_row(x.o.shape, [&](index_t b, index_t h, index_t n) {
        logs(b, h, n) = detail::missed_share(logs(b, h, n), choice.outside[static_cast<std::size_t>(b * x.H() + h)]);
    });
    out.bytes = choice.numbers * Source::key_rows::bits / 8 + chosen.bytes();
    index.template append<A>(x.q, source, factor, policies...);
    return out;
}

}  // namespace heed::inline HEED_ABI
