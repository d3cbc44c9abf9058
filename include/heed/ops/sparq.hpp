// SparQ (arXiv:2312.04985) and SparF [51]: a decoding step that reads r of D channels of all keys, and k of the keys whole.
//
//   I, a = the keys that r channels say are best, and the share of weight they say I has           select/channel_scores.hpp
//   o = a attention(q, k_I, v_I) + (1 - a) mean of all v
// Numbers read per head of keys: n r + k (D + E) + E of n (D + E). One choice for the heads of a group. Where the rows of a
// source lie (memory, pages, a file) does not show in the result.
#pragma once

#include "../select/channel_keys.hpp"
#include "../select/gathered.hpp"
#include "partials.hpp"
#include "retrieved.hpp"

namespace heed::inline HEED_ABI {

/// q (B, H, 1, D) over a source of G heads and the index that follows it; o (B, H, 1, E). Policies: scale, lse (of what was
/// chosen), on. Memory beside: the lists of keys, an output. Throws shape_error or argument_error before o is touched.
template <class A = default_arch, class Q, key_value_source Source, storage S, class O, class... P>
retrieved sparq_attention(const Q& q, const Source& source, channel_keys<S>& index, O&& o, const sparq& rule,
                          const P&... policies) {
    static constexpr const char* op = "sparq_attention";
    static_assert(detail::only_roles<detail::role_list<roles::scale, roles::probe, roles::context>, P...> &&
                      (detail::probes_lse_only<P> && ...),
                  "heed: sparq_attention takes scale, lse and on");
    const auto x = detail::operands_of(as_view(q), source, as_view(o));
    detail::check_parts(op, x, policies...);
    require_shape(x.N() == 1, op, "q has ", x.N(), " rows, a step has 1");
    rule.check(op, x.D());
    const double factor = detail::scale_of(x.D(), policies...);

    auto choice = index.template choose<A>(x.q, source, rule, factor, policies...);
    const gathered chosen(source, std::move(choice.keys));
    auto part = detail::partial_of(x);
    using T = typename decltype(part)::value_type;
    detail::attend_part<A>(x.q, chosen, part, everything{}, detail::pick_all<roles::probe>(policies...), policies...);
    const auto attended = part.o();
    using element = typename decltype(x.o)::value_type;
    detail::each_row(x.o.shape, [&](index_t b, index_t h, index_t n) {
        const double share = choice.shares[static_cast<std::size_t>(b * x.H() + h)];
        const auto& mean = index.of(b, h / x.group());
        for (index_t e = 0; e < x.E(); ++e) {
            const auto y = attended(b, h, n, e);
            const auto mixed = static_cast<T>(share * static_cast<double>(y) + (1 - share) * mean.mean(e));
            x.o(b, h, n, e) = static_cast<element>(share == 1 ? y : mixed);
        }
    });
    for (double& share : choice.shares) share = 1 - share;
    const index_t means = x.B() * x.G() * x.E() * static_cast<index_t>(sizeof(double));
    return {std::move(choice.shares), choice.numbers * static_cast<index_t>(sizeof(S)) + chosen.bytes() + means};
}

}  // namespace heed::inline HEED_ABI
