// The loops of the short depthwise causal convolution.
//
//   for each task (sequence, block of channels)        run: cut by shape
//     for each tile of tokens, in order                convolve_block: rows where they lie, or by way of scratch
//       for each token, for each pack of channels      convolve: K multiply-adds over the rows of the last K tokens
#pragma once

#include <numeric>

#include "../simd/gates.hpp"
#include "scan_operands.hpp"
#include "scan_tile.hpp"
#include "scratch.hpp"
#include "sequences.hpp"

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

    template <class E>
    std::size_t scratch_bytes(E& pool) const {
        return static_cast<std::size_t>(pool.width()) * memory(carver(), cut(pool).widest(), K()).size;
    }

    template <class E>
    void run(E& pool, std::byte* scratch) const {
        const channel_cut blocks = cut(pool);
        const auto size = memory(carver(), blocks.widest(), K()).size;
        for_tasks(pool, order.count() * blocks.count(), [&](index_t task, index_t worker) {
            convolve_block(task / blocks.count(), blocks[task % blocks.count()],
                           memory(carver(scratch + static_cast<std::size_t>(worker) * size), blocks.widest(), K()));
        });
    }

private:
    /// The last K - 1 inputs, (K - 1, channels).
    view<State, 2> inputs_before(index_t sequence, const channel_block& at) const {
        return {state.data + sequence * state.strides[0] + at.first * state.strides[1],
                {K() - 1, at.channels},
                {state.strides[2], state.strides[1]}};
    }

    void convolve_block(index_t sequence, const channel_block& at, const memory& m) const noexcept {
        const index_t width = at.width, N = order.tokens(sequence).size(), most = tile_tokens(width);
        fill_rows<A>(channels_of(by_column(taps), at), m.taps, width);
        fill_constant<A>(bias, at, m.bias);
        if (state.data)
            fill_rows<A>(view<const State, 2>(inputs_before(sequence, at)), m.history, width);
        else
            std::fill_n(m.history, (K() - 1) * width, T(0));
        for (index_t r = 0; r < K() - 1; ++r) m.rows[r + 1] = m.history + r * width;

        for (index_t t = 0; t < N; t += most) {
            const range tokens{t, std::min(N, t + most)};
            const auto part = [&](const auto& v) { return channels_of(slice(order.of(v, sequence), 0, tokens), at); };
            const auto from = read_rows<A, T>(part(x), width, m.tiles);
            const auto to = write_rows<A, T>(part(y), width, m.tiles + tile_room(width), adds, outweighs_caches(y));
            for (index_t i = 0; i < tokens.size(); ++i) {
                std::copy(m.rows + 1, m.rows + K(), m.rows);
                m.rows[K() - 1] = from.row(i);
                convolve<A>(m.rows, m.taps, m.bias, K(), width, curved, to, i);
            }
            bring_rows<A>(part(y), to, width, m.tiles + 2 * tile_room(width), adds);
            if (from.data == m.tiles || tokens.last == N) keep_history(width, m);
        }
        finish_stores();
        if (state.data) store_rows<A>(inputs_before(sequence, at), m.history, width);
    }

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
                         view<State, 3> state, const sequences& order, bool curved, bool adds) {
    return causal_conv_call<A, T, X, W, Y, Bias, State>{x, taps, y, bias, state, order, curved, adds};
}

}  // namespace heed::inline HEED_ABI::detail
