// Steps that read an eighth of the keys: Quest by bounds of pages of 16, SparF by 16 of 128 channels, both kept as bf16
// beside the cache (sparf_mapped: both in files), Ltri-LLM by spans, all with the last 64 keys among the chosen. Judged
// by the definition over what they chose.
#include <heed/ref/retrieval.hpp>

#include "decoder.hpp"
#include "temporary_file.hpp"

namespace bench {
namespace {

constexpr index_t H = decode_step::H, G = decode_step::G, D = decode_step::D, group = H / G, page = 16;
const double factor = 1 / std::sqrt(static_cast<double>(D));

/// Keys and values of one kind and the index beside them.
template <class S, class Index>
struct indexed {
    contiguous_cache<S> cache;
    Index index;

    explicit indexed(const prompt& x) : cache({1, G, D, D}, x.k.shape[2]) {
        cache.append(x.k, x.v);
        index.follow(cache);
    }
};

/// share softmax(q k) v over the keys of each group, or each head of queries, and the mean of all values for the rest;
/// (H, D).
std::vector<double> mixed(const prompt& x, const key_lists& keys, const std::vector<double>& shares) {
    std::vector<double> out;
    for (index_t h = 0; h < H; ++h) {
        const index_t g = h / group, M = x.k.shape[2];
        const auto rows = [&](const view<float>& y) { return view<float, 2>{&y(0, g, 0, 0), {M, D}, {D, 1}}; };
        const auto row = ref::sparq_mix<double>(view<float, 1>{&x.q(0, h, 0, 0), {D}, {1}}, rows(x.k), rows(x.v),
                                                keys(0, h * keys.heads() / H),
                                                shares[static_cast<std::size_t>(h)], factor);
        out.insert(out.end(), row.begin(), row.end());
    }
    return out;
}

/// step(cache, index, o, on) is timed; what it is to compute follows from the keys and shares it chooses.
template <class S, class Step>
prepared retrieving(const decode_step& s, const prompt& x, std::vector<double> right, Step step) {
    const auto to = std::make_shared<answer>();
    const auto pool = std::make_shared<threads>(s.threads);
    const auto bytes = static_cast<double>(step(to->o(), on{*pool}).bytes);
    promise given = plain<S>(s.M / 8);
    given.right = std::move(right);
    prepared out = judged(x, *to, [=] { step(to->o(), on{*pool}); }, given);
    out.bytes = bytes;
    out.columns.emplace_back("bytes", bytes);
    return out;
}

template <class S>
prepared quest_of(const decode_step& s) {
    const auto x = prompt_of(s.M);
    const auto held = std::make_shared<indexed<S, page_bounds<bf16>>>(*x);
    const quest rule(s.M / 8 / page, 0, 4);
    const auto choice = held->index.choose(x->q, held->cache, rule, factor);
    return retrieving<S>(s, *x, mixed(*x, choice.keys, std::vector<double>(H, 1)), [=](const view<float>& o, const auto& pool) {
        return quest_attention(x->q, held->cache, held->index, o, rule, pool);
    });
}

/// Both in files.
template <class S>
struct filed {
    mapped_cache<S> cache;
    mapped_channel_keys<bf16> index;

