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

/// A number a channel, (C), as rows of this shape that are all one.
template <class T>
view<T, 3> as_rows(const view<T, 1>& x, const extents<3>& shape) {
    return {x.data, {shape[0], shape[1], x.shape[0]}, {0, 0, x.strides[0]}};
}

/// x and y (B, N, C), of any storage types and strides; y may be one of x. f takes as many packs of T; `with` is a
/// context, and a scratch_size is told of none.
template <class A, class T, class Context, class Y, class F, class... X>
void map_rows(const Context& with, const view<Y, 3>& y, const F& f, const view<X, 3>&... x) {
    using P = pack<T, A>;
    constexpr index_t piece = 128, numbers_of_a_task = 1 << 14;  // numbers that are worth a task
    constexpr auto L = static_cast<index_t>(P::size);
    static_assert(piece % L == 0);
    const auto [B, N, C] = y.shape;
    const index_t rows = std::max<index_t>(1, numbers_of_a_task / std::max<index_t>(1, C));
    const auto map = [&, C = C](index_t b, index_t n) {
        alignas(64) T in[sizeof...(X)][piece];
        for (index_t c = 0; c < C; c += piece) {
            const index_t count = std::min(piece, C - c);
            std::size_t i = 0;
            (widen_row<A>(&x(b, n, c), x.strides[2], count, in[i++]), ...);
            for (auto& row : in) std::fill(row + count, row + std::min(piece, round_up(count, L)), T(0));
            for (index_t k = 0; k < count; k += L)
                [&]<std::size_t... at>(std::index_sequence<at...>) HEED_INLINE_LAMBDA {
                    store_aligned(in[0] + k, f(load_aligned<P>(in[at] + k)...));
                }
            (std::index_sequence_for<X...>());
            narrow_row<A>(in[0], count, &y(b, n, c), y.strides[2]);
        }
    };
    in_scratch(
        "rows", [](const auto&) { return std::size_t(0); },
        [&, B = B, N = N](auto& pool, std::byte*) {
            for_tasks(pool, ceil_div(B * N, rows), [&](index_t task, index_t) {
                for (index_t i = task * rows; i < std::min(B * N, (task + 1) * rows); ++i) map(i / N, i % N);
            });
        },
        with);
}

}  // namespace heed::inline HEED_ABI::detail
