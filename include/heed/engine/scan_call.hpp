// One scan: operands and cut, and the loops over sequences, blocks of channels, tiles of tokens, tokens and packs.
//
//   for each task (sequence, block of channels)           run: cut by shape
//     for each tile of tokens, in order                   walk: rows where they lie, or by way of scratch
//       for each token, for each pack of channels         advance: leaf, act, read
// A cell is what happens to one channel at one token: inputs -> element of a monoid -> state -> outputs.
#pragma once

#include "../policy/monoid.hpp"
#include "../policy/scan_policies.hpp"
#include "scan_tile.hpp"
#include "scratch.hpp"
#include "sequences.hpp"

namespace heed::inline HEED_ABI::detail {

/// A monoid as a cell whose inputs are elements. A cell of another kind has the same members.
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

    /// What is computed once for a channel, in place.
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
    const index_t ahead = tokens_ahead(x.width);
    const auto constants_of = [&](index_t c) { return load_all<P, Cell::constants>(constants + c, x.width); };
    const auto ready = [&](index_t t, index_t c) HEED_INLINE_LAMBDA {
        unroll<Cell::inputs>([&](auto i) HEED_INLINE_LAMBDA { prefetch_line(x.in[i].row(t + ahead) + c); });
        return first_part(cell, x.template load_inputs<P>(t, c), constants_of(c));
    };
    for (index_t t = 0; t < x.tokens; ++t) {
        auto now = ready(t, 0);
        for (index_t c = 0; c < x.width; c += P::size) {
            const index_t next = c + static_cast<index_t>(P::size);
            const auto soon = next < x.width ? ready(t, next) : now;
            const auto k = constants_of(c);
            auto s = load_all<P, M::states>(state + c, x.width);
            M::act(s, cell.leaf(now, k));
            store_all(state + c, x.width, s);
            const auto out = cell.read(s, now, k);
            unroll<Cell::outputs>([&](auto i) HEED_INLINE_LAMBDA {
                prefetch_line(x.out[i].row(t + ahead) + c);
                store(x.out[i].row(t) + c, out[i]);
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

template <class A, class T, class Cell, class In, class Constants, class Out, class State>
struct scan_call {
    using M = typename Cell::carried;
    using P = pack<T, A>;
    using tile = scan_tile<T, Cell>;
    static constexpr auto L = static_cast<index_t>(P::size);
    static constexpr index_t most_channels = 4096;

    Cell cell;
    In in;                 // tuple of view<const S, 3>, (B, N, C)
    Constants constants;   // tuple of view<const S, 1>, (C)
    Out out;               // tuple of view<S, 3>, (B, N, C)
    view<State, 3> state;  // (sequences, C, states), or no data
    sequences order;
    index_t segment;  // tokens of a segment; 0: the sequence is one
    bool adds;

    /// A task: a segment of a sequence in a block of channels.
    struct place {
        index_t sequence;
        range tokens;
        bool first, last;  // of its sequence
        channel_block block;
        T* joint;  // (elements or states, width): the product of the segment, then the state before it
    };
    /// What a worker works in.
    struct memory {
        T *constants, *state, *tiles;
        memory(carver from, index_t width)
            : constants(from.take<T>(Cell::constants * width)),
              state(from.take<T>(joint_rows * width)),
              tiles(from.take<T>((Cell::inputs + Cell::outputs + 1) * tile_size(width))) {
            size = from.used();
        }
        std::size_t size;
    };
    static constexpr int joint_rows = std::max(M::states, M::elements);

    template <class E>
    channel_cut cut(E& pool) const {
        return cut_for(pool, order.count(), std::get<0>(out).shape[2], L, most_channels);
    }
    index_t segments() const { return segment ? std::max<index_t>(1, ceil_div(order.longest(), segment)) : 1; }
    index_t joints(const channel_cut& blocks) const {
        return segment ? order.count() * segments() * blocks.count() * joint_rows * blocks.widest() : 0;
    }

    template <class E>
    std::size_t scratch_bytes(E& pool) const {
        const channel_cut blocks = cut(pool);
        if (blocks.widest() == 0) return 0;
        carver all;
        all.take<T>(joints(blocks));
        return all.used() + static_cast<std::size_t>(pool.width()) * memory(carver(), blocks.widest()).size;
    }

    template <class E>
    void run(E& pool, std::byte* scratch) const {
        const channel_cut blocks = cut(pool);
        const index_t width = blocks.widest(), tasks = order.count() * segments() * blocks.count();
        if (width == 0 || tasks == 0) return;
        carver all(scratch);
        T* const joint = all.take<T>(joints(blocks));
        const auto own = [&, base = scratch + all.used()](index_t worker) {
            return memory(carver(base + static_cast<std::size_t>(worker) * memory(carver(), width).size), width);
        };
        const auto at = [&](index_t task) {
            const index_t block = task % blocks.count(), part = task / blocks.count() % segments();
            return task_at(task / blocks.count() / segments(), part, blocks[block], joint + task * joint_rows * width);
        };
        if (segment) {
            for_tasks(pool, tasks, [&](index_t task, index_t worker) { multiply(at(task), own(worker)); });
            for_tasks(pool, order.count() * blocks.count(), [&](index_t task, index_t worker) {
                const index_t sequence = task / blocks.count(), block = task % blocks.count();
                const auto of = [&](index_t part) {
                    return at((sequence * segments() + part) * blocks.count() + block);
                };
                join(of, own(worker));
            });
        }
        for_tasks(pool, tasks, [&](index_t task, index_t worker) { write(at(task), own(worker)); });
    }

private:
    place task_at(index_t sequence, index_t part, const channel_block& block, T* joint) const {
        const index_t n = order.tokens(sequence).size(), length = segment ? segment : n;
        const range tokens{std::min(n, part * length), std::min(n, (part + 1) * length)};
        return {sequence, tokens, part == 0, tokens.last == n && (part == 0 || !tokens.empty()), block, joint};
    }

    /// The product of a segment's elements.
    void multiply(const place& at, const memory& m) const {
        prepare(at, m);
        each_pack(at, [&](index_t c) {
            numbers<P, M::elements> e;
            M::identity(e);
            store_all(at.joint + c, at.block.width, e);
        });
        walk<false>(at, m, [&](const tile& x) { gather<A>(cell, x, m.constants, at.joint); });
    }
    /// Products become the states before their segments.
    template <class Of>
    void join(const Of& of, const memory& m) const {
        begin(of(0), m);
        for (index_t part = 0; part < segments(); ++part) {
            const place at = of(part);
            each_pack(at, [&](index_t c) {
                const auto e = load_all<P, M::elements>(at.joint + c, at.block.width);
                auto s = load_all<P, M::states>(m.state + c, at.block.width);
                store_all(at.joint + c, at.block.width, s);
                M::act(s, e);
                store_all(m.state + c, at.block.width, s);
            });
        }
    }
    void write(const place& at, const memory& m) const {
        prepare(at, m);
        if (segment)
            std::copy_n(at.joint, M::states * at.block.width, m.state);
        else
            begin(at, m);
        walk<true>(at, m, [&](const tile& x) { advance<A>(cell, x, m.constants, m.state); });
        if (at.last && state.data) store_rows<A>(carried(at), m.state, at.block.width);
    }

    /// The carried state of a place, (states, channels).
    view<State, 2> carried(const place& at) const {
        return {state.data + at.sequence * state.strides[0] + at.block.first * state.strides[1],
                {M::states, at.block.channels},
                {state.strides[2], state.strides[1]}};
    }
    void begin(const place& at, const memory& m) const {
        if (state.data) return fill_rows<A>(view<const State, 2>(carried(at)), m.state, at.block.width);
        each_pack(at, [&](index_t c) {
            numbers<P, M::states> s;
            M::start(s);
            store_all(m.state + c, at.block.width, s);
        });
    }
    void prepare(const place& at, const memory& m) const {
        T* to = m.constants;
        const auto fill = [&](const auto& x) {
            fill_constant<A>(x, at.block, to);
            to += at.block.width;
        };
        std::apply([&](const auto&... x) { (fill(x), ...); }, constants);
        each_pack(at, [&](index_t c) {
            auto k = load_all<P, Cell::constants>(m.constants + c, at.block.width);
            cell.prepare(k);
            store_all(m.constants + c, at.block.width, k);
        });
    }
    template <class F>
    static void each_pack(const place& at, const F& f) {
        for (index_t c = 0; c < at.block.width; c += L) f(c);
    }

    /// Calls body(tile) for the tiles of a place, and brings what it writes to the outputs.
    template <bool Writes, class Body>
    void walk(const place& at, const memory& m, const Body& body) const {
        const index_t most = tile_tokens(at.block.width);
        for (index_t t = at.tokens.first; t < at.tokens.last; t += most) {
            const range tokens{t, std::min(at.tokens.last, t + most)};
            const auto part = [&](const auto& x) {
                return channels_of(slice(order.of(x, at.sequence), 0, tokens), at.block);
            };
            tile x;
            x.tokens = tokens.size();
            x.width = at.block.width;
            T* free = m.tiles;
            const auto next = [&] { return std::exchange(free, free + tile_size(at.block.width)); };
            const auto each = [](const auto& tuple, const auto& f) {
                std::apply(
                    [&](const auto&... v) {
                        std::size_t i = 0;
                        (f(v, i++), ...);
                    },
                    tuple);
            };
            each(in, [&](const auto& v, std::size_t i) { x.in[i] = read_rows<A, T>(part(v), x.width, next()); });
            if constexpr (!Writes) {
                body(x);
            } else {
                each(out, [&](const auto& v, std::size_t i) {
                    x.out[i] = write_rows<A, T>(part(v), x.width, next(), adds);
                });
                body(x);
                T* const spare = next();
                each(out,
                     [&](const auto& v, std::size_t i) { bring_rows<A>(part(v), x.out[i], x.width, spare, adds); });
            }
        }
    }
};

}  // namespace heed::inline HEED_ABI::detail
