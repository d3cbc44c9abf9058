// The kinds of recurrence the state's kernels know; policies name theirs, kernels are compiled for them.
//   S_t = A_t S_{t-1} + k_t w_t^T   (D, E)
#pragma once

#include "config.hpp"

namespace heed::inline HEED_ABI {

/// A_t without what the update adds: the identity, a number, a number per row (key channel), a number per column (value
/// channel), or a rotation and a number per row of a complex state; paired: of complex queries and keys.
enum class decay_kind { none, scalar, rows, columns, complex, paired };

constexpr bool is_complex(decay_kind kind) { return kind == decay_kind::complex || kind == decay_kind::paired; }

/// w = v; w = beta (v - (A S)^T k); A plus a b^T; several delta steps for a token.
enum class update_kind { additive, delta, low_rank, householder };

/// o = q^T S_t; o = q^T S_{t-1}; o = q^T (S_{t-1} + diag(u) k v^T).
enum class read_kind { after, before, bonus };

}  // namespace heed::inline HEED_ABI
