// The loops of the selective scan: many states a channel, whose decay and drive are made at every token.
//
//   for each task (sequence, group, block of channels)         selective_call::run
//     for each tile of tokens, in order                        selective_call::walk
//       steps d and drives d u of the tile                     drive
//       for each pack of channels, for K states in registers   selective_modes
//         for each token: h_n = 2^(d A_n log2 e) h_n + B_n d u, y += C_n h_n
//       y + D u, times silu(z)                                 finish
// Segments: the states each leaves when it starts from none, and the sum of its steps; h before the next is
// 2^(sum A_n log2 e) h_n + those; then as above.
#pragma once

#include "../simd/gates.hpp"
#include "scan_operands.hpp"
#include "scan_tile.hpp"
#include "scratch.hpp"
#include "segments.hpp"

namespace heed::inline HEED_ABI::detail {

/// A tile of a block of channels; rows of tokens and of states lie `width` apart.
template <class T>
struct selective_tile {
    T *steps, *drives, *sums;           // (tokens, width)
    T *decays, *states;                 // (S, width); decays times log2 e
    const T *bias, *skip;               // (width)
    tile_rows<const T> u, delta, gate;  // (tokens, width)
    tile_rows<const T> in, out;         // B, C: (tokens, S)
    std::array<rows_ahead, 4> ahead;    // of u, delta, y, gate
    index_t tokens, width, S;
};

/// Steps, drives, and sums that start at 0.
template <class A, class T>
HEED_NOINLINE void drive(const selective_tile<T>& x, bool positive_steps) noexcept {
    using P = pack<T, A>;
    for (index_t t = 0; t < x.tokens; ++t)
        for (index_t c = 0; c < x.width; c += P::size) {
            const index_t at = t * x.width + c;
            P step = load<P>(x.delta.row(t) + c) + load<P>(x.bias + c);
            if (positive_steps) step = softplus(step);
            store(x.steps + at, step);
            store(x.drives + at, step * load<P>(x.u.row(t) + c));
            store(x.sums + at, P(0));
        }
}

/// States n, ..., n + K - 1 of the pack of channels c through a tile.
template <int K, class A, class T>
HEED_NOINLINE void selective_modes(const selective_tile<T>& x, index_t c, index_t n) noexcept {
    using P = pack<T, A>;
    T* const states = x.states + n * x.width + c;
    const T* const decays = x.decays + n * x.width + c;
    P h[K];
    unroll<K>([&](auto k) HEED_INLINE_LAMBDA { h[k] = load<P>(states + k * x.width); });
    for (index_t t = 0; t < x.tokens; ++t) {
        const index_t at = t * x.width + c;
        const P step = load<P>(x.steps + at), drive = load<P>(x.drives + at);
        const T *const in = x.in.row(t) + n, *const out = x.out.row(t) + n;
        P sum = load<P>(x.sums + at);
        if (n == 0) unroll<4>([&](auto i) HEED_INLINE_LAMBDA { x.ahead[i].ask_for(t, c); });
        unroll<K>([&](auto k) HEED_INLINE_LAMBDA {
            h[k] = fma(exp2(step * load<P>(decays + k * x.width)), h[k], drive * P(in[k]));
            sum = fma(h[k], P(out[k]), sum);
        });
        store(x.sums + at, sum);
    }
    unroll<K>([&](auto k) HEED_INLINE_LAMBDA { store(states + k * x.width, h[k]); });
}

/// All states: as many at once as half the registers hold, then 4, then one.
template <class A, class T>
void selective_states(const selective_tile<T>& x) noexcept {
    constexpr int K = vector_registers<A> / 2;
    for (index_t c = 0; c < x.width; c += lanes<T, A>) {
        index_t n = 0;
        for (; n + K <= x.S; n += K) selective_modes<K, A>(x, c, n);
        for (; n + 4 <= x.S; n += 4) selective_modes<4, A>(x, c, n);
        for (; n < x.S; ++n) selective_modes<1, A>(x, c, n);
    }
}

/// y = (sum + D u) silu(z).
template <class A, class T>
HEED_NOINLINE void finish(const selective_tile<T>& x, const tile_rows<T>& y) noexcept {
    using P = pack<T, A>;
    for (index_t t = 0; t < x.tokens; ++t)
        for (index_t c = 0; c < x.width; c += P::size) {
            P sum = load<P>(x.sums + t * x.width + c);
            if (x.skip) sum = fma(load<P>(x.skip + c), load<P>(x.u.row(t) + c), sum);
            if (x.gate.data) sum *= silu(load<P>(x.gate.row(t) + c));
            y.put(t, c, sum);
        }
}

/// Operands as views; of those that may be left out, bias, skip, gate and state, no data means so.
template <class A, class T, class U, class Delta, class Decay, class In, class Out, class Y, class Bias, class Skip,
          class Gate, class State>
struct selective_call {
    using P = pack<T, A>;
    static constexpr auto L = static_cast<index_t>(lanes<T, A>);
    static constexpr index_t most_channels = 256,
                             most_tokens = 16;  // the tile and the next one fit a first-level cache

