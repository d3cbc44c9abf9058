// The memory of plain rows: planes apart from each other, copies within and between memories, widths of none.
#include <gtest/gtest.h>

#include <heed/cache/row_memory.hpp>
#include <set>

#include "refuses.hpp"

using namespace heed;
using heed::detail::row_memory;
using test::refuses;

namespace {

view<const double, 2> rows_of(const std::vector<double>& x, index_t width) {
    return {x.data(), {static_cast<index_t>(x.size()) / width, width}, {width, 1}};
}

/// Writes a number of its own into every element of every plane, and reads them back.
template <class K, class V>
void expect_planes_apart(index_t planes, index_t rows, index_t D, index_t E) {
    row_memory<K, V> memory("test", planes, rows, D, E);
    const auto numbers = [&](index_t plane, index_t width, double sign) {
        std::vector<double> x;
        for (index_t i = 0; i < rows * width; ++i) x.push_back(sign * static_cast<double>((plane * 31 + i) % 250));
        return x;
    };
    for (index_t p = 0; p < planes; ++p)
        memory.write(p, 0, rows_of(numbers(p, D, 1), D), rows_of(numbers(p, E, -1), E));
    std::set<const void*> seen;
    for (index_t p = 0; p < planes; ++p) {
        const auto k = numbers(p, D, 1), v = numbers(p, E, -1);
        for (index_t j = 0; j < rows; ++j) {
            for (index_t d = 0; d < D; ++d)
                ASSERT_EQ(memory.keys(p, j).number(0, d), k[static_cast<std::size_t>(j * D + d)]);
            for (index_t e = 0; e < E; ++e)
                ASSERT_EQ(memory.values(p, j).number(0, e), v[static_cast<std::size_t>(j * E + e)]);
            for (const void* row : {static_cast<const void*>(memory.keys(p, j).data),
                                    static_cast<const void*>(memory.values(p, j).data)}) {
                const auto* at = static_cast<const std::byte*>(row);
                ASSERT_TRUE(seen.insert(row).second);
                ASSERT_TRUE(memory.memory().data() <= at && at < memory.memory().data() + memory.bytes());
            }
        }
    }
}
TEST(row_memory, planes_do_not_overlap) {
    expect_planes_apart<float, float>(3, 5, 7, 4);
    expect_planes_apart<bf16, double>(2, 4, 120, 1);
    expect_planes_apart<f16, bf16>(1, 9, 64, 128);
}

/// Rows move down within a plane also where old and new places overlap, and over to another memory of more rows.
TEST(row_memory, copies_rows) {
    row_memory<float, float> memory("test", 2, 10, 3, 2), larger("test", 3, 20, 3, 2);
    std::vector<double> k, v;
    for (index_t i = 0; i < 10; ++i) k.insert(k.end(), 3, double(i)), v.insert(v.end(), 2, double(-i));
    memory.write(1, 0, rows_of(k, 3), rows_of(v, 2));
    memory.copy(1, 2, memory, 1, 4, 6);
    larger.copy(2, 11, memory, 1, 0, 8);
    for (index_t j = 0; j < 8; ++j) {
        const double want = static_cast<double>(j < 2 ? j : j + 2);
        EXPECT_EQ(memory.keys(1, j).number(0, 2), want);
        EXPECT_EQ(larger.values(2, 11 + j).number(0, 1), -want);
    }
    EXPECT_EQ(memory.keys(1, 8).number(0, 0), 8);
    memory.copy(0, 0, memory, 1, 0, 0);  // nothing
}

TEST(row_memory, of_nothing) {
    EXPECT_EQ((row_memory<float, bf16>("test", 2, 0, 8, 8).bytes()), 0);
    row_memory<float, float> no_keys("test", 1, 3, 0, 2);
    EXPECT_EQ(no_keys.keys(0, 1).stride, 0);
    no_keys.write(0, 0, view<const float, 2>{nullptr, {0, 0}, {0, 1}}, view<const float, 2>{nullptr, {0, 2}, {2, 1}});
    const auto too_many = [] { row_memory<float, float>("test", 4, std::numeric_limits<index_t>::max() / 64, 16, 16); };
    refuses<argument_error>(too_many, "test: no memory holds 4 heads of ");
}

}  // namespace
