// A contestant: a way to compute attention. One small file each.
#pragma once

#include <functional>
#include <span>

#include "../support/operands.hpp"

namespace bench {

using job = std::function<void()>;

struct contestant {
    const char* name;
    bool (*able)(const problem&);               // whether it can, within sensible time and memory
    job (*prepare)(const problem&, operands&);  // does what need not be timed; each call of the job is one attention
};

/// heed first, then whoever was found when the suite was built.
std::span<const contestant> contestants();

/// body(h, scratch) for every head, on the problem's threads, each with `floats` of T to work in.
template <class T, class Body>
job over_heads(const problem& p, index_t size, Body body) {
    auto pool = std::make_shared<threads>(p.threads);
    const index_t crew = std::min<index_t>(p.threads, p.H);
    auto scratch = std::make_shared<arena>(static_cast<std::size_t>(crew * size) * sizeof(T));
    return [pool, scratch, size, H = p.H, body] {
        for_tasks(*pool, H,
                  [&](index_t h, index_t worker) { body(h, reinterpret_cast<T*>(scratch->data()) + worker * size); });
    };
}

}  // namespace bench
