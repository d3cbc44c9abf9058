#include "heed.hpp"

namespace bench {

job run_heed_other_types(const problem& p, operands& x) {
    const scale by(p.scale());
    if (p.type == dtype::f16) return run_heed<f16>(p, x, x.mask, by);
    return run_heed<double>(p, x, x.mask, by);
}

}  // namespace bench
