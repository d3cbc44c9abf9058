// heed: one attention() per type serves all masks; scores and weights are compiled in, so each costs one more.
#include "heed.hpp"

namespace bench {
namespace {

job prepare(const problem& p, operands& x) {
    if (p.type == dtype::f32) return run_heed_policies<float>(p, x);
    if (p.type == dtype::bf16) return run_heed_bf16(p, x);
    return run_heed_other_types(p, x);
}

bool able(const problem& p) {
    const bool with_policies = p.type == dtype::f32 || p.type == dtype::bf16;
    return p.plain() || (with_policies && !(p.what.sinks && p.what.softcap > 0));
}

}  // namespace

extern const contestant heed_contestant{"heed", able, prepare};

std::size_t heed_scratch(const problem& p, operands& x) {
    threads pool(p.threads);
    return attention_scratch(x.q.as<float>(), x.k.as<float>(), x.v.as<float>(), x.o.as<float>(), x.mask, on{pool});
}

}  // namespace bench
