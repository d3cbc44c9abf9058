// Counts the calls of operator new, which it replaces: one source of a program may include it.
#pragma once

#include <atomic>
#include <cstdlib>
#include <new>

namespace test {

inline std::atomic<std::size_t> allocations = 0;

inline void* allocated(std::size_t bytes, std::size_t alignment) {
    ++allocations;
    void* const p = std::aligned_alloc(alignment, (bytes + alignment) / alignment * alignment);
    return p ? p : throw std::bad_alloc();
}

}  // namespace test

// Inlined, a pair of them looks mismatched to gcc.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
    return test::allocated(bytes, __STDCPP_DEFAULT_NEW_ALIGNMENT__);
}
[[gnu::noinline]] void* operator new(std::size_t bytes, std::align_val_t a) {
    return test::allocated(bytes, static_cast<std::size_t>(a));
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
