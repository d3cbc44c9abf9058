// Products of a few rows with many that stream by from memory: lanes run along the width, each streamed row is read once
// for all of the few.
//
//   dots         s(r, k) = sum_d q(r, d) key_k(d)          q (R, D), keys in any row format (stored_rows.hpp)
//   accumulate   o(r, e) += sum_k p(r, k) value_k(e)
// Cost: one multiply-add an element and row; bound by memory where R is small. A streamed row is named by its format,
// counted from that row, so rows may lie anywhere.
#pragma once

#include <cstdint>

#include "../simd/rows.hpp"
#include "../simd/stored_rows.hpp"

namespace heed::inline HEED_ABI {

/// Streamed rows that a pass takes at once, and the row length of s and p.
inline constexpr index_t streamed_tile = 64;

namespace detail {

/// Asks for the cache lines of a tile of rows to come (null: none), one after the other, a share of them at each step of a
/// product that takes Elements elements. Into the second-level cache: with the first level's few outstanding lines memory's latency
/// would bind (measured: half the speed). In order of address, so that the hardware's own prefetcher runs along.
template <class Rows, index_t Elements>
class asking {
public:
    HEED_INLINE asking(const void* const* rows, index_t width)
        : row_(rows), end_(rows + (rows ? streamed_tile : 0)), lines_(ceil_div(width * Rows::bits, 512)) {}

    HEED_INLINE void step() {
        constexpr int lines = std::max<int>(1, static_cast<int>(Elements * Rows::bits / 512));
        if (row_ == end_) return;
        // A number, since a row that does not come is null and nothing may be added to that.
        const auto at = reinterpret_cast<std::uintptr_t>(*row_) + static_cast<std::uintptr_t>(line_ * 64);
        unroll<lines>([&](auto i) HEED_INLINE_LAMBDA {
            __builtin_prefetch(reinterpret_cast<const void*>(at + static_cast<std::uintptr_t>(i * 64)), 0, 1);
        });
        line_ += lines;
        if (line_ >= lines_) {
            ++row_;
            line_ = 0;
        }
    }

private:
    const void* const* row_;
    const void* const* end_;
    index_t line_ = 0, lines_;
};

/// R rows of q against K keys, R * K the lanes of a pack: lane r * K + k of the result is their product.
template <class P, int R, int K, class Rows, class T, class Asking>
HEED_INLINE P dot_tile(const Rows* const (&key)[K], Asking& ahead, index_t D, const T* q, index_t q_stride) {
    constexpr auto L = static_cast<index_t>(P::size);
    P acc[R * K];
    unroll<R * K>([&](auto i) HEED_INLINE_LAMBDA { acc[i] = P(T(0)); });
    const auto step = [&](index_t d, const auto& load) HEED_INLINE_LAMBDA {
        P x[K];
        ahead.step();
        unroll<K>([&](auto k) HEED_INLINE_LAMBDA { x[k] = pinned(load(*key[k])); });
        unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
            const P y = pinned(load_aligned<P>(q + r * q_stride + d));
            unroll<K>([&](auto k) HEED_INLINE_LAMBDA { acc[r * K + k] = fma(x[k], y, acc[r * K + k]); });
        });
    };
    index_t d = 0;
    for (; d + L <= D; d += L) step(d, [&](const Rows& row) HEED_INLINE_LAMBDA { return row.template load<P>(0, d); });
    if (d < D) step(d, [&](const Rows& row) { return row.template load<P>(0, d, D - d); });
    return lane_sums(acc);
}

/// The K keys of a tile that step k of tile / K meets: one of each K-th of the tile, so that they stand on different pages,
/// whose translations then are waited for together, and not at one offset of them, which caches would mistake for another.
template <int K>
constexpr index_t key_of_step(index_t k, int c) {
    return K == 1 ? k : c * (streamed_tile / K) + (k ^ (c & 3));
}

/// Keys a tile of R rows takes.
template <class P, int R>
inline constexpr int keys_beside = static_cast<int>(P::size) / R;

/// R rows against the keys of step k, those beyond count being repeats whose products mean nothing.
template <class P, int R, class Rows, class T, class Asking>
HEED_INLINE P dot_block(const Rows* keys, Asking& ahead, index_t k, index_t count, index_t D, const T* q,
                        index_t q_stride) {
    constexpr int K = keys_beside<P, R>;
    const Rows* at[K];
    for (int c = 0; c < K; ++c) at[c] = keys + std::min(key_of_step<K>(k, c), count - 1);
    return dot_tile<P, R>(at, ahead, D, q, q_stride);
}

