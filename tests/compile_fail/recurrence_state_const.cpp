// error: heed: the state is const, and would be updated
#include <heed/engine/recurrence.hpp>

using namespace heed;

void call(view<const float> q, view<const float> k, view<const float> v, view<float> o, const state<float>& s) {
#ifdef HEED_SHOULD_FAIL
    recurrence(q, k, v, o, s);
#else
    state<float> mine = s;
    recurrence(q, k, v, o, mine);
#endif
}
