// The Hawk block (arXiv:2402.19427) [53], what stands between its norm and its residual: RG-LRU beside a gate.
//
//   [u, z] = x W_in + b_in;  u <- causal convolution of u, in the paper of 4 taps
//   h = rg_lru(u, u W_r + b_r, u W_i + b_i, lambda);  y = (h gelu_tanh(z)) W_out + b_out
// x, y (B, N, D); E channels inside. W_r and W_i are block-diagonal, P blocks of E / P channels. What a sequence leaves
// behind is K - 1 inputs and a number a channel. Scratch: the values in the middle, 6 E + D a token.
#pragma once

#include <vector>

#include "causal_conv.hpp"
#include "products.hpp"
#include "rg_lru.hpp"

namespace heed::inline HEED_ABI {

/// Matrices (inputs, outputs) of any strides; those in memory by outputs are read fastest. Biases may be left out by
/// having no data.
template <class T>
struct hawk_weights {
    view<const T, 2> in;               // (D, 2 E): u, z
    view<const T, 1> in_bias;          // (2 E)
    view<const T, 2> taps;             // (E, K), the last meets the token itself
    view<const T, 1> conv_bias;        // (E)
    view<const T, 3> recurrence_gate;  // W_r (P, E / P, E / P)
    view<const T, 1> recurrence_bias;  // (E)
    view<const T, 3> input_gate;       // W_i (P, E / P, E / P)
    view<const T, 1> input_bias;       // (E)
    view<const T, 1> lambda;           // (E)
    view<const T, 2> out;              // (E, D)
    view<const T, 1> out_bias;         // (D)
    double c = 8;                      // RG-LRU's
};

/// What B sequences leave behind; zeros where they start. Copies are snapshots.
template <std::floating_point T>
class hawk_state {
public:
    hawk_state(index_t B, index_t E, index_t K) : B_(B), E_(E), K_(K), numbers_(static_cast<std::size_t>(B * E * K)) {}
    /// The last inputs of the convolution, oldest first, (B, E, K - 1); channels lie next to each other.
    view<T, 3> inputs() { return {numbers_.data(), {B_, E_, K_ - 1}, {(K_ - 1) * E_, 1, E_}}; }
    /// h of the last token, (B, E).
    view<T, 2> states() { return dense(numbers_.data() + B_ * E_ * (K_ - 1), {B_, E_}); }
    std::size_t bytes() const { return numbers_.size() * sizeof(T); }

private:
    index_t B_, E_, K_;
    std::vector<T> numbers_;
};

namespace detail {

/// Throws unless the weights fit x and y and each other, and nothing written overlaps anything else.
template <class X, class W, class Y, class T>
void check_hawk(const char* op, const view<X, 3>& x, const hawk_weights<W>& w, const view<Y, 3>& y,
                const view<T, 3>& inputs, const view<T, 2>& states) {
    const index_t E = w.taps.shape[0], P = w.recurrence_gate.shape[0], D = w.out.shape[1];
    require_shape(P >= 1 && E % P == 0, op, "w has ", E, " channels, not a multiple of the ", P, " blocks of W_r");
    const auto to = writes("y", y);
    const auto matrices = std::tuple(reads("W_in", w.in), reads("W_r", w.recurrence_gate), reads("W_i", w.input_gate),
                                     reads("W_out", w.out));
    const auto biases = std::tuple(reads("b_in", w.in_bias), reads("b_r", w.recurrence_bias),
                                   reads("b_i", w.input_bias), reads("b_out", w.out_bias));
    const auto rest = std::tuple(reads("w", w.taps), reads("the bias", w.conv_bias), reads("lambda", w.lambda));
    check_written(op, to);
    check_shape(op, to, {x.shape[0], x.shape[1], D}, "x, W_out");
    check_shape(op, std::get<0>(matrices), {x.shape[2], 2 * E}, "x, w");
    check_shape(op, std::get<1>(matrices), {P, E / P, E / P}, "w");
    check_shape(op, std::get<2>(matrices), {P, E / P, E / P}, "w, W_r");
    check_shape(op, std::get<3>(matrices), {E, D}, "w");
    check_given(op, std::get<0>(biases), {2 * E}, "w");
    check_given(op, std::get<1>(biases), {E}, "w");
    check_given(op, std::get<2>(biases), {E}, "w");
    check_given(op, std::get<3>(biases), {D}, "W_out");
    check_same_or_apart(op, to, reads("x", x));
    const auto weights = std::tuple_cat(matrices, biases, rest);
    const auto state = std::tuple(writes("the state", inputs), writes("the state", states));
    check_apart_from_all(op, weights, std::tuple_cat(std::tuple(to), state));
    check_apart_from_all(op, std::tuple(reads("x", x)), state);
}

template <class A, class X, class W, class Y, class T, class... Policies>
void run_hawk(const view<X, 3>& x, const hawk_weights<W>& w, const view<Y, 3>& y, const view<T, 3>& inputs,
              const view<T, 2>& states, const Policies&... policies) {
    static constexpr const char* op = "hawk_block";
    static_assert(
        (has_one_of<Policies, roles::form, roles::order, roles::packed, roles::writing, roles::context> && ...),
        "heed: an argument is not a policy of hawk_block");
    constexpr bool adds = (... || std::is_same_v<Policies, adding>);
    check_hawk(op, x, w, y, inputs, states);
    const index_t E = w.taps.shape[0];
    const auto run = [&](carver& from, const auto&... with) {
        const auto take = [&](index_t columns) {
            return dense(from.take<T>(x.shape[0] * x.shape[1] * columns), {x.shape[0], x.shape[1], columns});
        };
        const auto uz = take(2 * E), u = take(E), r = take(E), i = take(E), h = take(E), result = take(y.shape[2]);
        const auto before = slice(uz, 2, {0, E}), z = slice(uz, 2, {E, 2 * E});
        const auto context = pick<roles::context>(calling_thread{}, with...);
        const auto multiply = [&](const auto& rows, const auto& matrix, const auto& bias, const auto& product) {
            multiply_rows<A>(rows, matrix, product, context);
            add_bias<A>(context, product, bias);
        };
        multiply(x, w.in, w.in_bias, uz);
        causal_conv<A>(before, w.taps, u, conv_bias{w.conv_bias}, carry{inputs}, with...);
        multiply(u, w.recurrence_gate, w.recurrence_bias, r);
        multiply(u, w.input_gate, w.input_bias, i);
        rg_lru<A>(u, r, i, w.lambda, h, decay_power{w.c}, carry{states}, with...);
        map_rows<A, T>(context, h, gelu_gated, h, z);
        multiply(h, w.out, w.out_bias, result);
        hand_over<A>(context, result, y, adds);
    };
    std::apply([&](const auto&... rest) { in_shared_scratch(op, run, rest...); },
               leave_out<roles::writing>(policies...));
}

}  // namespace detail

/// y = the block over x (B, N, D); y may be x itself. Policies: chunked{tokens}, reversed{}, packed{offsets}, adding{},
/// on{pool, arena}. Throws shape_error or argument_error before y is touched.
template <class A = default_arch, class X, class W, class Y, class... P>
void hawk_block(const view<X, 3>& x, const hawk_weights<W>& w, const view<Y, 3>& y, const P&... policies) {
    using T = accumulator<std::remove_const_t<X>, W, Y>;
    detail::run_hawk<A>(x, w, y, view<T, 3>{}, view<T, 2>{}, policies...);
}
/// The same for the tokens after those that s has seen, any number; with one, a step of decoding.
template <class A = default_arch, class T, class X, class W, class Y, class... P>
void hawk_block(hawk_state<T>& s, const view<X, 3>& x, const hawk_weights<W>& w, const view<Y, 3>& y,
                const P&... policies) {
    detail::run_hawk<A>(x, w, y, s.inputs(), s.states(), policies...);
}

}  // namespace heed::inline HEED_ABI
