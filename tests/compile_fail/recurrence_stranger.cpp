// error: heed: an argument is not a policy of recurrences
#include <heed/heed.hpp>

using namespace heed;

void call(view<const float> q, view<const float> k, view<const float> v, view<float> o) {
#ifdef HEED_SHOULD_FAIL
    recurrence(q, k, v, o, causal{});
#else
    recurrence(q, k, v, o, recurrent{});
#endif
}
