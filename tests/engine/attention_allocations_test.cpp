// With an arena, attention allocates nothing: on any rows and probes, alone or on threads. Without one it does when a
// thread first needs that much.
#include <gtest/gtest.h>

#include <heed/core/threads.hpp>
#include <heed/heed.hpp>

#include "allocations.hpp"
#include "operands.hpp"

using namespace test;

namespace {

/// The calls of operator new that run(context) makes once the scratch it asks for is there.
template <class Pool, class Need, class Run>
std::size_t allocations_of(Pool& pool, const Need& need, const Run& run) {
    arena scratch(need(pool));
    const std::size_t before = allocations;
    run(on{pool, scratch});
    return allocations - before;
}

/// N rows over M keys, with and without probes.
void expect_none(index_t N, index_t M) {
    SCOPED_TRACE(testing::Message() << N << " rows, " << M << " keys");
    const operands<float> x(N, M);
    tensor<float> o(x.rows()), sums({x.B, x.H, N, 1}), mass({x.B, x.H, M, 1}), raw({x.B, x.H, N, M});
    const lse sum(flat(sums));
    const key_mass of_keys(flat(mass));
    const logits hidden(raw.v(), stage::raw);
    const auto with = [&](auto& pool) {
        const auto count = [&](const auto&... probe) {
            return allocations_of(
                pool, [&](auto& p) { return attention_scratch(x.q, x.k, x.v, o, causal{}, probe..., on{p}); },
                [&](const auto& context) { attention(x.q, x.k, x.v, o, causal{}, probe..., context); });
        };
        EXPECT_EQ(count(), 0u);
        EXPECT_EQ(count(sum, of_keys), 0u) << "probes of visible keys";
        EXPECT_EQ(count(sum, of_keys, hidden), 0u) << "probes of hidden keys";
    };
    serial alone;
    with(alone);
    for (index_t n : {2, 3}) {
        threads pool(n);
        with(pool);
    }
}

}  // namespace

TEST(attention_allocations, none_with_an_arena) {
    expect_none(150, 150);
    expect_none(2, 1500);
    expect_none(1, 3);
}

TEST(attention_allocations, of_scratch_only_when_a_thread_first_needs_as_much) {
    const operands<float> x(20, 30);
    tensor<float> o(x.rows());
    const auto call = [&] {
        const std::size_t before = allocations;
        attention(x.q, x.k, x.v, o, causal{});
        return allocations - before;
    };
    EXPECT_GT(call(), 0u);
    EXPECT_EQ(call(), 0u);
}
