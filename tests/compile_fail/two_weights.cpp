// error: heed: two weights
#include <heed/heed.hpp>

using namespace heed;

void call(view<const float> q, view<const float> k, view<const float> v, view<float> o) {
#ifdef HEED_SHOULD_FAIL
    attention(q, k, v, o, softmax{}, relu_squared{});
#else
    attention(q, k, v, o, relu_squared{});
#endif
}
