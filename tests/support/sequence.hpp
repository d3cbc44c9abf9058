// Sequences for tests of scans: tensors (B, 1, N, C) seen as (B, N, C), vectors as the last axis of a tensor.
#pragma once

#include "random.hpp"

namespace test {

template <class T>
view<T, 3> seq(tensor<T>& x) {
    const auto v = x.v();
    return {v.data, {v.shape[0], v.shape[2], v.shape[3]}, {v.strides[0], v.strides[2], v.strides[3]}};
}
template <class T>
view<const T, 3> seq(const tensor<T>& x) {
    const auto v = x.v();
    return {v.data, {v.shape[0], v.shape[2], v.shape[3]}, {v.strides[0], v.strides[2], v.strides[3]}};
}
/// (1, 1, C, S) as (C, S).
template <class T>
view<const T, 2> matrix(const tensor<T>& x) {
    const auto v = x.v();
    return {v.data, {v.shape[2], v.shape[3]}, {v.strides[2], v.strides[3]}};
}
/// (1, 1, 1, C) as (C).
template <class T>
view<const T, 1> vec(const tensor<T>& x) {
    const auto v = x.v();
    return {v.data, {v.shape[3]}, {v.strides[3]}};
}
template <class R, class T>
tensor<R> in(const tensor<T>& x) {
    tensor<R> y(x.shape());
    x.each([&](index_t b, index_t h, index_t n, index_t d) { y(b, h, n, d) = static_cast<R>(x(b, h, n, d)); });
    return y;
}
/// The tokens of each row in the opposite order.
template <class T>
tensor<T> flipped(const tensor<T>& x) {
    tensor<T> y(x.shape());
    x.each([&](index_t b, index_t h, index_t n, index_t d) { y(b, h, x.shape()[2] - 1 - n, d) = x(b, h, n, d); });
    return y;
}

/// Every layout a scan should not mind.
inline std::vector<layout> layouts() {
    return {layout::heads(), layout::padded(), layout::strided(), layout::channels_first()};
}

}  // namespace test
