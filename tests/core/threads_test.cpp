// heed_test: LABELS threads sanitize
#include <gtest/gtest.h>

#include <heed/core/threads.hpp>
#include <thread>
#include <vector>

namespace heed {
namespace {

template <executor E>
void expect_each_task_once(E& pool) {
    for (index_t tasks : {0, 1, 2, 3, 7, 100}) {
        std::vector<int> seen(static_cast<std::size_t>(tasks));  // no atomics: the executor's own ordering is tested
        for_tasks(pool, tasks, [&](index_t task, index_t worker) {
            EXPECT_LT(worker, pool.width());
            ++seen[static_cast<std::size_t>(task)];
        });
        for (int count : seen) EXPECT_EQ(count, 1);
    }
}

}  // namespace

TEST(executor, serial) {
    serial pool;
    expect_each_task_once(pool);
}

TEST(executor, threads) {
    for (index_t n : {1, 2, 3, 5}) {
        threads pool(n);
        EXPECT_EQ(pool.width(), n);
        for (int again = 0; again < 20; ++again) expect_each_task_once(pool);
    }
}

TEST(executor, adapter) {
    executor_adapter pool(3, [](index_t n, task_ref f) {
        std::vector<std::thread> crew;
        for (index_t i = 0; i < n; ++i) crew.emplace_back([f, i] { f(i); });
        for (auto& member : crew) member.join();
    });
    expect_each_task_once(pool);
}

TEST(executor, width_of_nothing_is_an_error) {
    EXPECT_THROW(threads(0), argument_error);
    EXPECT_THROW(executor_adapter(0, [](index_t, task_ref) {}), argument_error);
}

TEST(arena, is_aligned_and_holds_what_was_asked) {
    arena own(100);
    EXPECT_GE(own.size(), 100u);
    std::byte memory[256];
    arena lent(std::span<std::byte>(memory + 1, 255));
    for (const auto* a : {&own, &lent}) EXPECT_EQ(reinterpret_cast<std::uintptr_t>(a->data()) % arena::alignment, 0u);
    EXPECT_LE(lent.data() + lent.size(), memory + 256);
}

}  // namespace heed
