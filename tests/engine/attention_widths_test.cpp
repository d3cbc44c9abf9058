// Wide heads: keys of 128 and 256, values of up to 512, odd widths too, in float and bf16, many rows and few.
#include <heed/heed.hpp>

#include "compare.hpp"
#include "random.hpp"

using namespace test;

namespace {

template <class S>
void check(index_t N, index_t D, index_t E) {
    SCOPED_TRACE(testing::Message() << "N" << N << " D" << D << " E" << E);
    const index_t M = 150;
    const auto q = normal<S>({1, 2, N, D}, 1), k = normal<S>({1, 1, M, D}, 2), v = normal<S>({1, 1, M, E}, 3);
    tensor<S> o({1, 2, N, E});
    attention(q, k, v, o, causal{});
    EXPECT_TRUE(attends(o, q, k, v, [](auto real) {
        ref::options<decltype(real)> with;
        with.visible = [](index_t, index_t, index_t, index_t i, index_t j) { return j <= i; };
        return with;
    }));
    EXPECT_TRUE(o.poisoned_outside());
}

template <class S>
void check_all() {
    for (index_t N : {2, 50})
        for (index_t D : {128, 129, 255, 256})
            for (index_t E : {1, 256, 257, 511, 512}) check<S>(N, D, E);
}

TEST(attention_widths, as_float) { check_all<float>(); }
TEST(attention_widths, as_bf16) { check_all<bf16>(); }

}  // namespace
