// The loops of the short depthwise causal convolution.
//
//   for each task (segment, block of channels)         run: cut by shape
//     for each tile of tokens, in order                write: rows where they lie, or by way of scratch
//       for each token, for each pack of channels      convolve: K multiply-adds over the rows of the last K tokens
#pragma once

#include <numeric>

#include "../simd/gates.hpp"
#include "scan_operands.hpp"
#include "scan_tile.hpp"
#include "scratch.hpp"
#include "segments.hpp"

namespace heed::inline HEED_ABI::detail {

/// Row t of y, `width` channels: taps (K, width), the rows of the last K tokens.
template <class A, class T>
HEED_NOINLINE void convolve(const T* const* rows, const T* taps, const T* bias, index_t K, index_t width, bool curved,
                            const tile_rows<T>& y, index_t t) noexcept {
    using P = pack<T, A>;
    for (index_t c = 0; c < width; c += P::size) {
        P sum = load<P>(bias + c);
        for (index_t r = 0; r < K; ++r) sum = fma(load<P>(taps + r * width + c), load<P>(rows[r] + c), sum);
        y.put(t, c, curved ? silu(sum) : sum);
    }
}

/// Operands as views; of bias and state no data means none.
template <class A, class T, class X, class W, class Y, class Bias, class State>
struct causal_conv_call {
    static constexpr auto L = static_cast<index_t>(lanes<T, A>);
    static constexpr index_t most_channels = 4096;

    view<const X, 3> x;        // (B, N, C)
    view<const W, 2> taps;     // (C, K)
    view<Y, 3> y;              // (B, N, C)
    view<const Bias, 1> bias;  // (C)
    view<State, 3> state;      // (sequences, C, K - 1), oldest first
    sequences order;
    index_t segment;  // tokens of a segment; 0: a sequence is one
    bool curved, adds;

    index_t K() const { return taps.shape[1]; }
    template <class E>
    channel_cut cut(E& pool) const {
        return cut_for(pool, order.count(), y.shape[2], L, most_channels);
    }

    struct memory {
        T *taps, *bias, *history, *tiles;
        const T** rows;
        std::size_t size;
        memory(carver from, index_t width, index_t K)
            : taps(from.take<T>(K * width)),
              bias(from.take<T>(width)),
              history(from.take<T>((K - 1) * width)),
              tiles(from.take<T>(3 * tile_room(width))),
              rows(from.take<const T*>(K)),
              size(from.used()) {}
    };

    /// A task: a segment in a block of channels.
    struct place : segment_place {
        channel_block block;
        T* joint;  // (K - 1, width): the inputs before it
    };
    segments cuts(const channel_cut& blocks) const { return {order, segment, blocks.count()}; }
    index_t joint_rows() const { return K() - 1; }
    memory space(carver from, index_t width) const { return {from, width, K()}; }
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

    void multiply(const place&, const memory&) const noexcept {}
    /// Inputs are there for all to read, but for those of the state, which the last segment writes.
    template <class Of>
    void join(const Of& of, index_t parts, const memory& m) const noexcept {
        begin(of(0), m);
        for (index_t part = 0; part < parts; ++part) {
            const place at = of(part);
            const index_t width = at.block.width, fresh = std::min(K() - 1, at.tokens.size()), kept = K() - 1 - fresh;
            std::copy_n(m.history, (K() - 1) * width, at.joint);
            std::copy_n(m.history + fresh * width, kept * width, m.history);
            fill_rows<A>(part_of(x, at, {at.tokens.last - fresh, at.tokens.last}), m.history + kept * width, width);
        }
    }
    void write(const place& at, const memory& m) const noexcept {
        const index_t width = at.block.width, last = at.tokens.last, most = tile_tokens(width);
        fill_rows<A>(channels_of(by_column(taps), at.block), m.taps, width);
        fill_constant<A>(bias, at.block, m.bias);
        if (segment)
            std::copy_n(at.joint, (K() - 1) * width, m.history);
        else
            begin(at, m);
        for (index_t r = 0; r < K() - 1; ++r) m.rows[r + 1] = m.history + r * width;

        for (index_t t = at.tokens.first; t < last; t += most) {
            const range tokens{t, std::min(last, t + most)};
            const auto part = [&](const auto& v) { return part_of(v, at, tokens); };
            const auto from = read_rows<A, T>(part(x), width, m.tiles);
            const auto to = write_rows<A, T>(part(y), width, m.tiles + tile_room(width), adds, outweighs_caches(y));
            for (index_t i = 0; i < tokens.size(); ++i) {
                std::copy(m.rows + 1, m.rows + K(), m.rows);
                m.rows[K() - 1] = from.row(i);
                convolve<A>(m.rows, m.taps, m.bias, K(), width, curved, to, i);
            }
            bring_rows<A>(part(y), to, width, m.tiles + 2 * tile_room(width), adds);
            if (from.data == m.tiles || tokens.last == last) keep_history(width, m);
        }
        finish_stores();
        if (at.last && state.data) store_rows<A>(carried(at), m.history, width);
    }

private:
    /// Some tokens of an operand, (tokens, channels).
    template <class V>
    auto part_of(const V& v, const place& at, range tokens) const {
        return channels_of(slice(order.of(v, at.sequence), 0, tokens), at.block);
    }
    /// The last K - 1 inputs, (K - 1, channels).
    view<State, 2> carried(const place& at) const { return carried_rows(state, at, K() - 1); }
    void begin(const place& at, const memory& m) const { fill_start<A>(carried(at), m.history, at.block.width); }

    /// The last K - 1 rows, some of them history already, to where the next tile does not come.
    void keep_history(index_t width, const memory& m) const {
        for (index_t r = 0; r < K() - 1; ++r) {
            std::copy_n(m.rows[r + 1], width, m.history + r * width);
            m.rows[r + 1] = m.history + r * width;
        }
    }
};

template <class A, class T, class X, class W, class Y, class Bias, class State>
auto causal_conv_call_of(view<const X, 3> x, view<const W, 2> taps, view<Y, 3> y, view<const Bias, 1> bias,
                         view<State, 3> state, const sequences& order, index_t segment, bool curved, bool adds) {
    return causal_conv_call<A, T, X, W, Y, Bias, State>{x, taps, y, bias, state, order, segment, curved, adds};
}

}  // namespace heed::inline HEED_ABI::detail
