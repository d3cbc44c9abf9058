// One case of the suite: shape, policies, and what they cost. It drives the contestants, the check and the counters.
#pragma once

#include <optional>
#include <string>

#include "any_mask.hpp"

namespace bench {

enum class dtype { f32, bf16, f16, f64 };
inline constexpr const char* name_of(dtype t) {
    constexpr const char* names[] = {"f32", "bf16", "f16", "f64"};
    return names[static_cast<int>(t)];
}

/// Calls f with a value of the storage type.
template <class F>
decltype(auto) with_type(dtype t, F&& f) {
    switch (t) {
        case dtype::bf16:
            return f(bf16());
        case dtype::f16:
            return f(f16());
        case dtype::f64:
            return f(double());
        default:
            return f(float());
    }
}

/// How a mask or a model is made for a sequence length.
struct pattern {
    std::string name;
    any_mask (*make)(index_t N, index_t M, int parameter) = nullptr;  // null: everything is visible
    int parameter = 0;                                                // average document length, kept percent, ...
    float softcap = 0;                                                // 0: none
    bool sinks = false;                                               // one logit per head, all 0.5
    std::optional<double> scale = {};                                 // default 1 / sqrt(D)
};

struct problem {
    pattern what;
    dtype type = dtype::f32;
    index_t D = 64, N = 0, M = 0, H = 8, G = 8;
    int threads = 1;

    bool full() const { return !what.make; }
    bool plain() const { return what.softcap == 0 && !what.sinks; }  // softmax of the scaled products
    any_mask mask() const { return full() ? any_mask(everything{}) : what.make(N, M, what.parameter); }
    double scale() const { return what.scale.value_or(1 / std::sqrt(static_cast<double>(D))); }
    index_t shift() const { return M - N; }  // position of row 0 on the key axis

    std::string name() const {
        const auto field = [](const char* key, index_t x) { return std::string("/") + key + ":" + std::to_string(x); };
        return "attention/" + what.name + "/" + name_of(type) + field("d", D) + field("n", N) + field("m", M) +
               field("h", H) + field("g", G) + field("threads", threads);
    }
    /// Visible pairs of a head.
    double area() const { return static_cast<double>(heed::area(mask(), 1, 1, N, M)); }
    /// Two products of `area` pairs by D, multiply and add: masked work does not count.
    double flops(double area) const { return 4 * area * static_cast<double>(D * H); }
    /// Each operand once.
    double bytes() const {
        const double elements = 2.0 * static_cast<double>((N * H + M * G) * D);
        return elements * with_type(type, [](auto x) { return static_cast<double>(sizeof x); });
    }
};

}  // namespace bench
