// heed as a contestant, by storage type.
#pragma once

#include "contestant.hpp"

namespace bench {

template <class T, class... P>
job run_heed(const problem& p, operands& x, const P&... policies) {
    const auto q = x.q.as<T>(), k = x.k.as<T>(), v = x.v.as<T>(), o = x.o.as<T>();
    auto pool = std::make_shared<threads>(p.threads);
    auto scratch = std::make_shared<arena>(attention_scratch(q, k, v, o, policies..., on{*pool}));
    return [=] { attention(q, k, v, o, policies..., on{*pool, *scratch}); };
}

/// bf16, f16 and f64, compiled apart from f32.
job run_heed_other_types(const problem& p, operands& x);

/// Bytes of scratch a call needs.
std::size_t heed_scratch(const problem& p, operands& x);

}  // namespace bench