    view<const U, 3> u;
    view<const Delta, 3> delta;  // (B, N, C)
    view<const Decay, 2> decay;  // (C, S)
    view<const In, 4> in;        // (B, N, G, S)
    view<const Out, 4> out;      // (B, N, G, S)
    view<Y, 3> y;                // (B, N, C)
    view<const Bias, 1> bias;    // (C)
    view<const Skip, 1> skip;    // (C)
    view<const Gate, 3> gate;    // (B, N, C)
    view<State, 3> state;        // (sequences, C, S)
    sequences order;
    index_t segment;  // tokens of a segment; 0: a sequence is one
    bool positive_steps, adds;

    index_t S() const { return decay.shape[1]; }
    index_t groups() const { return in.shape[2]; }
    template <class E>
    channel_cut cut(E& pool) const {
        return cut_for(pool, order.count() * groups(), groups() ? y.shape[2] / groups() : 0, L, most_channels);
    }

    struct memory {
        T *steps, *drives, *sums, *decays, *states, *constants, *rows, *numbers;
        std::size_t size;
        memory(carver from, index_t width, index_t S)
            : steps(from.take<T>(most_tokens * width)),
              drives(from.take<T>(most_tokens * width)),
              sums(from.take<T>(most_tokens * width)),
              decays(from.take<T>(S * width)),
              states(from.take<T>(S * width)),
              constants(from.take<T>(2 * width)),
              rows(from.take<T>(4 * most_tokens * width)),
              numbers(from.take<T>(2 * most_tokens * S)),
              size(from.used()) {}
    };

    /// A task: a segment in a block of channels, all of one group.
    struct place : segment_place {
        index_t group;
        channel_block block;
        T* joint;  // (S + 1, width): the states it leaves if there are none before it, the sum of its steps; then the
                   // states before it
    };
    segments cuts(const channel_cut& blocks) const { return {order, segment, groups() * blocks.count()}; }
    index_t joint_rows() const { return S() + 1; }
    memory space(carver from, index_t width) const { return {from, width, S()}; }
    place place_of(const segment_place& at, const channel_cut& blocks, T* joint) const {
        const index_t group = at.column / blocks.count();
        channel_block block = blocks[at.column % blocks.count()];
        block.first += group * blocks.C;
        return {at, group, block, joint};
    }
    template <class E>
    std::size_t scratch_bytes(E& pool) const {
        return scratch_of_segments<T>(*this, pool);
    }
    template <class E>
    void run(E& pool, std::byte* scratch) const {
        run_segments<T>(*this, pool, scratch);
    }

    void multiply(const place& at, const memory& m) const noexcept {
        prepare(at, m);
        std::fill_n(m.states, S() * at.block.width, T(0));
        std::fill_n(at.joint + S() * at.block.width, at.block.width, T(0));
        walk(at, m, false);
        std::copy_n(m.states, S() * at.block.width, at.joint);
    }
    /// What segments leave becomes the states before them.
    template <class Of>
    void join(const Of& of, index_t parts, const memory& m) const noexcept {
        prepare(of(0), m);
        begin(of(0), m);
        for (index_t part = 0; part < parts; ++part) {
            const place at = of(part);
            const index_t width = at.block.width, rows = S() * width;
            for (index_t i = 0; i < rows; i += L) {
                const P h = load<P>(m.states + i);
                if (!at.last) {
                    const P steps = load<P>(at.joint + rows + i % width);
                    store(m.states + i, fma(exp2(steps * load<P>(m.decays + i)), h, load<P>(at.joint + i)));
                }
                store(at.joint + i, h);
            }
        }
    }
    void write(const place& at, const memory& m) const noexcept {
        prepare(at, m);
        if (segment)
            std::copy_n(at.joint, S() * at.block.width, m.states);
        else
            begin(at, m);
        walk(at, m, true);
        finish_stores();
        if (at.last && state.data) store_rows<A>(carried(at), m.states, at.block.width);
    }

private:
    /// The carried state of a place, (S, channels).
    view<State, 2> carried(const place& at) const { return carried_rows(state, at, S()); }
    void begin(const place& at, const memory& m) const { fill_start<A>(carried(at), m.states, at.block.width); }
    void prepare(const place& at, const memory& m) const {
        const index_t width = at.block.width;
        fill_rows<A>(channels_of(by_column(decay), at.block), m.decays, width);
        for (index_t i = 0; i < S() * width; i += L) store(m.decays + i, load<P>(m.decays + i) * P(log2_e<T>));
        fill_constant<A>(bias, at.block, m.constants);
        fill_constant<A>(skip, at.block, m.constants + width);
    }

