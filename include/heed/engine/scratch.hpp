// Where a call runs and works: the executor and arena of its policies, or the calling thread and memory of its own.
#pragma once

#include "../core/context.hpp"
#include "../policy/roles.hpp"

namespace heed::inline HEED_ABI::detail {

/// Calls run(pool, memory) with need(pool) bytes; throws argument_error where the arena is too small.
template <class Need, class Run, class... Policies>
void in_scratch(const char* op, const Need& need, const Run& run, const Policies&... policies) {
    const auto context = pick<roles::context>(calling_thread{}, policies...);
    with_scratch(op, context, need(*context.pool), [&](std::byte* memory) { run(*context.pool, memory); });
}

}  // namespace heed::inline HEED_ABI::detail
