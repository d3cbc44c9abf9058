#include "contestant.hpp"

namespace bench {

extern const contestant heed_contestant, naive_contestant, eigen_contestant;
#ifdef HEED_BENCH_OPENBLAS
extern const contestant openblas_contestant;
#endif
#ifdef HEED_BENCH_ONEDNN
extern const contestant onednn_contestant;
#endif

std::span<const contestant> contestants() {
    static const contestant all[] = {
        heed_contestant,     naive_contestant, eigen_contestant,
#ifdef HEED_BENCH_OPENBLAS
        openblas_contestant,
#endif
#ifdef HEED_BENCH_ONEDNN
        onednn_contestant,
#endif
    };
    return all;
}

const contestant* find_contestant(std::string_view name) {
    for (const contestant& c : contestants())
        if (c.name == name) return &c;
    return nullptr;
}

}  // namespace bench
