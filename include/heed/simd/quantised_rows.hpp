// Rows of 8-bit and 4-bit integers (see stored_rows.hpp): x' = q * factor, q = round(x / factor), factor = max|x| / Q.
//
// Q is 127 for int8 and 7 for int4 (symmetric: -128 and -8 are not used), rounding is to nearest even, and the maximum
// is over the numbers that share a factor: a row, a column of a block of rows, or a group of columns of one row.
//   |x - x'| <= factor / 2, up to the rounding of x / factor and q * factor.
// Zeros have the factor 0. No other factor is below the normal range, where it would have no digits, so that numbers
// under 1e-38 may become 0. The quantisers want finite numbers.
#pragma once

#include <cstdint>
#include <limits>

#include "../core/range.hpp"
#include "stored_rows.hpp"

namespace heed::inline HEED_ABI {
namespace detail {

inline float quantising_factor(float largest, float levels) {
    return largest > 0 ? std::max(largest / levels, std::numeric_limits<float>::min()) : 0.f;
}

/// Calls f(d, numbers d, d + 1, ... of x as a pack, count of lanes that are inside) for all packs of n numbers.
template <class A, class F>
HEED_INLINE void each_pack(const float* x, index_t n, F&& f) {
    using P = pack<float, A>;
    constexpr auto width = static_cast<index_t>(P::size);
    index_t d = 0;
    for (; d + width <= n; d += width) f(d, heed::load<P>(x + d), width);
    if (d < n) f(d, plain_rows<float>{x}.load<P>(0, d, n - d), n - d);
}

/// The first n lanes of x: numbers, or integers as bytes.
template <class P, class S>
HEED_INLINE void store_first(S* to, const P& x, index_t n) {
    alignas(64) float at[P::size];
    store_aligned(at, x);
    for (index_t l = 0; l < n; ++l) to[l] = static_cast<S>(at[l]);
}

/// Quantises n numbers by one factor, which is returned; levels is Q.
template <class A>
float quantise(const float* x, index_t n, float levels, std::int8_t* to) noexcept {
    using P = pack<float, A>;
    P most(0);
    each_pack<A>(x, n, [&](index_t, const P& at, index_t) HEED_INLINE_LAMBDA { most = max(most, abs(at)); });
    alignas(64) float lane[P::size];
    store_aligned(lane, most);
    const float factor = quantising_factor(*std::max_element(lane, lane + P::size), levels);
    const P by(factor > 0 ? factor : 1.f);
    each_pack<A>(x, n, [&](index_t d, const P& at, index_t count) HEED_INLINE_LAMBDA {
        store_first(to + d, round_even(at / by), count);
    });
    return factor;
}

}  // namespace detail

/// Signed bytes, neighbours in a row; rows are `stride` bytes apart. The factor of a row is factors[row].
struct int8_rows : plain_rows<std::int8_t> {
    using storage = float;
    static constexpr bool has_factor = true;
    const float* factors = nullptr;

    HEED_INLINE float factor(index_t row) const { return factors[row]; }
    double number(index_t row, index_t d) const {
        return plain_rows::number(row, d) * static_cast<double>(factors[row]);
    }

    int8_rows from(index_t row) const { return {{data + row * stride, stride}, factors + row}; }
    static index_t bytes_of(index_t width) { return width; }
    static index_t factors_of(index_t) { return 1; }
    static int8_rows over(const std::int8_t* data, const float* factors, index_t width) {
        return {{data, width}, factors};
    }
    template <class A>
    static void quantise_row(const float* x, index_t width, std::int8_t* to, float* factors) noexcept {
        *factors = detail::quantise<A>(x, width, 127, to);
    }
};

HEED_INLINE lone_row<std::int8_t> alone(const int8_rows& rows) { return {rows.data}; }

/// The same, of which attention of few queries takes products in integers (tile/streamed_bytes.hpp).
struct int8_integer_rows : int8_rows {
    int8_integer_rows from(index_t row) const { return {int8_rows::from(row)}; }
    static int8_integer_rows over(const std::int8_t* data, const float* factors, index_t width) {
        return {int8_rows::over(data, factors, width)};
    }
};
struct byte_row : lone_row<std::int8_t> {};

HEED_INLINE byte_row alone(const int8_integer_rows& rows) { return {{rows.data}}; }

/// Signed bytes; the factor of column d is factors[d] in every row.
struct int8_channel_rows : plain_rows<std::int8_t> {
    using storage = float;
    const float* factors = nullptr;

