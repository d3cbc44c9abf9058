// Weights that do not sum to one, few queries over many keys: what parts of the keys give adds up, in one call cut over
// tasks and in calls of one's own.
#include <heed/heed.hpp>

#include "any_mask.hpp"
#include "compare.hpp"
#include "random.hpp"

using namespace test;

namespace {

/// One of the weights, chosen when run: one instantiation of the call serves all.
struct any_weight {
    using role = roles::weight;
    static constexpr bool normalised = false;
    enum kind { squares, laplacian, itself } of = itself;
    template <class X>
    X operator()(X x) const {
        return of == squares ? relu_squared{}(x) : of == laplacian ? laplace{}(x) : linear{}(x);
    }
};
constexpr any_weight every_weight[] = {{any_weight::squares}, {any_weight::laplacian}, {any_weight::itself}};

template <class S>
class split_weights : public testing::Test {};
using storages = testing::Types<float, double, bf16>;
TYPED_TEST_SUITE(split_weights, storages);

template <class S>
struct scene {
    tensor<S> q, k, v;
    scene(index_t N, index_t M)
        : q(normal<S>({1, 4, N, 16}, 1)), k(normal<S>({1, 2, M, 16}, 2)), v(normal<S>({1, 2, M, 9}, 3)) {}

    tensor<S> attend(const any_weight& weight, const any_mask& mask, threads& pool) const {
        tensor<S> o({1, 4, q.shape()[2], 9});
        attention(q, k, v, o, mask, weight, on{pool});
        return o;
    }
    testing::AssertionResult attended(const tensor<S>& o, const any_weight& weight, const any_mask& mask) const {
        return attends(o, q, k, v, [&](auto real) {
            using R = decltype(real);
            ref::options<R> with;
            with.visible = [&](index_t b, index_t h, index_t row, index_t i, index_t j) {
                return mask.allows({b, h, row, i, j});
            };
            with.weight = [&](R x) { return static_cast<R>(weight(x)); };
            return with;
        });
    }
};

TYPED_TEST(split_weights, follow_the_definition_and_threads_change_no_bit) {
    threads one(1), two(2), five(5);
    for (const any_weight& weight : every_weight)
        for (const auto& [N, M] : {std::pair<index_t, index_t>{1, 513}, {2, 1500}, {1, 2049}, {3, 4100}, {2, 40}}) {
            const scene<TypeParam> x(N, M);
            const any_mask masks[] = {causal{}, causal{} & (window{700} | first{3}), nothing{}};
            for (const any_mask& mask : masks) {
                SCOPED_TRACE(testing::Message() << weight.of << " N" << N << " M" << M);
                const auto o = x.attend(weight, mask, one);
                EXPECT_TRUE(x.attended(o, weight, mask));
                EXPECT_TRUE(same_values(x.attend(weight, mask, two), o));
                EXPECT_TRUE(same_values(x.attend(weight, mask, five), o));
            }
        }
}

TYPED_TEST(split_weights, calls_over_parts_of_the_keys_add_up) {
    if (sizeof(TypeParam) < sizeof(float)) GTEST_SKIP() << "the parts are rounded";
    threads pool(2);
    const scene<TypeParam> x(2, 1500);
    for (const any_weight& weight : every_weight) {
        tensor<TypeParam> sum({1, 4, 2, 9});
        sum.fill([](index_t) { return 0; });
        for (const auto& [from, to] : {std::pair<index_t, index_t>{0, 700}, {700, 701}, {701, 1500}}) {
            const auto part = x.attend(weight, between{from, to}, pool);
            sum.each([&](index_t b, index_t h, index_t n, index_t e) { sum(b, h, n, e) += part(b, h, n, e); });
        }
        EXPECT_TRUE(x.attended(sum, weight, everything{}));
    }
}

}  // namespace
