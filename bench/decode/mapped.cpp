// Where there is mmap as mapped_cache needs it.
#include <unistd.h>

#include <filesystem>

#include "decoder.hpp"

namespace bench {
namespace {

/// The file's name goes at once; the file goes with the mapping.
template <class S>
prepared prepare(const decode_step& s) {
    const auto x = prompt_of(s.M);
    const auto file = std::filesystem::temp_directory_path() / ("heed_bench_" + std::to_string(::getpid()));
    auto cache = mapped_cache<S>::create(file.string(), {1, decode_step::G, decode_step::D, decode_step::D});
    std::filesystem::remove(file);
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
