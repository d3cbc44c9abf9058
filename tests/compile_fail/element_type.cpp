// error: heed: elements are float, double, bf16 or f16
#include <heed/heed.hpp>

using namespace heed;

void call([[maybe_unused]] view<const int> whole, view<const float> q, view<const float> k, view<const float> v,
          view<float> o) {
#ifdef HEED_SHOULD_FAIL
    attention(whole, k, v, o);
#else
    attention(q, k, v, o);
#endif
}
