// The loops of a linear time-invariant diagonal state space: S states a channel, real or complex, that never change
// pace.
//
//   h_n = a_n h_n + b_n u;  y = sum_n Re(c_n h_n) + d u, silu of it if asked; `late` reads h_n before the token
//   for each task (sequence, block of channels), tile of tokens, pack of channels, K states in registers, token
// Constants are made from parameters once a block: Prepare maps packs of parameters to packs of a, b, c. Segments of n
// tokens: the states each leaves when it starts from none; h before the next is a^n h + those; then as above.
#pragma once

#include <complex>

#include "../simd/gates.hpp"
#include "scan_cell.hpp"
#include "scan_operands.hpp"
#include "scan_tile.hpp"
#include "scratch.hpp"
#include "segments.hpp"

namespace heed::inline HEED_ABI::detail {

/// A tile of a block of channels; rows of tokens and of states lie `width` apart. Complex numbers: rows of real parts,
/// then as many of imaginary ones.
template <class T>
struct modes_tile {
    const T *a, *b, *c;               // (S, width), twice that if complex
    T *states, *sums;                 // the same; (tokens, width)
    const T* through;                 // d, (width)
    tile_rows<const T> u;             // (tokens, width)
    std::array<rows_ahead, 2> ahead;  // of u, y
    index_t tokens, width, S;
    bool late;
};

/// One state of a pack of channels, (h, g) if complex, at one token; re and im are the places of its constants.
template <bool Complex, class P, class T>
HEED_INLINE void move_mode(const modes_tile<T>& x, index_t re, index_t im, const P& u, P& h, P& g, P& sum) {
    const auto read = [&]() HEED_INLINE_LAMBDA {
        sum = fma(load<P>(x.c + re), h, sum);
        if constexpr (Complex) sum = fma(-load<P>(x.c + im), g, sum);
    };
    if (x.late) read();
    if constexpr (Complex) {
        const P real = fma(load<P>(x.a + re), h, fma(-load<P>(x.a + im), g, load<P>(x.b + re) * u));
        g = fma(load<P>(x.a + re), g, fma(load<P>(x.a + im), h, load<P>(x.b + im) * u));
        h = real;
    } else {
        h = fma(load<P>(x.a + re), h, load<P>(x.b + re) * u);
    }
    if (!x.late) read();
}

/// States n, ..., n + K - 1 of the pack of channels c through a tile.
template <int K, bool Complex, class A, class T>
HEED_NOINLINE void run_modes(const modes_tile<T>& x, index_t c, index_t n) noexcept {
    using P = pack<T, A>;
    const index_t re = n * x.width + c, im = re + x.S * x.width;
    P h[K], g[K];
    unroll<K>([&](auto k) HEED_INLINE_LAMBDA {
        h[k] = load<P>(x.states + re + k * x.width);
        if constexpr (Complex) g[k] = load<P>(x.states + im + k * x.width);
    });
    for (index_t t = 0; t < x.tokens; ++t) {
        const P u = load<P>(x.u.row(t) + c);
        if (n == 0) unroll<2>([&](auto i) HEED_INLINE_LAMBDA { x.ahead[i].ask_for(t, c); });
        P sum = n == 0 ? load<P>(x.through + c) * u : load<P>(x.sums + t * x.width + c);
        unroll<K>([&](auto k) HEED_INLINE_LAMBDA {
            move_mode<Complex>(x, re + k * x.width, im + k * x.width, u, h[k], g[k], sum);
        });
        store(x.sums + t * x.width + c, sum);
    }
    unroll<K>([&](auto k) HEED_INLINE_LAMBDA {
        store(x.states + re + k * x.width, h[k]);
        if constexpr (Complex) store(x.states + im + k * x.width, g[k]);
    });
}

/// All states token by token, in the first-level cache, and the outputs with them: rows are read and written as they lie,
/// which counts for more than registers where states are few.
template <bool Complex, class A, class T>
HEED_NOINLINE void run_few_modes(const modes_tile<T>& x, bool curved, const tile_rows<T>& y) noexcept {
    using P = pack<T, A>;
    const index_t ahead = tokens_ahead(x.width);
    for (index_t t = 0; t < x.tokens; ++t)
        for (index_t c = 0; c < x.width; c += P::size) {
            prefetch_line(x.u.row(t + ahead) + c);
            if (!y.around) prefetch_line(y.row(t + ahead) + c);
            const P u = load<P>(x.u.row(t) + c);
            P sum = load<P>(x.through + c) * u;
            for (index_t n = 0; n < x.S; ++n) {
                const index_t re = n * x.width + c, im = re + x.S * x.width;
                P h = load<P>(x.states + re), g = h;
                if constexpr (Complex) g = load<P>(x.states + im);
                move_mode<Complex>(x, re, im, u, h, g, sum);
                store(x.states + re, h);
                if constexpr (Complex) store(x.states + im, g);
            }
            y.put(t, c, curved ? silu(sum) : sum);
        }
}

/// x^n by squaring.
template <class Number>
Number power(Number x, index_t n) {
    Number all(1);
    for (; n > 0; n /= 2, x *= x)
        if (n % 2) all *= x;
    return all;
}

/// Operands as views; of `through` and state no data means none. Parameters: tuple of view<const S, 2>, (C, S).
template <class A, class T, bool Complex, class Prepare, class U, class Parameters, class Y, class Through, class State>
struct modes_call {
    using P = pack<T, A>;
    static constexpr auto L = static_cast<index_t>(P::size);
    static constexpr index_t parts = Complex ? 2 : 1, most_tokens = 16;
    static constexpr auto given = std::tuple_size_v<Parameters>;

