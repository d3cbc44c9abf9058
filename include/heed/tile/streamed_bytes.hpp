// The products of streamed.hpp for rows of signed bytes, in integers: q and the weights are rounded to 16 bits.
//
//   q(r, d) = scale_r * integer           scale_r = max_d |q(r, d)| / 32767, fewer levels where D > 8192
//   p(r, k) likewise, with a scale for each row and tile
// An instruction multiplies twice as many of them as floats, and a byte becomes an operand in one step instead of two.
// Sums are exact. What rounding takes off is at most 2^-16 of the largest number of a row, where the bytes themselves are
// off by 2^-8 of theirs.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../simd/quantised_rows.hpp"
#include "streamed.hpp"

namespace heed::inline HEED_ABI {

/// Whether a row format is met in integers, for sums in T on A.
template <class Rows, class T, class A>
inline constexpr bool met_in_integers =
#if defined(HEED_DOT_BYTES)
    std::is_same_v<Rows, byte_row> && std::is_same_v<T, float> && has_avx512<A>;
#else
    false;
#endif

#if defined(HEED_DOT_BYTES)
namespace detail {

/// Sums of products of bytes and 16-bit integers.
template <class A>
struct byte_products {
    using element = std::int16_t;  // of q
    using pack = heed::pack<float, A>;
    struct operand {
        __m512i x;
    };
    using sum = operand;
    static constexpr index_t step = 32;
    static constexpr index_t widest = 8192;  // columns of which no lane's sum overflows, at 16 bits

    static HEED_INLINE operand load(const byte_row& row, index_t d) {
        return {_mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row.data + d)))};
    }
    static HEED_INLINE operand load(const byte_row& row, index_t d, index_t n) {
        alignas(32) std::int8_t at[step];
        copy_first(at, row.data + d, n);
        return load({{at}}, 0);
    }
    static HEED_INLINE operand load_aligned(const std::int16_t* q) { return {_mm512_load_si512(q)}; }
    static HEED_INLINE sum zero() { return {_mm512_setzero_si512()}; }
    static HEED_INLINE sum add(const operand& x, const operand& y, const sum& to) {
        return {_mm512_dpwssd_epi32(to.x, x.x, y.x)};
    }
    static HEED_INLINE pack numbers(const sum& x) { return pack(typename pack::raw_type(_mm512_cvtepi32_ps(x.x))); }
};

/// Rounds n numbers, whole packs, to integers of at most `levels`; those without a bit in `among` (number l: bit l % 64)
/// become 0. Returns their scale; where one is inf or NaN, it is NaN.
template <class A>
HEED_INLINE float round_to_integers(const float* x, index_t n, float levels, std::uint64_t among, std::int16_t* to) {
    using P = pack<float, A>;
    constexpr index_t L = lanes<float, A>;
    const auto at = [&](index_t i) HEED_INLINE_LAMBDA {
        const auto counts = mask_of_bits<float, A>(static_cast<std::uint32_t>(among >> i % 64));
        return select(counts, heed::load_aligned<P>(x + i), P(0.f));
    };
    P most(0.f), finite(0.f);
    for (index_t i = 0; i < n; i += L) {
        most = max(most, abs(at(i)));
        finite += at(i) * P(0.f);  // 0 or NaN
    }
    const float scale = quantising_factor(_mm512_reduce_max_ps(most.raw), levels);
    const P by(scale > 0 ? 1 / scale : 0.f);
    for (index_t i = 0; i < n; i += L) {
        const __m512i rounded = _mm512_cvtps_epi32((at(i) * by).raw);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), _mm512_cvtepi32_epi16(rounded));
    }
    return any(finite != P(0.f)) ? std::numeric_limits<float>::quiet_NaN() : scale;
}

/// Weights of R rows for the values of a tile.
template <int R>
struct integer_weights {
    alignas(64) std::int16_t at[R][streamed_tile];
    float scale[R];

    HEED_INLINE __m512i pair(int r, index_t k) const {
        std::int32_t both;
        std::memcpy(&both, &at[r][k], sizeof both);
        return _mm512_set1_epi32(both);
    }
};

