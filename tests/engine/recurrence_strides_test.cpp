// Strides of the operands of rarer policies, and broadcast batches.
#include "recurs.hpp"

using namespace test;

namespace {

TEST(recurrence_strides, move_no_bits) {
    const recurrence_sizes sizes{2, 4, 2, 2, 37, 9, 19, 1, 2};
    const recurrence_data<float> x(sizes), y(sizes, 1, layout::strided());
    const auto from = beginning<float>(2, 2, 9, 19);
    EXPECT_TRUE(
        same_values(recur_from(from, x.q, x.k, x.v, x.value_gate()), recur_from(from, y.q, y.k, y.v, y.value_gate())));
    EXPECT_TRUE(same_values(recur_from(from, x.q, x.k, x.v, x.channel_gate(), x.bonus_read()),
                            recur_from(from, y.q, y.k, y.v, y.channel_gate(), y.bonus_read())));
    EXPECT_TRUE(same_values(recur_from(from, x.q, x.k, x.v, x.low_rank_update()),
                            recur_from(from, y.q, y.k, y.v, y.low_rank_update())));
    const auto twice = beginning<float>(2, 2, 18, 19);
    EXPECT_TRUE(same_values(recur_from(twice, x.q, x.k, x.v, x.complex_gate()),
                            recur_from(twice, y.q, y.k, y.v, y.complex_gate())));
}

TEST(recurrence_strides, a_batch_may_be_broadcast) {
    const auto q = normal<float>({3, 2, 20, 8}, 1), k = normal<float>({1, 2, 20, 8}, 2),
               v = normal<float>({1, 2, 20, 8}, 3);
    tensor<float> o({3, 2, 20, 8}), one({1, 2, 20, 8});
    auto kb = k.v(), vb = v.v();
    kb.shape[0] = vb.shape[0] = 3;
    kb.strides[0] = vb.strides[0] = 0;
    recurrence(q, kb, vb, o);
    for (index_t b = 0; b < 3; ++b) {
        recurrence(slice(q.v(), 0, {b, b + 1}), k, v, one);
        one.each([&](index_t, index_t h, index_t n, index_t d) { ASSERT_EQ(o(b, h, n, d), one(0, h, n, d)); });
    }
}

}  // namespace
