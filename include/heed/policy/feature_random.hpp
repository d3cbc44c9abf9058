// Random feature maps: phi(q).phi(k) estimates a kernel of q and k, without bias, from m random directions w_i.
//
//   positive_features   exp(w_i.x - |x|^2/2) / sqrt m                      exp(q.k)              FAVOR+, Performer
//   fourier_features    [sin(w_i.x'), cos(w_i.x')], x' = x / (|x| + eps)   m exp(-|q'-k'|^2/2)   RFA
// Directions are views (heads, D, m), a column each, of one head for all or of a head for each head of q and of k.
// Cost: 2 m D a row and head. random_directions.hpp draws them.
#pragma once

#include "../core/half.hpp"
#include "../core/view.hpp"
#include "../simd/convert.hpp"
#include "../simd/sin_cos.hpp"
#include "feature.hpp"

namespace heed::inline HEED_ABI {
namespace detail {

/// w.x for every direction of a head: y (m).
template <class S, class T>
void project(const view<const S, 3>& w, index_t h, const T* x, T* y) {
    using P = pack<T>;
    constexpr auto L = static_cast<index_t>(P::size);
    const index_t D = w.shape[1], m = w.shape[2];
    const S* const of_head = w.data + (w.shape[0] == 1 ? 0 : h) * w.strides[0];
    index_t i = 0;
    const auto packs = [&](auto count) {
        constexpr int n = count;
        for (; i + n * L <= m; i += n * L) {
            P sum[static_cast<std::size_t>(n)];
            unroll<n>([&](auto p) HEED_INLINE_LAMBDA { sum[p] = P(0); });
            for (index_t d = 0; d < D; ++d) {
                const S* const row = of_head + d * w.strides[1] + i;
                const P by(x[d]);
                unroll<n>([&](auto p) HEED_INLINE_LAMBDA { sum[p] = fma(by, widen<P>(row + p * L), sum[p]); });
            }
            unroll<n>([&](auto p) HEED_INLINE_LAMBDA { store(y + i + p * L, sum[p]); });
        }
    };
    if (w.strides[2] == 1) packs(std::integral_constant<int, 4>{}), packs(std::integral_constant<int, 1>{});
    for (; i < m; ++i) {
        T sum = 0;
        for (index_t d = 0; d < D; ++d) sum += x[d] * static_cast<T>(of_head[d * w.strides[1] + i * w.strides[2]]);
        y[i] = sum;
    }
}

template <class S>
void check_directions(const char* op, const view<const S, 3>& w, const extents<4>& q, const extents<4>& k) {
    require_shape(w.shape[1] == q[3], op, "random directions have width ", w.shape[1], ", q has ", q[3]);
    for (const auto* x : {&q, &k})
        require_shape(w.shape[0] == 1 || w.shape[0] == (*x)[1], op, "random directions have ", w.shape[0], " heads, ",
                      x == &q ? "q has " : "k has ", (*x)[1]);
}

template <class T>
T square_length(const T* x, index_t D) {
    return sum_channels(x, D, [](const auto& p) { return p * p; });
}

}  // namespace detail

/// Estimates exp(factor^2 q.k), factor^2 = 1/sqrt(D) by default as in softmax; all features are positive, so a
/// normaliser never nears 0 (Choromanski et al., arXiv:2009.14794). The features of a query are over their largest,
/// which a normaliser cancels and which keeps long queries from vanishing; keys are left as they are, since no key's
/// features may depend on another's.
template <class S>
struct positive_features {
    using role = roles::features;
    view<const S, 3> w;
    double factor;
    explicit positive_features(view<const S, 3> directions, double of_rows = 0)
        : w(directions), factor(of_rows > 0 ? of_rows : std::pow(static_cast<double>(directions.shape[1]), -0.25)) {}

    index_t width(index_t) const { return w.shape[2]; }
    template <class T>
    void operator()(const T* x, index_t D, T* y, const feature_place& at) const {
        using P = pack<T>;
        const index_t m = w.shape[2];
        detail::project(w, at.h, x, y);
        const auto by = static_cast<T>(factor);
        T largest = 0, half = by * by * detail::square_length(x, D) / 2;
        if (at.query && m > 0) {
            largest = y[0], half = 0;
            for (index_t i = 1; i < m; ++i) largest = largest < y[i] ? y[i] : largest;
        }
        const P share(1 / std::sqrt(static_cast<T>(m)));
        detail::map_channels(y, m, y, [&](const P& p) { return share * exp(fma(p - P(largest), P(by), P(-half))); });
    }
    void check(const char* op, const extents<4>& q, const extents<4>& k) const {
        detail::check_directions(op, w, q, k);
    }
    auto parameters() const { return std::tuple(w); }
};
template <class S>
positive_features(view<S, 3>, double = 0) -> positive_features<std::remove_const_t<S>>;

/// Estimates exp(q'.k' - 1) m, q' and k' of length 1: the kernel of a Gaussian (Peng et al., arXiv:2103.02143; without
/// 1/sqrt m as in [19], whose floor of a normaliser is absolute). eps = 1e-3 keeps rows of 0 finite. Directions may be
/// of any spread sigma: then exp(sigma^2 (q'.k' - 1)) m.
template <class S>
struct fourier_features {
    using role = roles::features;
    view<const S, 3> w;
    double eps;
    explicit fourier_features(view<const S, 3> directions, double of_length = 1e-3) : w(directions), eps(of_length) {}

    index_t width(index_t) const { return 2 * w.shape[2]; }
    template <class T>
    void operator()(const T* x, index_t D, T* y, const feature_place& at) const {
        using P = pack<T>;
        const index_t m = w.shape[2];
        const P by(1 / (std::sqrt(detail::square_length(x, D)) + static_cast<T>(eps)));
        detail::project(w, at.h, x, y);
        detail::map_channels(y, m, y + m, [&](const P& p) { return sin_cos(p * by).cos; });
        detail::map_channels(y, m, y, [&](const P& p) { return sin_cos(p * by).sin; });
    }
    void check(const char* op, const extents<4>& q, const extents<4>& k) const {
        detail::check_directions(op, w, q, k);
    }
    auto parameters() const { return std::tuple(w); }
};
template <class S>
fourier_features(view<S, 3>, double = 1e-3) -> fourier_features<std::remove_const_t<S>>;

}  // namespace heed::inline HEED_ABI
