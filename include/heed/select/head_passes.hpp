// Passes over the heads of an index that choose keys: a head by one worker, from its scores to its choice; heads that are
// left, too few for all workers, together by all of them.
#pragma once

#include <span>
#include <vector>

#include "../core/context.hpp"

namespace heed::inline HEED_ABI::detail {

/// For each of these heads: make(head, carver) gives a pass, pass.score(span) is called for each of its pass.spans() spans,
/// then finish(head, pass). No pass carves more than `bytes`. The work on a head does not depend on the others; where one
/// worker does it, what it scored is in its own cache when it chooses.
template <class Make, class Finish, executor E>
void run_passes(E& pool, std::span<const index_t> heads, std::size_t bytes, const Make& make, const Finish& finish) {
    const auto count = static_cast<index_t>(heads.size()), width = static_cast<index_t>(pool.width());
    const index_t alone = count / width * width, together = count - alone;
    const auto head = [&](index_t x) { return heads[static_cast<std::size_t>(x)]; };
    std::byte* const memory = thread_scratch(static_cast<std::size_t>(std::max(workers(pool, alone), together)) * bytes);
    const auto start = [&](index_t x, index_t place) {
        carver from(memory + static_cast<std::size_t>(place) * bytes);
        return make(head(x), from);
    };
    for_tasks(pool, alone, [&](index_t x, index_t w) {
        const auto pass = start(x, w);
        for (index_t span = 0; span < pass.spans(); ++span) pass.score(span);
        finish(head(x), pass);
    });
    if (together == 0) return;
    std::vector<decltype(start(0, 0))> passes;
    index_t spans = 0;
    for (index_t x = 0; x < together; ++x) spans = std::max(spans, passes.emplace_back(start(alone + x, x)).spans());
    const auto pass = [&](index_t x) -> auto& { return passes[static_cast<std::size_t>(x)]; };
    for_tasks(pool, together * spans, [&](index_t t, index_t) { pass(t / spans).score(t % spans); });
    for_tasks(pool, together, [&](index_t x, index_t) { finish(head(alone + x), pass(x)); });
}

}  // namespace heed::inline HEED_ABI::detail
