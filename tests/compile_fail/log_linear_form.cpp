// error: heed: log-linear attention has the form chunked{C} only
#include <heed/ops/log_linear_attention.hpp>

using namespace heed;

void call(view<const float> q, view<const float> k, view<const float> v, view<const float> scales, view<float> o) {
#ifdef HEED_SHOULD_FAIL
    log_linear_attention(q, k, v, scales, o, recurrent{});
#else
    log_linear_attention(q, k, v, scales, o, chunked{64});
#endif
}
