// Data for tests: deterministic random fills, and adversarial ones.
#pragma once

#include <string>

#include "tensor.hpp"

namespace test {

constexpr std::uint64_t number(index_t i) { return static_cast<std::uint64_t>(i); }

/// Normal numbers of the given spread; the same for a seed whatever the layout.
template <class T>
tensor<T> normal(const extents<4>& shape, std::uint64_t seed, double spread = 1, const layout& l = {}) {
    const counter_random r(seed);
    return tensor<T>(shape, l).fill([&](index_t i) { return spread * r.normal(number(i)); });
}

template <class T>
tensor<T> uniform(const extents<4>& shape, std::uint64_t seed, double first = 0, double last = 1,
                  const layout& l = {}) {
    const counter_random r(seed);
    return tensor<T>(shape, l).fill([&](index_t i) { return first + (last - first) * r.uniform(number(i)); });
}

template <class T>
tensor<T> constant(const extents<4>& shape, double value, const layout& l = {}) {
    return tensor<T>(shape, l).fill([&](index_t) { return value; });
}

/// A way to fill data that breaks careless kernels. `finite`: the definition gives finite results on it (for q and k,
/// with values of order 1).
struct adversary {
    std::string name;
    double (*at)(const counter_random&, index_t);
    bool finite;
};

/// Huge logits of both signs, ties, denormals, long growth, rare infinities and NaN.
inline std::vector<adversary> adversaries() {
    constexpr double inf = std::numeric_limits<double>::infinity();
    return {
        {"zeros", [](const counter_random&, index_t) { return 0.0; }, true},
        {"minus_zeros", [](const counter_random&, index_t) { return -0.0; }, true},
        {"ones", [](const counter_random&, index_t) { return 1.0; }, true},
        {"logits_of_thousands", [](const counter_random& r, index_t i) { return 60 * r.normal(number(i)); }, true},
        {"logits_of_1e30", [](const counter_random& r, index_t i) { return 1e15 * r.normal(number(i)); }, true},
        {"denormals", [](const counter_random& r, index_t i) { return 1e-40 * r.normal(number(i)); }, true},
        {"tiny", [](const counter_random& r, index_t i) { return 1e-20 * r.normal(number(i)); }, true},
        {"growing",
         [](const counter_random& r, index_t i) { return 1e-3 * static_cast<double>(i) * r.uniform(number(i)); }, true},
        {"signs",
         [](const counter_random& r, index_t i) {
             return (r.uniform(number(i)) < 0.5 ? -8.0 : 8.0) + 0.1 * r.normal(number(i));
         },
         true},
        {"one_large", [](const counter_random& r, index_t i) { return i % 97 == 13 ? 300.0 : r.normal(number(i)); },
         true},
        {"some_inf", [](const counter_random& r, index_t i) { return i % 101 == 7 ? inf : r.normal(number(i)); },
         false},
        {"some_minus_inf", [](const counter_random& r, index_t i) { return i % 101 == 7 ? -inf : r.normal(number(i)); },
         false},
        {"some_nan",
         [](const counter_random& r, index_t i) { return i % 103 == 5 ? std::nan("") : r.normal(number(i)); }, false},
    };
}

template <class T>
tensor<T> filled(const extents<4>& shape, const adversary& by, std::uint64_t seed, const layout& l = {}) {
    const counter_random r(seed);
    return tensor<T>(shape, l).fill([&](index_t i) { return by.at(r, i); });
}

}  // namespace test