    /// Moves the states through the tokens of a place, and writes its outputs or sums its steps.
    void walk(const place& at, const memory& m, bool writes) const noexcept {
        const index_t width = at.block.width, tile = most_tokens * width, last = at.tokens.last;
        const bool around = outweighs_caches(y);

        for (index_t t = at.tokens.first; t < last; t += most_tokens) {
            const range tokens{t, std::min(last, t + most_tokens)};
            const auto part = [&](const auto& x) {
                return channels_of(slice(order.of(x, at.sequence), 0, tokens), at.block);
            };
            const auto rows = [&](const auto& x, index_t i) {
                return read_rows<A, T>(part(x), width, m.rows + i * tile);
            };
            const auto shared = [&](const auto& x, T* scratch) {
                const auto all = slice(order.of(x, at.sequence), 0, tokens);  // (tokens, G, S)
                using X = std::remove_reference_t<decltype(*all.data)>;
                return read_numbers<A, T>(
                    view<X, 2>{
                        all.data + at.group * all.strides[1], {tokens.size(), S()}, {all.strides[0], all.strides[2]}},
                    scratch);
            };
            selective_tile<T> x{.steps = m.steps,
                                .drives = m.drives,
                                .sums = m.sums,
                                .decays = m.decays,
                                .states = m.states,
                                .bias = m.constants,
                                .skip = skip.data ? m.constants + width : nullptr,
                                .u = rows(u, 0),
                                .delta = rows(delta, 1),
                                .gate = {},
                                .in = shared(in, m.numbers),
                                .out = shared(out, m.numbers + most_tokens * S()),
                                .ahead = {},
                                .tokens = tokens.size(),
                                .width = width,
                                .S = S()};
            if (gate.data) x.gate = rows(gate, 2);
            const range next{tokens.last, std::min(last, tokens.last + most_tokens)};
            const auto ahead = [&](const auto& v) {
                return rows_ahead(channels_of(slice(order.of(v, at.sequence), 0, next), at.block));
            };
            x.ahead = {ahead(u), ahead(delta), around ? rows_ahead() : ahead(y), gate.data ? ahead(gate) : rows_ahead()};
            drive<A>(x, positive_steps);
            selective_states<A>(x);
            if (!writes) {
                add_steps(x, at.joint + S() * width);
                continue;
            }
            const auto to = part(y);
            const auto y_rows = write_rows<A, T>(to, width, m.rows + 3 * tile, adds, around);
            finish<A>(x, y_rows);
            bring_rows<A>(to, y_rows, width, m.sums, adds);
        }
    }
    static void add_steps(const selective_tile<T>& x, T* sums) {
        for (index_t t = 0; t < x.tokens; ++t)
            for (index_t c = 0; c < x.width; c += L)
                store(sums + c, load<P>(sums + c) + load<P>(x.steps + t * x.width + c));
    }
};

/// Names the element types of a call; the arguments are its members.
template <class A, class T, class U, class Delta, class Decay, class In, class Out, class Y, class Bias, class Skip,
          class Gate, class State>
auto selective_call_of(view<const U, 3> u, view<const Delta, 3> delta, view<const Decay, 2> decay, view<const In, 4> in,
                       view<const Out, 4> out, view<Y, 3> y, view<const Bias, 1> bias, view<const Skip, 1> skip,
                       view<const Gate, 3> gate, view<State, 3> state, const sequences& order, index_t segment,
                       bool positive_steps, bool adds) {
    return selective_call<A, T, U, Delta, Decay, In, Out, Y, Bias, Skip, Gate, State>{
        u, delta, decay, in, out, y, bias, skip, gate, state, order, segment, positive_steps, adds};
}

}  // namespace heed::inline HEED_ABI::detail