    template <class P>
    HEED_INLINE P load(index_t row, index_t d) const {
        return plain_rows::load<P>(row, d) * widen<P>(factors + d);
    }
    template <class P>
    HEED_INLINE P load(index_t row, index_t d, index_t n) const {
        return plain_rows::load<P>(row, d, n) * plain_rows<float>{factors}.load<P>(0, d, n);
    }
    double number(index_t row, index_t d) const { return plain_rows::number(row, d) * static_cast<double>(factors[d]); }
    int8_channel_rows from(index_t row) const { return {{data + row * stride, stride}, factors}; }

    /// Quantises n contiguous rows by column.
    template <class A>
    static void quantise_rows(const float* x, index_t n, index_t width, std::int8_t* to, float* factors) noexcept {
        using P = pack<float, A>;
        std::fill_n(factors, width, 0.f);
        for (index_t row = 0; row < n; ++row)
            detail::each_pack<A>(x + row * width, width, [&](index_t d, const P& at, index_t count) HEED_INLINE_LAMBDA {
                const P most = plain_rows<float>{factors}.load<P>(0, d, count);
                detail::store_first(factors + d, max(most, abs(at)), count);
            });
        for (index_t d = 0; d < width; ++d) factors[d] = detail::quantising_factor(factors[d], 127);
        for (index_t row = 0; row < n; ++row)
            detail::each_pack<A>(x + row * width, width, [&](index_t d, const P& at, index_t count) HEED_INLINE_LAMBDA {
                const P by = plain_rows<float>{factors}.load<P>(0, d, count);
                const P q = round_even(at / select(by > P(0), by, P(1)));
                detail::store_first(to + row * width + d, q, count);
            });
    }
};

namespace detail {

/// A factor for each Group columns of a row; the last group may be cut.
template <index_t Group>
struct group_factors {
    static_assert(Group > 0 && Group % 32 == 0, "heed: a group is a multiple of 32 columns");
    const float* factors = nullptr;  // (row, group)
    index_t groups = 0;

    HEED_INLINE float group_factor(index_t row, index_t d) const {
        return factors[row * groups + static_cast<index_t>(static_cast<std::size_t>(d) / Group)];
    }
    static index_t factors_of(index_t width) { return ceil_div(width, Group); }
};

}  // namespace detail

/// Signed bytes with a factor for each Group columns of a row. Packs are loaded at multiples of their lanes.
template <index_t Group>
struct int8_group_rows : plain_rows<std::int8_t>, detail::group_factors<Group> {
    using storage = float;

    template <class P>
    HEED_INLINE P load(index_t row, index_t d) const {
        return plain_rows::load<P>(row, d) * P(this->group_factor(row, d));
    }
    template <class P>
    HEED_INLINE P load(index_t row, index_t d, index_t n) const {
        return plain_rows::load<P>(row, d, n) * P(this->group_factor(row, d));
    }
    double number(index_t row, index_t d) const {
        return plain_rows::number(row, d) * static_cast<double>(this->group_factor(row, d));
    }
    int8_group_rows from(index_t row) const {
        return {{data + row * stride, stride}, {this->factors + row * this->groups, this->groups}};
    }

    static index_t bytes_of(index_t width) { return width; }
    static int8_group_rows over(const std::int8_t* data, const float* factors, index_t width) {
        return {{data, width}, {factors, int8_group_rows::factors_of(width)}};
    }
    template <class A>
    static void quantise_row(const float* x, index_t width, std::int8_t* to, float* factors) noexcept {
        for (index_t d = 0; d < width; d += Group)
            factors[d / Group] = detail::quantise<A>(x + d, std::min(Group, width - d), 127, to + d);
    }
};

/// Halves of bytes, -7 to 7, in blocks of 32 columns: byte i of a block holds column i in its low half and column
/// i + 16 in its high half, so that 16 neighbours are 16 neighbouring bytes and a shift. A last block of n columns has
/// min(n, 16) bytes. Factors and packs as in int8_group_rows.
template <index_t Group>
struct int4_group_rows : detail::group_factors<Group> {
    using storage = float;
    static constexpr bool has_factor = false;
    static constexpr int bits = 4;
    const std::int8_t* data = nullptr;
    index_t stride = 0;

