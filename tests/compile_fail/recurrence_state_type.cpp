// error: heed: the state is of another type than the recurrence sums in
#include <heed/engine/recurrence.hpp>

using namespace heed;

void call(view<const bf16> q, view<const bf16> k, view<const bf16> v, view<bf16> o, state<float>& s, state<double>& t) {
    recurrence(q, k, v, o, s);
#ifdef HEED_SHOULD_FAIL
    recurrence(q, k, v, o, t);
#endif
    (void)t;
}
