// A thin face on xsimd 8 to 14: the only file that names xsimd, so that its changes stay here.
//
// pack<T, A> is one SIMD register of T on instruction set A; every kernel takes A as a template parameter.
// Where xsimd has no name for an instruction that decides the speed (masks from bits, rounding by register), the
// intrinsic stands here beside its portable twin.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>
#include <xsimd/xsimd.hpp>

#include "../core/config.hpp"

namespace heed::inline HEED_ABI {

using default_arch = xsimd::default_arch;

/// Per-lane truth values of comparisons of pack<T, A>.
template <class T, class A = default_arch>
struct pack_mask {
    using raw_type = xsimd::batch_bool<T, A>;
    raw_type raw;

    pack_mask() = default;
    HEED_INLINE explicit pack_mask(const raw_type& m) : raw(m) {}
    friend HEED_INLINE pack_mask operator&(const pack_mask& a, const pack_mask& b) { return pack_mask(a.raw & b.raw); }
    friend HEED_INLINE pack_mask operator|(const pack_mask& a, const pack_mask& b) { return pack_mask(a.raw | b.raw); }
    friend HEED_INLINE pack_mask operator!(const pack_mask& a) { return pack_mask(~a.raw); }
    friend HEED_INLINE bool any(const pack_mask& m) { return xsimd::any(m.raw); }
};

/// One SIMD register of T.
template <class T, class A = default_arch>
struct pack {
    using value_type = T;
    using arch_type = A;
    using raw_type = xsimd::batch<T, A>;
    using mask_type = pack_mask<T, A>;
    static constexpr std::size_t size = raw_type::size;

    raw_type raw;

    pack() = default;
    HEED_INLINE explicit pack(const raw_type& r) : raw(r) {}
    template <class U>
        requires std::is_arithmetic_v<U>
    HEED_INLINE explicit pack(U x) : raw(static_cast<T>(x)) {}

    friend HEED_INLINE pack operator+(const pack& a, const pack& b) { return pack(a.raw + b.raw); }
    friend HEED_INLINE pack operator-(const pack& a, const pack& b) { return pack(a.raw - b.raw); }
    friend HEED_INLINE pack operator*(const pack& a, const pack& b) { return pack(a.raw * b.raw); }
    friend HEED_INLINE pack operator/(const pack& a, const pack& b) {
#if defined(__aarch64__)
        if constexpr (size == 4) return pack(raw_type(vdivq_f32(a.raw, b.raw)));  // xsimd refines an estimate
#endif
        return pack(a.raw / b.raw);
    }
    // Not xsimd's, which says 0 - a on AVX-512 in version 8, so that -(0) loses its sign.
    friend HEED_INLINE pack operator-(const pack& a) { return pack(a.raw * raw_type(T(-1))); }
    // A number beside a pack means that number in every lane: `x - w * gap` reads the same for float and pack.
    template <class U>
        requires std::is_arithmetic_v<U>
    friend HEED_INLINE pack operator+(const pack& a, U b) { return a + pack(b); }
    template <class U>
        requires std::is_arithmetic_v<U>
    friend HEED_INLINE pack operator-(const pack& a, U b) { return a - pack(b); }
    template <class U>
        requires std::is_arithmetic_v<U>
    friend HEED_INLINE pack operator*(const pack& a, U b) { return a * pack(b); }
    template <class U>
        requires std::is_arithmetic_v<U>
    friend HEED_INLINE pack operator/(const pack& a, U b) { return a / pack(b); }
    template <class U>
        requires std::is_arithmetic_v<U>
    friend HEED_INLINE pack operator+(U a, const pack& b) { return pack(a) + b; }
    template <class U>
        requires std::is_arithmetic_v<U>
    friend HEED_INLINE pack operator-(U a, const pack& b) { return pack(a) - b; }
    template <class U>
        requires std::is_arithmetic_v<U>
    friend HEED_INLINE pack operator*(U a, const pack& b) { return pack(a) * b; }
    template <class U>
        requires std::is_arithmetic_v<U>
    friend HEED_INLINE pack operator/(U a, const pack& b) { return pack(a) / b; }
    HEED_INLINE pack& operator+=(const pack& b) { return *this = *this + b; }
    HEED_INLINE pack& operator-=(const pack& b) { return *this = *this - b; }
    HEED_INLINE pack& operator*=(const pack& b) { return *this = *this * b; }

