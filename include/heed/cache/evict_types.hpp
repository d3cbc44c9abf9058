// Eviction by token types (NAtS [75]): what a cache holds while it decodes under the mask lifetime{last}.
//
// A global token stays; a local one goes after the step of the next global token; a window token after `reach` more
// steps. Held: #global + #local since the last global + at most `reach` window tokens, and the newest token while it
// attends.
#pragma once

#include <span>

#include "../policy/mask_segment.hpp"
#include "evict_select.hpp"

namespace heed::inline HEED_ABI {

/// The rows of a head that queries from position `next` on still see: rows of these types, at these ascending
/// positions.
inline std::vector<index_t> keep_living(std::span<const token_type> types, std::span<const index_t> positions,
                                        index_t reach, index_t next) {
    static constexpr const char* op = "keep_living";
    require_shape(types.size() == positions.size(), op, "there are ", types.size(), " types and ", positions.size(),
                  " positions");
    require_argument(reach >= 0, op, "reach is ", reach, ", the least is 0");
    std::vector<index_t> kept;
    index_t end_of_locals = no_key;  // the nearest global token behind
    for (std::size_t j = types.size(); j-- > 0;) {
        const index_t end = types[j] == token_type::global  ? no_key
                            : types[j] == token_type::local ? end_of_locals
                                                            : positions[j] + reach;
        if (end >= next) kept.push_back(static_cast<index_t>(j));
        if (types[j] == token_type::global) end_of_locals = positions[j];
    }
    std::reverse(kept.begin(), kept.end());
    return kept;
}

}  // namespace heed::inline HEED_ABI
