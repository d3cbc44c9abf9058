// error: heed: this decay or update has the recurrent form only
#include <heed/engine/recurrence.hpp>

using namespace heed;

void call(view<const float> q, view<const float> k, view<const float> v, view<float> o) {
#ifdef HEED_SHOULD_FAIL
    recurrence(q, k, v, o, value_decay{v}, chunked{64});
#else
    recurrence(q, k, v, o, channel_decay{k}, chunked{64});
#endif
}
