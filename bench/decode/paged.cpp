// Pages lie in memory as they do where sequences have come and gone: in no order.
#include "decoder.hpp"

namespace bench {
namespace {

/// Takes every page and gives it back, in random order: they will be taken last to first.
template <class Cache>
void shuffle_pages(Cache& cache, const prompt& x, index_t pages) {
    std::vector<index_t> order(static_cast<std::size_t>(pages));
    const range first{0, 1};
    for (index_t& id : order) cache.append(id = cache.open(), slice(x.k, 2, first), slice(x.v, 2, first));
    const counter_random random(16);
    for (std::size_t p = order.size(); p > 1; --p)
        std::swap(order[p - 1], order[static_cast<std::size_t>(random.integer(p, 0, static_cast<index_t>(p)))]);
    for (index_t id : order) cache.close(id);
}

template <class S, index_t Page>
prepared prepare(const decode_step& s) {
    const auto x = prompt_of(s.M);
    const index_t pages = ceil_div(s.M, Page);
    paged_cache<S> cache({0, decode_step::G, decode_step::D, decode_step::D}, Page, pages);
    shuffle_pages(cache, *x, pages);
    cache.append(cache.open(), x->k, x->v);
    return over(s, x, std::move(cache), plain<S>(s.M));
}

}  // namespace

std::vector<decoder> paged_decoders() {
    return {{"paged16", "f32", "heed", prepare<float, 16>},
            {"paged64", "f32", "heed", prepare<float, 64>},
            {"paged16", "bf16", "heed", prepare<bf16, 16>},
            {"paged64", "bf16", "heed", prepare<bf16, 64>}};
}

}  // namespace bench
