// Consecutive tokens of one head, as the kernels of a recurrence read them, and the state they advance.
//
// Rows are numbers of the accumulator's type in whole packs, padded with zeros; gates are already exponentiated. Kernels of
// whole blocks touch token_block rows, whatever count is. The state is (D, E) in memory, `stride` elements a row, rows padded
// with zeros to a multiple of state_row_block.
#pragma once

#include <cstdint>

#include "../core/range.hpp"
#include "../core/recurrence_kinds.hpp"
#include "../simd/around_caches.hpp"
#include "../simd/micro.hpp"

namespace heed::inline HEED_ABI {

/// Most tokens a kernel takes at once, and the multiple the rows of a state are padded to.
inline constexpr index_t token_block = 16;
inline constexpr index_t state_row_block = 8;

/// Rows of numbers, evenly apart: in scratch, or where the caller keeps them.
template <class T>
struct strided_rows {
    T* data = nullptr;
    index_t step = 0;  // from one to the next

    T* operator[](index_t i) const { return data + i * step; }
};

/// Rows that come after the present ones, asked for into the second-level cache a line at a time while kernels work: all at
/// once they would wait for the few lines a core may have under way, and the hardware's prefetcher stops at every page.
class lines_ahead {
public:
    /// What kernels ask for with each token and pack: five operands of a square state.
    static constexpr index_t asked = 5;

    /// `rows` rows of `bytes`, `step` bytes apart.
    void add(const void* first, index_t step, index_t rows, index_t bytes) {
        if (rows == 0 || bytes == 0 || count_ == most) return;
        if (step == bytes) {  // one after the other
            bytes *= rows;
            rows = 1;
        }
        const auto address = reinterpret_cast<std::uintptr_t>(first);
        stretch_[count_++] = {address, step, rows, ceil_div(static_cast<index_t>(address % 64) + bytes, 64), 0};
        ++left_;
    }
    /// Every line is to be asked for by the time kernels have asked for n.
    void within(index_t n) {
        index_t lines = 0;
        for (int i = 0; i < count_; ++i) lines += stretch_[i].rows * stretch_[i].lines;
        pace_ = ceil_div(lines, std::max<index_t>(n, 1));
    }
    /// Asks for n lines, or for more if that would be too slow: of each operand a few, in turn, as they will be met. (One
    /// operand after the other, a long sequence of linear attention took an eighth longer.)
    HEED_INLINE void ask(index_t n) {
        n *= pace_;
        while (n > 0 && left_ > 0) {
            stretch& s = stretch_[present_];
            if (s.rows > 0) {
                const index_t to = std::min(s.line + std::min(n, turn), s.lines);
                n -= to - s.line;
                for (; s.line < to; ++s.line)
                    __builtin_prefetch(reinterpret_cast<const void*>(s.row + static_cast<std::uintptr_t>(s.line * 64)), 0, 2);
                if (s.line == s.lines) {
                    s.line = 0;
                    s.row += static_cast<std::uintptr_t>(s.step);
                    if (--s.rows == 0) --left_;
                }
            }
            if (++present_ == count_) present_ = 0;
        }
    }

private:
    static constexpr int most = 8;
    static constexpr index_t turn = 4;  // lines
    struct stretch {
        std::uintptr_t row;
        index_t step, rows, lines, line;  // line: the next of the row
    };
    stretch stretch_[most];
    int count_ = 0, present_ = 0, left_ = 0;  // left_: stretches not asked for to their end
    index_t pace_ = 1;
};

template <class T>
struct token_rows {
    index_t count = 0;            // tokens, at most token_block
    index_t D = 0, row = 0;       // width of q and k rows, and the same in whole packs
    index_t reads = 1, steps = 1; // queries and updates of a token
    T scale = 1;                  // of outputs
    strided_rows<const T> q;      // (count) of the first query
    index_t q_read = 0;           // from a query of a token to its next
    strided_rows<const T> k, v;   // (count * steps)
    const T* decay = nullptr;     // multipliers: (count), (count, row), (count, E) or (count, 2, row): cos, sin
    index_t decay_row = 0;
    const T* beta = nullptr;      // (count * steps)
    const T* x = nullptr;         // low_rank: A plus x y^T, (count, row)
    const T* y = nullptr;
    const T* diagonal = nullptr;  // bonus: sum_d q u k, (reads, token_block)
    strided_rows<T> o;            // (count) of the first query
    index_t o_read = 0;
    bool around = false;          // outputs are stored around the caches
    T* near = nullptr;            // near_tokens, filled by a kernel
    lines_ahead* ahead = nullptr; // what comes next

    const T* query(index_t read, index_t t) const { return q[t] + read * q_read; }
    T* output(index_t read, index_t t) const { return o[t] + read * o_read; }
    /// Stores `packs` of the output of token t, from column c on.
    template <class P, int V>
    HEED_INLINE void put(index_t read, index_t t, index_t c, const P (&packs)[V]) const {
        T* const to = output(read, t) + c;
        if constexpr (V * sizeof(P) % 64 == 0)
            if (around) return unroll<V>([&](auto i) HEED_INLINE_LAMBDA { store_around(to + i * P::size, packs[i]); });
        unroll<V>([&](auto i) HEED_INLINE_LAMBDA { store(to + i * P::size, packs[i]); });
    }
};

/// J tokens in a row, from t on: what each meets of the state before them and of each other, and what they leave.
template <class T>
struct near_tokens {
    static constexpr index_t most = 8;                    // tokens
    static constexpr index_t size = most * (most + 4);    // numbers of each group
    static constexpr index_t all = token_block * size;    // of a block, whatever J is
    T *seen, *met, *given, *kept;  // (J, J) weights of values in outputs; (J) of the state in outputs; (J) of values in the
                                   // state after; of the state in the state after
    near_tokens(T* memory, index_t t, index_t J)
        : seen(memory + t / J * size), met(seen + most * most), given(met + J), kept(given + J) {}
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
