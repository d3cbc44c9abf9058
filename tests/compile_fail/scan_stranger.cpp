// error: heed: an argument is not a policy of this operator
#include <heed/heed.hpp>

using namespace heed;

void call(view<const float, 3> x, view<float, 3> o) {
#ifdef HEED_SHOULD_FAIL
    hgrn(x, x, o, causal{});
#else
    hgrn(x, x, o, reversed{});
#endif
}
