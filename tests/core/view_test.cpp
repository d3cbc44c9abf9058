// heed_test: LABELS sanitize
// Views: strides of the layouts, slices, and what two views may share.
#include <gtest/gtest.h>

#include <heed/core/view.hpp>
#include <numeric>
#include <vector>

using namespace heed;

namespace {

TEST(view, layouts_name_the_same_axes) {
    std::vector<int> memory(2 * 3 * 4 * 5);
    std::iota(memory.begin(), memory.end(), 0);
    const auto by_head = heads(memory.data(), {2, 3, 4, 5});
    const auto by_token = tokens(memory.data(), {2, 4, 3, 5});
    EXPECT_EQ(by_head.shape, by_token.shape);
    EXPECT_EQ(by_head(1, 2, 3, 4), 119);
    EXPECT_EQ(by_head(0, 1, 2, 3), 1 * 20 + 2 * 5 + 3);
    EXPECT_EQ(by_token(0, 1, 2, 3), 2 * 15 + 1 * 5 + 3);
    EXPECT_EQ(dense(memory.data(), {2, 3, 4, 5}).strides, by_head.strides);
}

TEST(view, a_dense_view_of_no_elements_has_no_stride_of_0) {
    for (const extents<4>& shape : {extents<4>{2, 3, 0, 4}, {2, 3, 4, 0}, {0, 2, 3, 4}, {0, 0, 0, 0}})
        for (const auto& v : {heads<int>(nullptr, shape), tokens<int>(nullptr, shape)}) {
            for (index_t stride : v.strides) EXPECT_GT(stride, 0);
            EXPECT_EQ(v.size(), 0);
        }
}

TEST(view, slices_are_rows_of_an_axis) {
    std::vector<int> memory(2 * 3 * 4 * 5);
    std::iota(memory.begin(), memory.end(), 0);
    const auto v = heads(memory.data(), {2, 3, 4, 5});
    const auto part = slice(slice(v, 2, {1, 3}), 3, {2, 5});
    EXPECT_EQ(part.shape, (extents<4>{2, 3, 2, 3}));
    EXPECT_EQ(part(1, 1, 1, 0), v(1, 1, 2, 2));
}

TEST(view, overlap_is_of_addresses) {
    std::vector<float> memory(100);
    const auto of = [&](index_t first, index_t count, index_t stride) {
        return view<float, 1>{memory.data() + first, {count}, {stride}};
    };
    EXPECT_TRUE(overlap(of(0, 10, 1), of(9, 10, 1)));
    EXPECT_FALSE(overlap(of(0, 10, 1), of(10, 10, 1)));
    EXPECT_TRUE(overlap(of(20, 10, -1), of(11, 1, 1)));
    EXPECT_FALSE(overlap(of(20, 10, -1), of(10, 1, 1)));
    EXPECT_FALSE(overlap(of(20, 0, 1), of(0, 100, 1)));
    EXPECT_TRUE(overlap(of(20, 10, 0), of(20, 1, 1)));
}

TEST(view, members_of_an_array_of_structs_do_not_overlap) {
    std::vector<float> memory(100);
    const auto of = [&](index_t first, index_t count, index_t stride) {
        return view<float, 1>{memory.data() + first, {count}, {stride}};
    };
    EXPECT_FALSE(overlap(of(0, 10, 2), of(1, 10, 2)));
    EXPECT_FALSE(overlap(of(1, 10, 2), of(20, 10, -2)));
    EXPECT_FALSE(overlap(of(1, 10, 6), of(2, 10, 4)) || overlap(of(0, 10, 3), of(4, 1, 1)));
    EXPECT_TRUE(overlap(of(0, 10, 2), of(2, 5, 2)));
    EXPECT_TRUE(overlap(of(0, 10, 2), of(3, 5, 3)) && overlap(of(1, 10, 6), of(3, 10, 4)));
    EXPECT_TRUE(overlap(of(0, 10, 2), of(1, 10, 1)));
    // A double and a float of each 16 bytes: they meet where the float is inside the double.
    const auto wide = [&](index_t first) {
        return view<double, 1>{reinterpret_cast<double*>(memory.data() + first), {8}, {2}};
    };
    EXPECT_FALSE(overlap(wide(0), of(2, 8, 4)) || overlap(of(3, 8, 4), wide(0)));
    EXPECT_TRUE(overlap(wide(0), of(1, 8, 4)) && overlap(of(5, 7, 4), wide(0)));
}

}  // namespace
