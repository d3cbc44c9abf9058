// Consecutive tokens of one head, as the kernels of a recurrence read them, and the state they advance.
//
// Rows are numbers of the accumulator's type in whole packs, padded with zeros; gates are already exponentiated.
// Kernels of whole blocks touch token_block rows, whatever count is. The state is (D, E) in memory, `stride` elements a
// row, rows padded with zeros to a multiple of state_row_block.
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

/// Rows that come after the present ones, asked for into the second-level cache while kernels work: all at once they
/// would wait for the few lines a core may have under way, and the hardware's prefetcher stops at every page.
///
/// Kernels ask every few rows of the state, and what is more than a few instructions they wait for. So rows are cut
/// into stretches of as many pairs of lines, evenly apart, and an ask is the next pair of the next few stretches. Where
/// a stretch is shorter than others, the lines after it are asked for, which are met soon after.
class lines_ahead {
public:
    /// Asks while a block of tokens meets a pack of columns.
    static constexpr index_t asks = 8;

    /// `rows` rows of `bytes`, `step` bytes apart.
    void add(const void* first, index_t step, index_t rows, index_t bytes) {
        if (rows == 0 || bytes == 0 || operands_ == most_operands) return;
        const auto address = reinterpret_cast<std::uintptr_t>(first);
        const auto lines = [&](index_t n) { return ceil_div(static_cast<index_t>(address % line) + n, line); };
        if (rows == 1 || step == bytes)  // one after the other
            operand_[operands_++] = {address, line, 2 * line, 0, 1, ceil_div(lines(rows * bytes), 2)};
        else if (lines(bytes) == 1)
            operand_[operands_++] = {address, step, 2 * step, 0, 1, ceil_div(rows, 2)};
        else
            operand_[operands_++] = {address, line, step, 2 * line, ceil_div(lines(bytes), 2), rows};
    }
    /// Every line is to be asked for by so many asks.
    void within(index_t calls) {
        index_t length = std::max<index_t>(calls, 1);
        for (int i = 0; i < operands_; ++i)
            if (operand_[i].columns > 1) length = std::min(length, operand_[i].length);
        for (int i = 0; i < operands_; ++i) {
            const pairs& x = operand_[i];
            for (index_t c = 0; c < x.columns; ++c)
                for (index_t at = 0; at < x.length && count_ < most; at += length)
                    stretch_[count_++] = {x.first + bytes(c * x.column + at * x.step), bytes(x.line), bytes(x.step)};
        }
        turn_ = std::min<index_t>(ceil_div(count_ * length, std::max<index_t>(calls, 1)), count_);
        while (turn_ > 0 && count_ % turn_ != 0) stretch_[count_++] = {stretch_[0].at, 0, 0};
        next_ = stretch_;
    }
    HEED_INLINE void ask(int times = 1) {
        for (; times > 0; --times) {
            stretch* const end = next_ + turn_;
            for (stretch* s = next_; s != end; ++s) {
                __builtin_prefetch(reinterpret_cast<const void*>(s->at), 0, 2);
                __builtin_prefetch(reinterpret_cast<const void*>(s->at + s->line), 0, 2);
                s->at += s->step;
            }
            next_ = end == stretch_ + count_ ? stretch_ : end;
        }
    }

private:
    static constexpr index_t line = 64;
    static constexpr int most_operands = 8, most = 64;
    /// Columns of pairs of lines, `step` bytes from a pair to the next of its column.
    struct pairs {
        std::uintptr_t first;
        index_t line, step, column, columns, length;
    };
    struct stretch {
        std::uintptr_t at, line, step;
    };
    static std::uintptr_t bytes(index_t n) { return static_cast<std::uintptr_t>(n); }

    pairs operand_[most_operands];
    stretch stretch_[2 * most];
    stretch* next_ = nullptr;
    int operands_ = 0;
    index_t count_ = 0, turn_ = 0;  // stretches in all; of an ask
};

template <class T>
struct token_rows {
    index_t count = 0;             // tokens, at most token_block
    index_t D = 0, row = 0;        // width of q and k rows, and the same in whole packs
    index_t reads = 1, steps = 1;  // queries and updates of a token
    T scale = 1;                   // of outputs
    strided_rows<const T> q;       // (count) of the first query
    index_t q_read = 0;            // from a query of a token to its next
    strided_rows<const T> k, v;    // (count * steps)
    const T* decay = nullptr;      // multipliers: (count), (count, row), (count, E) or (count, 2, row): cos, sin
    index_t decay_row = 0;
    const T* beta = nullptr;  // (count * steps)
    const T* x = nullptr;     // low_rank: A plus x y^T, (count, row)
    const T* y = nullptr;
    const T* diagonal = nullptr;  // bonus: sum_d q u k, (reads, token_block)
    strided_rows<T> o;            // (count) of the first query
    index_t o_read = 0;
    bool around = false;           // outputs are stored around the caches
    T* near = nullptr;             // near_tokens, filled by a kernel
    lines_ahead* ahead = nullptr;  // what comes next

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
    static constexpr index_t most = 8;                  // tokens
    static constexpr index_t size = most * (most + 4);  // numbers of each group
    static constexpr index_t all = token_block * size;  // of a block, whatever J is
    T *seen, *met, *given, *kept;  // (J, J) weights of values in outputs; (J) of the state in outputs; (J) of values in
                                   // the state after; of the state in the state after
    near_tokens(T* memory, index_t t, index_t J)
        : seen(memory + t / J * size), met(seen + most * most), given(met + J), kept(given + J) {}
};

/// What a pass over tokens does: advances the state, reads it, or both.
enum class token_pass { both, write, read };

/// Calls f(std::integral_constant<int, V>{}, first) for stretches of V packs that cover `packs`, V <= Most a power of
/// two.
template <int Most, class F>
HEED_INLINE void for_packs(index_t packs, F&& f) {
    index_t at = 0;
    for (; at + Most <= packs; at += Most) f(std::integral_constant<int, Most>{}, at);
    if constexpr (Most > 1)
        if (at < packs)
            for_packs<Most / 2>(packs - at, [&](auto v, index_t first) HEED_INLINE_LAMBDA { f(v, at + first); });
}

}  // namespace heed::inline HEED_ABI
