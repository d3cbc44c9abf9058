// Self-extend against its definition, and its limits.
#include <heed/ops/self_extend.hpp>
#include <heed/ref/rotary_attention.hpp>

#include "compare.hpp"
#include "operands.hpp"
#include "refuses.hpp"

namespace {

using namespace heed;
using test::refuses;
using test::tensor;

struct operands : test::operands<float> {
    tensor<float> near, far;
    operands(index_t queries, index_t keys, const self_extend& rule)
        : test::operands<float>(queries, keys), near(k.shape()), far(k.shape()) {
        rotary(k, near);
        rotary(k, far, rule.far_keys());
    }
    tensor<float> attended(const self_extend& rule) const {
        tensor<float> o(rows());
        self_extend_attention(q, near, far, v, o, rule);
        return o;
    }
    tensor<float> plain() const {
        tensor<float> turned(q.shape()), o(rows());
        rotary(q, turned);
        attention(turned, near, v, o, causal{});
        return o;
    }
};

TEST(self_extend, is_the_definition) {
    for (auto [group, near] :
         std::vector<std::array<index_t, 2>>{{1, 0}, {1, 5}, {2, 8}, {4, 0}, {4, 3}, {4, 10}, {7, 60}})
        for (index_t N : {0, 1, 10, 11, 12, 61}) {
            SCOPED_TRACE(testing::Message() << "groups of " << group << ", near " << near << ", tokens " << N);
            const self_extend rule{group, near};
            const operands x(N, N, rule);
            EXPECT_TRUE(test::attends(x.attended(rule), x.q, x.k, x.v, [&](auto real) {
                return ref::rotary_options<decltype(real)>(x.q.v(), x.k.v(), [&](index_t i, index_t j) {
                    return ref::self_extend_places(i, j, rule.group, rule.near);
                });
            }));
        }
}

TEST(self_extend, all_keys_near_is_plain_rotary_attention) {
    for (index_t N : {1, 20, 33}) {
        const operands x(N, N, {4, N});
        EXPECT_TRUE(test::same_values(x.attended({4, N}), x.plain()));
    }
}

TEST(self_extend, decode_is_the_last_row_of_the_prefill) {
    const self_extend rule{4, 10};
    const operands x(45, 45, rule);
    const auto whole = x.attended(rule);
    for (index_t i : {0, 9, 10, 44}) {
        const range past{0, i + 1};
        tensor<float> o({2, 4, 1, 5});
        self_extend_attention(slice(x.q.v(), 2, {i, i + 1}), slice(x.near.v(), 2, past), slice(x.far.v(), 2, past),
                              slice(x.v.v(), 2, past), o, rule);
        o.each([&](index_t b, index_t h, index_t n, index_t d) {
            EXPECT_NEAR(o(b, h, n, d), whole(b, h, i, d), 1e-5f) << i;
        });
    }
}

TEST(self_extend, distances_grow_by_one_a_group_beyond_the_near_keys) {
    const self_extend rule{4, 16};
    const auto far = rule.far_keys();
    for (index_t i = 16; i < 200; ++i) {
        const auto distance = [&](index_t j) { return rule.far_query(i) - far(0, j); };
        EXPECT_LE(std::abs(distance(i - 16) - 16), 1) << "no gap at the border";
        for (index_t j = 4; j <= i - 16; ++j) EXPECT_EQ(distance(j - 4), distance(j) + 1);
        EXPECT_LE(distance(0), 16 + (i - 16) / 4 + 1);
    }
    EXPECT_EQ(rule.far_keys(7)(0, 6), 13 / 4);
}

TEST(self_extend, bad_arguments_are_named_before_anything_is_written) {
    const operands x(5, 5, {2, 2});
    auto o = test::constant<float>({2, 4, 5, 5}, 7);
    const auto with = [&](const self_extend& rule, const tensor<float>& far) {
        return [&, rule] { self_extend_attention(x.q, x.near, far, x.v, o, rule); };
    };
    refuses<argument_error>(with({0, 3}, x.far), "self_extend_attention: groups have 0 tokens, the least is 1");
    refuses<argument_error>(with({2, -1}, x.far), "self_extend_attention: -1 keys are near, the least is 0");
    refuses<shape_error>(with({2, 2}, tensor<float>({2, 2, 4, 6})), "self_extend_attention: v has keys 5, k has 4");
    refuses<shape_error>(with({2, 2}, tensor<float>({2, 2, 5, 4})), "self_extend_attention: k has width 4, q has 6");
    o.each([&](index_t b, index_t h, index_t n, index_t d) { EXPECT_EQ(o(b, h, n, d), 7); });
}

}  // namespace
