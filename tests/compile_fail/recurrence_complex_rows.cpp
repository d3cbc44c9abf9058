// error: heed: complex rows of q and k go with a complex decay
#include <heed/engine/recurrence.hpp>

using namespace heed;

void call(view<const float> q, view<const float> k, view<const float> v, view<float> o, view<const float> g) {
#ifdef HEED_SHOULD_FAIL
    recurrence(q, k, v, o, channel_decay{g}, complex_rows{});
#else
    recurrence(q, k, v, o, complex_decay{g, g}, complex_rows{});
#endif
}
