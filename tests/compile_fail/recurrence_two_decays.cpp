// error: heed: two decays
#include <heed/engine/recurrence.hpp>

using namespace heed;

void call(view<const float> q, view<const float> k, view<const float> v, view<float> o, view<const float, 3> g) {
#ifdef HEED_SHOULD_FAIL
    recurrence(q, k, v, o, token_decay{g}, channel_decay{k});
#else
    recurrence(q, k, v, o, token_decay{g});
#endif
}
