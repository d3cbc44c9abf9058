// Where the queries stand on the key axis.
#pragma once

#include "roles.hpp"

namespace heed::inline HEED_ABI {

/// Query row r stands at key position r + n. The default is n = M - N (the last query stands at the last key); 0 gives
/// the top-left alignment of PyTorch's is_causal and of ONNX without a cache.
struct offset {
    using role = roles::offset;
    index_t n = 0;
    constexpr explicit offset(index_t rows) : n(rows) {}
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
