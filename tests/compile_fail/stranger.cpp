// error: heed: an argument is not a policy of this operator
#include <heed/heed.hpp>

using namespace heed;

void call(view<const float> q, view<const float> k, view<const float> v, view<float> o) {
#ifdef HEED_SHOULD_FAIL
    attention(q, k, v, o, causal{}, "window");
#else
    attention(q, k, v, o, causal{});
#endif
}
