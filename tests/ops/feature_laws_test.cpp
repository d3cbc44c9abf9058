// heed_test: LABELS threads
// Bits of operators with feature maps over the recurrence: no token feels its suffix, and any executor gives the same.
#include <heed/ops/based.hpp>
#include <heed/ops/infini_attention.hpp>
#include <heed/ops/performer.hpp>
#include <heed/ops/rfa.hpp>

#include "recurrent_laws.hpp"

using namespace test;

namespace {

const recurrence_sizes sizes{1, 2, 2, 2, 100, 9, 17, 1, 2};
constexpr index_t m = 11;

TEST(feature_laws, based) {
    operator_keeps_its_bits(sizes, [](const auto& x, auto& o, const auto&... on) { based(x.q, x.k, x.v, o, on...); });
}

TEST(feature_laws, performer) {
    const auto drawn = orthogonal_directions(1, sizes.D, m, 5);
    operator_keeps_its_bits(sizes, [&](const auto& x, auto& o, const auto&... on) {
        performer(x.q, x.k, x.v, o, dense(drawn.data(), {1, sizes.D, m}), on...);
    });
}

TEST(feature_laws, gated_rfa) {
    const auto drawn = normal_directions(1, sizes.D, m, 5);
    operator_keeps_its_bits(sizes, [&](const auto& x, auto& o, const auto&... on) {
        gated_rfa(x.q, x.k, x.v, o, dense(drawn.data(), {1, sizes.D, m}), numbers(x.token), on...);
    });
}

TEST(feature_laws, infini_attention) {
    const std::vector<float> gate{0.3f, -1};
    for (auto by : {infini_update::linear, infini_update::delta})
        operator_keeps_its_bits(sizes, [&](const auto& x, auto& o, const auto&... on) {
            infini_memory<float> memory(1, 2, sizes.D, sizes.E);
            infini_attention(memory, x.q, x.k, x.v, o, 16, gate, by, on...);
        });
}

}  // namespace
