// state<T>: what a recurrence carries along a sequence: S (B, heads, D, E), and the sums of keys z (B, heads, D) that
// normalisers need. It owns its memory; copies are snapshots.
#pragma once

#include <cstring>

#include "../core/context.hpp"
#include "../core/view.hpp"
#include "../simd/convert.hpp"
#include "../tile/token_rows.hpp"

namespace heed::inline HEED_ABI {

/// B sequences, H states each of D rows (key channels, of features if keys are mapped) and E columns (value channels); zero
/// at first. T is the type the recurrence sums in: float, or double if any operand is double. Rows lie apart by an odd
/// number of cache lines, so that a column of the state does not fall into a few sets of a cache.
template <class T>
class state {
    static_assert(std::same_as<T, float> || std::same_as<T, double>, "heed: a state is of float or double");

public:
    using role = roles::state;
    using value_type = T;

    state() = default;
    state(index_t B, index_t H, index_t D, index_t E) : shape_{B, H, D, E} {
        for (index_t extent : shape_) require_shape(extent >= 0, "state", "extent ", extent, " is negative");
        memory_ = arena(bytes());
        clear();
    }
    /// In scratch that must outlive it; as long as the carver only counts, a shape without memory. Copies own theirs.
    state(carver& from, index_t B, index_t H, index_t D, index_t E) : shape_{B, H, D, E} {
        auto* const lent = from.take<std::byte>(static_cast<index_t>(bytes()));
        if (from.counts()) return;
        memory_ = arena(std::span(lent, bytes()));
        clear();
    }
    state(const state& other) : shape_(other.shape_) { *this = other; }
    state(state&& other) noexcept : shape_(std::exchange(other.shape_, {})), memory_(std::move(other.memory_)) {}
    state& operator=(const state& other) {
        if (this == &other) return *this;
        if (bytes() != other.bytes() || !memory_.data()) memory_ = other.memory_.data() ? arena(other.bytes()) : arena();
        shape_ = other.shape_;
        if (other.memory_.data() && bytes() > 0) std::memcpy(memory_.data(), other.memory_.data(), bytes());
        return *this;
    }
    state& operator=(state&& other) noexcept {
        shape_ = std::exchange(other.shape_, {});
        memory_ = std::move(other.memory_);
        return *this;
    }

    const extents<4>& shape() const noexcept { return shape_; }
    /// S, (B, H, D, E).
    view<T> values() const { return {data(), shape_, {shape_[1] * plane(), plane(), stride(), 1}}; }
    /// z, (B, H, D).
    view<T, 3> key_sums() const { return {sums(), {shape_[0], shape_[1], shape_[2]}, {shape_[1] * rows(), rows(), 1}}; }

    void clear() {
        if (bytes() > 0) std::memset(memory_.data(), 0, bytes());
    }
    /// S becomes the elements of another view of its shape; z becomes 0.
    template <class S>
    void assign(const view<S, 4>& from) {
        require_shape(from.shape == shape_, "state", "assigned (", from.shape[0], ", ", from.shape[1], ", ", from.shape[2],
                      ", ", from.shape[3], "), is (", shape_[0], ", ", shape_[1], ", ", shape_[2], ", ", shape_[3], ")");
        clear();
        const auto to = values();
        for (index_t b = 0; b < shape_[0]; ++b)
            for (index_t h = 0; h < shape_[1]; ++h)
                for (index_t d = 0; d < shape_[2]; ++d)
                    for (index_t e = 0; e < shape_[3]; ++e) to(b, h, d, e) = static_cast<T>(from(b, h, d, e));
    }
    /// All it holds, S and z.
    view<const std::byte, 1> memory() const { return {memory_.data(), {static_cast<index_t>(bytes())}, {1}}; }
    /// Bytes it occupies.
    std::size_t bytes() const { return static_cast<std::size_t>(shape_[0] * shape_[1] * (plane() + rows())) * sizeof(T); }

    /// From one row of S to the next, in elements.
    index_t stride() const { return stride_of(shape_[3]); }
    /// From one head to the next.
    index_t plane() const { return rows() * stride(); }
    static index_t stride_of(index_t E) {
        constexpr index_t line = arena::alignment / sizeof(T);
        return (ceil_div(E, line) | 1) * line;
    }

private:
    index_t rows() const { return round_up(shape_[2], state_row_block); }
    T* data() const { return reinterpret_cast<T*>(memory_.data()); }
    T* sums() const { return data() + shape_[0] * shape_[1] * plane(); }

    extents<4> shape_{};
    arena memory_;
};

namespace detail {

/// Sequence `to_b` of one state becomes sequence `from_b` of another.
template <class T>
void copy_sequence(const state<T>& from, index_t from_b, const state<T>& to, index_t to_b) {
    const auto [B, H, D, E] = from.shape();
    for (index_t h = 0; h < H; ++h)
        for (index_t d = 0; d < D; ++d) {
            for (index_t e = 0; e < E; ++e) to.values()(to_b, h, d, e) = from.values()(from_b, h, d, e);
            to.key_sums()(to_b, h, d) = from.key_sums()(from_b, h, d);
        }
}

}  // namespace detail
}  // namespace heed::inline HEED_ABI
