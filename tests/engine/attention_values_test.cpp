// heed_test: AS_USED LABELS sanitize
// Values of attention in float and double against the definition, at sizes around lanes and tiles.
#include <heed/heed.hpp>

#include "compare.hpp"
#include "random.hpp"

using namespace test;

namespace {

struct sizes {
    index_t B, H, G, N, M, D, E;
};

template <class T>
void check_sizes(const sizes& s, std::uint64_t seed) {
    SCOPED_TRACE(testing::Message() << "B" << s.B << " H" << s.H << " G" << s.G << " N" << s.N << " M" << s.M << " D"
                                    << s.D << " E" << s.E);
    const auto q = normal<T>({s.B, s.H, s.N, s.D}, seed), k = normal<T>({s.B, s.G, s.M, s.D}, seed + 1),
               v = normal<T>({s.B, s.G, s.M, s.E}, seed + 2);
    tensor<T> o({s.B, s.H, s.N, s.E});
    attention(q.v(), k.v(), v.v(), o.v());
    EXPECT_TRUE(attends(o, q, k, v)) << "full";
    attention(q.v(), k.v(), v.v(), o.v(), causal{});
    EXPECT_TRUE(attends(o, q, k, v, [](auto real) {
        ref::options<decltype(real)> with;
        with.visible = [](index_t, index_t, index_t, index_t i, index_t j) { return j <= i; };
        return with;
    })) << "causal";
}

template <class T>
class attention_values : public testing::Test {};
using arithmetics = testing::Types<float, double>;
TYPED_TEST_SUITE(attention_values, arithmetics);

TYPED_TEST(attention_values, rows_around_the_lanes_and_the_block) {
    for (index_t N : {1, 2, 7, 8, 9, 15, 16, 17, 23, 31, 32, 33, 47, 48, 49, 63, 95, 97, 145})
        check_sizes<TypeParam>({1, 2, 1, N, 37, 8, 8}, static_cast<std::uint64_t>(N));
}

TYPED_TEST(attention_values, keys_around_the_micro_block_and_the_tile) {
    for (index_t M : {1, 2, 3, 7, 8, 9, 15, 17, 61, 85, 127, 128, 129, 135, 136, 137, 255, 257, 389})
        check_sizes<TypeParam>({1, 1, 1, 17, M, 8, 8}, static_cast<std::uint64_t>(M));
}

TYPED_TEST(attention_values, any_width) {
    for (index_t D : {1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 80, 100, 256, 512})
        check_sizes<TypeParam>({1, 1, 1, 19, 41, D, 8}, static_cast<std::uint64_t>(D));
    for (index_t E : {1, 2, 3, 4, 5, 6, 7, 9, 12, 15, 16, 17, 33, 80, 128, 257})
        check_sizes<TypeParam>({1, 1, 1, 19, 41, 8, E}, static_cast<std::uint64_t>(E));
}

TYPED_TEST(attention_values, grouped_heads_and_batches) {
    check_sizes<TypeParam>({2, 6, 6, 20, 40, 16, 8}, 1);
    check_sizes<TypeParam>({2, 6, 3, 20, 40, 16, 8}, 2);
    check_sizes<TypeParam>({3, 6, 1, 20, 40, 16, 8}, 3);
    check_sizes<TypeParam>({2, 15, 5, 50, 140, 8, 24}, 4);
    check_sizes<TypeParam>({1, 32, 4, 65, 33, 4, 4}, 5);
}

TYPED_TEST(attention_values, more_queries_than_keys_leaves_rows_empty) {
    check_sizes<TypeParam>({1, 2, 2, 60, 20, 8, 8}, 1);
    check_sizes<TypeParam>({1, 1, 1, 300, 1, 8, 8}, 2);
}

}  // namespace
