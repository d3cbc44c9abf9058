// The order in which a recurrence meets its tokens.
#pragma once

#include <span>

#include "roles.hpp"

namespace heed::inline HEED_ABI {

/// The batch of one sequence is many, one after the other: sequence i is tokens [offsets[i], offsets[i + 1]). The state
/// starts anew at each. offsets start at 0, do not decrease, and end at N.
struct packed {
    using role = roles::packed;
    std::span<const index_t> offsets;
    explicit packed(std::span<const index_t> starts_and_end) : offsets(starts_and_end) {}

    index_t sequences() const { return static_cast<index_t>(offsets.size()) - 1; }
    void check(const char* op, index_t B, index_t N) const {
        require_shape(B == 1, op, "packed sequences have batch 1, not ", B);
        require_argument(!offsets.empty() && offsets[0] == 0, op, "packed offsets do not start at 0");
        for (std::size_t i = 1; i < offsets.size(); ++i)
            require_argument(offsets[i] >= offsets[i - 1], op, "packed offsets decrease from ", offsets[i - 1], " to ",
                             offsets[i]);
        require_argument(offsets.back() == N, op, "packed offsets end at ", offsets.back(), ", there are ", N,
                         " tokens");
    }
};

/// From the last token of each sequence to its first.
struct reversed {
    using role = roles::order;
};

namespace detail {
/// From the first to the last.
struct forward {
    using role = roles::order;
};
/// Not packed: a sequence for each of the batch.
struct unpacked {
    using role = roles::packed;
};
}  // namespace detail

}  // namespace heed::inline HEED_ABI
