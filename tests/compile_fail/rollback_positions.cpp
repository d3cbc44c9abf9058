// error: heed: a feature map of positions has one position for all sequences
#include <heed/engine/rollback.hpp>

using namespace heed;

void call(const state<float>& s, view<const float> k, view<const float> v, std::span<const index_t> each) {
    rollback undo(s, 8, k, v, cosformer_features{100});
#ifdef HEED_SHOULD_FAIL
    undo.undo(each);
#else
    undo.undo(1);
#endif
    (void)each;
}
