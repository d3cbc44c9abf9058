// Attention over a mapped cache has the bits of attention over the same rows in memory, however segments cut them.
#include <heed/heed.hpp>

#include "any_mask.hpp"
#include "compare.hpp"
#include "random.hpp"
#include "scratch_folder.hpp"

using namespace test;

namespace {

TEST(mapped_attention, is_attention_over_its_rows) {
    const scratch_folder folder;
    const index_t B = 2, H = 4, G = 2, M = 300, D = 24, E = 16;
    const auto k = normal<float>({B, G, M, D}, 1), v = normal<float>({B, G, M, E}, 2);
    const any_mask masks[] = {causal{}, causal{} & (window{100} | first{4})};
    for (index_t segment : {1, 7, 64, 4096}) {
        const std::string path = folder / std::to_string(segment);
        {
            auto cache = mapped_cache<float>::create(path, {B, G, D, E}, segment);
            for (index_t j = 0, n = 1; j < M; j += n, n = n % 5 + 1)  // token by token, and a few at once
                cache.append(slice(k.v(), 2, {j, std::min(j + n, M)}), slice(v.v(), 2, {j, std::min(j + n, M)}));
        }
        const auto cache = mapped_cache<float>::open(path, mapped_access::read);
        for (index_t N : {1, 3, 40})
            for (const any_mask& mask : masks) {
                const auto q = normal<float>({B, H, N, D}, 3);
                tensor<float> got({B, H, N, E}), want({B, H, N, E});
                attention(q, cache, got, mask);
                attention(q, view_source<float, float>{k.v(), v.v()}, want, mask);
                EXPECT_TRUE(same_values(got, want)) << "segment " << segment << ", " << N << " queries";
            }
    }
}

TEST(mapped_attention, the_output_may_not_lie_in_the_cache) {
    const scratch_folder folder;
    auto cache = mapped_cache<float>::create(folder / "cache", {1, 1, 4, 4}, 64);
    const auto rows = normal<float>({1, 1, 10, 4}, 1);
    cache.append(rows, rows);
    auto* inside = const_cast<float*>(static_cast<const float*>(cache.run(0, 0, 0).v.address(0)));
    EXPECT_THROW(attention(slice(rows.v(), 2, {0, 1}), cache, heads(inside, {1, 1, 1, 4}), any_mask(causal{})),
                 shape_error);
}

}  // namespace