    explicit filed(const prompt& x)
        : cache(mapped_cache<S>::create(temporary_file().path(), {1, G, D, D})),
          index(mapped_channel_keys<bf16>::create(temporary_file().path(), {1, G, D, D})) {
        cache.append(x.k, x.v);
        index.follow(cache);
    }
};

template <class S, class Held = indexed<S, channel_keys<bf16>>>
prepared sparf_of(const decode_step& s) {
    const auto x = prompt_of(s.M);
    const auto held = std::make_shared<Held>(*x);
    const sparq rule(16, s.M / 8, 64);
    const auto choice = held->index.choose(x->q, held->cache, rule, factor);
    return retrieving<S>(s, *x, mixed(*x, choice.keys, choice.shares), [=](const view<float>& o, const auto& pool) {
        return sparq_attention(x->q, held->cache, held->index, o, rule, pool);
    });
}

/// Heads whose first 16 and last 256 keys hold half of the weight, by the moments of some of the others, see them alone
/// [92]; `local`: how many of all do.
template <class S>
prepared qada_of(const decode_step& s) {
    struct read {
        index_t bytes;
    };
    const auto x = prompt_of(s.M);
    const locality rule(16, 256, 0.5);
    const range bulk = rule.bulk(s.M - 1);
    const auto cache = std::make_shared<contiguous_cache<S>>(cache_shape{1, G, D, D}, s.M);
    cache->append(x->k, x->v);
    const auto moments = std::make_shared<key_moments>(1, G, D);
    moments->append(slice(x->k, 2, bulk & range{0, 2048}));
    const auto shares = adaptive_attention(x->q, *cache, answer().o(), rule, *moments);
    key_lists keys(1, H);
    index_t locals = 0, groups = 0;  // that read the bulk
    for (index_t h = 0, last = -1; h < H; ++h) {
        const bool local = shares[static_cast<std::size_t>(h)] >= rule.tau;
        keys.add(0, h, {0, bulk.first});
        if (!local) keys.add(0, h, bulk);
        keys.add(0, h, {bulk.last, s.M});
        locals += local;
        if (!local && std::exchange(last, h / group) != h / group) ++groups;
    }
    const index_t token = 2 * D * static_cast<index_t>(sizeof(S));
    const read all{token * (G * (s.M - bulk.size()) + groups * bulk.size())};
    auto right = mixed(*x, keys, std::vector<double>(H, 1));
    prepared out = retrieving<S>(s, *x, std::move(right), [=](const view<float>& o, const auto& pool) {
        adaptive_attention(x->q, *cache, o, rule, *moments, pool);
        return all;
    });
    out.columns.emplace_back("local", static_cast<double>(locals) / H);
    return out;
}

/// All keys but that of the step, in spans: each token asks with the query of the step and its own key. What a step
/// learns is forgotten before the next, and no step fills a block where M is a power of 2: to cut blocks is not in the
/// time.
template <class S>
struct spanned {
    static constexpr index_t block = 96;
    contiguous_cache<S> cache;
    span_index<float> index{span_blocks(block)};

    explicit spanned(const prompt& x) : cache({1, G, D, D}, x.k.shape[2]) {
        std::vector<float> memory(static_cast<std::size_t>(H * block * D));
        const auto q = heads(memory.data(), {1, H, block, D});
        for (index_t first = 0; first + 1 < x.k.shape[2]; first += block) {
            const range next{first, std::min(first + block, x.k.shape[2] - 1)};
            cache.append(slice(x.k, 2, next), slice(x.v, 2, next));
            for (index_t h = 0; h < H; ++h)
                for (index_t j = next.first; j < next.last; ++j)
                    for (index_t d = 0; d < D; ++d)
                        q(0, h, j - first, d) = x.q(0, h, 0, d) + x.k(0, h / group, j, d);
            index.append(slice(q, 2, {0, next.size()}), cache, factor);
        }
        const range last{x.k.shape[2] - 1, x.k.shape[2]};
        cache.append(slice(x.k, 2, last), slice(x.v, 2, last));
    }
};

template <class S>
prepared ltri_of(const decode_step& s) {
    const auto x = prompt_of(s.M);
    const auto held = std::make_shared<spanned<S>>(*x);
    const ltri rule(s.M / 8 - 64, 0, 64);
    const auto choice = held->index.choose(x->q, held->cache, rule, factor);
    auto right = mixed(*x, choice.keys, std::vector<double>(H, 1));
    return retrieving<S>(s, *x, std::move(right), [=](const view<float>& o, const auto& pool) {
        const auto out = ltri_attention(x->q, held->cache, held->index, o, rule, pool);
        held->index.truncate(1);
        return out;
    });
}

}  // namespace

std::vector<decoder> retrieval_decoders() {
    return {{"quest", "f32", "heed", quest_of<float>},
            {"quest", "bf16", "heed", quest_of<bf16>},
            {"sparf", "f32", "heed", sparf_of<float>},
            {"sparf", "bf16", "heed", sparf_of<bf16>},
#ifndef __APPLE__
            {"sparf_mapped", "f32", "heed", sparf_of<float, filed<float>>},
#endif
            {"qada", "f32", "heed", qada_of<float>},
            {"ltri", "f32", "heed", ltri_of<float>},
            {"ltri", "bf16", "heed", ltri_of<bf16>}};
}

}  // namespace bench
