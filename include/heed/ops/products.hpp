// Matrix products inside layers: rows of a sequence with a weight matrix.
//
//   for each task (3 packs of columns)      their panel of w, packed once
//     for each block of rows                the micro-kernel, all of the depth in registers
// A row is summed in the order of its elements whatever the rows beside it, so that one token gives the bits of many.
#pragma once

#include "../engine/attention.hpp"
#include "../engine/scratch.hpp"
#include "../simd/convert.hpp"
#include "../simd/micro.hpp"
#include "row_maps.hpp"

namespace heed::inline HEED_ABI::detail {

/// (b, n, d) as attention takes it, with one head.
template <class T>
view<T, 4> one_head(const view<T, 3>& x) {
    return {x.data, {x.shape[0], 1, x.shape[1], x.shape[2]}, {x.strides[0], 0, x.strides[1], x.strides[2]}};
}

template <class A, class X, class W, class T>
struct rows_product {
    using P = pack<T, A>;
    static constexpr auto L = static_cast<index_t>(P::size);
    static constexpr int R = tile_scalars<A>;
    static constexpr index_t columns = tile_packs * L;
    static constexpr bool as_is = std::is_same_v<std::remove_const_t<X>, T>;

    view<X, 3> x;  // (B, N, I)
    view<W, 2> w;  // (I, O)
    view<T, 3> y;  // (B, N, O)

    index_t I() const { return w.shape[0]; }
    index_t tasks() const { return ceil_div(w.shape[1], columns); }

    struct memory {
        T *panel, *rows, *tile;
        std::size_t size;
        memory(carver from, index_t I)
            : panel(from.take<T>(I * columns)),
              rows(from.take<T>(as_is ? 0 : R * I)),
              tile(from.take<T>(R * columns)),
              size(from.used()) {}
    };
    template <class E>
    std::size_t scratch_bytes(E& pool) const {
        return static_cast<std::size_t>(workers(pool, tasks())) * memory(carver(), I()).size;
    }
    template <class E>
    void run(E& pool, std::byte* scratch) const {
        const std::size_t size = memory(carver(), I()).size;
        for_tasks(pool, tasks(), [&](index_t task, index_t worker) {
            const memory own(carver(scratch + static_cast<std::size_t>(worker) * size), I());
            const range some{task * columns, std::min(w.shape[1], (task + 1) * columns)};
            pack_panel(some, own.panel);
            for (index_t b = 0; b < x.shape[0]; ++b) {
                index_t n = 0;
                for (; n + R <= x.shape[1]; n += R) rows_times_panel<R>(own, b, n, some);
                for (; n < x.shape[1]; ++n) rows_times_panel<1>(own, b, n, some);
            }
        });
    }

private:
    /// Columns of w as rows of whole packs, along what lies closer in memory.
    void pack_panel(range some, T* panel) const {
        std::fill_n(panel, I() * columns, T(0));
        const bool by_column = std::abs(w.strides[0]) < std::abs(w.strides[1]);
        for (index_t c = some.first; by_column && c < some.last; ++c)
            for (index_t i = 0; i < I(); ++i) panel[i * columns + c - some.first] = static_cast<T>(w(i, c));
        for (index_t i = 0; !by_column && i < I(); ++i)
            widen_row<A>(&w(i, some.first), w.strides[1], some.size(), panel + i * columns);
    }

    template <int Rows>
    void rows_times_panel(const memory& own, index_t b, index_t n, range some) const {
        register_tile<P, Rows, tile_packs> sum;
        sum.clear();
        if constexpr (as_is) {
            if (I() > 0)
                multiply<multiply_add<T, A>>(sum, &x(b, n, 0), x.strides[1], x.strides[2], own.panel, columns, I());
        } else {
            for (index_t r = 0; r < Rows; ++r)
                if (I() > 0) widen_row<A>(&x(b, n + r, 0), x.strides[2], I(), own.rows + r * I());
            multiply<multiply_add<T, A>>(sum, own.rows, I(), static_index<1>{}, own.panel, columns, I());
        }
        sum.store_rows(own.tile, columns);
        for (index_t r = 0; r < Rows; ++r)
            narrow_row<A>(own.tile + r * columns, some.size(), &y(b, n + r, some.first), y.strides[2]);
    }
};

/// y = x w: x (B, N, I), w (I, O), y (B, N, O), any strides; `with` is a context.
template <class A, class X, class W, class T, class Context>
void multiply_rows(const view<X, 3>& x, const view<W, 2>& w, const view<T, 3>& y, const Context& with) {
    const rows_product<A, X, W, T> call{x, w, y};
    in_scratch(
        "a product", [&](auto& pool) { return call.scratch_bytes(pool); },
        [&](auto& pool, std::byte* scratch) { call.run(pool, scratch); }, with);
}
/// The same by K blocks on the diagonal of a matrix: w (K, I, O), x (B, N, K I), y (B, N, K O).
template <class A, class X, class W, class T, class Context>
void multiply_rows(const view<X, 3>& x, const view<W, 3>& w, const view<T, 3>& y, const Context& with) {
    const auto [K, I, O] = w.shape;
    for (index_t k = 0; k < K; ++k)
        multiply_rows<A>(slice(x, 2, {k * I, (k + 1) * I}),
                         view<W, 2>{w.data + k * w.strides[0], {I, O}, {w.strides[1], w.strides[2]}},
                         slice(y, 2, {k * O, (k + 1) * O}), with);
}

}  // namespace heed::inline HEED_ABI::detail
