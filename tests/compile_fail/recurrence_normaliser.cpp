// error: heed: a normaliser goes with additive updates only
#include <heed/engine/recurrence.hpp>

using namespace heed;

void call(view<const float> q, view<const float> k, view<const float> v, view<float> o, view<const float, 3> beta) {
    recurrence(q, k, v, o, elu_plus_one{}, sum_of_keys{});
#ifdef HEED_SHOULD_FAIL
    recurrence(q, k, v, o, elu_plus_one{}, sum_of_keys{}, delta_rule{beta});
#endif
    (void)beta;
}
