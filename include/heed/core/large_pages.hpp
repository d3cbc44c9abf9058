// Blocks of memory, aligned to cache lines; those of four megabytes and more lie on large pages where the system has them, so that
// rows chosen here and there do not each wait for the translation of a page.
#pragma once

#include <cstddef>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "config.hpp"

namespace heed::inline HEED_ABI {

/// Of a cache line, and of a register.
inline constexpr std::size_t block_alignment = 64;

namespace detail {

inline constexpr std::size_t large_page = std::size_t(2) << 20;

constexpr std::align_val_t alignment_of_block(std::size_t bytes) noexcept {
    return std::align_val_t(bytes >= 2 * large_page ? large_page : block_alignment);
}
inline void* allocate_block(std::size_t bytes) {
    const auto alignment = alignment_of_block(bytes);
    void* const block = ::operator new(bytes, alignment);
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    // A wish: refused, the pages are the usual ones.
    if (alignment == std::align_val_t(large_page)) ::madvise(block, bytes / large_page * large_page, MADV_HUGEPAGE);
#endif
    return block;
}
/// Releases a block of so many bytes.
struct release_block {
    std::size_t bytes = 0;
    void operator()(void* block) const noexcept { ::operator delete(block, alignment_of_block(bytes)); }
};

}  // namespace detail
}  // namespace heed::inline HEED_ABI
