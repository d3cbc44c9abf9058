// Memory of the caches that keep rows as they are: planes of keys (planes, rows, D), then as many of values
// (planes, rows, E), in one allocation.
//
// Rows begin at multiples of 64 bytes where the padding is at most an eighth of a row; else they follow directly.
#pragma once

#include <cstring>
#include <limits>
#include <span>

#include "../core/context.hpp"
#include "../core/view.hpp"
#include "../simd/stored_rows.hpp"

namespace heed::inline HEED_ABI::detail {

/// Elements from one row of `width` elements to the next.
template <class S>
constexpr index_t row_stride(index_t width) {
    const index_t padded = round_up(width, static_cast<index_t>(arena::alignment / sizeof(S)));
    return 8 * (padded - width) <= width ? padded : width;
}

/// Rows (n, width) of one head of an operand.
template <class T>
view<const T, 2> head_of(const view<T>& x, index_t b, index_t g) {
    return {x.data + b * x.strides[0] + g * x.strides[1], {x.shape[2], x.shape[3]}, {x.strides[2], x.strides[3]}};
}

/// One half of the memory: planes of rows of S.
template <class S>
struct row_planes {
    S* data = nullptr;
    index_t rows = 0, width = 0, stride = 0;

    S* at(index_t plane, index_t row) const { return data + (plane * rows + row) * stride; }
    plain_rows<S> from(index_t plane, index_t row) const { return {at(plane, row), stride, 1}; }
    template <class T>
    void write(index_t plane, index_t row, const view<const T, 2>& x) const {
        for (index_t i = 0; i < x.shape[0]; ++i)
            convert_row<default_arch>(x.data + i * x.strides[0], x.strides[1], width, at(plane, row + i));
    }
    void copy(index_t plane, index_t row, const S* source, index_t count) const {
        const index_t bytes = count * stride * static_cast<index_t>(sizeof(S));
        if (bytes > 0)
            std::memmove(static_cast<void*>(at(plane, row)), static_cast<const void*>(source),
                         static_cast<std::size_t>(bytes));
    }
};

template <class K, class V>
class row_memory {
public:
    row_memory() = default;
    row_memory(const char* op, index_t planes, index_t rows, index_t D, index_t E)
        : k_{nullptr, rows, D, row_stride<K>(D)}, v_{nullptr, rows, E, row_stride<V>(E)} {
        const index_t row_bytes =
            k_.stride * static_cast<index_t>(sizeof(K)) + v_.stride * static_cast<index_t>(sizeof(V));
        const index_t most = std::numeric_limits<index_t>::max() / 2 / std::max<index_t>(row_bytes, 1);
        require_argument(rows == 0 || planes <= most / rows, op, "no memory holds ", planes, " heads of ", rows,
                         " rows");
        carver sizes;
        carve(sizes, planes);
        bytes_ = sizes.used();
        memory_ = arena(bytes_);
        carver places(memory_.data());
        carve(places, planes);
    }

    /// Row `row` of a plane and those after it.
    plain_rows<K> keys(index_t plane, index_t row) const { return k_.from(plane, row); }
    plain_rows<V> values(index_t plane, index_t row) const { return v_.from(plane, row); }
    /// The keys of some rows of `planes` planes, (planes, rows, 1, D).
    view<K> keys(index_t planes, range rows) const {
        return {k_.at(0, rows.first), {planes, rows.size(), 1, k_.width}, {k_.rows * k_.stride, k_.stride, 0, 1}};
    }

    /// Rows of a plane, from `row` on, become those of k (n, D) and v (n, E), rounded to the cache's storage.
    template <class Q, class W>
    void write(index_t plane, index_t row, const view<const Q, 2>& k, const view<const W, 2>& v) {
        static_assert(storage<Q> && storage<W>, "heed: elements are float, double, bf16 or f16");
        k_.write(plane, row, k);
        v_.write(plane, row, v);
    }

    /// `count` rows of a plane, from `row` on, become those of another plane, of this memory or one of the same widths.
    void copy(index_t plane, index_t row, const row_memory& from, index_t from_plane, index_t from_row, index_t count) {
        k_.copy(plane, row, from.k_.at(from_plane, from_row), count);
        v_.copy(plane, row, from.v_.at(from_plane, from_row), count);
    }

    index_t bytes() const { return static_cast<index_t>(bytes_); }
    std::span<const std::byte> memory() const { return {memory_.data(), bytes_}; }

private:
    void carve(carver& space, index_t planes) {
        k_.data = space.take<K>(planes * k_.rows * k_.stride);
        v_.data = space.take<V>(planes * v_.rows * v_.stride);
    }

    row_planes<K> k_;
    row_planes<V> v_;
    arena memory_;
    std::size_t bytes_ = 0;
};

}  // namespace heed::inline HEED_ABI::detail
