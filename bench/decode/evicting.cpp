// Steps of loops that keep an eighth of M keys: each appends a token, attends and, by A2SF and H2O, lets one go; keys
// of high norm go every 64 tokens; SnapKV has chosen before. They have seen M - 2 tokens and one query, which voted.
// Judged by the definition over what they hold; `error` is what the evicted keys cost. (Keys that draw have high norms
// here, as in no model: by norm the keys are lost that count.)
#include "decoder.hpp"

namespace bench {
namespace {

constexpr index_t H = decode_step::H, G = decode_step::G, D = decode_step::D;
using cache_type = contiguous_cache<float>;

view<float> token(const view<float>& x, index_t n) { return slice(x, 2, {n, n + 1}); }

/// The definition over what every head holds and the last token.
std::vector<double> exactly_held(const prompt& x, const cache_type& cache) {
    const index_t held = cache.keys(0, 0), last = x.k.shape[2] - 1;
    std::vector<float> memory(static_cast<std::size_t>(2 * G * (held + 1) * D));
    const auto k = heads(memory.data(), {1, G, held + 1, D}),
               v = heads(&k(0, G - 1, held, D - 1) + 1, {1, G, held + 1, D});
    for (index_t g = 0; g < G; ++g)
        for (index_t j = 0; j <= held; ++j) {
            const index_t from = j < held ? cache.positions(0, g)[j] : last;
            std::copy_n(&x.k(0, g, from, 0), D, &k(0, g, j, 0));
            std::copy_n(&x.v(0, g, from, 0), D, &v(0, g, j, 0));
        }
    return exactly(x.q, k, v);
}

/// A cache that has seen the first M - `unseen` tokens.
std::shared_ptr<cache_type> seen(const prompt& x, index_t unseen) {
    const auto cache = std::make_shared<cache_type>(cache_shape{1, G, D, D}, x.k.shape[2] + 1);
    const range tokens{0, x.k.shape[2] - unseen};
    cache->append(slice(x.k, 2, tokens), slice(x.v, 2, tokens));
    return cache;
}

template <class Step>
prepared stepping(const decode_step& s, const prompt& x, const cache_type& cache, const Step& step) {
    const auto to = std::make_shared<answer>();
    const auto pool = std::make_shared<threads>(s.threads);
    promise given = plain<float>(cache.keys(0, 0) + 1);
    given.right = exactly_held(x, cache);
    return judged(
        x, *to, [=] { step(to->o(), on{*pool}); }, given);
}

/// A loop whose cache is down to its budget.
template <class Rule>
prepared looping(const decode_step& s, std::shared_ptr<const prompt> x, std::shared_ptr<cache_type> cache,
                 std::shared_ptr<evicting<cache_type, Rule>> loop) {
    const index_t last = s.M - 1;
    return stepping(s, *x, *cache, [=](const view<float>& o, const auto& pool) {
        static_cast<void>(cache);  // the loop refers to it
        loop->step(x->q, token(x->k, last), token(x->v, last), o, pool);
    });
}

prepared by_mass(const decode_step& s, const forgetting_mass<float>& rule) {
    const auto x = prompt_of(s.M);
    const auto cache = seen(*x, 2);
    const auto loop = std::make_shared<evicting<cache_type, forgetting_mass<float>>>(*cache, rule);
    loop->step(x->q, token(x->k, s.M - 2), token(x->v, s.M - 2), answer().o());
    return looping(s, x, cache, loop);
}
prepared a2sf(const decode_step& s) { return by_mass(s, forgetting_mass<float>(s.M / 8, 0.9)); }
prepared h2o(const decode_step& s) { return by_mass(s, heavy_hitters(s.M / 8)); }

prepared by_norm(const decode_step& s) {
    const auto x = prompt_of(s.M);
    const auto cache = seen(*x, 1);
    const index_t budget = s.M / 8, limit = budget + 64;
    for (index_t g = 0; g < G; ++g) cache->keep(0, g, keep_lowest(key_norms(*cache, 0, g), budget));
    const low_norm rule{.share = (static_cast<double>(budget) - 0.5) / static_cast<double>(limit),
                        .prune_after = limit};
    return looping(s, x, cache, std::make_shared<evicting<cache_type, low_norm>>(*cache, rule));
}

prepared snap(const decode_step& s) {
    const auto x = prompt_of(s.M);
    const auto cache = seen(*x, 1);
    const index_t M = s.M - 1, last = M;
    std::vector<float> mass(static_cast<std::size_t>(H * M)), sums(static_cast<std::size_t>(G * M));
    attention(x->q, *cache, answer().o(), key_mass{dense(mass.data(), {1, H, M})});
    group_mass(dense(mass.data(), {1, H, M}), dense(sums.data(), {1, G, M}));
    const snap_kv rule{.budget = s.M / 8, .window = 1};
    for (index_t g = 0; g < G; ++g)
        cache->keep(0, g,
                    rule.kept(std::span<const float>(sums).subspan(static_cast<std::size_t>(g * M),
                                                                   static_cast<std::size_t>(M))));
    return stepping(s, *x, *cache, [=](const view<float>& o, const auto& pool) {
        cache->append(token(x->k, last), token(x->v, last));
        attention(x->q, *cache, o, pool);
        cache->truncate(1);
    });
}

}  // namespace

std::vector<decoder> evicting_decoders() {
    return {{"a2sf", "f32", "heed", a2sf},
            {"h2o", "f32", "heed", h2o},
            {"low_norm", "f32", "heed", by_norm},
            {"snap_kv", "f32", "heed", snap}};
}

}  // namespace bench
