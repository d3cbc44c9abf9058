// How much of a padded batch of alignments counts.
#pragma once

#include "../core/view.hpp"
#include "../engine/scan_operands.hpp"

namespace heed::inline HEED_ABI {

/// How many frames, and how many states or labels, of each sequence count: (B) each. Without it all do.
struct alignment_lengths {
    using role = roles::lengths;
    view<const index_t, 1> frames, units;
    alignment_lengths(const view<const index_t, 1>& of_frames, const view<const index_t, 1>& of_units)
        : frames(of_frames), units(of_units) {}
};

namespace detail {

/// length(b) -> {frames, units} of a sequence, at most `frames` and `units`, which errors call `unit`. Checked.
template <class... P>
auto lengths_of(const char* op, index_t B, index_t frames, index_t units, const char* unit, const P&... policies) {
    static_assert((has_one_of<P, roles::lengths, roles::context> && ...),
                  "heed: an argument is not a policy of this operator");
    const auto given = pick<roles::lengths>(absent<roles::lengths>{}, policies...);
    const auto length = [&] {
        if constexpr (requires { given.frames; })
            return [given](index_t b) { return std::array<index_t, 2>{given.frames(b), given.units(b)}; };
        else
            return [frames, units](index_t) { return std::array<index_t, 2>{frames, units}; };
    }();
    if constexpr (requires { given.frames; })
        require_shape(given.frames.shape[0] == B && given.units.shape[0] == B, op, "there are lengths of ",
                      given.frames.shape[0], " and ", given.units.shape[0], " sequences, the batch has ", B);
    for (index_t b = 0; b < B; ++b) {
        const auto [t, n] = length(b);
        require_argument(t >= 0 && t <= frames, op, "sequence ", b, " has ", t, " frames of ", frames);
        require_argument(n >= 0 && n <= units, op, "sequence ", b, " has ", n, " ", unit, " of ", units);
    }
    return length;
}

}  // namespace detail
}  // namespace heed::inline HEED_ABI
