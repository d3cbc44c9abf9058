// heed_test: LABELS sanitize
// Eviction by key norm [41]: which stay, what leaves the choice alone, and attention over what stays.
#include <gtest/gtest.h>

#include <heed/cache/evict_norm.hpp>

#include "defined.hpp"
#include "random.hpp"

using namespace test;

namespace {

using kept = std::vector<index_t>;

template <class T>
view_source<T, T> source_of(const tensor<T>& k) {
    return {k.v(), k.v()};
}
low_norm keep_share(double share) { return {.share = share, .prune_after = 0}; }

TEST(key_norms, of_any_storage_and_layout) {
    for (index_t D : {0, 1, 3, 16, 17, 64, 67}) {
        const auto check = [&](const auto& k, const char* name) {
            for (index_t b = 0; b < 2; ++b)
                for (index_t g = 0; g < 2; ++g) {
                    const auto norms = key_norms(source_of(k), b, g);
                    ASSERT_EQ(norms.size(), 9u);
                    for (index_t j = 0; j < 9; ++j) {
                        double sum = 0;
                        for (index_t d = 0; d < D; ++d) sum += std::pow(static_cast<double>(k(b, g, j, d)), 2);
                        ASSERT_NEAR(norms[static_cast<std::size_t>(j)], std::sqrt(sum), 1e-5 * std::sqrt(sum)) << name;
                    }
                }
        };
        check(normal<float>({2, 2, 9, D}, 1), "float");
        check(normal<float>({2, 2, 9, D}, 2, 1, layout::padded()), "padded");
        check(normal<double>({2, 2, 9, D}, 3, 1, layout::strided()), "strided double");
        check(normal<bf16>({2, 2, 9, D}, 4, 1, layout::tokens()), "bf16");
        check(normal<f16>({2, 2, 9, D}, 5, 1, layout::channels_first()), "f16");
    }
    EXPECT_TRUE(key_norms(source_of(tensor<float>({1, 1, 0, 4})), 0, 0).empty());
}

TEST(low_norm, keeps_the_lowest) {
    const std::vector<float> norms{3, 1, 2, 1, 5, 0.5f, 1, 4, 9, 7};
    EXPECT_EQ(keep_share(0.2).kept(norms), (kept{1, 5}));
    EXPECT_EQ(keep_share(0.21).kept(norms), (kept{1, 3, 5}));  // rounded up; ties to the lower position
    EXPECT_EQ(keep_share(0.5).kept(norms), (kept{1, 2, 3, 5, 6}));
    EXPECT_EQ(keep_share(1).kept(norms), (kept{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
    EXPECT_EQ((low_norm{.share = 0.3, .prune_after = 0, .recent = 2}.kept(norms)), (kept{5, 8, 9}));
    EXPECT_EQ((low_norm{.share = 0.1, .prune_after = 0, .recent = 2}.kept(norms)), (kept{9}));
    EXPECT_EQ(keep_share(0.5).kept(std::vector<float>{}), kept{});
}

TEST(low_norm, where_all_stay) {
    const std::vector<float> norms(100, 1);
    EXPECT_EQ((low_norm{.share = 0.1, .prune_after = 101}.kept(norms).size()), 100u);
    EXPECT_EQ((low_norm{.share = 0.1, .prune_after = 100}.kept(norms).size()), 10u);
    EXPECT_EQ((low_norm{.share = 0.1}.kept(std::vector<float>(2047)).size()), 2047u);
    EXPECT_EQ((low_norm{.share = 0.1}.kept(std::vector<float>(2048)).size()), 205u);
    const index_t spared[] = {0, 1};
    const low_norm rule{.share = 0.1, .prune_after = 0, .skip_layers = spared};
    EXPECT_EQ(rule.kept(norms, 0).size(), 100u);
    EXPECT_EQ(rule.kept(norms, 1).size(), 100u);
    EXPECT_EQ(rule.kept(norms, 2).size(), 10u);
}

/// Norms do not see rotations, so neither RoPE nor any change of basis moves the choice.
TEST(low_norm, does_not_see_rotations) {
    const index_t N = 200, D = 32;
    auto k = normal<double>({1, 1, N, D}, 6);
    const auto before = keep_share(0.3).kept(key_norms(source_of(k), 0, 0));
    for (index_t j = 0; j < N; ++j)
        for (index_t d = 0; d < D; d += 2) {  // by an angle of the position and the pair
            const double a = static_cast<double>(j) * std::pow(10000.0, -static_cast<double>(d) / D);
            const double x = k(0, 0, j, d), y = k(0, 0, j, d + 1);
            k(0, 0, j, d) = std::cos(a) * x - std::sin(a) * y;
            k(0, 0, j, d + 1) = std::sin(a) * x + std::cos(a) * y;
        }
    EXPECT_EQ(keep_share(0.3).kept(key_norms(source_of(k), 0, 0)), before);
}

TEST(low_norm, follows_a_permutation_of_the_cache) {
    const index_t N = 101;
    const auto k = normal<float>({1, 1, N, 8}, 7);
    std::vector<index_t> order;
    for (index_t i = 0; i < N; ++i) order.push_back(i * 37 % N);
    const auto here = keep_share(0.4).kept(key_norms(source_of(k), 0, 0));
    kept there;
    for (index_t i : keep_share(0.4).kept(key_norms(source_of(rows_at(k, order)), 0, 0)))
        there.push_back(order[static_cast<std::size_t>(i)]);
    std::sort(there.begin(), there.end());
    EXPECT_EQ(there, here);
}

TEST(low_norm, attention_over_the_rest_is_attention_under_a_mask) {
    const auto q = normal<double>({1, 1, 5, 8}, 8), k = normal<double>({1, 1, 40, 8}, 9),
               v = normal<double>({1, 1, 40, 4}, 10);
    const auto norms = key_norms(source_of(k), 0, 0);
    const auto stay = keep_share(0.25).kept(norms);
    ASSERT_EQ(stay.size(), 10u);
    const defined pruned(q, rows_at(k, stay), rows_at(v, stay));
    const defined masked(q, k, v,
                         seeing([&](index_t, index_t j) { return std::binary_search(stay.begin(), stay.end(), j); }));
    EXPECT_LT(distance(pruned.o, masked.o), 1e-14);
    const defined all(q, rows_at(k, keep_share(1).kept(norms)), rows_at(v, keep_share(1).kept(norms)));
    EXPECT_EQ(distance(all.o, defined(q, k, v).o), 0);
}

/// The effect the rule lives on: a key of low norm that every query looks at.
TEST(low_norm, keeps_a_planted_sink) {
    auto k = normal<double>({1, 1, 64, 16}, 11);
    auto q = normal<double>({1, 1, 8, 16}, 12);
    q.each([&](index_t, index_t, index_t n, index_t d) { q(0, 0, n, d) = d == 0 ? 30 : q(0, 0, n, d); });
    for (index_t j = 0; j < 64; ++j) k(0, 0, j, 0) = -1;
    for (index_t d = 0; d < 16; ++d) k(0, 0, 20, d) = d == 0 ? 0.5 : 0;
    const auto stay = keep_share(0.1).kept(key_norms(source_of(k), 0, 0));
    EXPECT_TRUE(std::binary_search(stay.begin(), stay.end(), 20));
    const defined full(q, k, k);
    for (index_t i = 0; i < 8; ++i) EXPECT_GT(full.p(0, 0, i, 20), 0.9);
}

TEST(low_norm, errors) {
    const std::vector<float> norms(3);
    EXPECT_THROW(keep_share(0).kept(norms), argument_error);
    EXPECT_THROW(keep_share(1.01).kept(norms), argument_error);
    EXPECT_THROW(keep_share(std::nan("")).kept(norms), argument_error);
    EXPECT_THROW((low_norm{.share = 0.5, .prune_after = 0, .recent = -1}.kept(norms)), argument_error);
}

}  // namespace
