// Products of a few rows with many that stream by from memory: lanes run along the width, each streamed row is read once
// for all of the few.
//
//   dots         s(r, k) = sum_d q(r, d) key_k(d)          q (R, D), keys in any row format (stored_rows.hpp)
//   accumulate   o(r, e) += sum_k p(r, k) value_k(e)
// Cost: one multiply-add an element and row; bound by memory where R is small. A streamed row is named by its format,
// counted from that row, so rows may lie anywhere.
#pragma once

#include "../simd/rows.hpp"
#include "../simd/stored_rows.hpp"

namespace heed::inline HEED_ABI {

/// Streamed rows that a pass takes at once, and the row length of s and p.
inline constexpr index_t streamed_tile = 64;

namespace detail {

/// Cache lines that `elements` elements of a row take, at least one.
template <class Rows>
inline constexpr int lines_of(index_t elements) {
    return static_cast<int>(std::max<index_t>(1, elements * Rows::bits / 512));
}

/// Asks for Count neighbouring lines. Into the second-level cache: with the first level's few outstanding lines memory's
/// latency would bind (measured: half the speed).
template <int Count>
HEED_INLINE void ask_for(const void* row, index_t byte) {
    const char* at = static_cast<const char*>(row) + byte;
    unroll<Count>([&](auto i) HEED_INLINE_LAMBDA { __builtin_prefetch(at + i * 64, 0, 1); });
}

/// R rows of q against K keys, R * K the lanes of a pack: lane r * K + k of the result is their product. The rows `ahead`
/// are asked for on the way.
template <class P, int R, int K, class Rows, class T>
HEED_INLINE P dot_tile(const Rows* const (&key)[K], const Rows* const (&ahead)[K], index_t D, const T* q,
                       index_t q_stride) {
    constexpr auto L = static_cast<index_t>(P::size);
    P acc[R * K];
    unroll<R * K>([&](auto i) HEED_INLINE_LAMBDA { acc[i] = P(T(0)); });
    const auto step = [&](index_t d, const auto& load) HEED_INLINE_LAMBDA {
        P x[K];
        unroll<K>([&](auto k) HEED_INLINE_LAMBDA {
            x[k] = load(*key[k]);
            pin(x[k]);
            ask_for<1>(ahead[k]->address(0), d * Rows::bits / 8);
        });
        unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
            P y = load_aligned<P>(q + r * q_stride + d);
            pin(y);
            unroll<K>([&](auto k) HEED_INLINE_LAMBDA { acc[r * K + k] = fma(x[k], y, acc[r * K + k]); });
        });
    };
    index_t d = 0;
    for (; d + L <= D; d += L) step(d, [&](const Rows& row) HEED_INLINE_LAMBDA { return row.template load<P>(0, d); });
    if (d < D) step(d, [&](const Rows& row) { return row.template load<P>(0, d, D - d); });
    return lane_sums(acc);
}

/// Keys a tile of R rows takes.
template <class P, int R>
inline constexpr int keys_beside = static_cast<int>(P::size) / R;

/// R rows against the keys k, k + apart, ..., those beyond count being repeats whose products mean nothing. Keys far apart
/// in a tile stand on different pages, whose translations then are waited for together.
template <class P, int R, class Rows, class T>
HEED_INLINE void dot_block(const Rows* keys, const Rows* ahead, index_t k, index_t count, index_t D, const T* q,
                           index_t q_stride, T* s) {
    constexpr int K = keys_beside<P, R>;
    constexpr index_t apart = streamed_tile / K;
    const Rows *at[K], *later[K];
    for (int c = 0; c < K; ++c) {
        at[c] = keys + std::min(k + c * apart, count - 1);
        later[c] = ahead + k + c * apart;
    }
    alignas(64) T products[P::size];
    store_aligned(products, dot_tile<P, R>(at, later, D, q, q_stride));
    for (int r = 0; r < R; ++r)
        for (int c = 0; c < K; ++c) s[r * streamed_tile + k + c * apart] = products[r * K + c];
}

}  // namespace detail