    template <class P>
    HEED_INLINE P load(index_t row, index_t d) const {
        return halves<P>(byte_of(row, d), d) * P(this->group_factor(row, d));
    }
    template <class P>
    HEED_INLINE P load(index_t row, index_t d, index_t n) const {
        std::int8_t at[P::size];
        copy_first(at, byte_of(row, d), n);
        return halves<P>(at, d) * P(this->group_factor(row, d));
    }
    HEED_INLINE float factor(index_t) const { return 1; }
    static constexpr bool contiguous() { return true; }
    double number(index_t row, index_t d) const {
        return half(*byte_of(row, d), d) * static_cast<double>(this->group_factor(row, d));
    }
    int4_group_rows from(index_t row) const {
        return {{this->factors + row * this->groups, this->groups}, data + row * stride, stride};
    }
    HEED_INLINE const void* address(index_t row) const { return data + row * stride; }

    static index_t bytes_of(index_t width) { return width / 32 * 16 + std::min<index_t>(width % 32, 16); }
    static int4_group_rows over(const std::int8_t* data, const float* factors, index_t width) {
        return {{factors, int4_group_rows::factors_of(width)}, data, bytes_of(width)};
    }
    template <class A>
    static void quantise_row(const float* x, index_t width, std::int8_t* to, float* factors) noexcept {
        for (index_t d = 0; d < width; d += Group) {
            std::int8_t q[Group + 16] = {};  // the high halves of a cut block are 0
            const index_t n = std::min(Group, width - d);
            factors[d / Group] = detail::quantise<A>(x + d, n, 7, q);
            for (index_t i = 0; i < n; ++i)
                if (i % 32 < 16) *to++ = static_cast<std::int8_t>((q[i] & 15) | q[i + 16] * 16);
        }
    }

private:
    HEED_INLINE const std::int8_t* byte_of(index_t row, index_t d) const {
        return data + row * stride + (d >> 5) * 16 + (d & 15);  // d is not negative: no division needed
    }
    /// The half of a byte that holds column d, with its sign.
    static HEED_INLINE int half(std::int8_t byte, index_t d) {
        return d & 16 ? byte >> 4 : static_cast<std::int8_t>(byte * 16) >> 4;
    }
    /// Columns d, d + 1, ... of one half of a block.
    template <class P>
    static HEED_INLINE P halves(const std::int8_t* bytes, index_t d) {
        using T = typename P::value_type;
        // A shift to the left brings the sign of the half to the top, one to the right spreads it.
#if defined(__AVX512F__)
        if constexpr (has_avx512<typename P::arch_type> && std::is_same_v<T, float>) {
            const __m512i x = _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
            const __m512i top = _mm512_sll_epi32(x, _mm_cvtsi32_si128(d & 16 ? 24 : 28));
            return P(typename P::raw_type(_mm512_cvtepi32_ps(_mm512_srai_epi32(top, 28))));
        }
#elif defined(__AVX2__)
        if constexpr (P::size == 8 && std::is_same_v<T, float>) {
            const __m256i x = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes)));
            const __m256i top = _mm256_sll_epi32(x, _mm_cvtsi32_si128(d & 16 ? 24 : 28));
            return P(typename P::raw_type(_mm256_cvtepi32_ps(_mm256_srai_epi32(top, 28))));
        }
#endif
        alignas(64) T at[P::size];
        for (std::size_t l = 0; l < P::size; ++l) at[l] = static_cast<T>(half(bytes[l], d));
        return load_aligned<P>(at);
    }
};

}  // namespace heed::inline HEED_ABI
