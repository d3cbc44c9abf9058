// Where a call runs and works: the executor and arena of its policies, or the calling thread and memory of its own.
#pragma once

#include "../core/context.hpp"
#include "../policy/roles.hpp"

namespace heed::inline HEED_ABI::detail {

/// The executor and arena of the pack, or the calling thread and none.
struct calling_thread {
    using role = roles::context;
    static serial self;
    serial* pool = &self;
    arena* scratch = nullptr;
};
inline serial calling_thread::self{};

/// Calls run(pool, memory) with need(pool) bytes, or only tells them to who asks by scratch_size. Throws argument_error
/// where the arena is too small.
template <class Need, class Run, class... Policies>
void in_scratch(const char* op, const Need& need, const Run& run, const Policies&... policies) {
    const auto context = pick<roles::context>(calling_thread{}, policies...);
    const std::size_t bytes = need(*context.pool);
    if constexpr (requires { context.bytes; }) {
        *context.bytes = bytes;
    } else if (context.scratch) {
        require_argument(context.scratch->size() >= bytes, op, "the arena holds ", context.scratch->size(),
                         " bytes, the call needs ", bytes);
        run(*context.pool, context.scratch->data());
    } else {
        thread_local arena own;  // grows to the largest call of this thread; small calls are not to pay for pages
        if (own.size() < bytes) own = arena(bytes);
        run(*context.pool, own.data());
    }
}

}  // namespace heed::inline HEED_ABI::detail
