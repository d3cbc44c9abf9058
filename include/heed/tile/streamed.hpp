// Products of a few rows with many that stream by from memory: lanes run along the width, each streamed row is read
// once for all of the few.
//
//   dots         s(r, k) = sum_d q(r, d) key_k(d)          q (R, D), keys in any row format (stored_rows.hpp)
//   accumulate   o(r, e) += sum_k p(r, k) value_k(e)
// Op says how many elements are taken at once, and in which order q and o hold them (streamed_operands.hpp).
// Cost: one multiply-add an element and row; bound by memory where R is small. A streamed row is named by its format,
// counted from that row, so rows may lie anywhere.
//
// A tile is four runs of rows, met side by side: row i of each, then row i + 1. Where the runs of one tile after the
// other go on in memory, the processor sees four streams read in order, and its own prefetchers run ahead of all four.
// Measured (four rows of q, float, loops alone, one core that reads 29 GB/s): one stream 16 to 20 GB/s, four of them
// 25; asked for by the program instead 17, out of order 10.
#pragma once

#include <cstdint>
#include <type_traits>

#include "streamed_operands.hpp"

namespace heed::inline HEED_ABI {

/// Rows that a pass takes at once: four runs of streamed_run. Run c is at streamed_run * c.
inline constexpr index_t streamed_run = 16, streamed_tile = 4 * streamed_run;

/// The rows of a tile, and of each run as many of those that follow as are asked for ahead of time.
template <class Row>
class named_rows {
public:
    /// From a row to the one of its run that is asked for when it is met.
    static constexpr index_t ahead = 4;

    Row& operator[](index_t k) { return row_[k / streamed_run][k % streamed_run]; }
    const Row& operator[](index_t k) const { return row_[k / streamed_run][k % streamed_run]; }
    /// The rows of `next` follow those of this tile; its own where none do.
    void follow(const named_rows& next) {
        for (int c = 0; c < 4; ++c) std::copy_n(next.row_[c], ahead, row_[c] + streamed_run);
    }

private:
    Row row_[4][streamed_run + ahead];
};

namespace detail {

/// Asks for the row that follows `ahead` later as a row is met, line by line: so what the processor foresees by itself
/// and what it is asked for run alike. A row's name leads to the one to ask for, since books would take registers of the
/// products, and time (in cache: 3.5 cycles a line, 4.4 with books, 3.2 without asking). Few rows ahead, so that all of
/// them have room in the first-level cache, into which they come. Measured, one core that reads 14 GB/s, against sixteen
/// rows ahead into the second level: rows here and there .88 of the time, pages .90, bf16 in one piece .94.
template <class Rows>
struct asking {
    bool wanted;

    /// Elements d and up, n of them, of the row that follows `row`.
    template <index_t n>
    HEED_INLINE void ask(const Rows* row, index_t d) const {
        if (!wanted || (n * Rows::bits < 512 && d * Rows::bits % 512 != 0)) return;
        const auto at = reinterpret_cast<std::uintptr_t>(row[named_rows<Rows>::ahead].address(0)) +
                        static_cast<std::uintptr_t>(d * Rows::bits / 8);
        unroll<std::max<int>(1, n * Rows::bits / 512)>([&](auto i) HEED_INLINE_LAMBDA {
            __builtin_prefetch(reinterpret_cast<const void*>(at + static_cast<std::uintptr_t>(i * 64)));
        });
    }
};

/// step(d, load) for every operand of a row of `width` elements; load(row): its elements from d on, zero beyond the
/// end. What is to come is asked for row by row.
template <class Op, class Rows, int K, class Step>
HEED_INLINE void each_operand(const Rows* const (&of)[K], const asking<Rows>& ahead, index_t width, const Step& step) {
    constexpr index_t L = Op::step;
    const auto ask = [&](auto n, index_t d) HEED_INLINE_LAMBDA {
        unroll<K>([&](auto k) HEED_INLINE_LAMBDA { ahead.template ask<n>(of[k], d); });
    };
    const auto whole = [&](index_t d) HEED_INLINE_LAMBDA {
        step(d, [d](const Rows& row) HEED_INLINE_LAMBDA { return Op::load(row, d); });
    };
    constexpr index_t line = std::max<index_t>(L, std::min<index_t>(2 * L, 512 / Rows::bits));  // asked for at once
    index_t d = 0;
    for (; d + 2 * L <= width; d += 2 * L)
        unroll<2>([&](auto i) HEED_INLINE_LAMBDA {
            if (i * L % line == 0) ask(std::integral_constant<index_t, line>{}, d + i * L);
            whole(d + i * L);
        });
    if (d < width) ask(std::integral_constant<index_t, L>{}, d);
    if (d + L <= width) whole(d), d += L;
    if (d < width) step(d, [d, width](const Rows& row) { return Op::load(row, d, width - d); });
}

/// R rows of q against K keys, R * K the lanes of a pack: lane r * K + k of the result is their product.
template <class Op, int R, int K, class Rows>
HEED_INLINE typename Op::pack dot_tile(const Rows* const (&key)[K], const asking<Rows>& ahead, index_t D,
                                       const typename Op::element* q, index_t q_stride) {
    typename Op::sum sums[R * K];
    unroll<R * K>([&](auto i) HEED_INLINE_LAMBDA { sums[i] = Op::zero(); });
    each_operand<Op>(key, ahead, D, [&](index_t d, const auto& load) HEED_INLINE_LAMBDA {
        typename Op::operand x[K];
        unroll<K>([&](auto k) HEED_INLINE_LAMBDA { x[k] = load(*key[k]); });
        unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
            const auto y = Op::load_aligned(q + r * q_stride + d);
            unroll<K>([&](auto k) HEED_INLINE_LAMBDA { sums[r * K + k] = Op::add(x[k], y, sums[r * K + k]); });
        });
    });
    typename Op::pack each[R * K];
    unroll<R * K>([&](auto i) HEED_INLINE_LAMBDA { each[i] = Op::numbers(sums[i]); });
    return lane_sums(each);
}

