// error: heed: the output is a view of const
#include <heed/heed.hpp>

using namespace heed;

void call(view<const float> q, view<const float> k, view<const float> v, view<float> o) {
#ifdef HEED_SHOULD_FAIL
    attention(q, k, v, view<const float>(o));
#else
    attention(q, k, v, o);
#endif
}
