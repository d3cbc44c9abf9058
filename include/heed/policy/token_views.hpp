// What of a recurrence's policies has rows for each token, and the same policies at some of the tokens.
#pragma once

#include <tuple>

#include "roles.hpp"
#include "update.hpp"

namespace heed::inline HEED_ABI::detail {

/// The views of a policy that have rows for each token, on axis 2.
template <class P>
auto token_views(P& p) {
    if constexpr (has_role<P, roles::read>)
        return std::tuple<>{};
    else if constexpr (requires { p.magnitude; })
        return std::tie(p.magnitude, p.phase);
    else if constexpr (requires { p.logs.strides; })
        return std::tie(p.logs);
    else if constexpr (requires { p.weights.strides; })
        return std::tie(p.weights);
    else if constexpr (requires { p.beta; })
        return std::tie(p.beta);
    else if constexpr (requires { p.a, p.b; })
        return std::tie(p.a, p.b);
    else
        return std::tuple<>{};
}

/// The policy of the tokens `at` alone; of update rows, where a token has several.
template <class P>
P at_tokens(P policy, range at) {
    auto views = token_views(policy);
    std::apply([&](auto&... view) { ((view = slice(view, 2, at)), ...); }, views);
    return policy;
}

}  // namespace heed::inline HEED_ABI::detail
