#include "heed.hpp"

namespace bench {

job run_heed_bf16(const problem& p, operands& x) { return run_heed_policies<bf16>(p, x); }

}  // namespace bench
