// error: heed: an operand is neither a view nor of a type that heed::viewable knows
#include <heed/heed.hpp>

using namespace heed;

void call(const float* p, view<const float> k, view<const float> v, view<float> o) {
#ifdef HEED_SHOULD_FAIL
    attention(p, k, v, o);
#else
    attention(heads(p, k.shape), k, v, o);
#endif
}
