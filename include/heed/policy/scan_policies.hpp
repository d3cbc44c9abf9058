// What may be said of a scan beside its operands: what it starts with and leaves, how it is cut, how it writes.
#pragma once

#include "../core/view.hpp"
#include "order.hpp"

namespace heed::inline HEED_ABI {

/// The state of each sequence and channel: read as the initial one, and updated to the final one. (sequences, C), or
/// (sequences, C, states); with packed{} there are as many sequences as it says.
template <class S>
struct carry {
    using role = roles::state;
    view<S, 3> s;
    explicit carry(const view<S, 3>& states) : s(states) {}
    explicit carry(const view<S, 2>& states)
        : s{states.data, {states.shape[0], states.shape[1], 1}, {states.strides[0], states.strides[1], 1}} {}
};

/// The sequence in segments of so many tokens, which run at once: a pass for the product of each, one for the states
/// between, one for the outputs. For one long sequence of few channels; twice the work of the usual form.
struct chunked {
    using role = roles::form;
    index_t tokens;
    constexpr explicit chunked(index_t in_a_segment) : tokens(in_a_segment) {}
    void check(const char* op) const {
        require_argument(tokens >= 1, op, "segments have ", tokens, " tokens, the least is 1");
    }
};
/// One token after the other: the usual form.
struct recurrent {
    using role = roles::form;
    void check(const char*) const {}
};

/// Adds to the output what else is written to it: forward and then adding{}, reversed{} is both ways.
struct adding {
    using role = roles::writing;
};

namespace detail {
struct no_carry {
    using role = roles::state;
};
struct writing_over {
    using role = roles::writing;
};
}  // namespace detail

}  // namespace heed::inline HEED_ABI
