// Vectors whose elements begin at a multiple of 64 bytes, so that no register is loaded across cache lines.
#pragma once

#include <vector>

#include "large_pages.hpp"

namespace heed::inline HEED_ABI {

template <class T>
struct aligned_allocator {
    using value_type = T;
    aligned_allocator() = default;
    template <class U>
    aligned_allocator(const aligned_allocator<U>&) noexcept {}
    T* allocate(std::size_t n) { return static_cast<T*>(detail::allocate_block(n * sizeof(T))); }
    void deallocate(T* p, std::size_t n) noexcept { detail::release_block{n * sizeof(T)}(p); }
    friend bool operator==(const aligned_allocator&, const aligned_allocator&) { return true; }
};

template <class T>
using aligned_vector = std::vector<T, aligned_allocator<T>>;

}  // namespace heed::inline HEED_ABI