/// Keys a tile of R rows takes.
template <class P, int R>
inline constexpr int keys_beside = static_cast<int>(P::size) / R;

/// Where in a tile key c of step k stands, when K are met at once: one of each run, and so many rows of it.
template <int K>
constexpr index_t key_of_step(index_t k, int c) {
    constexpr int runs = K < 4 ? K : 4, deep = K / runs;
    const index_t row = k * deep + c % deep;  // of the first runs, then of the next ones
    return (row / streamed_run * runs + c / deep) * streamed_run + row % streamed_run;
}

/// R rows against the keys of step k.
template <class Op, int R, class Rows>
HEED_INLINE typename Op::pack dot_block(const named_rows<Rows>& keys, const asking<Rows>& ahead, index_t k, index_t D,
                                        const typename Op::element* q, index_t q_stride) {
    constexpr int K = keys_beside<typename Op::pack, R>;
    const Rows* at[K];
    unroll<K>([&](auto c) HEED_INLINE_LAMBDA { at[c] = in_address_register(&keys[key_of_step<K>(k, c)]); });
    return dot_tile<Op, R>(at, ahead, D, q, q_stride);
}

/// R rows of q against the first `longest` keys of every run of a tile.
template <class Op, int R, class Rows, class T>
HEED_INLINE void dot_rows(const named_rows<Rows>& keys, const asking<Rows>& ahead, index_t longest, index_t D,
                          const typename Op::element* q, index_t q_stride, T* s) {
    using P = typename Op::pack;
    constexpr int K = keys_beside<P, R>, L = static_cast<int>(P::size);
    if constexpr (K == 4 && L >= 8) {
        for (index_t k = 0; k < longest; k += L) {
            P x[L];
            for (index_t i = 0; i < L; ++i) x[i] = dot_block<Op, R>(keys, ahead, k + i, D, q, q_stride);
            transpose(x);  // lanes (r, c) of L steps become L steps of (r, c)
            unroll<R * K>([&](auto i) HEED_INLINE_LAMBDA {
                store_aligned(s + i / K * streamed_tile + i % K * streamed_run + k, x[i]);
            });
        }
    } else {
        constexpr index_t steps = streamed_tile / K, of_run = K < 4 ? streamed_run : steps;
        alignas(64) T each[P::size];
        for (index_t k = 0; k < steps; ++k) {
            if (k % of_run * (K < 4 ? 1 : K / 4) >= longest) continue;
            store_aligned(each, dot_block<Op, R>(keys, ahead, k, D, q, q_stride));
            for (int r = 0; r < R; ++r)
                for (int c = 0; c < K; ++c) s[r * streamed_tile + key_of_step<K>(k, c)] = each[r * K + c];
        }
    }
}

}  // namespace detail

/// s (rows, streamed_tile): the products of `rows` rows of q, zero-padded to whole operands and arranged as those of Op,
/// with the first `longest` keys of every run of a tile. All streamed_tile keys must be readable; the other products are
/// left undefined. `ask`: for the rows that follow, which then must be named.
template <class Op, class Rows, class T>
HEED_NOINLINE void dots(const named_rows<Rows>& keys, bool ask, index_t longest, index_t D,
                        const typename Op::element* q, index_t q_stride, index_t rows, T* s) {
    using P = typename Op::pack;
    constexpr int L = static_cast<int>(P::size);
    constexpr int R = L >= 16 ? 4 : L >= 4 ? 2 : 1;
    const index_t together = rows / R * R;
    detail::asking<Rows> asks{ask};
    for (index_t r = 0; r < rows;) {
        const auto* const from = q + r * q_stride;
        T* const to = s + r * streamed_tile;
        if (r < together) {
            detail::dot_rows<Op, R>(keys, asks, longest, D, from, q_stride, to);
            r += R;
        } else {
            detail::dot_rows<Op, 1>(keys, asks, longest, D, from, q_stride, to);
            ++r;
        }
        asks = {false};  // once is enough
    }
}

