// Version, ABI namespace and the few macros of heed.
//
// HEED_ABI names the inline namespace of every entity: version plus instruction set, so that two translation units
// compiled with different -m flags never share one definition (no ODR trap). Every macro of an instruction set that
// code here branches on is part of the name.
#pragma once

#include <cstddef>

#define HEED_VERSION_MAJOR 0
#define HEED_VERSION_MINOR 1
#define HEED_VERSION_PATCH 0

// Products of pairs of 16-bit integers.
#if defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VNNI__)
#define HEED_DOT_BYTES
#endif

// Products of pairs of bf16; with AMX, of whole tiles of them. Processors that have AMX take two to three times as long for
// the pairs as for products of floats: without its tiles bf16 is widened there. Where a virtual machine hides AMX, products
// of half-precision numbers tell such a processor. (clang called the macros otherwise before 15.)
#if (defined(__AMX_BF16__) || defined(__AMXBF16__)) && (defined(__AMX_TILE__) || defined(__AMXTILE__))
#define HEED_HAS_AMX
#endif
#if defined(HEED_DOT_BYTES) && defined(__AVX512BF16__) && defined(HEED_HAS_AMX) && defined(__linux__)
#define HEED_AMX
#endif
#if defined(HEED_AMX) || (defined(HEED_DOT_BYTES) && defined(__AVX512BF16__) && !defined(HEED_HAS_AMX) && \
                          !defined(__AVX512FP16__))
#define HEED_DOT_BF16
#endif

#if defined(HEED_AMX)
#define HEED_ABI v0_1_avx512amx
#elif defined(HEED_DOT_BF16)
#define HEED_ABI v0_1_avx512bf16
#elif defined(HEED_DOT_BYTES)
#define HEED_ABI v0_1_avx512vnni
#elif defined(__AVX512BW__) && defined(__AVX512DQ__)
#define HEED_ABI v0_1_avx512
#elif defined(__AVX512F__)
#define HEED_ABI v0_1_avx512f
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define HEED_ABI v0_1_avx2
#elif defined(__AVX2__) && defined(__F16C__)
#define HEED_ABI v0_1_avx2_without_fma
#elif defined(__AVX2__)
#define HEED_ABI v0_1_avx2_without_f16c
#elif defined(__AVX__)
#define HEED_ABI v0_1_avx
#elif defined(__SSE4_2__)
#define HEED_ABI v0_1_sse42
#elif defined(__aarch64__)
#define HEED_ABI v0_1_neon64
#else
#define HEED_ABI v0_1_base
#endif

// What kernels are made of must be inlined to be fast. HEED_INLINE_FREELY, for debug builds, leaves that to the compiler,
// which then takes half the time (clang with sanitizers a sixth); kernels take several times as long.
#if defined(__GNUC__) && !defined(HEED_INLINE_FREELY)
#define HEED_INLINE inline __attribute__((always_inline))
#define HEED_INLINE_LAMBDA __attribute__((always_inline))
#else
#define HEED_INLINE inline
#define HEED_INLINE_LAMBDA
#endif
#if defined(__GNUC__)
#define HEED_NOINLINE __attribute__((noinline))
#else
#define HEED_NOINLINE
#endif

namespace heed::inline HEED_ABI {

/// Signed extents, strides and positions, everywhere.
using index_t = std::ptrdiff_t;

}  // namespace heed::inline HEED_ABI
