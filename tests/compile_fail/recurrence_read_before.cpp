// error: heed: a bonus and reads before the token go with causal orders only
#include <heed/engine/recurrence.hpp>

using namespace heed;

void call(view<const float> q, view<const float> k, view<const float> v, view<float> o) {
    recurrence(q, k, v, o, reversed{}, read_before{});
#ifdef HEED_SHOULD_FAIL
    recurrence(q, k, v, o, non_causal{}, read_before{});
#endif
}
