// Orders and packing: from the end, every query after the last token, sequences side by side.
#include "recurs.hpp"

using namespace test;

namespace {

template <class T>
tensor<T> flipped(const tensor<T>& x) {
    tensor<T> y(x.shape());
    y.each([&](index_t b, index_t h, index_t n, index_t d) { y(b, h, n, d) = x(b, h, x.shape()[2] - 1 - n, d); });
    return y;
}

TEST(recurrence_order, from_the_end) {
    for (index_t N : {0, 1, 15, 16, 17, 50}) {
        SCOPED_TRACE(N);
        const recurrence_data<float> x({2, 4, 2, 2, N, 9, 17, 1, 2});
        EXPECT_TRUE(recurs(x, by_token | backwards, x.token_gate(), reversed{}));
        EXPECT_TRUE(recurs(x, by_token | backwards, x.token_gate(), reversed{}, chunked{16}));
        EXPECT_TRUE(
            recurs(x, by_channel | delta | backwards, x.channel_gate(), x.delta_update(), reversed{}, chunked{16}));
        const recurrence_data<float> steps({1, 1, 1, 1, N, 9, 17, 3});
        EXPECT_TRUE(recurs(steps, delta | backwards, steps.householder_update(), reversed{}));
    }
}

TEST(recurrence_order, from_the_end_is_the_sequence_flipped) {
    recurrence_data<float> x({2, 4, 2, 2, 50, 9, 17, 1, 2});
    const auto from = beginning<float>(2, 2, 9, 17);
    auto back = recur_from(from, x.q, x.k, x.v, x.channel_gate(), x.delta_update(), reversed{});
    for (auto* t : {&x.q, &x.k, &x.v, &x.channel, &x.beta}) *t = flipped(*t);
    const auto forth = recur_from(from, x.q, x.k, x.v, x.channel_gate(), x.delta_update());
    back.o = flipped(back.o);
    EXPECT_TRUE(same_values(back, forth));
}

TEST(recurrence_order, every_query_after_the_last_token) {
    for (index_t N : {0, 1, 15, 16, 17, 50}) {
        SCOPED_TRACE(N);
        const recurrence_data<float> x({2, 4, 2, 2, N, 9, 17, 1, 2});
        EXPECT_TRUE(recurs(x, all_at_once, non_causal{}));
        EXPECT_TRUE(recurs(x, by_token | all_at_once, x.token_gate(), non_causal{}, chunked{16}));
        EXPECT_TRUE(recurs(x, by_channel | all_at_once, x.channel_gate(), non_causal{}));
        EXPECT_TRUE(recurs(x, delta | all_at_once, x.delta_update(), non_causal{}, chunked{16}));
    }
}

/// Queries of another sequence than keys, values and gates.
TEST(recurrence_order, every_query_after_the_last_token_of_others) {
    for (index_t M : {0, 1, 17, 50, 100})
        for (index_t N : {0, 1, 16, 50}) {
            SCOPED_TRACE(testing::Message() << N << " queries, " << M << " keys");
            const recurrence_data<float> x({2, 4, 2, 2, M, 9, 17, 1, 2});
            const auto q = normal<float>({2, 4, N, 9}, 40);
            const auto check = [&](unsigned parts, const auto&... policies) {
                return recurs(
                    q, x.k, x.v,
                    [&](auto real) {
                        auto with = x.defined(parts | all_at_once)(real);
                        with.updates = 1;
                        return with;
                    },
                    non_causal{}, policies...);
            };
            EXPECT_TRUE(check(plain));
            EXPECT_TRUE(check(by_token, x.token_gate(), chunked{16}));
            EXPECT_TRUE(check(delta, x.delta_update()));
        }
}

TEST(recurrence_order, queries_of_others_are_a_state_that_is_recalled) {
    const recurrence_data<float> x({2, 4, 2, 2, 40, 9, 17, 1, 2});
    const auto q = normal<float>({2, 4, 23, 9}, 40);
    tensor<float> o({2, 4, 23, 17}), recalled(o.shape());
    recurrence(q, x.k, x.v, o, x.token_gate(), elu_plus_one{}, sum_of_keys{}, non_causal{});
    state<float> s(2, 2, 9, 17);
    absorb(s, x.k, x.v, x.token_gate(), elu_plus_one{}, sum_of_keys{});
    recall(s, q, recalled, elu_plus_one{}, sum_of_keys{});
    EXPECT_TRUE(all_near(o, recalled, 1e-5));
}

/// A definition whose sequences are packed at these offsets.
template <class T>
auto packed_at(const recurrence_data<T>& x, unsigned parts, const std::vector<index_t>& offsets) {
    return [&x, parts, offsets](auto real) {
        auto with = x.defined(parts)(real);
        with.offsets = offsets;
        return with;
    };
}

TEST(recurrence_packed, sequences_side_by_side) {
    const recurrence_data<float> x({1, 4, 2, 2, 60, 9, 17, 1, 2});
    for (const auto& offsets :
         {std::vector<index_t>{0, 60}, {0, 1, 60}, {0, 0, 17, 17, 33, 60, 60}, {0, 16, 32, 48, 60}}) {
        SCOPED_TRACE(testing::PrintToString(offsets));
        const auto check = [&](unsigned parts, const auto&... policies) {
            EXPECT_TRUE(recurs(x.q, x.k, x.v, packed_at(x, parts, offsets), policies..., packed{offsets}));
        };
        check(by_token, x.token_gate());
        check(by_token, x.token_gate(), chunked{16});
        check(by_channel | delta, x.channel_gate(), x.delta_update(), chunked{16});
        check(by_token | backwards, x.token_gate(), reversed{});
        check(by_token | all_at_once, x.token_gate(), non_causal{});
    }
}

TEST(recurrence_packed, is_each_sequence_alone_bit_for_bit) {
    for (index_t D : {9, 128}) {
        SCOPED_TRACE(D);
        const recurrence_data<float> x({1, 2, 2, 2, 60, D, 17, 1, 2});
        const std::vector<index_t> offsets{0, 5, 5, 37, 60};
        const auto from = beginning<float>(4, 2, D, 17);
        const auto all = recur_from(from, x.q, x.k, x.v, x.token_gate(), packed{offsets});
        for (index_t s = 0; s < 4; ++s) {
            const range r{offsets[static_cast<std::size_t>(s)], offsets[static_cast<std::size_t>(s + 1)]};
            const auto part = [&](const tensor<float>& t) { return copied(slice(t.v(), 2, r)); };
            const auto token = part(x.token);
            const auto one = recur_from(copied(slice(from.v(), 0, {s, s + 1})), part(x.q), part(x.k), part(x.v),
                                        token_decay{numbers(token)});
            EXPECT_TRUE(same_values(one.o, part(all.o))) << s;
            EXPECT_TRUE(same_values(one.state, copied(slice(all.state.v(), 0, {s, s + 1})))) << s;
        }
    }
}

}  // namespace
