// heed_test: LABELS sanitize
// Stores of quantised rows: a token keeps the bits it was first given, a block those of all its tokens, wherever others
// come and go.
#include <gtest/gtest.h>

#include <heed/cache/quantised_store.hpp>

#include "random.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

constexpr index_t width = 40;

/// Token `id`, with an outlier that is another's the next time.
std::vector<float> token(index_t id) {
    const counter_random random(number(id) + 1);
    std::vector<float> x(width);
    for (std::size_t d = 0; d < x.size(); ++d) x[d] = static_cast<float>(random.normal(d));
    x[number(id % width)] *= 20;
    return x;
}
template <class Store>
void append(Store& store, range ids) {
    for (index_t id = ids.first; id < ids.last; ++id) store.append(token(id).data());
    store.settle();
}
/// All numbers of the first n tokens.
template <class Store>
std::vector<double> numbers_of(const Store& store, index_t n) {
    std::vector<double> all;
    for (index_t j = 0; j < n; ++j)
        for (index_t d = 0; d < width; ++d) all.push_back(store.rows(j).number(0, d));
    return all;
}

template <class Store>
class stores : public testing::Test {
public:
    static Store open() {
        if constexpr (std::is_same_v<Store, detail::channel_store>)
            return Store(width, 4);
        else
            return Store(width);
    }
    static Store holding(index_t n) {
        Store store = open();
        store.make_room(n);
        append(store, {0, n});
        return store;
    }
};
using all_stores = testing::Types<detail::row_store<int8_rows>, detail::row_store<int8_integer_rows>,
                                  detail::row_store<int8_group_rows<32>>, detail::row_store<int4_group_rows<32>>,
                                  detail::channel_store>;
TYPED_TEST_SUITE(stores, all_stores);

TYPED_TEST(stores, pieces_and_drops_leave_the_bits_of_one_append) {
    for (index_t n = 0; n <= 20; ++n)
        for (index_t more = 0; more <= 4; ++more) {
            auto store = TestFixture::open();
            store.make_room(n + more);
            append(store, {0, n / 3}), append(store, {n / 3, n}), append(store, {100, 100 + more});
            store.check_cut("op", n);
            store.cut(n);
            ASSERT_EQ(numbers_of(store, n), numbers_of(TestFixture::holding(n), n))
                << n << " after " << more << " more";
            if (n > 0) ASSERT_EQ(store.run_end(n - 1), n);
            append(store, {n, n + 3});
            ASSERT_EQ(numbers_of(store, n + 3), numbers_of(TestFixture::holding(n + 3), n + 3));
        }
}

TYPED_TEST(stores, room_that_was_made_is_used) {
    auto store = TestFixture::open();
    store.make_room(30);
    const index_t bytes = store.bytes();
    append(store, {0, 1});
    const auto* first = store.rows(0).data;
    append(store, {1, 30});
    EXPECT_EQ(store.rows(0).data, first);
    EXPECT_EQ(store.bytes(), bytes);
}

TYPED_TEST(stores, a_number_is_within_half_a_step_of_its_own) {
    const auto store = TestFixture::holding(9);
    for (index_t j = 0; j < 9; ++j) {
        const auto x = token(j);
        double most = 0;  // no factor is of larger numbers than these
        for (index_t i = 0; i < 9; ++i)
            for (float y : token(i)) most = std::max(most, std::abs(static_cast<double>(y)));
        for (index_t d = 0; d < width; ++d)
            ASSERT_NEAR(store.rows(j).number(0, d), x[number(d)], most / 7 / 2 * 1.0001) << j << ", " << d;
    }
}

TEST(row_store, rows_move_with_their_factors) {
    detail::row_store<int8_group_rows<32>> store(width), want(width);
    store.make_room(6), want.make_room(3);
    append(store, {0, 6});
    store.move(1, 2, 2);
    store.cut(3);
    append(want, {0, 1}), append(want, {2, 4});
    EXPECT_EQ(numbers_of(store, 3), numbers_of(want, 3));
}

TEST(channel_store, the_last_two_blocks_can_be_reopened_and_no_earlier_one) {
    detail::channel_store store(width, 4);
    store.make_room(18);
    append(store, {0, 18});  // the floats of tokens 12 to 17 are kept
    EXPECT_EQ(store.run_end(5), 8);
    for (index_t left : {0, 4, 8, 12, 13, 15, 16, 17}) store.check_cut("op", left);
    refuses<argument_error>([&] { store.check_cut("op", 11); },
                            "op: cannot end after 11 tokens: of blocks of 4 those from token 12 on can be reopened");
    store.cut(13);
    refuses<argument_error>([&] { store.check_cut("op", 11); }, "cannot end after 11 tokens");
    append(store, {13, 15});
    detail::channel_store want(width, 4);
    want.make_room(15);
    append(want, {0, 15});
    EXPECT_EQ(numbers_of(store, 15), numbers_of(want, 15));
}

}  // namespace