/// R rows of q against a tile of keys.
template <class P, int R, class Rows, class T, class Asking>
HEED_INLINE void dot_rows(const Rows* keys, Asking& ahead, index_t count, index_t D, const T* q, index_t q_stride,
                          T* s) {
    constexpr int K = keys_beside<P, R>, L = static_cast<int>(P::size);
    constexpr index_t steps = streamed_tile / K;
    if constexpr (steps >= L && L >= 4) {
        for (index_t k = 0; k < std::min(round_up(count, 4), steps); k += L) {
            P x[L];
            for (index_t i = 0; i < L; ++i) x[i] = dot_block<P, R>(keys, ahead, k + i, count, D, q, q_stride);
            transpose(x);  // lanes (r, c) of L steps become L steps of (r, c)
            unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
                unroll<K>([&](auto c) HEED_INLINE_LAMBDA {
                    store_aligned(s + r * streamed_tile + c * steps + k, exchange<c & 3>(x[r * K + c]));
                });
            });
        }
    } else {
        alignas(64) T products[P::size];
        for (index_t k = 0; k < steps; ++k) {
            store_aligned(products, dot_block<P, R>(keys, ahead, k, count, D, q, q_stride));
            for (int r = 0; r < R; ++r)
                for (int c = 0; c < K; ++c) s[r * streamed_tile + key_of_step<K>(k, c)] = products[r * K + c];
        }
    }
}

}  // namespace detail

/// s (rows, streamed_tile): the products of `rows` rows of q, zero-padded to whole packs, with `count` keys. Columns from
/// count on are left undefined. `ahead`: where streamed_tile rows start that come later, or null.
template <class A, class Rows, class T>
HEED_NOINLINE void dots(const Rows* keys, const void* const* ahead, index_t count, index_t D, const T* q, index_t q_stride,
                        index_t rows, T* s) {
    using P = pack<T, A>;
    constexpr int L = lanes<T, A>;
    constexpr int R = L >= 16 ? 4 : L >= 4 ? 2 : 1;
    const index_t together = rows / R * R;
    detail::asking<Rows, L * detail::keys_beside<P, R>> asks(ahead, D);
    for (index_t r = 0; r < rows;) {
        const T* const from = q + r * q_stride;
        T* const to = s + r * streamed_tile;
        if (r < together) {
            detail::dot_rows<P, R>(keys, asks, count, D, from, q_stride, to);
            r += R;
        } else {
            detail::dot_rows<P, 1>(keys, asks, count, D, from, q_stride, to);
            ++r;
        }
    }
}

namespace detail {

/// o (R rows) += p (R, K) times K values. The K * R weights stay in registers, o goes through the first-level cache.
template <class P, int R, int K, class Rows, class T, class Asking>
HEED_INLINE void accumulate_values(const Rows* const (&value)[K], Asking& ahead, index_t E,
                                   const T (&p)[R * K], T* o, index_t o_stride) {
    constexpr auto L = static_cast<index_t>(P::size);
    P weight[R * K];
    unroll<R * K>([&](auto i) HEED_INLINE_LAMBDA { weight[i] = P(p[i]); });
    const auto step = [&](index_t e, const auto& load) HEED_INLINE_LAMBDA {
        P x[K];
        ahead.step();
        unroll<K>([&](auto k) HEED_INLINE_LAMBDA { x[k] = pinned(load(*value[k])); });
        unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
            T* const at = o + r * o_stride + e;
            P sum = load_aligned<P>(at);
            unroll<K>([&](auto k) HEED_INLINE_LAMBDA { sum = fma(x[k], weight[r * K + k], sum); });
            store_aligned(at, sum);
        });
    };
    index_t e = 0;
    for (; e + L <= E; e += L) step(e, [&](const Rows& row) HEED_INLINE_LAMBDA { return row.template load<P>(0, e); });
    if (e < E) step(e, [&](const Rows& row) { return row.template load<P>(0, e, E - e); });
}

