// heed_test: LABELS sanitize
// Caches shared across layers [18]: which layer reads what, who may append, and the exact count of bytes.
#include <heed/cache/contiguous.hpp>
#include <heed/cache/layers.hpp>
#include <heed/cache/paged.hpp>

#include "source_tokens.hpp"

using namespace test;

namespace {

using list = std::vector<index_t>;

constexpr cache_shape shape{2, 3, 16, 32};

auto caches_of(const list& producers, index_t capacity = 0) {
    return layer_caches(producers, [capacity](index_t) { return contiguous_cache<bf16>(shape, capacity); });
}

TEST(shared_by, gives_every_layer_the_first_of_its_group) {
    EXPECT_EQ(shared_by(1, 4), (list{0, 1, 2, 3}));
    EXPECT_EQ(shared_by(2, 5), (list{0, 0, 2, 2, 4}));
    EXPECT_EQ(shared_by(3, 7), (list{0, 0, 0, 3, 3, 3, 6}));
    EXPECT_EQ(shared_by(9, 3), (list{0, 0, 0}));
    EXPECT_EQ(shared_by(2, 0), list{});
    EXPECT_THROW(shared_by(0, 3), argument_error);
    EXPECT_THROW(shared_by(1, -1), argument_error);
}

TEST(layer_caches, each_layer_reads_what_its_producer_appended) {
    for (const auto& producers : {shared_by(1, 6), shared_by(2, 7), shared_by(3, 7), list{0, 0, 2, 2, 2, 5}, list{}}) {
        auto layers = caches_of(producers);
        ASSERT_EQ(layers.layers(), static_cast<index_t>(producers.size()));
        dice d(1);
        std::vector<contiguous_cache<bf16>> alone;  // as if nothing were shared
        for (index_t l = 0; l < layers.layers(); ++l) {
            const index_t p = producers[static_cast<std::size_t>(l)];
            ASSERT_EQ(layers.producer(l), p);
            if (p == l) {
                const operand<float> k({2, 3, 4, 16}, d), v({2, 3, 4, 32}, d);
                layers.produced_by(l).append(k.x, v.x);
                alone.emplace_back(shape).append(k.x, v.x);
            } else {
                alone.push_back(alone[static_cast<std::size_t>(p)]);
            }
            ASSERT_EQ(&layers.cache_of(l), &layers.cache_of(p));
            for (index_t g = 0; g < 3; ++g)
                ASSERT_TRUE(tokens_of(layers.cache_of(l), 1, g) == tokens_of(alone.back(), 1, g));
        }
    }
}

/// 2 B N G D ceil(L / s) elements where D = E.
TEST(layer_caches, bytes_are_those_of_the_producers) {
    const index_t tokens = 50, of_one = 2 * 3 * tokens * (16 + 32) * 2;
    for (index_t L : {0, 1, 2, 6, 7, 8})
        for (index_t s : {1, 2, 3, 4}) {
            auto layers = caches_of(shared_by(s, L), tokens);
            EXPECT_EQ(layers.bytes(), ceil_div(L, s) * of_one) << L << " layers by " << s;
        }
    EXPECT_EQ(caches_of(shared_by(1, 8), tokens).bytes(), 2 * caches_of(shared_by(2, 8), tokens).bytes());
}

TEST(layer_caches, only_producers_append) {
    auto layers = caches_of(shared_by(2, 4));
    const auto says = [](const char* want, const auto& call) {
        try {
            call();
            ADD_FAILURE() << "no error, not " << want;
        } catch (const argument_error& e) {
            EXPECT_STREQ(e.what(), want);
        }
    };
    says("layer_caches::produced_by: layer 3 reads the cache of layer 2", [&] { layers.produced_by(3); });
    says("layer_caches::produced_by: layer 4 of 4", [&] { layers.produced_by(4); });
    says("layer_caches::cache_of: layer -1 of 4", [&] { layers.cache_of(-1); });
    says("layer_caches: layer 0 cannot read the cache of layer 1", [] { caches_of({1, 1}); });
    says("layer_caches: layer 1 cannot read the cache of layer -1", [] { caches_of({0, -1}); });
    says("layer_caches: the producer of layer 2 is 0, that of layer 1 is 1", [] { caches_of({0, 1, 0}); });
    says("layer_caches: layer 2 reads the cache of layer 1, which reads that of layer 0", [] { caches_of({0, 0, 1}); });
}

TEST(layer_caches, each_reaches_every_cache_once_whatever_its_kind) {
    layer_caches layers(shared_by(2, 5), [](index_t l) { return paged_cache<float>(shape, 4, 10 + l); });
    dice d(2);
    const operand<float> k({2, 3, 4, 16}, d), v({2, 3, 4, 32}, d);
    for (index_t l : {0, 2, 4}) layers.produced_by(l).append(k.x, v.x);
    layers.each([](auto& cache) { cache.truncate(3); });
    for (index_t l = 0; l < 5; ++l) {
        EXPECT_EQ(layers.cache_of(l).size(0), 1);
        EXPECT_EQ(layers.cache_of(l).free_pages(), 8 + layers.producer(l));
    }
}

}  // namespace
