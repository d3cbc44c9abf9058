// What may be said of a scan beside its operands and sequence.hpp: what it starts with and leaves, and how it writes.
#pragma once

#include "../core/view.hpp"
#include "roles.hpp"
#include "sequence.hpp"

namespace heed::inline HEED_ABI {

/// The state of each sequence and channel: read as the initial one, and updated to the final one. (sequences, C), or
/// (sequences, C, states); with packed{} there are as many sequences as it says. A view
/// without data says nothing: states start at 0, and are forgotten.
template <class S>
struct carry {
    using role = roles::state;
    view<S, 3> s;
    explicit carry(const view<S, 3>& states) : s(states) {}
    explicit carry(const view<S, 2>& states)
        : s{states.data, {states.shape[0], states.shape[1], 1}, {states.strides[0], states.strides[1], 1}} {}
};

/// Adds to the output what else is written to it: forward and then adding{}, reversed{} is both ways.
struct adding {
    using role = roles::writing;
};

/// Outputs are silu of the sums.
struct silu_output {
    using role = roles::activation;
    bool wanted = true;
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
