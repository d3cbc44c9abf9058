// A recurrence, run by the kernels with heed's policies, or by the definition.
#pragma once

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

template <class T>
void run_recurrence(recurrence_call<T>& c, engine by) {
    require(by == engine::reference, "no kernel runs recurrences");
    run_reference(c);
}

}  // namespace conformance
