// Threads for contestants that have none of their own.
#pragma once

#include <heed/heed.hpp>
#include <memory>

#include "measurement.hpp"

namespace bench {

using namespace heed;

/// body(task, scratch) for every task, on so many threads, each with `size` of T to work in.
template <class T, class Body>
job over_tasks(int workers, index_t tasks, index_t size, Body body) {
    auto pool = std::make_shared<threads>(workers);
    const index_t crew = std::min<index_t>(workers, tasks);
    auto scratch = std::make_shared<arena>(static_cast<std::size_t>(crew * size) * sizeof(T));
    return [pool, scratch, size, tasks, body] {
        for_tasks(*pool, tasks, [&](index_t task, index_t worker) {
            body(task, reinterpret_cast<T*>(scratch->data()) + worker * size);
        });
    };
}

}  // namespace bench
