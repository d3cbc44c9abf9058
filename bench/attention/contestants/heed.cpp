// heed: one attention() per type serves all masks; scores and weights are compiled in, so each costs one more.
#include "heed.hpp"

namespace bench {
namespace {

job prepare(const problem& p, operands& x) {
    const scale by(p.scale());
    if (p.type != dtype::f32) return run_heed_other_types(p, x);
    if (p.what.sinks) return run_heed<float>(p, x, x.mask, by, sink(x.sinks));
    if (p.what.softcap > 0) return run_heed<float>(p, x, x.mask, by >> softcap{p.what.softcap});
    return run_heed<float>(p, x, x.mask, by);
}

bool able(const problem& p) { return p.plain() || (p.type == dtype::f32 && !(p.what.sinks && p.what.softcap > 0)); }

}  // namespace

extern const contestant heed_contestant{"heed", able, prepare};

std::size_t heed_scratch(const problem& p, operands& x) {
    threads pool(p.threads);
    return attention_scratch(x.q.as<float>(), x.k.as<float>(), x.v.as<float>(), x.o.as<float>(), x.mask, on{pool});
}

}  // namespace bench
