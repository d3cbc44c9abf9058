// Operators over the recurrence that bring policies of their own, which a caller's take the place of.
#pragma once

#include "../engine/recurrence.hpp"

namespace heed::inline HEED_ABI::detail {

/// f(policies...), and before them `otherwise` if none of them has its role.
template <class Default, class F, class... P>
void with_default(const Default& otherwise, F&& f, P&... policies) {
    if constexpr (count_of_role<typename Default::role, P...> > 0)
        f(policies...);
    else
        f(otherwise, policies...);
}

}  // namespace heed::inline HEED_ABI::detail
