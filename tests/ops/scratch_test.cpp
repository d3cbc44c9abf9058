// Operators made of several calls: they tell how much scratch they need, that much is enough, whatever it holds, and
// with it they allocate nothing.
#include <heed/core/threads.hpp>
#include <heed/ops/gsa.hpp>
#include <heed/ops/hybrid_attention.hpp>
#include <heed/ops/infini_attention.hpp>
#include <heed/ops/log_linear_attention.hpp>
#include <heed/ops/mlstm.hpp>

#include "keeps_to_scratch.hpp"
#include "recurs.hpp"

namespace {

using namespace heed;
using namespace test;

constexpr index_t B = 2, H = 2, N = 37, D = 9, E = 19;

struct data : recurrence_data<float> {
    tensor<float> scales = uniform<float>({B, H, N, 7}, 30, 0, 1);
    data() : recurrence_data<float>({B, H, H, H, N, D, E, 1, 2}) {}
};

/// run(start(), o, context) is a call of the operator from start().
template <class Start, class Run>
void keeps_to_scratch(const char* name, const Start& start, const Run& run) {
    test::keeps_to_scratch(name, {B, H, N, E}, start, run);
}

struct nothing {};

TEST(scratch, is_all_that_an_mlstm_needs) {
    const data x;
    const auto log_i = numbers(x.beta), log_f = numbers(x.token);
    keeps_to_scratch(
        "from a state", [] { return mlstm_state<float>(B, H, D, E); },
        [&](auto& s, auto& o, const auto& context) { mlstm(s, x.q, x.k, x.v, o, log_i, log_f, context); });
    keeps_to_scratch(
        "from nothing", [] { return nothing{}; },
        [&](auto&, auto& o, const auto& context) { mlstm(x.q, x.k, x.v, o, log_i, log_f, chunked{16}, context); });
}

TEST(scratch, is_all_that_gated_slots_need) {
    const data x;
    const auto s = x.k.v(), g = x.channel.v();
    keeps_to_scratch(
        "from slots", [] { return slot_state<float>(B, H, D, D, E); },
        [&](auto& slots, auto& o, const auto& context) {
            gated_slot_attention(slots, x.q, x.k, x.v, o, s, g, context);
        });
    keeps_to_scratch(
        "from nothing", [] { return nothing{}; },
        [&](auto&, auto& o, const auto& context) {
            gated_slot_attention(x.q, x.k, x.v, o, s, g, scale{0.5}, context);
        });
}

TEST(scratch, is_all_that_infini_attention_needs) {
    const data x;
    const std::vector<float> gate{0.4f, -1.2f};
    for (const auto by : {infini_update::linear, infini_update::delta})
        keeps_to_scratch(
            by == infini_update::delta ? "delta" : "linear", [] { return infini_memory<float>(B, H, D, E); },
            [&](auto& memory, auto& o, const auto& context) {
                infini_attention(memory, x.q, x.k, x.v, o, 8, gate, by, context);
            });
}

TEST(scratch, is_all_that_hybrid_attention_needs) {
    const data x;
    const std::vector<index_t> exact{0, 3, 20};
    keeps_to_scratch(
        "hybrid", [] { return nothing{}; },
        [&](auto&, auto& o, const auto& context) {
            hybrid_attention(x.q, x.k, x.v, o, std::span<const index_t>(exact), elu_plus_one{}, 1e-6, context);
        });
}

TEST(scratch, is_all_that_log_linear_attention_needs) {
    const data x;
    const auto reserved = [] {
        log_linear_state<float> s(B, H, D, E);
        s.reserve(N);
        return s;
    };
    keeps_to_scratch("from a state", reserved, [&](auto& s, auto& o, const auto& context) {
        log_linear_attention(s, x.q, x.k, x.v, x.scales, o, x.token_gate(), chunked{16}, context);
    });
    keeps_to_scratch(
        "from nothing", [] { return nothing{}; },
        [&](auto&, auto& o, const auto& context) {
            log_linear_attention(x.q, x.k, x.v, x.scales, o, x.token_gate(), x.delta_update(), context);
        });
}

}  // namespace
