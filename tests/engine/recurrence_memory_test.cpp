// Outputs and states share memory with nothing that a call reads.
#include <heed/policy/feature_gate.hpp>
#include <heed/policy/feature_power.hpp>
#include <heed/policy/feature_random.hpp>

#include "recurs.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

/// Whatever a policy reads, an output that shares memory with it is refused, and so is a state.
TEST(recurrence_memory, of_outputs_is_apart_from_what_policies_read) {
    const tensor<float> q({2, 4, 5, 6}), k({2, 2, 5, 6}), v({2, 2, 5, 3}), one = constant<float>({2, 2, 5, 1}, -0.5);
    const tensor<float> rows = constant<float>({2, 2, 5, 6}, -0.5);
    tensor<float> out = constant<float>({2, 4, 5, 3}, 7);
    std::vector<float> memory(240, -0.5f);
    const auto o = heads(memory.data(), {2, 4, 5, 3});
    const view<const float, 3> number = dense(memory.data(), {2, 2, 5});
    const view<const float> row = dense(memory.data(), {2, 2, 5, 6}), apart = rows.v();
    const auto shares = [&](const std::string& what, auto&&... policies) {
        refuses<shape_error>([&] { recurrence_scratch(q, k, v, o, policies...); },
                             "o overlaps the " + what + " in memory");
    };
    shares("decay", head_decay{std::span(memory.data(), 2)});
    shares("decay", token_decay{number});
    shares("decay", channel_decay{row});
    shares("decay", value_decay{heads(memory.data() + 119, {2, 2, 5, 3})});  // the last element of o
    shares("decay", complex_decay{row, apart});
    shares("decay", complex_decay{apart, row});
    shares("update", weighted_update{number});
    shares("update", delta_rule{number});
    shares("update", householder{number, 1});
    shares("update", low_rank{row, apart});
    shares("update", low_rank{apart, row});
    shares("read", bonus{dense(memory.data(), {2, 6})});
    shares("features", gated_features{elu_plus_one{}, number});
    const auto directions = dense(memory.data(), {1, 6, 7});
    shares("features", positive_features{directions});
    shares("features", gated_features{fourier_features{directions}, numbers(one)});
    const std::vector<float> learned(6, 1.0f);
    const std::span<const float> shared(memory.data(), 6), own(learned);
    shares("features", rebased_features<float>{{own, own}, {own, shared}});
    state<float> s(2, 2, 6, 3);
    refuses<shape_error>(
        [&] {
            recurrence_scratch(q, k, v, heads(&s.values()(1, 1, 0, 0), {2, 4, 5, 3}), s);
        },
        "o overlaps the state in memory");
    refuses<shape_error>(
        [&] {
            recurrence_scratch(q, k, heads(&s.values()(0, 0, 0, 0), {2, 2, 5, 3}), out, s);
        },
        "the state overlaps q, k or v in memory");
    recurrence_scratch(q, k, v, o, value_decay{heads(memory.data() + 120, {2, 2, 5, 3})});
    refuses<shape_error>(
        [&] {
            recurrence(q, k, v, out, delta_rule{dense(&out(1, 1, 0, 0), {2, 2, 5})});
        },
        "recurrence: o overlaps the update in memory");
    EXPECT_TRUE(same_values(out, constant<float>({2, 4, 5, 3}, 7)));
}

}  // namespace
