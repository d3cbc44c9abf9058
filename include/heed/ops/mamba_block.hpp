// The Mamba block (arXiv:2312.00752), what stands between its norm and its residual.
//
//   [u, z] = x W_in;  u <- silu(causal convolution of u);  [r, B, C] = u W_x;  delta = r W_dt
//   y = (selective scan of u, delta, A, B, C, gated by z) W_out
// x, y (B, N, D); E channels inside, S states a channel, steps of rank R. What a sequence leaves behind is K - 1 inputs
// and S numbers a channel. Both ways (BiMamba, of Caduceus): once forward, once with weights of its own and reversed{},
// adding{}. Scratch: the values in the middle, 5 E + R + 2 S + D a token.
#pragma once

#include <vector>

#include "causal_conv.hpp"
#include "products.hpp"
#include "selective_scan.hpp"

namespace heed::inline HEED_ABI {

/// Matrices (inputs, outputs) of any strides; those in memory by outputs are read fastest. Biases and skip may be left
/// out by having no data.
template <class T>
struct mamba_weights {
    view<const T, 2> in;         // (D, 2 E): u, z
    view<const T, 2> taps;       // (E, K), the last meets the token itself
    view<const T, 1> conv_bias;  // (E)
    view<const T, 2> mixing;     // W_x (E, R + 2 S)
    view<const T, 2> steps;      // W_dt (R, E)
    view<const T, 1> step_bias;  // (E)
    view<const T, 2> decay;      // A (E, S)
    view<const T, 1> skip;       // D of the scan (E)
    view<const T, 2> out;        // (E, D)
};

/// What B sequences leave behind; zeros where they start. Copies are snapshots.
template <std::floating_point T>
class mamba_state {
public:
    mamba_state(index_t B, index_t E, index_t S, index_t K)
        : B_(B), E_(E), S_(S), K_(K), numbers_(static_cast<std::size_t>(B * E * (S + K - 1))) {}
    /// The last inputs of the convolution, oldest first, (B, E, K - 1); channels lie next to each other.
    view<T, 3> inputs() { return {numbers_.data(), {B_, E_, K_ - 1}, {(K_ - 1) * E_, 1, E_}}; }
    /// The states of the scan, (B, E, S).
    view<T, 3> states() { return {numbers_.data() + B_ * E_ * (K_ - 1), {B_, E_, S_}, {S_ * E_, 1, E_}}; }
    std::size_t bytes() const { return numbers_.size() * sizeof(T); }

private:
    index_t B_, E_, S_, K_;
    std::vector<T> numbers_;
};

namespace detail {

template <class A, class X, class W, class Y, class T, class... P>
void run_mamba(const view<X, 3>& x, const mamba_weights<W>& w, const view<Y, 3>& y, const view<T, 3>& inputs,
               const view<T, 3>& states, const P&... policies) {
    static constexpr const char* op = "mamba_block";
    static_assert((has_one_of<P, roles::form, roles::order, roles::packed, roles::writing, roles::context> && ...),
                  "heed: an argument is not a policy of mamba_block");
    constexpr bool adds = (... || std::is_same_v<P, adding>);
    const auto [B, N, D] = x.shape;
    const index_t E = w.taps.shape[0], S = w.decay.shape[1], R = w.steps.shape[0];
    check_written(op, writes("y", y));
    check_shape(op, writes("y", y), {B, N, w.out.shape[1]}, "x, W_out");
    check_shape(op, reads("W_in", w.in), {D, 2 * E}, "x, w");
    check_shape(op, reads("W_x", w.mixing), {E, R + 2 * S}, "w, W_dt, A");
    check_shape(op, reads("W_dt", w.steps), {R, E}, "w");
    check_shape(op, reads("W_out", w.out), {E, w.out.shape[1]}, "w");
    check_same_or_apart(op, writes("y", y), reads("x", x));
    const auto weights = std::tuple(
        reads("W_in", w.in), reads("w", w.taps), reads("the bias", w.conv_bias), reads("W_x", w.mixing),
        reads("W_dt", w.steps), reads("the step bias", w.step_bias), reads("A", w.decay), reads("D", w.skip),
        reads("W_out", w.out));
    const auto state = std::tuple(writes("the state", inputs), writes("the state", states));
    check_apart_from_all(op, weights, std::tuple_cat(std::tuple(writes("y", y)), state));
    check_apart_from_all(op, std::tuple(reads("x", x)), state);
    const auto run = [&, B = B, N = N](carver& from, const auto&... with) {
        const auto take = [&](index_t columns) { return dense(from.take<T>(B * N * columns), {B, N, columns}); };
        const auto uz = take(2 * E), u = take(E), mixed = take(R + 2 * S), delta = take(E), h = take(E);
        const auto result = take(y.shape[2]);
        const auto context = pick<roles::context>(calling_thread{}, with...);
        const auto part = [&](const auto& v, index_t first, index_t size) {
            return slice(v, 2, {first, first + size});
        };
        multiply_rows<A>(x, w.in, uz, context);
        causal_conv<A>(part(uz, 0, E), w.taps, u, conv_bias{w.conv_bias}, silu_output{}, carry{inputs}, with...);
        multiply_rows<A>(u, w.mixing, mixed, context);
        multiply_rows<A>(part(mixed, 0, R), w.steps, delta, context);
        selective_scan<A>(u, delta, w.decay, part(mixed, R, S), part(mixed, R + S, S), h, softplus_step{},
                          step_bias{w.step_bias}, skip{w.skip}, gate{part(uz, E, E)}, carry{states}, with...);
        multiply_rows<A>(h, w.out, result, context);
        hand_over<A>(context, result, y, adds);
    };
    std::apply([&](const auto&... rest) { in_shared_scratch(op, run, rest...); },
               leave_out<roles::writing>(policies...));
}

}  // namespace detail

/// y = the block over x (B, N, D); y may be x itself. Policies: chunked{tokens}, reversed{}, packed{offsets}, adding{},
/// on{pool, arena}. Throws shape_error or argument_error before y is touched.
template <class A = default_arch, class X, class W, class Y, class... P>
void mamba_block(const view<X, 3>& x, const mamba_weights<W>& w, const view<Y, 3>& y, const P&... policies) {
    using T = accumulator<std::remove_const_t<X>, W, Y>;
    detail::run_mamba<A>(x, w, y, view<T, 3>{}, view<T, 3>{}, policies...);
}
/// The same for the tokens after those that s has seen, any number; with one, a step of decoding.
template <class A = default_arch, class T, class X, class W, class Y, class... P>
void mamba_block(mamba_state<T>& s, const view<X, 3>& x, const mamba_weights<W>& w, const view<Y, 3>& y,
                 const P&... policies) {
    detail::run_mamba<A>(x, w, y, s.inputs(), s.states(), policies...);
}

}  // namespace heed::inline HEED_ABI
