// Where the queries stand on the key axis.
#pragma once

#include <span>

#include "roles.hpp"

namespace heed::inline HEED_ABI {

/// Query row r stands at key position r + n. The default is n = M - N (the last query stands at the last key); 0 gives
/// the top-left alignment of PyTorch's is_causal and of ONNX without a cache.
struct offset {
    using role = roles::offset;
    index_t n = 0;
    constexpr explicit offset(index_t rows) : n(rows) {}
};

/// The same where sequences differ: row r of sequence b stands at r + numbers[b]. In a padded batch, with
/// `lengths{counts}` and numbers[b] = counts[b] - N, the last query of each stands at its last key before the padding.
struct sequence_offsets {
    using role = roles::offset;
    std::span<const index_t> numbers;
    constexpr explicit sequence_offsets(std::span<const index_t> of_sequences) : numbers(of_sequences) {}
    void reads(const view_visitor& see) const { see(numbers, "sequence_offsets"); }
    void check(const char* op, const extents_of_scores& s) const {
        require_shape(static_cast<index_t>(numbers.size()) == s.B, op, "sequence_offsets holds ", numbers.size(),
                      " numbers, q has batch ", s.B);
    }
};

namespace detail {
struct last_query_at_last_key {
    using role = roles::offset;
};
struct inverse_root_of_width {
    using role = roles::scale;
};
}  // namespace detail

}  // namespace heed::inline HEED_ABI
