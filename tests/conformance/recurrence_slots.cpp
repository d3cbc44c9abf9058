// flash-linear-attention's gsa and abc, by name or by their definition.
#include <heed/ops/gsa.hpp>
#include <heed/ref/slot_attention.hpp>

#include "fla_inputs.hpp"

namespace conformance {
namespace {

using filled = recurrence_call<float>;

/// The operator, from the states of its two recurrences and back to them.
void run_slots(filled& keys, filled& values, const operand<float>& s, const operand<float>& g) {
    const auto [B, H, D, M] = keys.state.at.shape;
    slot_state<float> carried(B, H, D, M, values.v.at.shape[3]);
    carried.keys.assign(keys.state.at), carried.values.assign(values.state.at);
    gated_slot_attention(carried, keys.q.at, keys.k.at, values.v.at, values.o.at, s.at, g.at, scale{keys.scale});
    const auto taken = [](const view<float>& x) { return made_by<float>(x.shape, [x](auto... i) { return x(i...); }); };
    keys.state = taken(carried.keys.values()), values.state = taken(carried.values.values());
}

}  // namespace

double replay_slots(golden_case& g, engine by) {
    fla_inputs in(g);
    filled keys, values;
    in.qkv(keys);
    values.v = std::move(keys.v);
    auto s = in({"s"}), decay = in.maybe({"g"});
    if (!decay.at.data) {
        auto weights = made<float>(s.at.shape);
        decay = made<float>(s.at.shape);
        ref::abc_gates(s.at, weights.at, decay.at);
        s = std::move(weights);
    }
    const auto [B, Hq, N, D] = keys.q.at.shape;
    const index_t H = keys.k.at.shape[1], M = s.at.shape[3], E = values.v.at.shape[3];
    keys.state = in.state({"hk0", "h0_k"});
    values.state = in.state({"hv0", "h0_v"});
    if (!keys.state.at.data) keys.state = made<float>({B, H, D, M});
    if (!values.state.at.data) values.state = made<float>({B, H, M, E});
    values.o = made<float>({B, Hq, N, E}, in.tokens_first());
    if (by == engine::reference) {
        ref::gated_slot_attention<double>(keys.q.at, keys.k.at, values.v.at, s.at, decay.at, values.o.at, keys.scale,
                                          keys.state.at, values.state.at);
    } else {
        run_slots(keys, values, s, decay);
    }
    return std::max({in.compare({"o"}, values.o), in.compare({"hkt", "ht_k"}, keys.state, true),
                     in.compare({"hvt", "ht_v"}, values.state, true)});
}

}  // namespace conformance
