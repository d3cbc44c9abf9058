// What fuzz targets share: decisions read from bytes, layouts, and scratch that ends where its allocation does.
#pragma once

#include <algorithm>
#include <cstdint>
#include <heed/core/context.hpp>
#include <new>

#include "random.hpp"

namespace test {

/// Decisions read from the fuzzer's bytes; zeros when they run out.
class decisions {
public:
    decisions(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}

    /// A number in [0, n).
    index_t below(index_t n) {
        std::uint64_t x = next();
        if (n > 256) x = x << 8 | next();
        return static_cast<index_t>(x) % std::max<index_t>(n, 1);
    }
    /// A number in [first, last].
    index_t between(index_t first, index_t last) { return first + below(last - first + 1); }
    bool one_in(index_t n) { return below(n) == n - 1; }
    std::uint64_t seed() { return next() << 8 | next(); }
    layout any_layout() {
        const layout kinds[] = {layout::heads(), layout::tokens(), layout::padded(), layout::strided(),
                                layout::channels_first()};
        return kinds[below(5)];
    }

private:
    std::uint64_t next() { return at_ < size_ ? data_[at_++] : 0; }
    const std::uint8_t* data_;
    std::size_t size_, at_ = 0;
};

/// run(context) with exactly the scratch it asks for, poisoned, which ends where its allocation does.
template <class F>
void in_exact_scratch(const F& run) {
    serial here;
    std::size_t need = 0;
    run(scratch_size(here, need));
    const std::align_val_t alignment{arena::alignment};
    std::byte* memory = static_cast<std::byte*>(::operator new(std::max<std::size_t>(need, 1), alignment));
    std::fill_n(memory, need, std::byte{0xff});
    struct owner {
        std::byte* p;
        ~owner() { ::operator delete(p, std::align_val_t(arena::alignment)); }
    } release{memory};
    arena scratch{std::span<std::byte>(memory, need)};
    run(on(here, scratch));
}

}  // namespace test
