#include "decoder.hpp"

namespace bench {
namespace {

template <class S>
prepared prepare(const decode_step& s) {
    const auto x = prompt_of(s.M);
    contiguous_cache<S> cache({1, decode_step::G, decode_step::D, decode_step::D}, s.M);
    cache.append(x->k, x->v);
    return over(s, x, std::move(cache), plain<S>(s.M));
}

}  // namespace

std::vector<decoder> contiguous_decoders() {
    return {{"contiguous", "f32", "heed", prepare<float>},
            {"contiguous", "bf16", "heed", prepare<bf16>},
            {"contiguous", "f16", "heed", prepare<f16>}};
}

}  // namespace bench