/// The same for the keys of step k of a tile.
template <class P, int R, int K, class Rows, class T, class Asking>
HEED_INLINE void accumulate_block(const Rows* values, Asking& ahead, index_t k, index_t E, const T* p, T* o,
                                  index_t o_stride) {
    const Rows* at[K];
    T weight[R * K];
    for (int c = 0; c < K; ++c) {
        const index_t key = key_of_step<K>(k, c);
        at[c] = values + key;
        for (int r = 0; r < R; ++r) weight[r * K + c] = p[r * streamed_tile + key];
    }
    accumulate_values<P, R>(at, ahead, E, weight, o, o_stride);
}

/// R rows of o, C packs from column e on, in registers while the values of all keys pass by.
template <class P, int R, int C, class T, class Load>
HEED_INLINE void accumulate_columns(index_t count, const T* p, T* o, index_t o_stride, const Load& load) {
    constexpr auto L = static_cast<index_t>(P::size);
    P acc[R][C];
    unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
        unroll<C>([&](auto c) HEED_INLINE_LAMBDA { acc[r][c] = load_aligned<P>(o + r * o_stride + c * L); });
    });
    for (index_t k = 0; k < count; ++k) {
        P x[C];
        unroll<C>([&](auto c) HEED_INLINE_LAMBDA { x[c] = pinned(load(k, c)); });
        unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
            const P weight(p[r * streamed_tile + k]);
            unroll<C>([&](auto c) HEED_INLINE_LAMBDA { acc[r][c] = fma(x[c], weight, acc[r][c]); });
        });
    }
    unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
        unroll<C>([&](auto c) HEED_INLINE_LAMBDA { store_aligned(o + r * o_stride + c * L, acc[r][c]); });
    });
}

/// Keys that accumulate takes at once, whatever R is: a row's bits do not depend on the others.
template <class P>
inline constexpr int values_at_once = vector_registers<typename P::arch_type> / 8;

// Wide elements are bound by memory, which likes whole rows of several pages at a time; narrow ones by arithmetic, which
// likes o in registers.
template <class P, int R, class Rows, class T, class Asking>
HEED_INLINE void accumulate_rows(const Rows* values, Asking& ahead, index_t count, index_t E, const T* p, T* o,
                                 index_t o_stride) {
    if constexpr (Rows::bits >= 32) {
        constexpr int K = values_at_once<P>;
        if (count == streamed_tile)
            for (index_t k = 0; k < streamed_tile / K; ++k)
                accumulate_block<P, R, K>(values, ahead, k, E, p, o, o_stride);
        else
            for (index_t k = 0; k < count; ++k) accumulate_block<P, R, 1>(values, ahead, k, E, p, o, o_stride);
    } else {
        constexpr auto L = static_cast<index_t>(P::size);
        constexpr int C = values_at_once<P>;
        index_t e = 0;
        const auto whole = [&](index_t k, int c) HEED_INLINE_LAMBDA {
            if (c == 0) ahead.step();
            return values[k].template load<P>(0, e + c * L);
        };
        const auto rest = [&](index_t k, int) { return values[k].template load<P>(0, e, E - e); };
        for (; e + C * L <= E; e += C * L) accumulate_columns<P, R, C>(count, p, o + e, o_stride, whole);
        for (; e + L <= E; e += L) accumulate_columns<P, R, 1>(count, p, o + e, o_stride, whole);
        if (e < E) accumulate_columns<P, R, 1>(count, p, o + e, o_stride, rest);
    }
}

}  // namespace detail

/// o (rows, o_stride), zero-padded to whole packs, += p (rows, streamed_tile) times `count` values of width E. `ahead`:
/// where streamed_tile rows start that come later, or null.
template <class A, class Rows, class T>
HEED_NOINLINE void accumulate(const Rows* values, const void* const* ahead, index_t count, index_t E, const T* p, index_t rows,
                              T* o, index_t o_stride) {
    using P = pack<T, A>;
    detail::asking<Rows, lanes<T, A> * detail::values_at_once<P>> asks(ahead, E);
    index_t r = 0;
    for (; r + 4 <= rows; r += 4)
        detail::accumulate_rows<P, 4>(values, asks, count, E, p + r * streamed_tile, o + r * o_stride, o_stride);
    for (; r < rows; ++r)
        detail::accumulate_rows<P, 1>(values, asks, count, E, p + r * streamed_tile, o + r * o_stride, o_stride);
}

}  // namespace heed::inline HEED_ABI
