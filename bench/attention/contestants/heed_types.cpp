#include "heed.hpp"

namespace bench {

job run_heed_other_types(const problem& p, operands& x) {
    const scale by(p.scale());
    switch (p.type) {
        case dtype::bf16:
            return run_heed<bf16>(p, x, x.mask, by);
        case dtype::f16:
            return run_heed<f16>(p, x, x.mask, by);
        default:
            return run_heed<double>(p, x, x.mask, by);
    }
}

}  // namespace bench
