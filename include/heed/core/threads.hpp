// threads{n}: an executor over Eigen's thread pool; the calling thread works too.
#pragma once

#include <unsupported/Eigen/CXX11/ThreadPool>

#include "context.hpp"

namespace heed::inline HEED_ABI {

/// n workers in all: n - 1 pool threads and the caller. Movable handle; make it once and keep it.
class threads {
public:
    explicit threads(index_t n) : width_(n) {
        require_argument(n >= 1, "threads", "n is ", n, ", the least is 1");
        if (n > 1) pool_ = std::make_unique<Eigen::ThreadPool>(static_cast<int>(n - 1));
    }

    index_t width() const noexcept { return width_; }

    void run(index_t n, task_ref f) {
        if (n <= 0) return;
        if (!pool_) {
            for (index_t i = 0; i < n; ++i) f(i);
            return;
        }
        struct {
            task_ref f;
            Eigen::Barrier done;
        } call{f, Eigen::Barrier(static_cast<unsigned>(n - 1))};
        for (index_t i = 1; i < n; ++i)
            pool_->Schedule([&call, i] {  // two words, which std::function holds without memory of its own
                call.f(i);
                call.done.Notify();
            });
        f(0);
        call.done.Wait();
    }

private:
    index_t width_;
    std::unique_ptr<Eigen::ThreadPool> pool_;
};

}  // namespace heed::inline HEED_ABI