    Prepare prepare;     // packs of parameters -> packs of a, b, c, complex ones as (re, im) each
    view<const U, 3> u;  // (B, N, C)
    Parameters parameters;
    view<Y, 3> y;                    // (B, N, C)
    view<const Through, 1> through;  // d, (C)
    view<State, 3> state;            // (sequences, C, parts S)
    sequences order;
    index_t S;
    index_t segment;  // tokens of a segment; 0: a sequence is one
    bool late, curved, adds;

    template <class E>
    channel_cut cut(E& pool) const {
        return cut_for(pool, order.count(), y.shape[2], L, few() ? 1024 : 256);  // whole pages of rows, or tiles in L1
    }
    struct memory {
        T *constants, *states, *sums, *through, *rows;
        std::size_t size;
        memory(carver from, index_t width, index_t S)
            : constants(from.take<T>(std::max<index_t>(3 * parts, given) * S * width)),
              states(from.take<T>(parts * S * width)),
              sums(from.take<T>(most_tokens * width)),
              through(from.take<T>(width)),
              rows(from.take<T>(2 * most_tokens * width)),
              size(from.used()) {}
    };
    /// A task: a segment in a block of channels.
    struct place : segment_place {
        channel_block block;
        T* joint;  // (parts S, width): what it leaves when it starts from no states; then the states before it
    };
    segments cuts(const channel_cut& blocks) const { return {order, segment, blocks.count()}; }
    index_t joint_rows() const { return parts * S; }
    memory space(carver from, index_t width) const { return {from, width, S}; }
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

