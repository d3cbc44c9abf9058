// Every rule of eviction answers with what the keep of every cache takes: ascending numbers of keys it holds.
#include <gtest/gtest.h>

#include <heed/cache/contiguous.hpp>
#include <heed/cache/evict.hpp>
#include <heed/cache/paged.hpp>
#include <heed/cache/quantised.hpp>
#include <map>

#include "random.hpp"

using namespace test;

namespace {

constexpr index_t G = 2, D = 6;
using list = std::vector<index_t>;

/// What each rule keeps of n keys of random masses, of head 0 of a cache.
template <class Cache>
std::map<std::string, list> all_kept(const Cache& cache, index_t n) {
    const counter_random random(9);
    std::vector<float> mass(number(n));
    std::vector<token_type> types(number(n));
    list positions(number(n));
    const auto visual = std::make_unique<bool[]>(number(n));
    for (index_t j = 0; j < n; ++j) {
        const auto at = number(j);
        mass[at] = static_cast<float>(random.uniform(at));
        types[at] = static_cast<token_type>(j % 3);
        positions[at] = 2 * j;
        visual[at] = j % 4 != 0;
    }
    const index_t half = n / 2;
    attended_keys oldest(n - half, leaves_first::oldest);
    oldest.insert(half);
    return {{"forgetting_mass", forgetting_mass<float>(half, 0.9).step(mass)},
            {"heavy_hitters", heavy_hitters(half).step(mass)},
            {"snap_kv", snap_kv{.budget = half, .window = std::min<index_t>(half, 2)}.kept(mass)},
            {"low_norm", low_norm{.share = 0.5, .prune_after = 0}.kept(key_norms(cache, 0, 0))},
            {"keep_living", keep_living(types, positions, 3, 2 * n)},
            {"keep_visual", keep_visual(mass, {visual.get(), number(n)}, visual_budget(n - (n + 3) / 4, 0.5))},
            {"attended_keys", oldest.insert(n - half)},
            {"keep_highest", keep_highest(mass, half, 1)},
            {"keep_lowest", keep_lowest(mass, half, 1)}};
}

template <class Make>
void expect_taken(const Make& make) {
    for (index_t n : {0, 1, 2, 3, 30}) {
        const auto filled = [&] {
            auto cache = make();
            cache.append(normal<float>({1, G, n, D}, 1), normal<float>({1, G, n, D}, 2));
            return cache;
        };
        const auto full = filled();
        for (const auto& [rule, kept] : all_kept(full, n)) {
            auto cache = filled();
            cache.keep(0, 0, kept);
            ASSERT_EQ(cache.keys(0, 0), std::ssize(kept)) << rule;
            ASSERT_EQ(cache.keys(0, 1), n) << rule;
            for (index_t j = 0; j < std::ssize(kept); ++j) {
                const index_t* at = cache.positions(0, 0);
                ASSERT_EQ(at ? at[j] : j, kept[number(j)]) << rule;
                const auto given = full.run(0, 0, kept[number(j)]), got = cache.run(0, 0, j);
                for (index_t d = 0; d < D; ++d) ASSERT_EQ(got.k.number(0, d), given.k.number(0, d)) << rule;
            }
        }
    }
}

TEST(evict, rules_say_what_caches_keep) {
    const cache_shape shape{1, G, D, D};
    expect_taken([&] { return contiguous_cache<float>(shape); });
    expect_taken([&] { return paged_cache<float>(shape, 4, 8); });
    expect_taken([&] { return quantised_cache<int8_per_token>(shape); });
}

}  // namespace
