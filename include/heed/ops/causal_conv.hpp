// The short depthwise causal convolution in front of state space models (Mamba, Hawk, Hyena, GAM [47]).
//
//   y_t = activation(b + sum over r < K of w_r x_{t - (K - 1) + r}) per channel
// x, y: (B, N, C), w: (C, K), the last tap meets the token itself. Before the first token there are zeros, or the
// carried state: the last K - 1 inputs, (sequences, C, K - 1), oldest first. Cost: K multiply-adds, and the bytes of x
// and y.
#pragma once

#include "../engine/causal_conv_call.hpp"

namespace heed::inline HEED_ABI {

/// Is added to every output; (C).
template <class T>
struct conv_bias {
    using role = roles::bias;
    view<const T, 1> x;
    explicit conv_bias(const view<T, 1>& b) : x(b) {}
};
/// Policies: conv_bias{b}, silu_output{}, carry{state}, packed{offsets}, reversed{}, adding{}, chunked{tokens}, with the
/// same bits, on{pool, arena}; one whose view has no data says nothing. Elements float, double, bf16 or f16, each
/// operand its own; computed in float, or double if any operand is. Throws shape_error or argument_error before
/// anything is written.
template <class A = default_arch, class X, class W, class Y, class... P>
void causal_conv(const X& x, const W& w, Y&& y, const P&... policies) {
    using namespace detail;
    static constexpr const char* op = "causal_conv";
    check_scan_roles<roles::form, roles::bias, roles::activation>(policies...);
    const auto in = std::tuple(reads("x", x), reads("w", w));
    const auto out = std::tuple(writes("y", y));
    const auto bias = optional_operand<roles::bias>("the bias", policies...);
    const auto state = carried_state(policies...);
    const auto xv = std::get<0>(in).v;
    const auto taps = std::get<1>(in).v;
    const auto to = std::get<0>(out).v;

    const auto order = sequences::of(op, to.shape[0], to.shape[1], policies...);
    const index_t C = to.shape[2], K = taps.shape[1], segment = segment_tokens(op, policies...);
    each_operand(out, [&](const auto& o) { check_written(op, o); });
    check_shape(op, std::get<0>(in), to.shape, "y");
    require_argument(K >= 1, op, "w has ", K, " taps, the least is 1");
    check_shape(op, std::get<1>(in), {C, K}, "y");
    each_operand(bias, [&](const auto& b) { check_given(op, b, {C}, "y"); });
    each_operand(state, [&](const auto& s) {
        check_written(op, s);
        check_given(op, s, {order.count(), C, K - 1}, "the convolution");
    });
    check_apart_from_all(op, std::tuple_cat(in, bias), std::tuple_cat(out, state));

    using T = accumulator_of<decltype(in), decltype(out), decltype(bias), decltype(state)>;
    const auto call = causal_conv_call_of<A, T>(
        xv, taps, to, view_or_none<const float, 1>(bias), view_or_none<T, 3>(state), order, segment,
        pick<roles::activation>(silu_output{false}, policies...).wanted, (... || std::is_same_v<P, adding>));
    in_scratch(
        op, [&](auto& pool) { return call.scratch_bytes(pool); },
        [&](auto& pool, std::byte* memory) { call.run(pool, memory); }, policies...);
}

}  // namespace heed::inline HEED_ABI
