// Sequences (b, n, c) for tests of convolutions: (b, 1, n, c) tensors as views of rank 3, and the measure of error.
#pragma once

#include <gtest/gtest.h>

#include <cmath>

#include "random.hpp"

namespace test {

/// The view (b, n, c) of a tensor (b, 1, n, c), in whatever layout.
template <class T>
view<T, 3> sequence(tensor<T>& t) {
    const auto v = t.v();
    return {v.data, {v.shape[0], v.shape[2], v.shape[3]}, {v.strides[0], v.strides[2], v.strides[3]}};
}
template <class T>
view<const T, 3> sequence(const tensor<T>& t) {
    const auto v = t.v();
    return {v.data, {v.shape[0], v.shape[2], v.shape[3]}, {v.strides[0], v.strides[2], v.strides[3]}};
}
/// The view (c, k) of a tensor (1, 1, c, k).
template <class T>
view<T, 2> matrix(tensor<T>& t) {
    const auto v = t.v();
    return {v.data, {v.shape[2], v.shape[3]}, {v.strides[2], v.strides[3]}};
}
template <class T>
view<const T, 2> matrix(const tensor<T>& t) {
    const auto v = t.v();
    return {v.data, {v.shape[2], v.shape[3]}, {v.strides[2], v.strides[3]}};
}

/// Root of the sum of squares.
template <class T>
double norm(const tensor<T>& x) {
    double sum = 0;
    x.each([&](index_t b, index_t h, index_t n, index_t d) { sum += std::pow(static_cast<double>(x(b, h, n, d)), 2); });
    return std::sqrt(sum);
}
template <class T, class U>
double distance(const tensor<T>& a, const tensor<U>& b) {
    double sum = 0;
    a.each([&](index_t i, index_t h, index_t n, index_t d) {
        sum += std::pow(static_cast<double>(a(i, h, n, d)) - static_cast<double>(b(i, h, n, d)), 2);
    });
    return std::sqrt(sum);
}

/// The rule for transforms, which spread an error over all outputs: its norm is at most twice that of the naive float
/// loop, plus a floor of four roundings of the whole result.
template <class T, class O, class N>
testing::AssertionResult within_norm(const tensor<O>& got, const tensor<N>& naive, const tensor<double>& exact) {
    const double off = distance(got, exact), bound = 2 * distance(naive, exact) + 4 * epsilon<T> * norm(exact) + 1e-300;
    if (off <= bound) return testing::AssertionSuccess();
    return testing::AssertionFailure() << "off by " << off << " in norm, allowed " << bound << " of " << norm(exact);
}

}  // namespace test
