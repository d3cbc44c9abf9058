// error: no match(ing function)? for call to .*view<float(, 4)?>
#include <heed/core/view.hpp>

float at(const heed::view<float>& v) {
#ifdef HEED_SHOULD_FAIL
    return v(0, 1, 2);
#else
    return v(0, 1, 2, 3);
#endif
}
