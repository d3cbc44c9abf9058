// error: heed: so many operands do not fit this monoid
#include <heed/heed.hpp>

using namespace heed;

void call(view<const float, 3> a, view<const float, 3> b, view<float, 3> h) {
#ifdef HEED_SHOULD_FAIL
    scan(affine{}, inputs{b}, outputs{h});
#else
    scan(affine{}, inputs{a, b}, outputs{h});
#endif
}
