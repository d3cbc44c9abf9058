// heed_test: AS_USED LABELS sanitize
// Values of additive recurrences against the definition, by decay, form and size.
#include "recurs.hpp"

using namespace test;

namespace {

template <class... P>
void check_decays(const recurrence_sizes& s, const P&... form) {
    SCOPED_TRACE(testing::Message() << s);
    const recurrence_data<float> x(s, static_cast<std::uint64_t>(s.N + s.D + s.E));
    EXPECT_TRUE(recurs(x, plain, form...)) << "no decay";
    EXPECT_TRUE(recurs(x, by_head, x.head_gate(), form...)) << "per head";
    EXPECT_TRUE(recurs(x, by_token, x.token_gate(), form...)) << "per token";
    EXPECT_TRUE(recurs(x, by_channel, x.channel_gate(), form...)) << "per key channel";
}

void check_forms(const recurrence_sizes& s) {
    check_decays(s);
    check_decays(s, recurrent{});
    check_decays(s, chunked{64});
}

TEST(recurrence_values, lengths_around_the_block) {
    for (index_t N : {0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 100}) check_forms({1, 1, 1, 1, N, 8, 8});
}

TEST(recurrence_values, any_width) {
    for (index_t D : {1, 2, 3, 5, 7, 9, 16, 17, 31, 64}) check_forms({1, 1, 1, 1, 19, D, 8});
    for (index_t E : {1, 2, 3, 7, 9, 15, 16, 17, 33, 47, 64, 80}) check_forms({1, 1, 1, 1, 19, 8, E});
    for (index_t D : {64, 100, 128}) check_forms({1, 1, 1, 1, 33, D, 64});
}

TEST(recurrence_values, heads_and_batches) {
    check_forms({2, 4, 4, 4, 20, 8, 8, 1, 4});
    check_forms({2, 4, 2, 2, 20, 8, 8, 1, 2});  // queries share a state
    check_forms({1, 6, 1, 2, 20, 8, 8, 1, 2});
    check_forms({1, 1, 1, 4, 20, 8, 8, 1, 4});  // states share queries and keys
    check_forms({1, 2, 4, 1, 20, 8, 8, 1, 2});
    check_forms({3, 8, 2, 4, 20, 8, 8, 1, 1});
}

TEST(recurrence_values, long_sequences) { check_forms({1, 1, 1, 1, 700, 5, 6}); }

}  // namespace
