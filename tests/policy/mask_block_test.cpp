// heed_test: BUSY LABELS sanitize
#include <heed/policy/masks.hpp>

#include "mask_laws.hpp"

namespace {

using namespace heed;
using test::exactness;
using test::obeys_laws;
using test::same_set;
using test::scene;

/// A random table of kept blocks.
struct kept_blocks {
    index_t H, R, C;
    std::vector<unsigned char> at;
    kept_blocks(index_t heads, index_t block_rows, index_t columns, double ratio, unsigned seed)
        : H(heads), R(block_rows), C(columns), at(static_cast<std::size_t>(H * R * C)) {
        std::mt19937 random(seed);
        for (auto& x : at) x = random() % 1000 < ratio * 1000;
    }
    block_lists lists() const { return block_lists(dense(at.data(), {H, R, C})); }
    bool operator()(index_t h, index_t r, index_t c) const { return at[static_cast<std::size_t>((h * R + r) * C + c)]; }
};

TEST(mask_block, uniform_blocks) {
    unsigned seed = 0;
    for (const scene& at : {scene{67, 67, 0, 1, 3}, scene{20, 90, 70, 2, 3}, scene{90, 50, -40, 1, 3}})
        for (auto [q, k] : {std::pair<index_t, index_t>{1, 1}, {5, 3}, {16, 8}, {64, 64}, {3, 200}})
            for (double ratio : {0.0, 0.2, 0.8, 1.0})
                for (index_t heads : {1, 3}) {
                    const kept_blocks kept(heads, ceil_div(at.N, q), ceil_div(at.M, k), ratio, ++seed);
                    const block_lists csr = kept.lists();
                    const block_list mask(q, k, csr.starts, csr.blocks, heads);
                    heed::detail::check_policy(mask, "test", {at.B, at.H, at.N, at.M});
                    obeys_laws(mask, at, exactness::exact, "blocks");
                    for (index_t h = 0; h < at.H; ++h)
                        EXPECT_EQ(draw(mask, at.N, at.M, at.shift, 0, h),
                                  draw([&, q = q, k = k](const where& w) {
                                      return kept(heads == 1 ? 0 : w.h, w.row / q, w.j / k);
                                  }, at.N, at.M, at.shift, 0, h));
                }
}

TEST(mask_block, variable_blocks) {
    const std::vector<index_t> query_edges{0, 5, 5, 6, 40, 67}, key_edges{0, 0, 1, 20, 21, 50, 50, 70, 70};
    const std::span<const index_t> query = query_edges, key = key_edges;
    const scene at{67, 70, 3, 1, 2};
    for (double ratio : {0.0, 0.3, 0.7, 1.0}) {
        const kept_blocks kept(2, 5, 8, ratio, static_cast<unsigned>(100 * ratio));
        const block_lists csr = kept.lists();
        const block_list mask(query, key, csr.starts, csr.blocks, 2);
        heed::detail::check_policy(mask, "test", {at.B, at.H, at.N, at.M});
        obeys_laws(mask, at, exactness::right, "variable blocks");
        obeys_laws(mask & causal{}, at, exactness::right, "causal variable blocks");
        if (ratio == 1.0) same_set(mask, everything{}, at.N, at.M, "all blocks");
    }
}

TEST(mask_block, equals_chunks) {
    const std::vector<unsigned char> diagonal{1, 0, 0, 0, 1, 0, 0, 0, 1};
    const block_lists csr(dense(diagonal.data(), {1, 3, 3}));
    same_set(block_list(16, 16, csr.starts, csr.blocks), chunk{16}, 45, 45, "block diagonal");
}

TEST(mask_block, says_what_is_wrong) {
    const auto message = [](const block_list& mask) -> std::string {
        try {
            heed::detail::check_policy(mask, "attention", {1, 2, 10, 10});
        } catch (const std::invalid_argument& e) {
            return e.what();
        }
        return "";
    };
    const std::vector<index_t> starts{0, 1, 3}, blocks{0, 0, 1}, bad{0, 1, 0}, far{0, 0, 2}, edges{0, 4, 9};
    EXPECT_EQ(message(block_list(5, 5, starts, blocks)), "");
    EXPECT_EQ(message(block_list(0, 5, starts, blocks)), "attention: block_list: query blocks have size 0, the least is 1");
    EXPECT_EQ(message(block_list(4, 5, starts, blocks)),
              "attention: block_list has 3 starts, 1 heads of 3 block rows need 4");
    EXPECT_EQ(message(block_list(5, 5, starts, bad)), "attention: block_list: the blocks of a row do not ascend at 0");
    EXPECT_EQ(message(block_list(5, 5, starts, far)), "attention: block_list names key block 2 of 2");
    EXPECT_EQ(message(block_list(5, 5, starts, blocks, 3)), "attention: block_list has lists for 3 heads, q has 2");
    EXPECT_EQ(message(block_list(5, std::span<const index_t>(edges), starts, blocks)),
              "attention: block_list: key edges span [0, 9), there are 10");
}

}  // namespace
