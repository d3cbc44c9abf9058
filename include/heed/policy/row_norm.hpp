// Norms of rows, which follow a linear attention that does not divide by a sum of weights.
//
//   rms      y = x / sqrt(mean(x^2) + eps) (gain)
//   centred  y = (x - m) / sqrt(mean((x - m)^2) + eps) (gain) (+ shift),  m = mean(x)
// As a policy of a recurrence they act on the output of each head before it is stored (RetNet's group norm is centred,
// a group a head); rms_norm and layer_norm of ops/row_norm.hpp on rows that there are, and across heads too.
#pragma once

#include <cmath>
#include <span>
#include <tuple>

#include "../core/view.hpp"
#include "feature.hpp"

namespace heed::inline HEED_ABI {
namespace detail {

/// eps stands inside the root; channels of one head, or of all heads of a token together; gain and shift, if given, of
/// E numbers or H E.
struct row_norm {
    using role = roles::normaliser;
    double eps = 1e-6;
    bool across_heads = false;
    std::span<const float> gain = {}, shift = {};

    void check(const char* op, index_t H, index_t E) const {
        const auto fits = [&](std::span<const float> of, const char* name) {
            const auto count = static_cast<index_t>(of.size());
            require_shape(count == 0 || count == E || count == H * E, op, "there are ", count, " ", name,
                          ", rows have ", E, " channels in ", H, " heads");
        };
        fits(gain, "gains"), fits(shift, "shifts");
        require_argument(eps >= 0, op, "eps is ", eps, ", the least is 0");
    }
    /// Of an operator that has one head at a time.
    void check_apart(const char* op) const {
        require_argument(!across_heads, op, "a norm across heads is to follow the call, which has one at a time");
    }
    auto parameters() const {
        const auto row = [](std::span<const float> of) {
            return view<const float, 1>{of.data(), {static_cast<index_t>(of.size())}, {1}};
        };
        return std::tuple(row(gain), row(shift));
    }
};

/// y *= gain, or y += shift, of channels [at, at + n) of all heads.
template <class T, class F>
void with_channels(std::span<const float> of, T* y, index_t n, index_t at, const F& f) {
    if (of.empty()) return;
    const float* const from = of.data() + at % static_cast<index_t>(of.size());
    for (index_t i = 0; i < n; ++i) y[i] = f(y[i], static_cast<T>(from[i]));
}

/// A row of `width` channels becomes normalised. pieces(last, f) calls f(y, n, at) for all its pieces, n channels in y,
/// at being the first's number among those of all heads; what f leaves in y is the result if it is the last.
template <class T, class Norm, class Pieces>
void normalise_row(const Norm& by, index_t width, const Pieces& pieces) {
    const T n = static_cast<T>(width);
    T mean = 0, squares = 0;
    if constexpr (Norm::subtracts_mean) {
        pieces(std::false_type{}, [&](const T* y, index_t count, index_t) {
            mean += sum_channels(y, count, [](const auto& p) { return p; });
        });
        mean /= n;
    }
    pieces(std::false_type{}, [&](const T* y, index_t count, index_t) {
        if constexpr (Norm::subtracts_mean)
            for (index_t i = 0; i < count; ++i) squares += (y[i] - mean) * (y[i] - mean);
        else
            squares += sum_channels(y, count, [](const auto& p) { return p * p; });
    });
    const T factor = 1 / std::sqrt(squares / n + static_cast<T>(by.eps));
    pieces(std::true_type{}, [&](T* y, index_t count, index_t at) {
        map_channels(y, count, y,
                     [=](const auto& p) { return Norm::subtracts_mean ? (p - mean) * factor : p * factor; });
        with_channels(by.gain, y, count, at, [](T x, T g) { return x * g; });
        with_channels(by.shift, y, count, at, [](T x, T s) { return x + s; });
    });
}

}  // namespace detail

struct rms : detail::row_norm {
    static constexpr bool subtracts_mean = false;
    rms() = default;
    explicit rms(double least, bool all_heads = false, std::span<const float> by = {})
        : row_norm{least, all_heads, by, {}} {}
};

struct centred : detail::row_norm {
    static constexpr bool subtracts_mean = true;
    centred() = default;
    explicit centred(double least, bool all_heads = false, std::span<const float> by = {},
                     std::span<const float> plus = {})
        : row_norm{least, all_heads, by, plus} {}
};

}  // namespace heed::inline HEED_ABI
