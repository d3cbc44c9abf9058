// Memory between two pages that may not be touched: reading or writing past either end ends the test at once.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <heed/core/view.hpp>
#include <new>
#include <utility>

namespace test {

/// The data ends at the last byte before the guard (back), or starts at the first byte after one (front).
enum class flush { front, back };

template <class T>
class guarded {
public:
    explicit guarded(heed::index_t count, flush side = flush::back) : count_(count) {
        const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
        const auto bytes = static_cast<std::size_t>(count) * sizeof(T);
        const std::size_t inner = (bytes + page - 1) / page * page;
        size_ = inner + 2 * page;
        void* all = ::mmap(nullptr, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (all == MAP_FAILED) throw std::bad_alloc();
        base_ = static_cast<std::byte*>(all);
        if (inner > 0 && ::mprotect(base_ + page, inner, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
        data_ = reinterpret_cast<T*>(base_ + page + (side == flush::back ? inner - bytes : 0));
        std::memset(base_ + page, 0xff, inner);  // NaN in every float type
    }
    guarded(guarded&& other) noexcept
        : base_(std::exchange(other.base_, nullptr)), data_(other.data_), size_(other.size_), count_(other.count_) {}
    guarded& operator=(guarded&&) = delete;
    ~guarded() {
        if (base_) ::munmap(base_, size_);
    }

    T* data() { return data_; }
    heed::index_t size() const { return count_; }
    /// From here on, writing is an error too.
    void read_only() {
        const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
        if (size_ > 2 * page) ::mprotect(base_ + page, size_ - 2 * page, PROT_READ);
    }
    /// Takes the elements of a view, in its order (b, h, n, d), as a dense array.
    heed::view<T> take(const heed::view<const T>& from) {
        const auto [B, H, N, D] = from.shape;
        const auto to = heed::heads(data_, {B, H, N, D});
        for (heed::index_t b = 0; b < B; ++b)
            for (heed::index_t h = 0; h < H; ++h)
                for (heed::index_t n = 0; n < N; ++n)
                    for (heed::index_t d = 0; d < D; ++d) to(b, h, n, d) = from(b, h, n, d);
        return to;
    }

private:
    std::byte* base_ = nullptr;
    T* data_ = nullptr;
    std::size_t size_ = 0;
    heed::index_t count_ = 0;
};

}  // namespace test
