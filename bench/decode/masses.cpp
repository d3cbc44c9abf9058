// What it costs a step over a contiguous cache to tell where its queries look: masses of 32 segments, or of every key.
#include "decoder.hpp"

namespace bench {
namespace {

constexpr index_t H = decode_step::H, segments = 32;

/// probe(masses, cuts) records `count` numbers for every head, which sum to 1.
template <class Probe>
prepared recording(const decode_step& s, index_t count, const Probe& probe) {
    struct recorded {
        std::vector<float> masses;
        std::vector<index_t> cuts;
    };
    const auto x = prompt_of(s.M);
    const auto cache = std::make_shared<contiguous_cache<float>>(
        cache_shape{1, decode_step::G, decode_step::D, decode_step::D}, s.M);
    cache->append(x->k, x->v);
    const auto to = std::make_shared<answer>();
    const auto record = std::make_shared<recorded>();
    record->masses.resize(static_cast<std::size_t>(H * count));
    for (index_t i = 0; i <= segments; ++i) record->cuts.push_back(i * s.M / segments);
    const job step = attend(s, x, cache, to, probe(record->masses.data(), std::span<const index_t>(record->cuts)));
    prepared out = judged(*x, *to, [=] { static_cast<void>(record), step(); }, plain<float>(s.M));
    for (index_t h = 0; h < H; ++h) {
        double sum = 0;
        for (index_t i = h * count; i < (h + 1) * count; ++i)
            sum += static_cast<double>(record->masses[static_cast<std::size_t>(i)]);
        if (!(std::abs(sum - 1) < 1e-4)) out.wrong = "wrong: masses sum to " + std::to_string(sum);
    }
    return out;
}

prepared by_segment(const decode_step& s) {
    return recording(s, segments, [](float* masses, std::span<const index_t> cuts) {
        return segment_mass(heads(masses, {1, H, 1, segments}), cuts);
    });
}
prepared by_key(const decode_step& s) {
    return recording(s, s.M, [M = s.M](float* masses, std::span<const index_t>) {
        return key_mass(dense(masses, {1, H, M}));
    });
}

}  // namespace

std::vector<decoder> mass_decoders() {
    return {{"segment_mass", "f32", "heed", by_segment}, {"key_mass", "f32", "heed", by_key}};
}

}  // namespace bench