    friend HEED_INLINE mask_type operator<(const pack& a, const pack& b) { return mask_type(a.raw < b.raw); }
    friend HEED_INLINE mask_type operator<=(const pack& a, const pack& b) { return mask_type(a.raw <= b.raw); }
    friend HEED_INLINE mask_type operator>(const pack& a, const pack& b) { return mask_type(a.raw > b.raw); }
    friend HEED_INLINE mask_type operator>=(const pack& a, const pack& b) { return mask_type(a.raw >= b.raw); }
    friend HEED_INLINE mask_type operator==(const pack& a, const pack& b) { return mask_type(a.raw == b.raw); }
    // Not xsimd's, which calls NaN != x false on AVX-512 in version 8.
    friend HEED_INLINE mask_type operator!=(const pack& a, const pack& b) { return !(a == b); }

    // The verbs of <cmath>, so that a functor is written once for numbers and packs. fma(a, b, c) = a * b + c, rounded
    // once. Not xsimd's on AVX-512, which says a * b + c in version 8: two instructions, unless a compiler joins them.
    friend HEED_INLINE pack fma(const pack& a, const pack& b, const pack& c) {
#if defined(__AVX512F__)
        if constexpr (sizeof(raw_type) == 64 && sizeof(T) == 4)
            return pack(raw_type(_mm512_fmadd_ps(a.raw, b.raw, c.raw)));
        else if constexpr (sizeof(raw_type) == 64)
            return pack(raw_type(_mm512_fmadd_pd(a.raw, b.raw, c.raw)));
        else
#endif
            return pack(xsimd::fma(a.raw, b.raw, c.raw));
    }
    // c - a * b. Not xsimd's on AVX-512, which says (0 - a) * b + c in version 8.
    friend HEED_INLINE pack fnma(const pack& a, const pack& b, const pack& c) {
#if defined(__AVX512F__)
        if constexpr (sizeof(raw_type) == 64 && sizeof(T) == 4)
            return pack(raw_type(_mm512_fnmadd_ps(a.raw, b.raw, c.raw)));
        else if constexpr (sizeof(raw_type) == 64)
            return pack(raw_type(_mm512_fnmadd_pd(a.raw, b.raw, c.raw)));
        else
#endif
            return pack(xsimd::fnma(a.raw, b.raw, c.raw));
    }
    // Where b is NaN the result is NaN; where only a is, it is b on x86 and NaN elsewhere.
    friend HEED_INLINE pack max(const pack& a, const pack& b) {
        return pack(swaps ? xsimd::max(b.raw, a.raw) : xsimd::max(a.raw, b.raw));
    }
    friend HEED_INLINE pack min(const pack& a, const pack& b) {
        return pack(swaps ? xsimd::min(b.raw, a.raw) : xsimd::min(a.raw, b.raw));
    }
    friend HEED_INLINE pack abs(const pack& a) { return pack(xsimd::abs(a.raw)); }
    friend HEED_INLINE pack copysign(const pack& a, const pack& b) { return pack(xsimd::copysign(a.raw, b.raw)); }
    friend HEED_INLINE pack sqrt(const pack& a) { return pack(xsimd::sqrt(a.raw)); }
    friend HEED_INLINE pack select(const mask_type& m, const pack& a, const pack& b) {
        return pack(xsimd::select(m.raw, a.raw, b.raw));
    }

private:
    static constexpr bool swaps = XSIMD_VERSION_MAJOR >= 14;  // its max(a, b) became x86's max(b, a)
};

template <class T, class A = default_arch>
inline constexpr int lanes = static_cast<int>(pack<T, A>::size);

template <class X>
struct is_pack : std::false_type {};
template <class T, class A>
struct is_pack<pack<T, A>> : std::true_type {};

/// Architectural vector registers; decides the shape of the register tiles in micro.hpp.
template <class A>
inline constexpr int vector_registers =
#if defined(__AVX512F__) || defined(__aarch64__)
    32;
#else
    16;
#endif

/// Whether A has the instructions of AVX-512 that the intrinsics below need.
template <class A>
inline constexpr bool has_avx512 =
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    lanes<float, A> == 16;
#else
    false;
#endif

/// Calls f(std::integral_constant<int, 0>{}), ..., f(std::integral_constant<int, N - 1>{}): a loop whose arrays the
/// compiler keeps in registers.
template <int N, class F>
HEED_INLINE constexpr void unroll(F&& f) {
    [&]<int... I>(std::integer_sequence<int, I...>) HEED_INLINE_LAMBDA {
        (f(std::integral_constant<int, I>{}), ...);
    }(std::make_integer_sequence<int, N>{});
}

template <class P>
HEED_INLINE P broadcast(typename P::value_type x) {
    return P(x);
}
template <class P>
HEED_INLINE P load(const typename P::value_type* p) {
    return P(P::raw_type::load_unaligned(p));
}
template <class P>
HEED_INLINE P load_aligned(const typename P::value_type* p) {
    return P(P::raw_type::load_aligned(p));
}
template <class T, class A>
HEED_INLINE void store(T* p, const pack<T, A>& x) {
    x.raw.store_unaligned(p);
}
template <class T, class A>
HEED_INLINE void store_aligned(T* p, const pack<T, A>& x) {
    x.raw.store_aligned(p);
}
template <class T>
    requires std::is_floating_point_v<T>
constexpr T select(bool m, T a, T b) {
    return m ? a : b;
}
/// Sum of the lanes, lowest first.
template <class T, class A>
HEED_INLINE T reduce_add(const pack<T, A>& x) {
    alignas(64) T at[pack<T, A>::size];
    store_aligned(at, x);
    T sum = at[0];
    for (std::size_t l = 1; l < pack<T, A>::size; ++l) sum += at[l];
    return sum;
}

/// a * b + c of numbers, rounded as the fma of packs is, whatever a compiler makes of the expression.
template <class A, class T>
T fma_number(T a, T b, T c) {
    using P = pack<T, A>;
    alignas(64) T at[P::size];
    store_aligned(at, fma(P(a), P(b), P(c)));
    return at[0];
}

/// x, kept in a register and rounded: a value that several operations share is loaded once, and a product joins no sum
/// (fma), which compilers may see otherwise.
template <class T, class A>
HEED_INLINE pack<T, A> pinned(pack<T, A> x) {
#if defined(__GNUC__) && defined(__AVX512F__)
    asm("" : "+v"(x.raw.data));
#elif defined(__GNUC__) && defined(__SSE2__)
    asm("" : "+x"(x.raw.data));
#elif defined(__GNUC__) && defined(__aarch64__)
    asm("" : "+w"(x.raw.data));
#endif
    return x;
}

/// p, in a register for addresses. An address that compilers compute or spill in vector registers waits there for the
/// arithmetic before it, and with it for memory: loads then no longer run ahead of products (measured: 16 GB/s for 25).
template <class T>
HEED_INLINE T* in_address_register(T* p) {
#if defined(__GNUC__)
    asm("" : "+r"(p));
#endif
    return p;
}

/// Lane l of the result is bit l of `bits`.
template <class T, class A>
HEED_INLINE pack_mask<T, A> mask_of_bits(std::uint32_t bits) {
#if defined(__AVX512F__)
    if constexpr (has_avx512<A>) {
        using lanes_type = std::conditional_t<sizeof(T) == 4, __mmask16, __mmask8>;
        return pack_mask<T, A>(typename pack_mask<T, A>::raw_type(static_cast<lanes_type>(bits)));
    } else
#endif
    {
        alignas(64) T at[pack<T, A>::size];
        for (std::size_t l = 0; l < pack<T, A>::size; ++l) at[l] = static_cast<T>(bits >> l & 1);
        return load_aligned<pack<T, A>>(at) != pack<T, A>(0);
    }
}

/// Bit l of the result is lane l of the mask.
template <class T, class A>
HEED_INLINE std::uint32_t bits_of_mask(const pack_mask<T, A>& m) {
#if defined(__AVX512F__)
    if constexpr (has_avx512<A>) return static_cast<std::uint32_t>(m.raw.data);
#elif defined(__AVX__)
    if constexpr (pack<T, A>::size * sizeof(T) == 32) {
        if constexpr (sizeof(T) == 4)
            return static_cast<std::uint32_t>(_mm256_movemask_ps(m.raw.data));
        else
            return static_cast<std::uint32_t>(_mm256_movemask_pd(m.raw.data));
    }
#endif
    alignas(64) bool at[pack<T, A>::size];
    m.raw.store_unaligned(at);
    std::uint32_t bits = 0;
    for (std::size_t l = 0; l < pack<T, A>::size; ++l) bits |= static_cast<std::uint32_t>(at[l]) << l;
    return bits;
}

/// The lanes of x whose bits are set, side by side at `to`, which has room for a whole pack. Returns how many there are.
template <class T, class A>
HEED_INLINE index_t store_chosen(T* to, const pack<T, A>& x, std::uint32_t bits) {
#if defined(__AVX512F__)
    if constexpr (has_avx512<A>) {
        if constexpr (sizeof(T) == 4) _mm512_storeu_ps(to, _mm512_maskz_compress_ps(static_cast<__mmask16>(bits), x.raw));
        else _mm512_storeu_pd(to, _mm512_maskz_compress_pd(static_cast<__mmask8>(bits), x.raw));
        return std::popcount(bits);
    }
#endif
    alignas(64) T at[pack<T, A>::size];
    store_aligned(at, x);
    index_t n = 0;
    for (; bits; bits &= bits - 1) to[n++] = at[std::countr_zero(bits)];
    return n;
}
/// The same of first, first + 1, ..., with room for sixteen.
template <class A>
HEED_INLINE index_t store_chosen(index_t* to, index_t first, std::uint32_t bits) {
#if defined(__AVX512F__)
    if constexpr (has_avx512<A>) {
        const __m512i low = _mm512_add_epi64(_mm512_set1_epi64(first), _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
        const __m512i high = _mm512_add_epi64(low, _mm512_set1_epi64(8));
        const auto eight = static_cast<__mmask8>(bits), others = static_cast<__mmask8>(bits >> 8);
        _mm512_storeu_si512(to, _mm512_maskz_compress_epi64(eight, low));
        _mm512_storeu_si512(to + std::popcount(bits & 0xff), _mm512_maskz_compress_epi64(others, high));
        return std::popcount(bits);
    }
#endif
    index_t n = 0;
    for (; bits; bits &= bits - 1) to[n++] = first + std::countr_zero(bits);
    return n;
}

/// 0, 1, 2, ... in the lanes.
template <class P>
HEED_INLINE P iota() {
    using T = typename P::value_type;
    alignas(64) static constexpr auto at = [] {
        std::array<T, P::size> a{};
        for (std::size_t l = 0; l < P::size; ++l) a[l] = static_cast<T>(l);
        return a;
    }();
    return load_aligned<P>(at.data());
}

/// Nearest integer, ties to even.
template <class T, class A>
HEED_INLINE pack<T, A> round_even(const pack<T, A>& x) {
    using raw = typename pack<T, A>::raw_type;
#if defined(__AVX512F__)
    if constexpr (has_avx512<A>) {
        constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        if constexpr (sizeof(T) == 4)
            return pack<T, A>(raw(_mm512_roundscale_ps(x.raw, mode)));
        else
            return pack<T, A>(raw(_mm512_roundscale_pd(x.raw, mode)));
    } else
#endif
        return pack<T, A>(raw(xsimd::nearbyint(x.raw)));
}

namespace detail {
/// The bits of floating-point lanes as unsigned integers, and back.
template <class T>
using bits_of_lane = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
template <class T>
inline constexpr int mantissa_bits = std::numeric_limits<T>::digits - 1;
template <class T>
inline constexpr T exponent_bias = std::numeric_limits<T>::max_exponent - 1;

template <class T, class A>
HEED_INLINE xsimd::batch<bits_of_lane<T>, A> to_bits(const pack<T, A>& x) {
#if XSIMD_VERSION_MAJOR >= 11
    return xsimd::bitwise_cast<bits_of_lane<T>>(x.raw);
#else
    return xsimd::bitwise_cast<xsimd::batch<bits_of_lane<T>, A>>(x.raw);
#endif
}
template <class P, class Bits>
HEED_INLINE P from_bits(const Bits& bits) {
#if XSIMD_VERSION_MAJOR >= 11
    return P(xsimd::bitwise_cast<typename P::value_type>(bits));
#else
    return P(xsimd::bitwise_cast<typename P::raw_type>(bits));
#endif
}
}  // namespace detail

/// Whether scale_by_power gives 0 below the range of n whatever p is there, NaN included.
template <class A>
inline constexpr bool scales_to_zero = has_avx512<A>;

/// p * 2^n for integral n up to the largest exponent; n below the normal range gives 0. Lanes that give 0 are not
/// computed where lanes can be left out: a result that has to be made denormal or 0 costs some processors a hundred
/// cycles.
template <class T, class A>
HEED_INLINE pack<T, A> scale_by_power(const pack<T, A>& p, const pack<T, A>& n) {
#if defined(__AVX512F__)
    if constexpr (has_avx512<A>) {
        using raw = typename pack<T, A>::raw_type;
        constexpr int not_below = _CMP_NLT_UQ;  // true of NaN
        constexpr T least = 1 - detail::exponent_bias<T>;
        const pack<T, A> bound(least);
        if constexpr (sizeof(T) == 4) {
            const auto lanes = _mm512_cmp_ps_mask(n.raw, bound.raw, not_below);
            return pack<T, A>(raw(_mm512_maskz_scalef_ps(lanes, p.raw, n.raw)));
        } else {
            const auto lanes = _mm512_cmp_pd_mask(n.raw, bound.raw, not_below);
            return pack<T, A>(raw(_mm512_maskz_scalef_pd(lanes, p.raw, n.raw)));
        }
    } else
#endif
    {
        // 2^n built in the exponent field: adding 1.5 * 2^mantissa leaves the integer n + bias in the low bits. Field 0
        // is +0, so everything below the normal range is flushed.
        using P = pack<T, A>;
        constexpr T bias = detail::exponent_bias<T>, magic = sizeof(T) == 4 ? T(0x1.8p23) : T(0x1.8p52);
        const P shifted = max(P(-bias), n) + P(bias + magic);
        return p * detail::from_bits<P>(detail::to_bits(shifted) << detail::mantissa_bits<T>);
    }
}

/// x = significand * 2^exponent with 1 <= significand < 2.
template <class P>
struct split_number {
    P significand, exponent;
};

/// For finite x > 0, denormals included.
template <class T, class A>
HEED_INLINE split_number<pack<T, A>> split_by_power(const pack<T, A>& x) {
    using P = pack<T, A>;
#if defined(__AVX512F__)
    if constexpr (has_avx512<A>) {
        using raw = typename P::raw_type;
        if constexpr (sizeof(T) == 4)
            return {P(raw(_mm512_getmant_ps(x.raw, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_src))),
                    P(raw(_mm512_getexp_ps(x.raw)))};
        else
            return {P(raw(_mm512_getmant_pd(x.raw, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_src))),
                    P(raw(_mm512_getexp_pd(x.raw)))};
    } else
#endif
    {
        // A field of bits, put into the mantissa of 2^mantissa, is read as a number without a conversion.
        using bits = xsimd::batch<detail::bits_of_lane<T>, A>;
        constexpr int mantissa = detail::mantissa_bits<T>;
        const auto denormal = x < P(std::numeric_limits<T>::min());
        const bits all = detail::to_bits(select(denormal, x * P(0x1p60), x));
        const P power(sizeof(T) == 4 ? T(0x1p23) : T(0x1p52));
        const P field = detail::from_bits<P>((all >> mantissa) | detail::to_bits(power)) - power;
        const bits fraction = all & bits((detail::bits_of_lane<T>(1) << mantissa) - 1);
        return {detail::from_bits<P>(fraction | detail::to_bits(P(1))),
                field - select(denormal, P(detail::exponent_bias<T> + 60), P(detail::exponent_bias<T>))};
    }
}

}  // namespace heed::inline HEED_ABI
