// error: heed: a bonus goes with additive updates only
#include <heed/engine/recurrence.hpp>

using namespace heed;

void call(view<const float> q, view<const float> k, view<const float> v, view<float> o, view<const float, 2> u,
          view<const float, 3> beta) {
#ifdef HEED_SHOULD_FAIL
    recurrence(q, k, v, o, bonus{u}, delta_rule{beta});
#else
    recurrence(q, k, v, o, bonus{u});
#endif
    (void)beta;
}
