// Context: who runs the tasks (executor) and where scratch lives (arena).
//
// An executor is anything with
//   width()     how many calls may run at once, >= 1
//   run(n, f)   calls f(0), ..., f(n - 1), each once, possibly at once, and returns when all are done
// The engine cuts work by shape only, so results have the same bits under every executor.
#pragma once

#include <algorithm>
#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <utility>

#include "error.hpp"
#include "large_pages.hpp"
#include "range.hpp"
#include "roles.hpp"

namespace heed::inline HEED_ABI {

/// A non-owning reference to a callable void(index_t).
class task_ref {
public:
    template <class F>
        requires(!std::same_as<std::remove_cvref_t<F>, task_ref>)
    task_ref(F&& f) noexcept
        : object_(const_cast<void*>(static_cast<const void*>(std::addressof(f)))),
          call_([](void* object, index_t i) { (*static_cast<std::remove_reference_t<F>*>(object))(i); }) {}

    void operator()(index_t i) const { call_(object_, i); }

private:
    void* object_;
    void (*call_)(void*, index_t);
};

template <class E>
concept executor = requires(E& e, index_t n, task_ref f) {
    { e.width() } -> std::convertible_to<index_t>;
    e.run(n, f);
};

/// Runs everything on the calling thread.
struct serial {
    index_t width() const noexcept { return 1; }
    void run(index_t n, task_ref f) const {
        for (index_t i = 0; i < n; ++i) f(i);
    }
};

/// Adapts the caller's own parallel loop: loop(n, f) must call f(0), ..., f(n - 1) and return when all are done.
template <class Loop>
class executor_adapter {
public:
    executor_adapter(index_t width, Loop loop) : width_(width), loop_(std::move(loop)) {
        require_argument(width >= 1, "executor_adapter", "width is ", width, ", the least is 1");
    }
    index_t width() const noexcept { return width_; }
    void run(index_t n, task_ref f) { loop_(n, f); }

private:
    index_t width_;
    Loop loop_;
};

/// Scratch memory, aligned to 64 bytes: the caller's span, or its own.
class arena {
public:
    static constexpr std::size_t alignment = block_alignment;

    arena() = default;
    explicit arena(std::size_t bytes)
        : owned_(static_cast<std::byte*>(detail::allocate_block(bytes + alignment)), detail::release_block{bytes + alignment}),
          memory_(owned_.get(), bytes + alignment) {}
    explicit arena(std::span<std::byte> memory) : memory_(memory) {}

    /// Bytes that can be used, after alignment.
    std::size_t size() const noexcept {
        const auto lost = static_cast<std::size_t>(data() - memory_.data());
        return memory_.size() > lost ? memory_.size() - lost : 0;
    }
    std::byte* data() const noexcept {
        const auto address = reinterpret_cast<std::uintptr_t>(memory_.data());
        return memory_.data() + (alignment - address % alignment) % alignment;
    }

private:
    std::unique_ptr<std::byte, detail::release_block> owned_;
    std::span<std::byte> memory_;
};

/// Hands out aligned arrays from a block of scratch, in order; or only counts, when given no memory.
class carver {
public:
    explicit carver(std::byte* memory = nullptr) : memory_(memory) {}

    template <class T>
    T* take(index_t count) {
        auto* at = memory_ ? reinterpret_cast<T*>(memory_ + used_) : nullptr;
        used_ += static_cast<std::size_t>(round_up(count * static_cast<index_t>(sizeof(T)), arena::alignment));
        return at;
    }
    std::size_t used() const noexcept { return used_; }
    /// Whether it was given no memory.
    bool counts() const noexcept { return !memory_; }

private:
    std::byte* memory_;
    std::size_t used_ = 0;
};

/// So many bytes of this thread's own, for a call that is lent none; good until the thread asks again. They grow to the
/// largest call: small ones are not to pay for pages.
inline std::byte* thread_scratch(std::size_t bytes) {
    thread_local arena own;
    if (own.size() < bytes) own = arena(bytes);
    return own.data();
}

/// Policy: run on this executor, with scratch from this arena (see attention_scratch for its size).
template <executor E>
struct on {
    using role = roles::context;

    E* pool;
    arena* scratch = nullptr;

    explicit on(E& e) : pool(&e) {}
    on(E& e, arena& a) : pool(&e), scratch(&a) {}
};

/// Policy in the place of on{}: the call checks its arguments, computes nothing, and tells how many bytes of scratch it
/// needs on this executor; of several calls, the most.
template <executor E>
struct scratch_size {
    using role = roles::context;

    E* pool;
    std::size_t* bytes;
    arena* scratch = nullptr;

    scratch_size(E& e, std::size_t& need) : pool(&e), bytes(&need) { need = 0; }
};

namespace detail {

/// What a call runs on without `on`: the calling thread, and scratch of its own.
struct calling_thread {
    using role = roles::context;
    static serial self;
    serial* pool = &self;
    arena* scratch = nullptr;
};
inline serial calling_thread::self{};

/// Calls body(memory) with `need` bytes: those of the context's arena, or memory of the calling thread, which grows to its
/// largest call, so that small calls do not pay for pages. A scratch_size is told the bytes, and nothing is called.
template <class Context, class Body>
void with_scratch(const char* op, const Context& context, std::size_t need, const Body& body) {
    if constexpr (requires { context.bytes; }) {
        *context.bytes = std::max(*context.bytes, need);
    } else if (context.scratch) {
        require_argument(context.scratch->size() >= need, op, "the arena holds ", context.scratch->size(),
                         " bytes, the call needs ", need);
        body(context.scratch->data());
    } else {
        body(thread_scratch(need));
    }
}

}  // namespace detail

/// Calls body(task, worker) for every task; worker < workers(...) names the scratch the call may use.
template <executor E>
index_t workers(E& e, index_t tasks) {
    return std::max<index_t>(1, std::min<index_t>(static_cast<index_t>(e.width()), tasks));
}

template <executor E, class Body>
void for_tasks(E& e, index_t tasks, const Body& body) {
    const index_t crew = workers(e, tasks);
    if (crew == 1) {
        for (index_t t = 0; t < tasks; ++t) body(t, 0);
        return;
    }
    std::atomic<index_t> next{0};
    auto work = [&](index_t worker) {
        for (index_t t; (t = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) body(t, worker);
    };
    e.run(crew, work);
}

}  // namespace heed::inline HEED_ABI
