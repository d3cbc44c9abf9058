// That a call keeps to the scratch it tells of, and what it allocates. It replaces operator new, so one file of a
// program may include it.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <heed/core/threads.hpp>
#include <new>

#include "compare.hpp"

namespace {
std::atomic<std::size_t> allocations = 0;
void* allocated(std::size_t bytes, std::size_t alignment) {
    ++allocations;
    void* const p = std::aligned_alloc(alignment, (bytes + alignment) / alignment * alignment);
    return p ? p : throw std::bad_alloc();
}
}  // namespace

// Inlined, a pair of them looks mismatched to gcc.
[[gnu::noinline]] void* operator new(std::size_t bytes) { return allocated(bytes, __STDCPP_DEFAULT_NEW_ALIGNMENT__); }
[[gnu::noinline]] void* operator new(std::size_t bytes, std::align_val_t a) {
    return allocated(bytes, static_cast<std::size_t>(a));
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

namespace test {

/// run(start(), o, context) is a call of the operator from start(), o of this shape: it tells how much scratch it needs
/// and does nothing else; that much is enough, whatever it holds, and with it the operator allocates nothing, unless
/// `may_allocate`; half of it is refused before o is touched.
template <class Start, class Run>
void keeps_to_scratch(const char* name, const extents<4>& shape, const Start& start, const Run& run,
                      bool may_allocate = false) {
    SCOPED_TRACE(name);
    tensor<float> o(shape), mine(shape), untouched(shape);
    auto first = start();
    run(first, o, heed::detail::calling_thread{});
    const auto with = [&](auto& pool, bool counted) {
        std::size_t need = 0;
        auto s = start();
        run(s, mine, scratch_size(pool, need));
        EXPECT_GT(need, 0u);
        EXPECT_TRUE(same_values(mine, untouched)) << "was written";
        for (unsigned char poison : {0x00, 0xff, 0x7f}) {
            std::vector<std::byte> memory(need + arena::alignment, std::byte{poison});
            arena scratch{std::span<std::byte>(memory)};
            auto again = start();
            const std::size_t before = allocations;
            run(again, mine, on{pool, scratch});
            if (counted) EXPECT_EQ(allocations.load(), before);
            EXPECT_TRUE(same_values(mine, o));
        }
        mine = untouched;
        std::vector<std::byte> memory(need / 2);
        arena small{std::span<std::byte>(memory)};
        EXPECT_THROW(run(s, mine, on{pool, small}), argument_error);
        EXPECT_TRUE(same_values(mine, untouched)) << "was written";
    };
    serial alone;
    with(alone, !may_allocate);
    threads pool(2);
    with(pool, false);  // which may allocate for itself
}

}  // namespace test
