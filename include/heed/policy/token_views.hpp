// What policies of recurrences read: rows of each token, and what is the same for all. A policy names it by members
//
//   auto token_views()        std::tie of its views with rows of tokens on axis 2, and of positions of the first token
//   auto parameters() const   a tuple of its other views
// so that it can be had at some of the tokens alone, and outputs kept apart from what it reads.
#pragma once

#include <tuple>

#include "../core/view.hpp"

namespace heed::inline HEED_ABI::detail {

template <class P>
auto token_views(P& p) {
    if constexpr (requires { p.token_views(); })
        return p.token_views();
    else
        return std::tuple<>{};
}
template <class P>
auto parameters_of(const P& p) {
    if constexpr (requires { p.parameters(); })
        return p.parameters();
    else
        return std::tuple<>{};
}

/// The tokens `at` of one of the token_views.
template <class S, std::size_t Rank>
view<S, Rank> part_of(const view<S, Rank>& x, range at) {
    return slice(x, 2, at);
}
inline index_t part_of(index_t position, range at) { return position + at.first; }

/// The policy of the tokens `at` alone; of update rows, where a token has several.
template <class P>
P at_tokens(P policy, range at) {
    std::apply([&](auto&... of) { ((of = part_of(of, at)), ...); }, token_views(policy));
    return policy;
}

/// Calls f(view) for all that a policy reads.
template <class P, class F>
void each_view(P policy, const F& f) {
    const auto one = [&]<class X>(const X& x) {
        if constexpr (!std::is_same_v<X, index_t>) f(x);
    };
    const auto all = [&](const auto&... x) { (one(x), ...); };
    std::apply(all, token_views(policy));
    std::apply(all, parameters_of(policy));
}

}  // namespace heed::inline HEED_ABI::detail
