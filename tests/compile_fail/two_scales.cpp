// error: heed: two scales
#include <heed/heed.hpp>

using namespace heed;

void call(view<const float> q, view<const float> k, view<const float> v, view<float> o) {
#ifdef HEED_SHOULD_FAIL
    attention(q, k, v, o, scale{2}, scale{3} >> softcap{30});
#else
    attention(q, k, v, o, scale{3} >> softcap{30});
#endif
}
