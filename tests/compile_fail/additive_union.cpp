// error: heed: an additive mask has no union; use & or a score
#include <heed/heed.hpp>

using namespace heed;

auto joined(view<const float> table) {
#ifdef HEED_SHOULD_FAIL
    return causal{} | additive{table};
#else
    return causal{} & additive{table};
#endif
}
