// error: heed: a complex decay goes with additive updates only
#include <heed/engine/recurrence.hpp>

using namespace heed;

void call(view<const float> q, view<const float> k, view<const float> v, view<float> o, view<const float, 3> x) {
    recurrence(q, k, v, o, complex_decay{k, k}, weighted_update{x});
#ifdef HEED_SHOULD_FAIL
    recurrence(q, k, v, o, complex_decay{k, k}, delta_rule{x});
#endif
}
