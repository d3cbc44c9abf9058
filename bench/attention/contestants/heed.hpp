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

/// The score or weight the problem asks for.
template <class T>
job run_heed_policies(const problem& p, operands& x) {
    const scale by(p.scale());
    if (p.what.sinks) return run_heed<T>(p, x, x.mask, by, sink(x.sinks));
    if (p.what.softcap > 0) return run_heed<T>(p, x, x.mask, by >> softcap{p.what.softcap});
    return run_heed<T>(p, x, x.mask, by);
}

/// Compiled apart from f32; those of `other` types are plain.
job run_heed_bf16(const problem& p, operands& x);
job run_heed_other_types(const problem& p, operands& x);

/// Bytes of scratch a call needs.
std::size_t heed_scratch(const problem& p, operands& x);

}  // namespace bench
