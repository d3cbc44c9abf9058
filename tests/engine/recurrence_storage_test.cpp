// Element types: double, bf16 and f16 operands and gates, and types of their own for each operand.
#include "recurs.hpp"

using namespace test;

namespace {

template <class T>
void check_storage() {
    for (const auto& s : {recurrence_sizes{1, 1, 1, 1, 1, 8, 8}, recurrence_sizes{2, 4, 2, 2, 37, 9, 19, 1, 2},
                          recurrence_sizes{1, 2, 2, 2, 100, 64, 64, 1, 2}}) {
        SCOPED_TRACE(testing::Message() << s);
        const recurrence_data<T> x(s);
        EXPECT_TRUE(recurs(x, plain));
        EXPECT_TRUE(recurs(x, by_head, x.head_gate()));
        EXPECT_TRUE(recurs(x, by_token, x.token_gate()));
        EXPECT_TRUE(recurs(x, by_token, x.token_gate(), chunked{32}));
        EXPECT_TRUE(recurs(x, by_channel, x.channel_gate()));
        EXPECT_TRUE(recurs(x, by_channel, x.channel_gate(), chunked{32}));
        EXPECT_TRUE(recurs(x, by_channel | delta, x.channel_gate(), x.delta_update()));
    }
}

TEST(recurrence_storage, double_) { check_storage<double>(); }
TEST(recurrence_storage, bf16_) { check_storage<bf16>(); }
TEST(recurrence_storage, f16_) { check_storage<f16>(); }

TEST(recurrence_storage, gates_and_operands_have_types_of_their_own) {
    const recurrence_data<float> x({1, 2, 2, 2, 40, 9, 19, 1, 2});
    const auto narrow = [](const tensor<float>& t) {
        tensor<bf16> y(t.shape());
        y.each([&](index_t b, index_t h, index_t n, index_t d) { y(b, h, n, d) = static_cast<bf16>(t(b, h, n, d)); });
        return y;
    };
    const auto widened = [](const tensor<bf16>& t) {
        tensor<float> y(t.shape());
        y.each([&](index_t b, index_t h, index_t n, index_t d) { y(b, h, n, d) = static_cast<float>(t(b, h, n, d)); });
        return y;
    };
    const auto k = narrow(x.k), g = narrow(x.token);
    tensor<float> o(x.v.shape()), mixed(x.v.shape());
    recurrence(x.q, k, x.v, mixed, token_decay{numbers(g)});
    const auto wide = widened(g);
    recurrence(x.q, widened(k), x.v, o, token_decay{numbers(wide)});
    EXPECT_TRUE(same_values(o, mixed));
}

TEST(recurrence_storage, one_double_makes_the_sums_double) {
    const recurrence_data<float> x({1, 1, 1, 1, 30, 4, 4});
    tensor<double> v(x.v.shape()), o(x.v.shape()), all(x.v.shape()), q(x.q.shape()), k(x.k.shape());
    const auto widen = [](const tensor<float>& from, tensor<double>& to) {
        to.each([&](index_t b, index_t h, index_t n, index_t d) { to(b, h, n, d) = from(b, h, n, d); });
    };
    widen(x.v, v), widen(x.q, q), widen(x.k, k);
    state<double> s(1, 1, 4, 4), t(1, 1, 4, 4);
    recurrence(x.q, x.k, v, o, s);
    recurrence(q, k, v, all, t);
    EXPECT_TRUE(same_values(o, all));
    EXPECT_TRUE(same_values(copied(s.values()), copied(t.values())));
}

}  // namespace
