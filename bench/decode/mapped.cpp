// Where there is mmap as mapped_cache needs it.
#include "decoder.hpp"
#include "temporary_file.hpp"

namespace bench {
namespace {

template <class S>
prepared prepare(const decode_step& s) {
    const auto x = prompt_of(s.M);
    auto cache = mapped_cache<S>::create(temporary_file().path(), {1, decode_step::G, decode_step::D, decode_step::D});
    cache.append(x->k, x->v);
    return over(s, x, std::move(cache), plain<S>(s.M));
}

}  // namespace

std::vector<decoder> mapped_decoders() {
#ifdef __APPLE__
    return {};
#else
    return {{"mapped", "f32", "heed", prepare<float>}, {"mapped", "bf16", "heed", prepare<bf16>}};
#endif
}

}  // namespace bench
