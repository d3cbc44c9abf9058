// A recurrence, run by the kernels with heed's policies, or by the definition.
#pragma once

#include <heed/engine/recurrence.hpp>
#include <heed/policy/score.hpp>
#include <heed/ref/recurrence.hpp>

#include "recurrence_call.hpp"

namespace conformance {

template <class T>
void run_reference(const recurrence_call<T>& c) {
    const index_t Hs = c.state_heads();
    const auto gate = [Hs](const operand<T>& x) { return ref::gate_of<double>(x.at, Hs); };
    ref::recurrence_options<double> with;
    with.scale = c.scale;
    if (!c.head_decay.empty())
        with.key_decay = [&c](index_t, index_t h, index_t, index_t) {
            return static_cast<double>(c.head_decay[static_cast<std::size_t>(h)]);
        };
    if (c.decay.at.data) with.key_decay = gate(c.decay);
    if (c.value_decay.at.data) with.value_decay = gate(c.value_decay);
    if (c.beta.at.data) with.beta = gate(c.beta);
    if (c.a.at.data) with.a = gate(c.a), with.b = gate(c.b);
    if (c.bonus.at.data)
        with.bonus = [&c](index_t h, index_t d) { return static_cast<double>(c.bonus.at(0, h, 0, d)); };
    ref::recurrence(c.q.at, c.k.at, c.v.at, c.o.at, with, c.state.at);
}

/// (b, h, n) of (b, h, n, 1).
template <class T>
view<T, 3> numbers(const view<T>& x) {
    return {x.data, {x.shape[0], x.shape[1], x.shape[2]}, {x.strides[0], x.strides[1], x.strides[2]}};
}

/// A copy of a gate, or logs of 1 in place of none, so that fewer recurrences are compiled.
template <class T>
operand<T> or_nothing(const operand<T>& gate, const recurrence_call<T>& c, index_t channels) {
    if (gate.at.data) return made_by<T>(gate.at.shape, [&](auto... i) { return gate.at(i...); });
    return made<T>({c.q.at.shape[0], 1, c.q.at.shape[2], channels});
}

/// A gate for each channel where it has one for all.
template <class T>
view<T> widened(view<T> gate, index_t channels) {
    if (gate.shape[3] == 1) gate.strides[3] = 0;
    gate.shape[3] = channels;
    return gate;
}

template <class T>
void run_heed(const recurrence_call<T>& c) {
    const index_t D = c.q.at.shape[3];
    const auto run = [&](const auto&... policies) {
        const auto [B, H, rows, columns] = c.state.at.shape;
        state<typename recurrence_call<T>::real> s(B, H, rows, columns);
        s.assign(c.state.at);
        recurrence(c.q.at, c.k.at, c.v.at, c.o.at, scale{c.scale}, policies..., s);
        const auto S = s.values();
        for (index_t b = 0; b < B; ++b)
            for (index_t h = 0; h < H; ++h)
                for (index_t d = 0; d < rows; ++d)
                    for (index_t e = 0; e < columns; ++e) c.state.at(b, h, d, e) = S(b, h, d, e);
    };
    const auto decay = c.decay.at;
    const bool by_channel = decay.data && decay.shape[3] > 1;
    if (c.a.at.data) {
        const auto gate = or_nothing(c.decay, c, D);
        return run(low_rank{c.a.at, c.b.at}, channel_decay{widened(gate.at, D)});
    }
    if constexpr (std::is_same_v<T, float>) {  // what ONNX has no rule for
        if (c.beta.at.data && c.beta.at.shape[2] != c.q.at.shape[2]) {
            const auto gate = or_nothing(c.decay, c, 1);
            return run(householder{numbers(c.beta.at), c.beta.at.shape[2] / c.q.at.shape[2]},
                       token_decay{numbers(gate.at)});
        }
        if (c.bonus.at.data) {
            const view<T, 2> u{c.bonus.at.data, {c.bonus.at.shape[1], D}, {c.bonus.at.strides[1], 1}};
            return run(bonus{u}, channel_decay{decay});
        }
        if (!c.head_decay.empty()) return run(head_decay{c.head_decay});
        if (c.value_decay.at.data) return run(value_decay{c.value_decay.at});
    }
    const auto updated = [&](const auto&... gate) {
        c.beta.at.data ? run(delta_rule{numbers(c.beta.at)}, gate...) : run(gate...);
    };
    if (by_channel)
        updated(channel_decay{decay});
    else if (decay.data)
        updated(token_decay{numbers(decay)});
    else
        updated();
}

template <class T>
void run_recurrence(recurrence_call<T>& c, engine by) {
    by == engine::heed ? run_heed(c) : run_reference(c);
}

}  // namespace conformance
