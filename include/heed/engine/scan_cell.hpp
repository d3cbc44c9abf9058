// Cells: what happens to one channel at one token, inputs -> element of a monoid -> state -> outputs; and the loops
// over the tokens and packs of a tile.
//
// A cell has `carried`, its monoid; inputs, constants, outputs, how many there are; prepare(k), what is computed once
// for a channel, in place; leaf(x, k), the element; read(s, x, k), the outputs. `first(x, k)` may do a part of leaf's
// work.
#pragma once

#include "../policy/monoid.hpp"
#include "scan_tile.hpp"

namespace heed::inline HEED_ABI::detail {

/// A monoid as a cell whose inputs are elements.
template <monoid M>
struct plain_cell {
    using carried = M;
    static constexpr int inputs = M::elements, constants = 0;
    static constexpr int outputs = [] {
        if constexpr (requires { M::outputs; })
            return M::outputs;
        else
            return M::states;
    }();

    template <class X>
    HEED_INLINE void prepare(numbers<X, 0>&) const {}
    template <class X>
    HEED_INLINE numbers<X, M::elements> leaf(const numbers<X, inputs>& x, const numbers<X, 0>&) const {
        return x;
    }
    template <class X>
    HEED_INLINE numbers<X, outputs> read(const numbers<X, M::states>& s, const numbers<X, inputs>&,
                                         const numbers<X, 0>&) const {
        if constexpr (requires { M::read(s); })
            return M::read(s);
        else
            return s;
    }
};

/// What cells have in common whose element is (a, b) of h_t = a_t h_{t-1} + b_t, and whose output is h.
template <int Inputs, int Constants = 0>
struct affine_cell {
    using carried = affine;
    static constexpr int inputs = Inputs, constants = Constants, outputs = 1;

    template <class X>
    HEED_INLINE void prepare(numbers<X, Constants>&) const {}
    template <class X>
    HEED_INLINE numbers<X, 1> read(const numbers<X, 1>& h, const auto&, const numbers<X, Constants>&) const {
        return h;
    }
};

/// A cell with a long chain of operations may do a part of them on the inputs in `first`, of whose numbers leaf and
/// read are then made: that part of the next pack is under way while this one's other part is.
template <class Cell, class X>
HEED_INLINE auto first_part(const Cell& cell, const numbers<X, Cell::inputs>& in,
                            const numbers<X, Cell::constants>& k) {
    if constexpr (requires { cell.first(in, k); })
        return cell.first(in, k);
    else
        return in;
}

/// n rows of packs at p, p + width, ...
template <class P, std::size_t n>
HEED_INLINE std::array<P, n> load_all(const typename P::value_type* p, index_t width) {
    std::array<P, n> x;
    unroll<static_cast<int>(n)>([&](auto i) HEED_INLINE_LAMBDA { x[i] = load<P>(p + i * width); });
    return x;
}
template <class P, std::size_t n>
HEED_INLINE void store_all(typename P::value_type* p, index_t width, const std::array<P, n>& x) {
    unroll<static_cast<int>(n)>([&](auto i) HEED_INLINE_LAMBDA { store(p + i * width, x[i]); });
}

/// The tokens of one tile, `width` channels wide.
template <class T, class Cell>
struct scan_tile {
    std::array<tile_rows<const T>, static_cast<std::size_t>(Cell::inputs)> in;
    std::array<tile_rows<T>, static_cast<std::size_t>(Cell::outputs)> out;
    index_t tokens, width;

    template <class P>
    HEED_INLINE numbers<P, Cell::inputs> load_inputs(index_t t, index_t c) const {
        numbers<P, Cell::inputs> x;
        unroll<Cell::inputs>([&](auto i) HEED_INLINE_LAMBDA { x[i] = load<P>(in[i].row(t) + c); });
        return x;
    }
};

/// How many tokens ahead of the one at work lines are asked for: some 4 KiB of each operand.
inline index_t tokens_ahead(index_t width) { return ceil_div(1024, width); }

/// Runs the state (states, width) through a tile.
template <class A, class T, class Cell>
HEED_NOINLINE void advance(const Cell& cell, const scan_tile<T, Cell>& x, const T* constants, T* state) noexcept {
    using M = typename Cell::carried;
    using P = pack<T, A>;
    const index_t width = x.width, ahead = tokens_ahead(width);
    const auto constants_of = [&](index_t c) HEED_INLINE_LAMBDA {
        return load_all<P, Cell::constants>(constants + c, width);
    };
    for (index_t t = 0; t < x.tokens; ++t) {
        // Where rows start, in registers: of the tile they would be read again after every store.
        std::array<const T*, static_cast<std::size_t>(Cell::inputs)> from, next_from;
        std::array<tile_rows<T>, static_cast<std::size_t>(Cell::outputs)> to, next_to;
        unroll<Cell::inputs>([&](auto i) HEED_INLINE_LAMBDA {
            from[i] = x.in[i].row(t), next_from[i] = x.in[i].row(t + ahead);
        });
        unroll<Cell::outputs>([&](auto i) HEED_INLINE_LAMBDA {
            to[i] = {x.out[i].row(t), 0, x.out[i].around}, next_to[i] = {x.out[i].row(t + ahead), 0};
        });
        const auto ready = [&](index_t c) HEED_INLINE_LAMBDA {
            numbers<P, Cell::inputs> in;
            unroll<Cell::inputs>([&](auto i) HEED_INLINE_LAMBDA {
                prefetch_line(next_from[i] + c);
                in[i] = load<P>(from[i] + c);
            });
            return first_part(cell, in, constants_of(c));
        };
        auto now = ready(0);
        for (index_t c = 0; c < width; c += P::size) {
            const index_t next = c + static_cast<index_t>(P::size);
            const auto soon = next < width ? ready(next) : now;
            const auto k = constants_of(c);
            auto s = load_all<P, M::states>(state + c, width);
            M::act(s, cell.leaf(now, k));
            store_all(state + c, width, s);
            const auto out = cell.read(s, now, k);
            unroll<Cell::outputs>([&](auto i) HEED_INLINE_LAMBDA {
                if (!to[i].around) prefetch_line(next_to[i].data + c);
                to[i].put(0, c, out[i]);
            });
            now = soon;
        }
    }
}

/// Multiplies the product (elements, width) by the elements of a tile.
template <class A, class T, class Cell>
HEED_NOINLINE void gather(const Cell& cell, const scan_tile<T, Cell>& x, const T* constants, T* product) noexcept {
    using M = typename Cell::carried;
    using P = pack<T, A>;
    for (index_t t = 0; t < x.tokens; ++t)
        for (index_t c = 0; c < x.width; c += P::size) {
            auto e = load_all<P, M::elements>(product + c, x.width);
            const auto k = load_all<P, Cell::constants>(constants + c, x.width);
            M::multiply(e, cell.leaf(first_part(cell, x.template load_inputs<P>(t, c), k), k));
            store_all(product + c, x.width, e);
        }
}

}  // namespace heed::inline HEED_ABI::detail