/// s (rows, streamed_tile): the products of `rows` rows of q, zero-padded to whole packs, with `count` keys. Columns from
/// count on are left undefined. `ahead`: streamed_tile rows that come next.
template <class A, class Rows, class T>
HEED_NOINLINE void dots(const Rows* keys, const Rows* ahead, index_t count, index_t D, const T* q, index_t q_stride, index_t rows, T* s) {
    using P = pack<T, A>;
    constexpr int L = lanes<T, A>;
    constexpr int R = L >= 16 ? 4 : L >= 4 ? 2 : 1;
    constexpr index_t steps = streamed_tile / detail::keys_beside<P, R>, single_steps = streamed_tile / L;
    const index_t together = rows / R * R;
    for (index_t k = 0; k < std::min(count, steps) && together > 0; ++k)
        for (index_t r = 0; r < together; r += R)
            detail::dot_block<P, R>(keys, ahead, k, count, D, q + r * q_stride, q_stride, s + r * streamed_tile);
    for (index_t r = together; r < rows; ++r)
        for (index_t k = 0; k < std::min(count, single_steps); ++k)
            detail::dot_block<P, 1>(keys, ahead, k, count, D, q + r * q_stride, q_stride, s + r * streamed_tile);
}

namespace detail {

/// R rows of o, C packs from column e on. ask(k) is called at key k.
template <class P, int R, int C, class T, class Load, class Ask>
HEED_INLINE void accumulate_tile(index_t count, const T* p, T* o, index_t o_stride, const Load& load, const Ask& ask) {
    constexpr auto L = static_cast<index_t>(P::size);
    P acc[R][C];
    unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
        unroll<C>([&](auto c) HEED_INLINE_LAMBDA { acc[r][c] = load_aligned<P>(o + r * o_stride + c * L); });
    });
    for (index_t k = 0; k < count; ++k) {
        P x[C];
        ask(k);
        unroll<C>([&](auto c) HEED_INLINE_LAMBDA {
            x[c] = load(k, c);
            pin(x[c]);
        });
        unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
            const P weight(p[r * streamed_tile + k]);
            unroll<C>([&](auto c) HEED_INLINE_LAMBDA { acc[r][c] = fma(x[c], weight, acc[r][c]); });
        });
    }
    unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
        unroll<C>([&](auto c) HEED_INLINE_LAMBDA { store_aligned(o + r * o_stride + c * L, acc[r][c]); });
    });
}

template <class P, int R, class Rows, class T>
HEED_INLINE void accumulate_rows(const Rows* values, const Rows* ahead, index_t count, index_t E, const T* p, T* o,
                                 index_t o_stride) {
    constexpr auto L = static_cast<index_t>(P::size);
    constexpr int C = vector_registers<typename P::arch_type> / 2 / R / (R == 1 ? 2 : 1);
    constexpr int lines = lines_of<Rows>(C * L);
    const index_t passes = std::max<index_t>(1, E / (C * L));
    index_t e = 0, row = 0, part = 0;
    const auto whole = [&](index_t k, int c) HEED_INLINE_LAMBDA { return values[k].template load<P>(0, e + c * L); };
    const auto rest = [&](index_t k, int) { return values[k].template load<P>(0, e, E - e); };
    // Four rows ahead, a quarter of the tile apart, are asked for in turn, as dots meets them.
    const auto ask = [&](index_t k) HEED_INLINE_LAMBDA {
        ask_for<lines>(ahead[row + k % 4 * (streamed_tile / 4)].address(0), part * lines * 64);
        if (k % 4 == 3 && ++part == passes) part = 0, ++row;
    };
    const auto nothing = [](index_t) {};
    for (; e + C * L <= E; e += C * L) accumulate_tile<P, R, C>(count, p, o + e, o_stride, whole, ask);
    for (; e + L <= E; e += L) accumulate_tile<P, R, 1>(count, p, o + e, o_stride, whole, nothing);
    if (e < E) accumulate_tile<P, R, 1>(count, p, o + e, o_stride, rest, nothing);
}

}  // namespace detail

/// o (rows, o_stride), zero-padded to whole packs, += p (rows, streamed_tile) times `count` values of width E.
template <class A, class Rows, class T>
HEED_NOINLINE void accumulate(const Rows* values, const Rows* ahead, index_t count, index_t E, const T* p, index_t rows, T* o,
                              index_t o_stride) {
    using P = pack<T, A>;
    index_t r = 0;
    for (; r + 4 <= rows; r += 4)
        detail::accumulate_rows<P, 4>(values, ahead, count, E, p + r * streamed_tile, o + r * o_stride, o_stride);
    for (; r < rows; ++r)
        detail::accumulate_rows<P, 1>(values, ahead, count, E, p + r * streamed_tile, o + r * o_stride, o_stride);
}

}  // namespace heed::inline HEED_ABI
