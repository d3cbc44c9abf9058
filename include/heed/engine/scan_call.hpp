// One scan: operands and cut, and the loops over sequences, blocks of channels, tiles of tokens, tokens and packs.
//
//   for each task (sequence, block of channels)           run: cut by shape
//     for each tile of tokens, in order                   walk: rows where they lie, or by way of scratch
//       for each token, for each pack of channels         advance (scan_cell.hpp): leaf, act, read
// Segments: the product of each, the states between them, then as above from those.
#pragma once

#include "../policy/scan_policies.hpp"
#include "scan_cell.hpp"
#include "scratch.hpp"
#include "segments.hpp"

namespace heed::inline HEED_ABI::detail {

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

    /// A task: a segment in a block of channels.
    struct place : segment_place {
        channel_block block;
        T* joint;  // (elements or states, width): the product of the segment, then the state before it
    };
    /// What a worker works in.
    struct memory {
        T *constants, *state, *tiles;
        memory(carver from, index_t width)
            : constants(from.take<T>(Cell::constants * width)),
              state(from.take<T>(M::states * width)),
              tiles(from.take<T>((Cell::inputs + Cell::outputs + 1) * tile_room(width))) {
            size = from.used();
        }
        std::size_t size;
    };

    template <class E>
    channel_cut cut(E& pool) const {
        return cut_for(pool, order.count(), std::get<0>(out).shape[2], L, most_channels);
    }
    segments cuts(const channel_cut& blocks) const { return {order, segment, blocks.count()}; }
    index_t joint_rows() const { return std::max(M::states, M::elements); }
    static memory space(carver from, index_t width) { return {from, width}; }
    static place place_of(const segment_place& at, const channel_cut& blocks, T* joint) {
        return {at, blocks[at.column], joint};
    }
    template <class E>
    std::size_t scratch_bytes(E& pool) const {
        return scratch_of_segments<T>(*this, pool);
    }
    template <class E>
    void run(E& pool, std::byte* scratch) const {
        run_segments<T>(*this, pool, scratch);
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
    void join(const Of& of, index_t parts, const memory& m) const {
        begin(of(0), m);
        for (index_t part = 0; part < parts; ++part) {
            const place at = of(part);
            each_pack(at, [&](index_t c) {
                const auto s = load_all<P, M::states>(m.state + c, at.block.width);
                if (!at.last) {
                    auto next = s;
                    M::act(next, load_all<P, M::elements>(at.joint + c, at.block.width));
                    store_all(m.state + c, at.block.width, next);
                }
                store_all(at.joint + c, at.block.width, s);
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
        finish_stores();
        if (at.last && state.data) store_rows<A>(carried(at), m.state, at.block.width);
    }

private:
    /// The carried state of a place, (states, channels).
    view<State, 2> carried(const place& at) const { return carried_rows(state, at, M::states); }
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
            const auto next = [&] { return std::exchange(free, free + tile_room(at.block.width)); };
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
                    x.out[i] = write_rows<A, T>(part(v), x.width, next(), adds, outweighs_caches(v));
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
