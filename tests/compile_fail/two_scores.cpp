// error: heed: two scores; chain them with >>
#include <heed/heed.hpp>

using namespace heed;

void call(view<const float> q, view<const float> k, view<const float> v, view<float> o) {
#ifdef HEED_SHOULD_FAIL
    attention(q, k, v, o, softcap{30}, temperature{2});
#else
    attention(q, k, v, o, softcap{30} >> temperature{2});
#endif
}
