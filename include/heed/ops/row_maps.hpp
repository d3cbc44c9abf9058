// Rows of a layer, element by element: what stands between its matrix products.
//
//   y[b, n, c] = f(x_0[b, n, c], x_1[b, n, c], ...)
// SIMD over channels, rows shared out over the executor; elements are apart, so bits depend on nothing else.
#pragma once

#include "../core/context.hpp"
#include "../core/view.hpp"
#include "../engine/scratch.hpp"
#include "../simd/convert.hpp"
#include "../simd/gates.hpp"

namespace heed::inline HEED_ABI::detail {

/// Calls f(b, n) for the tokens of a batch, each a row of C numbers, in the executor of the context; a scratch_size is
/// told of none.
template <class Context, class F>
void each_token(const Context& with, index_t B, index_t N, index_t C, const F& f) {
    constexpr index_t worth_a_task = 1 << 14;  // numbers
    const index_t rows = std::max<index_t>(1, worth_a_task / std::max<index_t>(1, C));
    in_scratch(
        "rows", [](const auto&) { return std::size_t(0); },
        [&](auto& pool, std::byte*) {
            for_tasks(pool, ceil_div(B * N, rows), [&](index_t task, index_t) {
                for (index_t i = task * rows; i < std::min(B * N, (task + 1) * rows); ++i) f(i / N, i % N);
            });
        },
        with);
}

/// The channels of a token.
template <class T>
view<T, 1> row_of(const view<T, 3>& x, index_t b, index_t n) {
    return {x.data + b * x.strides[0] + n * x.strides[1], {x.shape[2]}, {x.strides[2]}};
}
/// A number a channel, (C), as rows of this shape that are all one.
template <class T>
view<T, 3> as_rows(const view<T, 1>& x, const extents<3>& shape) {
    return {x.data, {shape[0], shape[1], x.shape[0]}, {0, 0, x.strides[0]}};
}

/// y = f(x...) for rows (C) of any storage types and strides, f on packs of T; y may be one of x.
template <class A, class T, class Y, class F, class... X>
void map_row(const view<Y, 1>& y, const F& f, const view<X, 1>&... x) {
    using P = pack<T, A>;
    constexpr auto L = static_cast<index_t>(P::size);
    constexpr index_t piece = 128;
    static_assert(piece % L == 0);
    alignas(64) T in[sizeof...(X)][piece];
    for (index_t c = 0; c < y.shape[0]; c += piece) {
        const index_t count = std::min(piece, y.shape[0] - c);
        std::size_t i = 0;
        (widen_row<A>(&x(c), x.strides[0], count, in[i++]), ...);
        for (auto& row : in) std::fill(row + count, row + round_up(count, L), T(0));
        const auto at = [&]<std::size_t... j>(index_t k, std::index_sequence<j...>) HEED_INLINE_LAMBDA {
            store_aligned(in[0] + k, f(load_aligned<P>(in[j] + k)...));
        };
        for (index_t k = 0; k < count; k += L) at(k, std::index_sequence_for<X...>());
        narrow_row<A>(in[0], count, &y(c), y.strides[0]);
    }
}
/// The same for all rows of x and y (B, N, C); `with` is a context.
template <class A, class T, class Context, class Y, class F, class... X>
void map_rows(const Context& with, const view<Y, 3>& y, const F& f, const view<X, 3>&... x) {
    each_token(with, y.shape[0], y.shape[1], y.shape[2],
               [&](index_t b, index_t n) { map_row<A, T>(row_of(y, b, n), f, row_of(x, b, n)...); });
}

/// What rows are put through.
inline constexpr auto as_it_is = [](const auto& p) { return p; };
inline constexpr auto silu_of = [](const auto& p) { return silu(p); };
inline constexpr auto sum_of = [](const auto& p, const auto& q) { return p + q; };
inline constexpr auto product_of = [](const auto& p, const auto& q) { return p * q; };
inline constexpr auto silu_of_sum = [](const auto& p, const auto& q) { return silu(p + q); };
inline constexpr auto times_plus = [](const auto& p, const auto& q, const auto& r) { return fma(p, q, r); };
inline constexpr auto silu_gated = [](const auto& p, const auto& gate) { return p * silu(gate); };
inline constexpr auto gelu_gated = [](const auto& p, const auto& gate) { return p * gelu_tanh(gate); };

/// y += bias (C), unless that has no data.
template <class A, class Context, class T, class W>
void add_bias(const Context& with, const view<T, 3>& y, const view<W, 1>& bias) {
    if (bias.data) map_rows<A, T>(with, y, sum_of, y, as_rows(bias, y.shape));
}
/// Rows of a layer to where they are asked for: y = x, or y + x.
template <class A, class Context, class T, class Y>
void hand_over(const Context& with, const view<T, 3>& x, const view<Y, 3>& y, bool adds) {
    if (adds)
        map_rows<A, T>(with, y, sum_of, y, x);
    else
        map_rows<A, T>(with, y, as_it_is, x);
}

}  // namespace heed::inline HEED_ABI::detail
