// Masks, scores, sinks and probes over caches that keep rows as they are: pages, files, streams.
#include "cache_policies.hpp"
#include "scratch_folder.hpp"

using namespace test;

namespace {

constexpr index_t G = 2, D = 24, E = 20;

template <class Cache>
void fill(Cache& cache, index_t tokens) {
    const index_t B = cache.batch();
    cache.append(normal<float>({B, G, tokens, D}, 1), normal<float>({B, G, tokens, E}, 2));
}

TEST(policies, over_pages) {
    for (index_t page : {1, 7, 16}) {
        paged_cache<float> cache({2, G, D, E}, page, 200);
        fill(cache, 50);
        cache.append(1, normal<float>({1, G, 37, D}, 3), normal<float>({1, G, 37, E}, 4));
        expect_policies(cache, "pages of " + std::to_string(page));
    }
}

TEST(policies, over_a_file) {
    const scratch_folder folder;
    for (index_t segment : {5, 4096}) {
        auto cache = mapped_cache<float>::create(folder / std::to_string(segment), {2, G, D, E}, segment);
        fill(cache, 61);
        expect_policies(cache, "segments of " + std::to_string(segment));
    }
}

TEST(policies, over_a_stream) {
    for (index_t tokens : {20, 80}) {
        stream_cache<float> cache({2, G, D, E}, {3, 41, 6}, theta{10000});
        fill(cache, tokens);
        expect_policies(cache, std::to_string(tokens) + " tokens");
    }
}

}  // namespace
