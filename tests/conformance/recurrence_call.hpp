// A recurrence with a matrix state, read from its case: operands as views, the rules of the op resolved.
#pragma once

#include "operand.hpp"

namespace conformance {

/// What is not there has no data. Gates are logs. Axes of gates are (b, h, n, channel), with one channel for all.
template <class T>
struct recurrence_call {
    using real = accumulator<T>;

    operand<T> q, k, v, o;
    std::vector<T> head_decay;      // (h)
    operand<T> decay, value_decay;  // of a token: of all its channels or of each
    operand<T> beta;                // the delta rule; one for each row of k
    operand<T> a, b;                // adds a b^T to the transition
    operand<T> bonus;               // (1, h, 1, d): reads before the update, with this bonus
    operand<real> state;            // (b, h, D, E), initial and final
    double scale = 1;

    index_t state_heads() const { return std::max(k.at.shape[1], v.at.shape[1]); }
    /// Makes the output and, where the case has none, an initial state of zeros; a state a sequence.
    void finish(bool tokens_first, index_t sequences) {
        const index_t B = q.at.shape[0], N = q.at.shape[2], D = q.at.shape[3], E = v.at.shape[3];
        o = made<T>({B, std::max(q.at.shape[1], state_heads()), N, E}, tokens_first);
        if (!state.at.data) state = made<real>({sequences, state_heads(), D, E});
        require(state.at.shape == extents<4>{sequences, state_heads(), D, E}, "the initial state has another shape");
    }
    void finish(bool tokens_first) { finish(tokens_first, q.at.shape[0]); }
};

/// Runs the call; one file a type, so that they compile side by side.
template <class T>
void run_recurrence(recurrence_call<T>& c, engine by);
extern template void run_recurrence(recurrence_call<float>&, engine);
extern template void run_recurrence(recurrence_call<double>&, engine);
extern template void run_recurrence(recurrence_call<f16>&, engine);
extern template void run_recurrence(recurrence_call<bf16>&, engine);

}  // namespace conformance
