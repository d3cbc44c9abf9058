// error: heed: two masks; combine them with & or [|]
#include <heed/heed.hpp>

using namespace heed;

void call(view<const float> q, view<const float> k, view<const float> v, view<float> o) {
#ifdef HEED_SHOULD_FAIL
    attention(q, k, v, o, causal{}, window{4});
#else
    attention(q, k, v, o, causal{} & window{4});
#endif
}
