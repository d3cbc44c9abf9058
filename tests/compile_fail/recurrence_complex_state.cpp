// error: heed: complex_state says what recall reads; a recurrence has a complex_decay
#include <heed/engine/recurrence.hpp>

using namespace heed;

void call(view<const float> q, view<const float> k, view<const float> v, view<float> o, state<float>& s) {
    recall(s, q, o, complex_state{});
    recurrence(q, k, v, o, complex_decay{k, k}, s);
#ifdef HEED_SHOULD_FAIL
    recurrence(q, k, v, o, complex_state{}, s);
#endif
}
