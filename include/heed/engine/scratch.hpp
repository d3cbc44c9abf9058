// Where a call runs and works: the executor and arena of its policies, or the calling thread and memory of its own.
#pragma once

#include <tuple>

#include "../core/context.hpp"
#include "../policy/roles.hpp"

namespace heed::inline HEED_ABI::detail {

/// Calls run(pool, memory) with need(pool) bytes; throws argument_error where the arena is too small.
template <class Need, class Run, class... Policies>
void in_scratch(const char* op, const Need& need, const Run& run, const Policies&... policies) {
    const auto context = pick<roles::context>(calling_thread{}, policies...);
    with_scratch(op, context, need(*context.pool), [&](std::byte* memory) { run(*context.pool, memory); });
}

/// For a call made of others: run(from, policies...) takes arrays from a carver and hands the policies, whose context
/// is another, to the calls, which find scratch behind those arrays. It runs twice: at first nothing is computed, the
/// carver counts, and the calls tell what they need.
template <class Run, class... Policies>
void in_shared_scratch(const char* op, const Run& run, const Policies&... policies) {
    const auto context = pick<roles::context>(calling_thread{}, policies...);
    const auto with = [&](carver& from, const auto& inner) {
        std::apply([&](const auto&... each) { run(from, each..., inner); }, leave_out<roles::context>(policies...));
    };
    carver count;
    std::size_t within = 0;
    with(count, scratch_size{*context.pool, within});
    with_scratch(op, context, count.used() + within, [&](std::byte* memory) {
        carver from(memory);
        arena rest(std::span(memory + count.used(), within));
        with(from, on{*context.pool, rest});
    });
}

}  // namespace heed::inline HEED_ABI::detail