/// o (R rows) += weights times the values of a tile, in columns [e, e + 32 C). load(row, d): 32 columns as integers.
template <class A, int R, int C, class Load>
HEED_INLINE void add_integers(const named_rows<byte_row>& values, bool ask, std::uint64_t present,
                           const integer_weights<R>& weight, index_t e, const Load& load, float* o, index_t o_stride) {
    using P = pack<float, A>;
    __m512i sums[R][2 * C];
    unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
        unroll<2 * C>([&](auto c) HEED_INLINE_LAMBDA { sums[r][c] = _mm512_setzero_si512(); });
    });
    for (index_t i = 0; i < streamed_tile; i += 2) {
        const index_t k = i / 2 % 4 * streamed_run + i / 8 * 2;  // two rows of each run, then the next two
        if (!(present >> k & 3)) continue;
        if (ask) {
            __builtin_prefetch((&values[k])[named_rows<byte_row>::ahead].data + e);
            __builtin_prefetch((&values[k + 1])[named_rows<byte_row>::ahead].data + e);
        }
        __m512i pairs[2 * C];  // of columns 0 to 3, 8 to 11, ... and the others
        unroll<C>([&](auto c) HEED_INLINE_LAMBDA {
            const __m512i a = load(values[k], e + 32 * c).x, b = load(values[k + 1], e + 32 * c).x;
            pairs[2 * c] = _mm512_unpacklo_epi16(a, b);
            pairs[2 * c + 1] = _mm512_unpackhi_epi16(a, b);
        });
        unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
            const __m512i by = weight.pair(r, k);
            unroll<2 * C>([&](auto c) HEED_INLINE_LAMBDA {
                sums[r][c] = _mm512_dpwssd_epi32(sums[r][c], pairs[c], by);
            });
        });
    }
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i second = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
        const P scale(weight.scale[r]);
        unroll<2 * C>([&](auto c) HEED_INLINE_LAMBDA {
            float* const to = o + r * o_stride + e + 16 * c;
            const auto& half = sums[r];
            const __m512i whole = _mm512_permutex2var_epi32(half[c / 2 * 2], c % 2 ? second : first, half[c / 2 * 2 + 1]);
            const P x(typename P::raw_type(_mm512_cvtepi32_ps(whole)));
            store_aligned(to, fma(x, scale, heed::load_aligned<P>(to)));
        });
    });
}

template <class A, int R>
HEED_INLINE void accumulate_integer_rows(const named_rows<byte_row>& values, bool ask, std::uint64_t present, index_t E,
                                       const float* p, float* o, index_t o_stride) {
    integer_weights<R> weight;
    for (int r = 0; r < R; ++r)
        weight.scale[r] = round_to_integers<A>(p + r * streamed_tile, streamed_tile, 32767, present, weight.at[r]);
    using products = byte_products<A>;
    const auto whole = [](const byte_row& row, index_t d) HEED_INLINE_LAMBDA { return products::load(row, d); };
    index_t e = 0;
    for (; e + 64 <= E; e += 64) add_integers<A, R, 2>(values, ask, present, weight, e, whole, o, o_stride);
    for (; e + 32 <= E; e += 32) add_integers<A, R, 1>(values, ask, present, weight, e, whole, o, o_stride);
    if (e == E) return;
    // Columns beyond E are not ours, nor need there be room for all of them in o.
    alignas(64) float rest[R][32] = {};
    for (int r = 0; r < R; ++r) std::copy_n(o + r * o_stride + e, E - e, rest[r]);
    const auto cut = [e, E](const byte_row& row, index_t) { return products::load(row, e, E - e); };
    add_integers<A, R, 1>(values, false, present, weight, 0, cut, rest[0], 32);
    for (int r = 0; r < R; ++r) std::copy_n(rest[r], E - e, o + r * o_stride + e);
}

}  // namespace detail

/// Rows of q (rows, stride), zero-padded to whole operands, as integers (rows, stride) and their scales; stride is a
/// multiple of 64. The scale of a row that holds inf or NaN is NaN.
template <class A>
void round_queries(const float* q, index_t rows, index_t stride, index_t D, std::int16_t* to, float* scale) {
    constexpr index_t widest = detail::byte_products<A>::widest;
    const float levels = 32767 * std::min(1.f, static_cast<float>(widest) / static_cast<float>(std::max<index_t>(1, D)));
    for (index_t r = 0; r < rows; ++r)
        scale[r] = detail::round_to_integers<A>(q + r * stride, stride, std::floor(levels), ~std::uint64_t(0), to + r * stride);
}

/// The same as dots, but for the scale of each row of q.
template <class A>
void dots_in_integers(const named_rows<byte_row>& keys, bool ask, index_t longest, index_t D, const std::int16_t* q,
                      index_t q_stride, index_t rows, float* s) {
    dots<detail::byte_products<A>>(keys, ask, longest, D, q, q_stride, rows, s);
}

/// The same as accumulate; a row with a weight that is inf or NaN becomes NaN.
template <class A>
HEED_NOINLINE void accumulate_in_integers(const named_rows<byte_row>& values, bool ask, std::uint64_t present, index_t E,
                                       const float* p, index_t rows, float* o, index_t o_stride) {
    const auto add = [&](auto count, index_t r) HEED_INLINE_LAMBDA {
        detail::accumulate_integer_rows<A, count>(values, ask && r == 0, present, E, p + r * streamed_tile,
                                                o + r * o_stride, o_stride);
    };
    index_t r = 0;
    for (; r + 4 <= rows; r += 4) add(std::integral_constant<int, 4>{}, r);
    for (; r < rows; ++r) add(std::integral_constant<int, 1>{}, r);
}
#endif

}  // namespace heed::inline HEED_ABI
