// Views: a pointer, a shape and strides (in elements). They own nothing.
//
// Attention operands have rank 4 with axes (b, h, n, d) whatever the order in memory:
//   heads (p, {B, H, N, D})   memory order b h n d
//   tokens(p, {B, N, H, D})   memory order b n h d
// Those of convolutions have rank 3 with axes (b, n, c): dense(p, {B, N, C}), or channels(p, {B, C, N}) for b c n.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <numeric>
#include <span>
#include <type_traits>

#include "error.hpp"
#include "range.hpp"

namespace heed::inline HEED_ABI {

template <std::size_t Rank>
using extents = std::array<index_t, Rank>;

/// Rank-dimensional strided view of elements T. Strides may be any integers (0 broadcasts an axis).
template <class T, std::size_t Rank = 4>
struct view {
    using value_type = std::remove_cv_t<T>;
    static constexpr std::size_t rank = Rank;

    T* data = nullptr;
    extents<Rank> shape{};
    extents<Rank> strides{};

    constexpr operator view<const T, Rank>() const
        requires(!std::is_const_v<T>)
    {
        return {data, shape, strides};
    }

    template <class... I>
        requires(sizeof...(I) == Rank)
    constexpr T& operator()(I... i) const {
        const extents<Rank> at{static_cast<index_t>(i)...};
        index_t offset = 0;
        for (std::size_t a = 0; a < Rank; ++a) offset += at[a] * strides[a];
        return data[offset];
    }

    constexpr index_t size() const {
        index_t n = 1;
        for (index_t extent : shape) n *= extent;
        return n;
    }
};

/// Strides of a dense row-major array. An empty axis counts as one element, so that no other axis seems to broadcast.
template <std::size_t Rank>
constexpr extents<Rank> dense_strides(const extents<Rank>& shape) {
    extents<Rank> strides{};
    index_t step = 1;
    for (std::size_t a = Rank; a-- > 0;) {
        strides[a] = step;
        step *= std::max<index_t>(shape[a], 1);
    }
    return strides;
}

/// Dense row-major view of any rank.
template <class T, std::size_t Rank>
constexpr view<T, Rank> dense(T* data, const index_t (&shape)[Rank]) {
    extents<Rank> s{};
    for (std::size_t a = 0; a < Rank; ++a) s[a] = shape[a];
    return {data, s, dense_strides(s)};
}

/// (b, h, n, d) view of memory in order b h n d; shape {B, H, N, D}.
template <class T>
constexpr view<T> heads(T* data, const extents<4>& shape) {
    return {data, shape, dense_strides(shape)};
}

/// (b, h, n, d) view of memory in order b n h d; shape {B, N, H, D}.
template <class T>
constexpr view<T> tokens(T* data, const extents<4>& shape) {
    const auto s = dense_strides(shape);
    return {data, {shape[0], shape[2], shape[1], shape[3]}, {s[0], s[2], s[1], s[3]}};
}

/// (b, n, c) view of memory in order b c n, channel by channel; shape {B, C, N}. dense(p, {B, N, C}) is the other order.
template <class T>
constexpr view<T, 3> channels(T* data, const extents<3>& shape) {
    const auto s = dense_strides(shape);
    return {data, {shape[0], shape[2], shape[1]}, {s[0], s[2], s[1]}};
}

namespace detail {
template <class T>
T* checked(std::span<T> memory, const extents<4>& shape, const char* who) {
    index_t need = 1;
    for (index_t extent : shape) {
        require_shape(extent >= 0, who, "extent ", extent, " is negative");
        need *= extent;
    }
    require_shape(static_cast<index_t>(memory.size()) >= need, who, "the span holds ", memory.size(),
                  " elements, the shape needs ", need);
    return memory.data();
}
}  // namespace detail

/// heads over a span; throws shape_error where the span is too short.
template <class T>
view<T> heads(std::span<T> memory, const extents<4>& shape) {
    return heads(detail::checked(memory, shape, "heads"), shape);
}

/// tokens over a span; throws shape_error where the span is too short.
template <class T>
view<T> tokens(std::span<T> memory, const extents<4>& shape) {
    return tokens(detail::checked(memory, shape, "tokens"), shape);
}

/// The rows [r.first, r.last) of axis `axis`. A view without memory stays one.
template <class T, std::size_t Rank>
constexpr view<T, Rank> slice(view<T, Rank> v, std::size_t axis, range r) {
    if (v.data) v.data += r.first * v.strides[axis];
    v.shape[axis] = r.size();
    return v;
}

/// The rows of axis `axis` from the last to the first: over tokens (axis 2), what is causal runs backwards.
template <class T, std::size_t Rank>
constexpr view<T, Rank> flipped(view<T, Rank> v, std::size_t axis) {
    if (v.data && v.shape[axis] > 0) v.data += (v.shape[axis] - 1) * v.strides[axis];
    v.strides[axis] = -v.strides[axis];
    return v;
}

/// Customisation point: how a public entry turns an operand that is not a view into one (see interop/eigen.hpp).
template <class T>
struct viewable;

template <class T>
constexpr auto as_view(T&& operand) {
    static_assert(requires { viewable<std::remove_cvref_t<T>>::view_of(operand); },
                  "heed: an operand is neither a view nor of a type that heed::viewable knows");
    return viewable<std::remove_cvref_t<T>>::view_of(operand);
}
template <class T, std::size_t Rank>
constexpr view<T, Rank> as_view(const view<T, Rank>& v) {
    return v;
}
template <class T, std::size_t Rank>
constexpr view<T, Rank> as_view(view<T, Rank>& v) {
    return v;
}

/// A view of any type and rank, for aliasing checks; it refers to the view it is made of.
struct any_view {
    const std::byte* data;
    const index_t* shape;
    const index_t* strides;
    std::size_t rank;
    index_t element;  // bytes

    template <class T, std::size_t Rank>
    any_view(const view<T, Rank>& v)
        : data(reinterpret_cast<const std::byte*>(v.data)), shape(v.shape.data()), strides(v.strides.data()),
          rank(Rank), element(static_cast<index_t>(sizeof(T))) {}
};

/// The addresses a view may touch, [first, last), for aliasing checks; empty views and those without memory touch none.
inline std::array<const std::byte*, 2> footprint(const any_view& v) {
    if (!v.data) return {nullptr, nullptr};
    index_t lo = 0, hi = 0;
    for (std::size_t a = 0; a < v.rank; ++a) {
        if (v.shape[a] <= 0) return {nullptr, nullptr};
        const index_t reach = (v.shape[a] - 1) * v.strides[a];
        (reach < 0 ? lo : hi) += reach;
    }
    return {v.data + lo * v.element, v.data + (hi + 1) * v.element};
}

/// Whether the address ranges of two views meet and their strides do not keep them apart, as they do with the members
/// of an array of structs (a superset of true aliasing).
inline bool overlap(const any_view& a, const any_view& b) {
    const auto x = footprint(a), y = footprint(b);
    if (!x[0] || !y[0] || x[0] >= y[1] || y[0] >= x[1]) return false;
    index_t step = 0;  // all elements of either stand at multiples of it from the first
    for (const any_view* v : {&a, &b})
        for (std::size_t axis = 0; axis < v->rank; ++axis)
            if (v->shape[axis] > 1) step = std::gcd(step, v->strides[axis] * v->element);
    if (step == 0) return true;
    const index_t apart = ((y[0] - x[0]) % step + step) % step;
    return apart < a.element || step - apart < b.element;
}

}  // namespace heed::inline HEED_ABI
