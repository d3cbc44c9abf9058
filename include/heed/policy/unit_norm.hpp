// Rows of length 1: x / sqrt(sum_d x_d^2 + eps), the norm of keys in delta rules, which contract for beta |k|^2 <= 2.
//
// As a policy of features, unit_norm{} normalises the rows of q and k as they are read, with no copy of either;
// normalise_rows writes them once. Cost: two passes over a row.
#pragma once

#include <algorithm>

#include "../core/context.hpp"
#include "../core/view.hpp"
#include "../simd/convert.hpp"
#include "feature.hpp"

namespace heed::inline HEED_ABI {

/// How a row without a length is kept from dividing by 0: eps under the root, or the least length.
enum class norm_rule { under_root, at_least };

/// x / sqrt(|x|^2 + eps), or x / max(|x|, eps). An eps above 0 keeps rows of zeros zero; they are NaN with 0.
struct unit_norm {
    using role = roles::features;
    double eps = 1e-6;
    norm_rule rule = norm_rule::under_root;
    explicit unit_norm(double e = 1e-6, norm_rule r = norm_rule::under_root) : eps(e), rule(r) {}

    void check(const char* op, index_t) const { require_argument(eps >= 0, op, "unit_norm has an eps of ", eps); }
    index_t width(index_t D) const { return D; }
    /// y may be x.
    template <class T>
    void operator()(const T* x, index_t D, T* y, const feature_place&) const {
        using P = pack<T>;
        constexpr auto L = static_cast<index_t>(P::size);
        P squares(T(0));
        index_t d = 0;
        for (; d + L <= D; d += L) squares = fma(load<P>(x + d), load<P>(x + d), squares);
        T sum = reduce_add(squares);
        for (; d < D; ++d) sum += x[d] * x[d];
        const T e = static_cast<T>(eps);
        const T length = rule == norm_rule::under_root ? std::sqrt(sum + e) : std::max(std::sqrt(sum), e);
        for (d = 0; d < D; ++d) y[d] = x[d] / length;
    }
};

/// y = the rows of x normalised, both (B, H, N, D), any strides; y may be x itself.
template <class A = default_arch, class X, class Y>
void normalise_rows(const X& x, Y&& y, const unit_norm& norm = unit_norm()) {
    static constexpr const char* op = "normalise_rows";
    const auto from = as_view(x);
    const auto to = as_view(y);
    using T = accumulator<typename decltype(from)::value_type, typename decltype(to)::value_type>;
    norm.check(op, from.shape[3]);
    constexpr const char* axes[] = {"batch", "head", "token", "channel"};
    for (std::size_t a = 0; a < 4; ++a)
        require_shape(from.shape[a] == to.shape[a], op, axes[a], " extent of y is ", to.shape[a], ", of x ",
                      from.shape[a]);
    const bool same =
        static_cast<const void*>(from.data) == static_cast<const void*>(to.data) && from.strides == to.strides;
    require_shape(same || !overlap(from, to), op, "y overlaps x and is not the same view");
    const index_t H = from.shape[1], N = from.shape[2], D = from.shape[3];
    const std::size_t bytes = static_cast<std::size_t>(std::max<index_t>(D, 0)) * sizeof(T);
    detail::with_scratch(op, detail::calling_thread{}, bytes, [&](std::byte* memory) {
        T* const row = reinterpret_cast<T*>(memory);
        for (index_t i = 0; i < from.shape[0] * H * N; ++i) {
            const index_t n = i % N, h = i / N % H, b = i / N / H;
            widen_row<A>(&from(b, h, n, 0), from.strides[3], D, row);
            norm(static_cast<const T*>(row), D, row, {});
            narrow_row<A>(row, D, &to(b, h, n, 0), to.strides[3]);
        }
    });
}

}  // namespace heed::inline HEED_ABI