namespace detail {

/// o (R rows) += p (R, K) times K values. The K * R weights stay in registers, o goes through the first-level cache.
template <class Op, int R, int K, class Rows, class T>
HEED_INLINE void accumulate_values(const Rows* const (&value)[K], const asking<Rows>& ahead, index_t E,
                                   const typename Op::pack (&weight)[R * K], T* o, index_t o_stride) {
    each_operand<Op>(value, ahead, E, [&](index_t e, const auto& load) HEED_INLINE_LAMBDA {
        typename Op::operand x[K];
        unroll<K>([&](auto k) HEED_INLINE_LAMBDA { x[k] = load(*value[k]); });
        unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
            T* const at = o + r * o_stride + e;
            auto sum = Op::load_aligned(at);
            unroll<K>([&](auto k) HEED_INLINE_LAMBDA { sum = Op::add_scaled(x[k], weight[r * K + k], sum); });
            Op::store(at, sum);
        });
    });
}

/// The values of a tile that are met, in the order in which they are added: row i of each run, then row i + 1.
class met_values {
public:
    /// Bit k of present: value k of the tile is met.
    explicit constexpr met_values(std::uint64_t present) {
        for (index_t i = 0; i < streamed_run; ++i)
            for (index_t c = 0; c < 4; ++c)
                if (present >> (c * streamed_run + i) & 1)
                    at_[count_++] = static_cast<std::uint8_t>(c * streamed_run + i);
    }
    constexpr index_t count() const { return count_; }
    HEED_INLINE index_t operator[](index_t i) const { return at_[i]; }

private:
    std::uint8_t at_[streamed_tile] = {};
    index_t count_ = 0;
};
inline constexpr met_values all_met(~std::uint64_t(0));

/// accumulate_values for the K values from the i-th that is met on.
template <class Op, int R, int K, class Rows, class T>
HEED_INLINE void accumulate_block(const named_rows<Rows>& values, const asking<Rows>& ahead, const met_values& met,
                                  index_t i, index_t E, const T* p, T* o, index_t o_stride) {
    using P = typename Op::pack;
    const Rows* at[K];
    P weight[R * K];
    unroll<K>([&](auto c) HEED_INLINE_LAMBDA {
        at[c] = in_address_register(&values[met[i + c]]);
        unroll<R>([&](auto r) HEED_INLINE_LAMBDA { weight[r * K + c] = P(p[r * streamed_tile + met[i + c]]); });
    });
    accumulate_values<Op, R>(at, ahead, E, weight, o, o_stride);
}

/// Values that accumulate takes at once. Each is added after the one before, so that a row's bits do not depend on
/// which others are met.
template <class P>
inline constexpr int values_at_once = vector_registers<typename P::arch_type> / 8;

template <class Op, int R, class Rows, class T>
HEED_INLINE void accumulate_rows(const named_rows<Rows>& values, const asking<Rows>& ahead, const met_values& met,
                                 index_t E, const T* p, T* o, index_t o_stride) {
    constexpr int K = values_at_once<typename Op::pack>;
    index_t i = 0;
    for (; i + K <= met.count(); i += K) accumulate_block<Op, R, K>(values, ahead, met, i, E, p, o, o_stride);
    for (; i < met.count(); ++i) accumulate_block<Op, R, 1>(values, ahead, met, i, E, p, o, o_stride);
}

}  // namespace detail

/// o (rows, o_stride), whole operands and arranged as those of Op, += p (rows, streamed_tile) times the values of a tile
/// whose bit of `present` is set, of width E. `ask`: for the rows that follow, which then must be named.
template <class Op, class Rows, class T>
HEED_NOINLINE void accumulate(const named_rows<Rows>& values, bool ask, std::uint64_t present,
                              index_t E, const T* p, index_t rows, T* o, index_t o_stride) {
    const detail::met_values met = ~present ? detail::met_values(present) : detail::all_met;
    detail::asking<Rows> asks{ask};
    const auto add = [&](auto count, index_t r) HEED_INLINE_LAMBDA {
        detail::accumulate_rows<Op, count>(values, asks, met, E, p + r * streamed_tile, o + r * o_stride, o_stride);
        asks = {false};  // once is enough
    };
    index_t r = 0;
    for (; r + 4 <= rows; r += 4) add(std::integral_constant<int, 4>{}, r);
    for (; r < rows; ++r) add(std::integral_constant<int, 1>{}, r);
}

}  // namespace heed::inline HEED_ABI