    void multiply(const place& at, const memory& m) const noexcept {
        make_constants(at.block, m);
        std::fill_n(m.states, parts * S * at.block.width, T(0));
        walk(at, m, false);
        std::copy_n(m.states, parts * S * at.block.width, at.joint);
    }
    /// What segments leave becomes the states before them; all but the last have as many tokens.
    template <class Of>
    void join(const Of& of, index_t count, const memory& m) const noexcept {
        const place first = of(0);
        const index_t imaginary = S * first.block.width;
        make_constants(first.block, m);
        begin(first, m);
        T* const a = m.constants;
        const auto number = [&](T* x, index_t i) {
            if constexpr (Complex)
                return std::complex<double>(x[i], x[i + imaginary]);
            else
                return static_cast<double>(x[i]);
        };
        const auto put = [&](T* x, index_t i, const auto& value) {
            x[i] = static_cast<T>(std::real(value));
            if constexpr (Complex) x[i + imaginary] = static_cast<T>(value.imag());
        };
        for (index_t i = 0; i < imaginary; ++i) put(a, i, power(number(a, i), segment));
        for (index_t part = 0; part < count; ++part) {
            T* const joint = of(part).joint;
            for (index_t i = 0; i < imaginary; ++i) {
                const auto h = number(m.states, i);
                if (part + 1 < count) put(m.states, i, number(a, i) * h + number(joint, i));
                put(joint, i, h);
            }
        }
    }
    void write(const place& at, const memory& m) const noexcept {
        make_constants(at.block, m);
        if (segment)
            std::copy_n(at.joint, parts * S * at.block.width, m.states);
        else
            begin(at, m);
        walk(at, m, true);
        finish_stores();
        if (at.last && state.data) store_rows<A>(carried(at), m.states, at.block.width);
    }

private:
    /// The carried state of a place, (parts S, channels).
    view<State, 2> carried(const place& at) const { return carried_rows(state, at, parts * S); }
    void begin(const place& at, const memory& m) const { fill_start<A>(carried(at), m.states, at.block.width); }
    /// The constants of a block in the place of its parameters.
    void make_constants(const channel_block& at, const memory& m) const {
        T* to = m.constants;
        const index_t rows = S * at.width;
        each_operand(parameters, [&](const auto& x) {
            fill_rows<A>(channels_of(by_column(x), at), to, at.width);
            to += rows;
        });
        for (index_t i = 0; i < rows; i += L) {
            const auto constants = prepare([&] {
                std::array<P, given> x;
                for (std::size_t k = 0; k < given; ++k)
                    x[k] = load<P>(m.constants + static_cast<index_t>(k) * rows + i);
                return x;
            }());
            for (index_t k = 0; k < 3 * parts; ++k)
                store(m.constants + k * rows + i, constants[static_cast<std::size_t>(k)]);
        }
    }
    void run_states(const modes_tile<T>& x) const {
        constexpr int K = vector_registers<A> / 2 / static_cast<int>(parts);
        for (index_t c = 0; c < x.width; c += L) {
            index_t n = 0;
            for (; n + K <= x.S; n += K) run_modes<K, Complex, A>(x, c, n);
            for (; n + 4 <= x.S && K > 4; n += 4) run_modes<4, Complex, A>(x, c, n);
            for (; n < x.S; ++n) run_modes<1, Complex, A>(x, c, n);
        }
    }
    bool few() const { return S < 4; }
    void run_tile(const modes_tile<T>& x, const tile_rows<T>& to) const {
        if (few()) return run_few_modes<Complex, A>(x, curved, to);
        run_states(x);
        for (index_t t = 0; t < x.tokens; ++t)
            for (index_t c = 0; c < x.width; c += L) {
                const P sum = load<P>(x.sums + t * x.width + c);
                to.put(t, c, curved ? silu(sum) : sum);
            }
    }
    /// Moves the states through the tokens of a place, and writes its outputs if asked.
    void walk(const place& at, const memory& m, bool writes) const noexcept {
        const index_t width = at.block.width, rows = parts * S * width, last = at.tokens.last;
        fill_constant<A>(through, at.block, m.through);
        const bool around = outweighs_caches(y);
        for (index_t t = at.tokens.first; t < last; t += most_tokens) {
            const range tokens{t, std::min(last, t + most_tokens)};
            const auto part = [&](const auto& v) {
                return channels_of(slice(order.of(v, at.sequence), 0, tokens), at.block);
            };
            const range next{tokens.last, std::min(last, tokens.last + most_tokens)};
            const auto ahead = [&](const auto& v) {
                return rows_ahead(channels_of(slice(order.of(v, at.sequence), 0, next), at.block));
            };
            const modes_tile<T> x{.a = m.constants,
                                  .b = m.constants + rows,
                                  .c = m.constants + 2 * rows,
                                  .states = m.states,
                                  .sums = m.sums,
                                  .through = m.through,
                                  .u = read_rows<A, T>(part(u), width, m.rows),
                                  .ahead = {ahead(u), around ? rows_ahead() : ahead(y)},
                                  .tokens = tokens.size(),
                                  .width = width,
                                  .S = S,
                                  .late = late};
            if (!writes) {
                run_states(x);
                continue;
            }
            const auto to = write_rows<A, T>(part(y), width, m.rows + most_tokens * width, adds, around);
            run_tile(x, to);
            bring_rows<A>(part(y), to, width, m.sums, adds);
        }
    }
};

/// Checks and runs: parameters are operands (C, S).
template <class A, bool Complex, class Prepare, class U, class Parameters, class Y, class Through, class... P>
void run_modes_over(const char* op, const Prepare& prepare, const U& u, const Parameters& parameters, const Y& y,
                    const Through& through, bool late, bool curved, const P&... policies) {
    const auto to = y.v;
    const auto order = sequences::of(op, to.shape[0], to.shape[1], policies...);
    const auto state = carried_state(policies...);
    const index_t C = to.shape[2], S = std::get<0>(parameters).v.shape[1], segment = segment_tokens(op, policies...);
    check_written(op, y);
    check_shape(op, u, to.shape, y.name);
    require_shape(S >= 0, op, std::get<0>(parameters).name, " has ", S, " states");
    each_operand(parameters, [&](const auto& x) { check_shape(op, x, {C, S}, y.name); });
    each_operand(through, [&](const auto& d) { check_given(op, d, {C}, y.name); });
    each_operand(state, [&](const auto& s) {
        check_written(op, s);
        check_given(op, s, {order.count(), C, Complex ? 2 * S : S}, "the scan");
    });
    check_apart_from_all(op, std::tuple_cat(std::tuple(u), parameters, through), std::tuple_cat(std::tuple(y), state));
    using T = accumulator_of<std::tuple<U, Y>, Parameters, Through, decltype(state)>;
    const auto d = view_or_none<const float, 1>(through);
    const auto carried = view_or_none<T, 3>(state);
    const modes_call<A, T, Complex, Prepare, typename U::element, decltype(views_of(parameters)), typename Y::element,
                     typename decltype(d)::value_type, typename decltype(carried)::value_type>
        call{prepare, u.v,    views_of(parameters),
             to,      d,      carried,
             order,   S,      segment,
             late,    curved, (... || std::is_same_v<P, adding>)};
    in_scratch(
        op, [&](auto& pool) { return call.scratch_bytes(pool); },
        [&](auto& pool, std::byte* memory) { call.run(pool, memory); }, policies...);
}

}  // namespace heed::inline HEED_ABI::detail
