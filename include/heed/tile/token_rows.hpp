// Consecutive tokens of one head, as the kernels of a recurrence read them, and the state they advance.
//
// Rows are numbers of the accumulator's type in scratch, zero-padded to whole packs, gates already exponentiated. The state
// is (D, E) in memory, `stride` elements a row, rows padded with zeros to a multiple of state_row_block.
#pragma once

#include "../core/range.hpp"
#include "../core/recurrence_kinds.hpp"
#include "../simd/micro.hpp"

namespace heed::inline HEED_ABI {

/// Most tokens a kernel takes at once, and the multiple the rows of a state are padded to.
inline constexpr index_t token_block = 16;
inline constexpr index_t state_row_block = 8;

template <class T>
struct token_rows {
    index_t count = 0;               // tokens, at most token_block
    index_t D = 0, row = 0;          // width of q and k rows, and from one to the next
    index_t column = 0;              // from one row of v and o to the next
    index_t reads = 1, steps = 1;    // queries and updates of a token
    const T* q = nullptr;            // (reads, token_block, row)
    const T* k = nullptr;            // (count * steps, row)
    const T* v = nullptr;            // (count * steps, column)
    const T* decay = nullptr;        // multipliers: (count), (count, row), (count, column) or (count, 2, row): cos, sin
    const T* beta = nullptr;         // (count * steps)
    const T* x = nullptr;            // low_rank: A plus x y^T, (count, row)
    const T* y = nullptr;
    const T* diagonal = nullptr;     // bonus: sum_d q u k, (reads, token_block)
    T* o = nullptr;                  // (reads, token_block, column)

    const T* query(index_t read, index_t t) const { return q + (read * token_block + t) * row; }
    T* output(index_t read, index_t t) const { return o + (read * token_block + t) * column; }
};

/// What a pass over tokens does: advances the state, reads it, or both.
enum class token_pass { both, write, read };

/// Calls f(std::integral_constant<int, V>{}, first) for stretches of V packs that cover `packs`, V <= Most a power of two.
template <int Most, class F>
HEED_INLINE void for_packs(index_t packs, F&& f) {
    index_t at = 0;
    for (; at + Most <= packs; at += Most) f(std::integral_constant<int, Most>{}, at);
    if constexpr (Most > 1)
        if (at < packs)
            for_packs<Most / 2>(packs - at, [&](auto v, index_t first) HEED_INLINE_LAMBDA { f(v, at + first); });
}

}  // namespace heed::inline HEED_ABI
