// The rule for values: the error of a kernel against the definition is at most twice the error of the naive loop in the
// kernel's own arithmetic, plus a tiny floor. Where the definition gives NaN or inf, so must the kernel.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <heed/ref/attention.hpp>

#include "tensor.hpp"

namespace test {

/// The arithmetic whose naive loop measures a kernel of accumulator T, and the one that defines it.
template <class T>
using definition_of = std::conditional_t<std::is_same_v<T, double>, long double, double>;

/// What a comparison may forgive: factor x naive error + floor x largest finite |definition|.
struct allowance {
    double factor = 2;
    double floor = 0;  // 0: four roundings of the accumulator and one of the storage
};

template <class T, class O>
double floor_of() {
    return 4 * epsilon<T> + (std::is_same_v<O, T> ? 0 : 0.5 * epsilon<O>);
}

/// got against `exact`, with the error of `naive` as the measure.
template <class T, class O, class N, class E>
testing::AssertionResult within_rule(const tensor<O>& got, const tensor<N>& naive, const tensor<E>& exact,
                                     allowance allow = {}) {
    if (got.shape() != exact.shape() || naive.shape() != exact.shape())
        return testing::AssertionFailure() << "shapes differ";
    double worst = -1, naive_worst = 0, largest = 0;
    extents<4> at{};
    bool class_differs = false;
    exact.each([&](index_t b, index_t h, index_t n, index_t d) {
        const auto e = static_cast<double>(exact(b, h, n, d));
        const auto g = static_cast<double>(got(b, h, n, d));
        const auto x = static_cast<double>(naive(b, h, n, d));
        if (class_differs) return;
        if (std::isnan(e) != std::isnan(g) || (std::isinf(e) && g != e) || (std::isinf(g) && e != g)) {
            // What overflows the naive loop may overflow the kernel.
            if (std::isfinite(e) && !std::isfinite(x)) return;
            class_differs = true;
            at = {b, h, n, d};
            return;
        }
        if (!std::isfinite(e)) return;
        largest = std::max(largest, std::abs(e));
        naive_worst = std::max(naive_worst, std::isfinite(x) ? std::abs(x - e) : 0);
        if (std::abs(g - e) > worst) worst = std::abs(g - e), at = {b, h, n, d};
    });
    const auto place = [&] {
        return "at (" + std::to_string(at[0]) + ", " + std::to_string(at[1]) + ", " + std::to_string(at[2]) + ", " +
               std::to_string(at[3]) + ")";
    };
    const auto value = [&](const auto& t) { return static_cast<double>(t(at[0], at[1], at[2], at[3])); };
    if (class_differs)
        return testing::AssertionFailure() << place() << " got " << value(got) << ", defined as " << value(exact);
    const double bound =
        allow.factor * naive_worst + (allow.floor > 0 ? allow.floor : floor_of<T, O>()) * std::max(largest, 1e-30);
    if (worst > bound)
        return testing::AssertionFailure()
               << place() << " got " << value(got) << ", defined as " << value(exact) << ": error " << worst
               << ", naive error " << naive_worst << ", bound " << bound;
    return testing::AssertionSuccess();
}

/// Attention's output against the definition. make(Real{}) gives the ref::options<Real> of the policies used, so that
/// both loops run wholly in their own arithmetic.
template <class Q, class K, class V, class O, class Make>
testing::AssertionResult attends(const tensor<O>& got, const tensor<Q>& q, const tensor<K>& k, const tensor<V>& v,
                                 Make make, allowance allow = {}) {
    using T = accumulator<Q, K, V, O>;
    using R = definition_of<T>;
    tensor<R> exact(got.shape());
    tensor<O> naive(got.shape());
    ref::naive_attention<R>(q.v(), k.v(), v.v(), exact.v(), make(R{}));
    ref::naive_attention<T>(q.v(), k.v(), v.v(), naive.v(), make(T{}));
    return within_rule<T>(got, naive, exact, allow);
}

/// The same without policies.
template <class Q, class K, class V, class O>
testing::AssertionResult attends(const tensor<O>& got, const tensor<Q>& q, const tensor<K>& k, const tensor<V>& v) {
    return attends(got, q, k, v, [](auto real) { return ref::options<decltype(real)>{}; });
}

/// Every element lies within `by` of its like.
template <class T>
testing::AssertionResult all_near(const tensor<T>& a, const tensor<T>& b, double by) {
    if (a.shape() != b.shape()) return testing::AssertionFailure() << "shapes differ";
    double worst = 0;
    a.each([&](index_t i, index_t h, index_t n, index_t d) {
        const double off = std::abs(static_cast<double>(a(i, h, n, d)) - static_cast<double>(b(i, h, n, d)));
        worst = off > worst || off != off ? off : worst;  // a NaN stays
    });
    if (worst <= by) return testing::AssertionSuccess();
    return testing::AssertionFailure() << "off by " << worst << ", allowed " << by;
}

/// Every element of two tensors has the same value (NaN equals NaN).
template <class T>
testing::AssertionResult same_values(const tensor<T>& a, const tensor<T>& b) {
    if (a.shape() != b.shape()) return testing::AssertionFailure() << "shapes differ";
    testing::AssertionResult result = testing::AssertionSuccess();
    a.each([&](index_t i, index_t h, index_t n, index_t d) {
        const auto x = static_cast<double>(a(i, h, n, d)), y = static_cast<double>(b(i, h, n, d));
        if (result && x != y && !(std::isnan(x) && std::isnan(y)))
            result = testing::AssertionFailure()
                     << "at (" << i << ", " << h << ", " << n << ", " << d << "): " << x << " and " << y;
    });
    return result;
}

}  // namespace test
