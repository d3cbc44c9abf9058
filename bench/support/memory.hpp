// Memory of operands as libraries of tensors allocate it: whole cache lines, and large pages where the system has them.
#pragma once

#include <heed/core/large_pages.hpp>
#include <vector>

namespace bench {

template <class T>
struct line_allocator {
    using value_type = T;

    line_allocator() = default;
    template <class U>
    explicit line_allocator(const line_allocator<U>&) {}
    T* allocate(std::size_t n) { return static_cast<T*>(heed::detail::allocate_block(n * sizeof(T))); }
    void deallocate(T* p, std::size_t n) noexcept { heed::detail::release_block{n * sizeof(T)}(p); }
    friend bool operator==(const line_allocator&, const line_allocator&) { return true; }
};

template <class T>
using lines_of = std::vector<T, line_allocator<T>>;

}  // namespace bench
