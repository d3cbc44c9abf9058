// Stores around the caches. An output so large that its first rows have left the caches when the last are written is not
// read there either: stored around them, its lines are not fetched before they are overwritten, which is up to a half of
// what moves, and they do not drive out what is still needed.
#pragma once

#include <cstdint>

#include "../core/view.hpp"
#include "pack.hpp"

namespace heed::inline HEED_ABI {

/// p is aligned like a pack, and a line of 64 bytes is to be written whole, at once. Followed by `finish_stores`.
template <class T, class A>
HEED_INLINE void store_around(T* p, const pack<T, A>& x) {
#if defined(__SSE2__)
    [[maybe_unused]] constexpr std::size_t bytes = sizeof(x.raw);
#if defined(__AVX512F__)
    if constexpr (bytes == 64 && sizeof(T) == 4) return _mm512_stream_ps(p, x.raw);
    if constexpr (bytes == 64 && sizeof(T) == 8) return _mm512_stream_pd(p, x.raw);
#endif
#if defined(__AVX__)
    if constexpr (bytes == 32 && sizeof(T) == 4) return _mm256_stream_ps(p, x.raw);
    if constexpr (bytes == 32 && sizeof(T) == 8) return _mm256_stream_pd(p, x.raw);
#endif
    if constexpr (bytes == 16 && sizeof(T) == 4) return _mm_stream_ps(p, x.raw);
    if constexpr (bytes == 16 && sizeof(T) == 8) return _mm_stream_pd(p, x.raw);
#endif
    store_aligned(p, x);
}

/// Whoever learns of this later sees what was stored around the caches.
inline void finish_stores() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

inline bool starts_line(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 64 == 0; }

/// Whether an output is to be stored around the caches: it is large, and its rows are whole lines.
template <class T, std::size_t Rank>
bool outweighs_caches(const view<T, Rank>& o) {
    constexpr index_t size = sizeof(T), caches = index_t(32) << 20;
    bool whole = o.strides[Rank - 1] == 1 && o.shape[Rank - 1] * size % 64 == 0 && starts_line(o.data);
    for (std::size_t a = 0; a + 1 < Rank; ++a) whole = whole && (o.shape[a] <= 1 || o.strides[a] * size % 64 == 0);
    return whole && o.size() * size >= caches;
}

}  // namespace heed::inline HEED_ABI
