// The Mamba-2 block (arXiv:2405.21060), as Helix [39] stacks it: what stands between its norm and its residual.
//
//   [z, x B C, dt] = a W_in;  x B C <- silu(causal convolution of x B C);  h = mamba2(x, dt, A, B, C)
//   y = norm(h silu(z)) W_out,  norm(v) = gain v / sqrt(mean(v^2) + eps)
// a, y (B, N, D); H heads of P, E = H P; G groups of S states; widths E, E + 2 G S and H. What a sequence leaves behind
// is K - 1 inputs of the convolution and a state (S, P) a head. Scratch: the values in the middle, 4 E + 4 G S + H + D
// a token.
#pragma once

#include <span>
#include <vector>

#include "../engine/recurrence.hpp"
#include "causal_conv.hpp"
#include "mamba2.hpp"
#include "products.hpp"
#include "row_norm.hpp"

namespace heed::inline HEED_ABI {

/// Matrices (inputs, outputs) of any strides; those in memory by outputs are read fastest. Biases, skip and gain may be
/// left out by having no data.
template <class T>
struct mamba2_weights {
    index_t groups;               // G
    view<const T, 2> in;          // (D, 2 E + 2 G S + H)
    view<const T, 2> taps;        // (E + 2 G S, K), the last meets the token itself
    view<const T, 1> conv_bias;   // (E + 2 G S)
    view<const T, 1> decay;       // A (H), at most 0
    view<const T, 1> step_bias;   // (H)
    view<const T, 1> skip;        // (H)
    std::span<const float> gain;  // (E)
    view<const T, 2> out;         // (E, D)
    double eps = 1e-5;
};

/// What B sequences leave behind; zeros where they start. Copies are snapshots.
template <std::floating_point T>
class mamba2_state {
public:
    mamba2_state(index_t B, index_t H, index_t P, index_t G, index_t S, index_t K)
        : channels_(H * P + 2 * G * S),
          kept_(K - 1),
          inputs_(static_cast<std::size_t>(B * channels_ * kept_)),
          memories_(B, H, S, P) {}
    /// The last inputs of the convolution, oldest first, (B, E + 2 G S, K - 1); channels lie next to each other.
    view<T, 3> inputs() {
        return {inputs_.data(), {memories_.shape()[0], channels_, kept_}, {channels_ * kept_, 1, channels_}};
    }
    /// (B, H, S, P).
    state<T>& memories() { return memories_; }
    std::size_t bytes() const { return inputs_.size() * sizeof(T) + memories_.bytes(); }

private:
    index_t channels_, kept_;
    std::vector<T> inputs_;
    state<T> memories_;
};

namespace detail {

/// Channels from `first` on as H heads of D, (B, H, N, D).
template <class T>
view<T, 4> channel_heads(const view<T, 3>& x, index_t first, index_t H, index_t D) {
    const auto some = slice(x, 2, {first, first + H * D});
    return {some.data, {x.shape[0], H, x.shape[1], D}, {x.strides[0], D * x.strides[2], x.strides[1], x.strides[2]}};
}

/// The block with memories: a tuple of one state<T>&, or of none.
template <class A, class X, class W, class Y, class T, class Memories, class... Policies>
void run_mamba2_block(const view<X, 3>& x, const mamba2_weights<W>& w, const view<Y, 3>& y, const view<T, 3>& inputs,
                      const Memories& memories, const Policies&... policies) {
    static constexpr const char* op = "mamba2_block";
    static_assert((has_one_of<Policies, roles::order, roles::packed, roles::writing, roles::context> && ...),
                  "heed: an argument is not a policy of mamba2_block");
    constexpr bool adds = (... || std::is_same_v<Policies, adding>);
    const auto [B, N, D] = x.shape;
    const index_t H = w.decay.shape[0], G = w.groups, E = w.out.shape[0], mixed = w.taps.shape[0], width = y.shape[2];
    require_shape(H >= 1 && E % H == 0, op, "W_out has ", E, " inputs, not a multiple of the ", H, " heads of A");
    require_shape(G >= 1 && mixed >= E && (mixed - E) % (2 * G) == 0, op, "w has ", mixed, " channels, ", E,
                  " and twice ", G, " groups of states are asked for");
    const index_t P = E / H, S = (mixed - E) / (2 * G);
    check_written(op, writes("y", y));
    check_shape(op, writes("y", y), {B, N, w.out.shape[1]}, "x, W_out");
    check_shape(op, reads("W_in", w.in), {D, E + mixed + H}, "x, w, W_out, A");
    check_same_or_apart(op, writes("y", y), reads("x", x));
    const auto weights =
        std::tuple(reads("W_in", w.in), reads("w", w.taps), reads("the bias", w.conv_bias), reads("A", w.decay),
                   reads("the step bias", w.step_bias), reads("D", w.skip), reads("W_out", w.out));
    const auto state = std::tuple(writes("the state", inputs));
    check_apart_from_all(op, weights, std::tuple_cat(std::tuple(writes("y", y)), state));
    check_apart_from_all(op, std::tuple(reads("x", x)), state);
    const rms norm(w.eps, false, w.gain);
    norm.check(op, 1, E);
    const auto run = [&, B = B, N = N](carver& from, const auto&... with) {
        const auto context = pick<roles::context>(calling_thread{}, with...);
        const auto take = [&](index_t columns) { return dense(from.take<T>(B * N * columns), {B, N, columns}); };
        const auto projected = take(E + mixed + H), xbc = take(mixed), h = take(E), result = take(width);
        multiply_rows<A>(x, w.in, projected, context);
        causal_conv<A>(slice(projected, 2, {E, E + mixed}), w.taps, xbc, conv_bias{w.conv_bias}, silu_output{},
                       carry{inputs}, with...);
        const auto steps = slice(projected, 2, {E + mixed, E + mixed + H});
        const view<T, 3> dt{steps.data, {B, H, N}, {steps.strides[0], steps.strides[2], steps.strides[1]}};
        const auto scan = [&](auto&... memory) {
            mamba2<A>(channel_heads(xbc, 0, H, P), dt, w.decay, channel_heads(xbc, E, G, S),
                      channel_heads(xbc, E + G * S, G, S), channel_heads(h, 0, H, P),
                      mamba2_options<W>{w.step_bias, w.skip, true}, with..., memory...);
        };
        std::apply(scan, memories);
        map_rows<A, T>(context, h, silu_gated, h, slice(projected, 2, {0, E}));
        rms_norm<A>(one_head(h), one_head(h), norm, context);
        multiply_rows<A>(h, w.out, result, context);
        hand_over<A>(context, result, y, adds);
    };
    std::apply([&](const auto&... rest) { in_shared_scratch(op, run, rest...); },
               leave_out<roles::writing>(policies...));
}

}  // namespace detail

/// y = the block over x (B, N, D); y may be x itself. Policies: reversed{}, packed{offsets}, adding{}, on{pool, arena}.
/// Throws shape_error or argument_error before y is touched.
template <class A = default_arch, class X, class W, class Y, class... P>
void mamba2_block(const view<X, 3>& x, const mamba2_weights<W>& w, const view<Y, 3>& y, const P&... policies) {
    using T = accumulator<std::remove_const_t<X>, W, Y>;
    detail::run_mamba2_block<A>(x, w, y, view<T, 3>{}, std::tuple<>{}, policies...);
}
/// The same for the tokens after those that s has seen, any number; with one, a step of decoding.
template <class A = default_arch, class T, class X, class W, class Y, class... P>
void mamba2_block(mamba2_state<T>& s, const view<X, 3>& x, const mamba2_weights<W>& w, const view<Y, 3>& y,
                  const P&... policies) {
    detail::run_mamba2_block<A>(x, w, y, s.inputs(), std::tie(s.memories()), policies...);
}

}  // namespace heed::inline HEED_ABI
