// heed_test: LABELS threads
// Bits of gated operators over the recurrence: no token feels its suffix, and any executor gives the same.
#include <heed/ops/gateloop.hpp>
#include <heed/ops/gla.hpp>
#include <heed/ops/gsa.hpp>
#include <heed/ops/mamba2.hpp>

#include "recurrent_laws.hpp"

using namespace test;

namespace {

const recurrence_sizes sizes{1, 2, 2, 2, 100, 9, 17, 1, 2};

TEST(gated_laws, hgrn2) {
    operator_keeps_its_bits(sizes,
                            [](const auto& x, auto& o, const auto&... on) { hgrn2(x.q, x.v, o, x.channel, on...); });
}

TEST(gated_laws, gateloop) {
    operator_keeps_its_bits(sizes, [](const auto& x, auto& o, const auto&... on) {
        gateloop(x.q, x.k, x.v, o, x.channel, x.angle, on...);
    });
}

TEST(gated_laws, mamba2) {
    const std::vector<float> A{-0.5f, -0.02f}, D{1, -0.5f};
    operator_keeps_its_bits(sizes, [&](const auto& x, auto& o, const auto&... on) {
        const mamba2_options<float> with{{}, dense(D.data(), {2}), true};
        mamba2(x.v, numbers(x.beta), dense(A.data(), {2}), x.k, x.q, o, with, on...);
    });
}

TEST(gated_laws, gated_slots) {
    operator_keeps_its_bits(sizes, [](const auto& x, auto& o, const auto&... on) {
        gated_slot_attention(x.q, x.k, x.v, o, x.b.v(), x.channel.v(), on...);
    });
}

}  // namespace
