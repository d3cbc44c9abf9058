// flash-linear-attention's gsa and abc: two recurrences around a softmax over slots, by kernels or by their definition.
#include <heed/ref/slot_attention.hpp>

#include "fla_inputs.hpp"

namespace conformance {
namespace {

using filled = recurrence_call<float>;

/// q, k, s -> one number a slot; softmax; slots, s, v -> o.
void run_slots(filled& keys, filled& values, const operand<float>& s, const operand<float>& g, bool tokens_first) {
    const auto copy = [](const operand<float>& x) {
        return made_by<float>(x.at.shape, [&](auto... i) { return x.at(i...); });
    };
    keys.v = copy(s), keys.value_decay = copy(g);
    keys.finish(false);
    run_recurrence(keys, engine::heed);
    const auto [B, Hq, N, M] = keys.o.at.shape;
    for (index_t row = 0; row < B * Hq * N; ++row) {
        const auto first = keys.o.data.begin() + row * M;
        const auto p = ref::softmax(std::vector<double>(first, first + M));
        for (index_t m = 0; m < M; ++m) first[m] = static_cast<float>(p[static_cast<std::size_t>(m)]);
    }
    values.q = std::move(keys.o), values.k = copy(s), values.decay = copy(g);
    values.finish(tokens_first);
    run_recurrence(values, engine::heed);
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
    if (by == engine::reference) {
        values.o = made<float>({B, Hq, N, E}, in.tokens_first());
        ref::gated_slot_attention<double>(keys.q.at, keys.k.at, values.v.at, s.at, decay.at, values.o.at, keys.scale,
                                          keys.state.at, values.state.at);
    } else {
        run_slots(keys, values, s, decay, in.tokens_first());
    }
    double worst = in.compare("o", values.o);
    for (const char* name : {"hkt", "ht_k"}) worst = std::max(worst, in.compare(name, keys.state, true));
    for (const char* name : {"hvt", "ht_v"}) worst = std::max(worst, in.compare(name, values.state, true));
    return worst;
}

}  // namespace conformance
