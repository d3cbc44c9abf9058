// Passes over the heads of an index that choose keys: some heads at a time, each scored in spans by all workers.
#pragma once

#include <span>
#include <vector>

#include "../core/context.hpp"

namespace heed::inline HEED_ABI::detail {

/// For each of these heads: make(head, carver) gives a pass, pass.score(span) is called for each of its pass.spans() spans,
/// then finish(head, pass). No pass carves more than `bytes`. Heads at a time: as many as there are workers, or as stay in a
/// cache of the processor; the work on a head does not depend on the others.
template <class Make, class Finish, executor E>
void run_passes(E& pool, std::span<const index_t> heads, std::size_t bytes, const Make& make, const Finish& finish) {
    constexpr std::size_t cache = 1 << 20;
    const auto count = static_cast<index_t>(heads.size());
    const index_t together = std::clamp<index_t>(static_cast<index_t>(cache / std::max<std::size_t>(bytes, 1)),
                                                 workers(pool, count), std::max<index_t>(1, count));
    std::byte* const memory = thread_scratch(static_cast<std::size_t>(together) * bytes);
    for (index_t first = 0; first < count; first += together) {
        const index_t some = std::min(together, count - first);
        const auto head = [&](index_t x) { return heads[static_cast<std::size_t>(first + x)]; };
        carver none;
        std::vector<decltype(make(head(0), none))> passes;
        index_t spans = 0;
        for (index_t x = 0; x < some; ++x) {
            carver from(memory + static_cast<std::size_t>(x) * bytes);
            spans = std::max(spans, passes.emplace_back(make(head(x), from)).spans());
        }
        const auto pass = [&](index_t x) -> auto& { return passes[static_cast<std::size_t>(x)]; };
        for_tasks(pool, some * spans, [&](index_t t, index_t) { pass(t / spans).score(t % spans); });
        for_tasks(pool, some, [&](index_t x, index_t) { finish(head(x), pass(x)); });
    }
}

}  // namespace heed::inline HEED_ABI::detail
