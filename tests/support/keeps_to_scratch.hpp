// That a call keeps to the scratch it tells of, and allocates nothing else. It counts allocations: one source of a program
// may include it.
#pragma once

#include <gtest/gtest.h>

#include <heed/core/threads.hpp>

#include "allocations.hpp"
#include "compare.hpp"

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
    const auto with = [&](auto& pool) {
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
            if (!may_allocate) EXPECT_EQ(allocations.load(), before);
            EXPECT_TRUE(same_values(mine, o));
        }
        mine = untouched;
        std::vector<std::byte> memory(need / 2);
        arena small{std::span<std::byte>(memory)};
        EXPECT_THROW(run(s, mine, on{pool, small}), argument_error);
        EXPECT_TRUE(same_values(mine, untouched)) << "was written";
    };
    serial alone;
    with(alone);
    threads pool(2);
    with(pool);
}

}  // namespace test
