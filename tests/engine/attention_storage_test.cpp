// heed_test: LABELS sanitize
// Storage types: every operand its own, sums in float (double where any operand is double).
#include <heed/heed.hpp>

#include "compare.hpp"
#include "random.hpp"

using namespace test;

namespace {

template <class Q, class K, class V, class O>
void check_types(index_t N, index_t M, index_t D, index_t E) {
    SCOPED_TRACE(testing::Message() << "N" << N << " M" << M << " D" << D << " E" << E);
    const auto q = normal<Q>({1, 4, N, D}, 1);
    const auto k = normal<K>({1, 2, M, D}, 2);
    const auto v = normal<V>({1, 2, M, E}, 3);
    tensor<O> o({1, 4, N, E});
    attention(q, k, v, o, causal{});
    EXPECT_TRUE(attends(o, q, k, v, [](auto real) {
        ref::options<decltype(real)> with;
        with.visible = [](index_t, index_t, index_t, index_t i, index_t j) { return j <= i; };
        return with;
    }));
}

template <class Q, class K, class V, class O>
void check_all() {
    for (index_t N : {1, 16, 50})
        for (index_t M : {1, 7, 8, 130}) check_types<Q, K, V, O>(N, M, 16, 16);
    for (index_t D : {1, 7, 33, 64})
        for (index_t E : {1, 9, 18}) check_types<Q, K, V, O>(20, 35, D, E);
}

TEST(attention_storage, bf16) { check_all<bf16, bf16, bf16, bf16>(); }
TEST(attention_storage, f16) { check_all<f16, f16, f16, f16>(); }
TEST(attention_storage, float_queries_over_bf16_keys) { check_all<float, bf16, bf16, float>(); }
TEST(attention_storage, float_queries_over_f16_keys) { check_all<float, f16, f16, float>(); }
TEST(attention_storage, bf16_with_float_output) { check_all<bf16, bf16, bf16, float>(); }
TEST(attention_storage, each_its_own) { check_all<f16, bf16, float, bf16>(); }
TEST(attention_storage, double_queries_over_float_keys) { check_all<double, float, bf16, float>(); }

}  // namespace
