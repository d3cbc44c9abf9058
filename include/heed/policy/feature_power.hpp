// Feature maps of products of channels: polynomials of q.k of degree 2. Products x_i x_j and x_j x_i are one feature,
// by sqrt 2, so that there are D (D + 1) / 2 of them and not D^2: half the state, half the work, the same kernel.
//
//   taylor_features    [1, x, vec(x x^T) / sqrt 2]: 1 + s + s^2 / 2, s = q.k / sqrt(D)     based, TaylorShift
//   rebased_features   (q'.k')^2 / D, x' = gamma norm(x) + beta learned                    ReBased
#pragma once

#include <algorithm>
#include <optional>
#include <span>

#include "../core/view.hpp"
#include "feature.hpp"

namespace heed::inline HEED_ABI {
namespace detail {

/// The products of x: rows x_i x_i, sqrt2 x_i x_{i+1}, ..., sqrt2 x_i x_{D-1}, all times `by`: (x.y)^2 is the dot
/// product of two rows of them. x may be the last D of the numbers y[0, D (D + 1) / 2), which a row's products reach
/// last.
template <class T>
T* write_products(const T* x, index_t D, T by, T* y) {
    using P = pack<T>;
    constexpr auto L = static_cast<index_t>(P::size);
    for (index_t i = 0; i < D; ++i) {
        const T own = by * x[i], twice = sqrt_2<T> * own, square = own * x[i];
        index_t j = i + 1;
        T* to = y + 1;
        for (; j + L <= D; j += L, to += L) store(to, P(twice) * load<P>(x + j));
        for (; j < D; ++j, ++to) *to = twice * x[j];
        *y = square;
        y = to;
    }
    return y;
}

}  // namespace detail

/// phi(q).phi(k) = c0 + c1 s + c2 s^2, s = factor q.k. The default is e^s to the second degree, 1 + s + s^2/2 >= 1/2,
/// which based takes for softmax at factor 1/sqrt(D) (Arora et al., arXiv:2402.18668). The factor is on queries only.
struct taylor_features {
    using role = roles::features;
    std::optional<double> factor = {};  // default 1 / sqrt(D)
    double c0 = 1, c1 = 1, c2 = 0.5;    // >= 0
    taylor_features() = default;
    explicit taylor_features(double of_dot, double constant = 1, double first = 1, double second = 0.5)
        : factor(of_dot), c0(constant), c1(first), c2(second) {}

    index_t width(index_t D) const { return 1 + D + D * (D + 1) / 2; }
    template <class T>
    void operator()(const T* x, index_t D, T* y, const feature_place& at) const {
        const double s = at.query ? factor.value_or(1 / std::sqrt(static_cast<double>(D))) : 1.0;
        *y++ = static_cast<T>(std::sqrt(c0));
        const auto by = static_cast<T>(s * std::sqrt(c1));
        detail::map_channels(x, D, y, [by](const auto& p) { return p * by; });
        detail::write_products(x, D, static_cast<T>(s * s * std::sqrt(c2)), y + D);
    }
    void check(const char* op, index_t) const {
        const double least = std::min({c0, c1, c2});
        require_argument(least >= 0, op, "taylor_features has a coefficient of ", least, ", the least is 0");
    }
};

/// phi(q).phi(k) = (q'.k')^2 / D with x' = gamma (x - mean) / sqrt(variance + 1e-5) + beta over the channels of a row
/// (Aksenov et al., arXiv:2402.10644). gamma and beta are of D learned numbers; of queries and of keys, or of both.
template <class S>
struct rebased_features {
    using role = roles::features;
    struct affine {
        std::span<const S> gamma, beta;
    };
    affine of_queries, of_keys;
    rebased_features(std::span<const S> gamma, std::span<const S> beta)
        : rebased_features(affine{gamma, beta}, affine{gamma, beta}) {}
    rebased_features(affine queries, affine keys) : of_queries(queries), of_keys(keys) {}

    index_t width(index_t D) const { return D * (D + 1) / 2; }
    template <class T>
    void operator()(const T* x, index_t D, T* y, const feature_place& at) const {
        if (D == 0) return;
        const affine& with = at.query ? of_queries : of_keys;
        const T mean = detail::sum_channels(x, D, [](const auto& p) { return p; }) / static_cast<T>(D);
        T spread = 0;
        for (index_t d = 0; d < D; ++d) spread += (x[d] - mean) * (x[d] - mean);
        const T by = 1 / std::sqrt(spread / static_cast<T>(D) + T(1e-5));
        T* const row = y + width(D) - D;
        for (index_t d = 0; d < D; ++d) {
            const auto i = static_cast<std::size_t>(d);
            row[d] = static_cast<T>(with.gamma[i]) * (by * (x[d] - mean)) + static_cast<T>(with.beta[i]);
        }
        detail::write_products(row, D, 1 / std::sqrt(static_cast<T>(D)), y);
    }
    void check(const char* op, index_t D) const {
        const auto one = [&](const char* name, std::span<const S> of) {
            require_shape(static_cast<index_t>(of.size()) == D, op, "rebased_features has ", of.size(), " numbers of ",
                          name, ", q has width ", D);
        };
        for (const affine* a : {&of_queries, &of_keys}) one("gamma", a->gamma), one("beta", a->beta);
    }
    auto parameters() const {
        const auto row = [](std::span<const S> of) {
            return view<const S, 1>{of.data(), {static_cast<index_t>(of.size())}, {1}};
        };
        return std::tuple(row(of_queries.gamma), row(of_queries.beta), row(of_keys.gamma), row(of_keys.beta));
    }
};
template <class S>
rebased_features(std::span<S>, std::span<S>) -> rebased_features<std::remove_const_t<S>>;

}  // namespace heed::inline HEED_ABI
