// The selective scan of Mamba (arXiv:2312.00752): a diagonal state space whose step, input and output depend on the
// token.
//
//   d_t = delta_t + bias, or log(1 + e^(..)) of it;  h_t = exp(d_t A) h_{t-1} + d_t B_t u_t;  y_t = C_t . h_t + D u_t
//   per channel c with S states: u, delta, y (B, N, C), A (C, S), B and C (B, N, S), or (B, N, G, S) where channel c
//   reads group c / (C / G); gated: y_t silu(z_t)
// Cost: an exponential and two multiply-adds a token, channel and state. A decay above 0 grows, and may overflow.
#pragma once

#include "../engine/selective_call.hpp"

namespace heed::inline HEED_ABI {

/// Steps are log(1 + e^x) of what is given.
struct softplus_step {
    using role = roles::step;
    bool wanted = true;
};
/// Is added to every step, before the softplus; (C).
template <class T>
struct step_bias {
    using role = roles::step_bias;
    view<const T, 1> x;
    explicit step_bias(const view<T, 1>& bias) : x(bias) {}
};
/// D: adds D u to the output; (C).
template <class T>
struct skip {
    using role = roles::skip;
    view<const T, 1> x;
    explicit skip(const view<T, 1>& d) : x(d) {}
};
/// z: the output times silu(z); (B, N, C).
template <class T>
struct gate {
    using role = roles::gate;
    view<const T, 3> x;
    explicit gate(const view<T, 3>& z) : x(z) {}
};

namespace detail {

/// (B, N, S) as one group, (B, N, 1, S).
template <class T>
view<T, 4> grouped(const view<T, 3>& x) {
    return {x.data, {x.shape[0], x.shape[1], 1, x.shape[2]}, {x.strides[0], x.strides[1], 0, x.strides[2]}};
}
template <class T>
view<T, 4> grouped(const view<T, 4>& x) {
    return x;
}

}  // namespace detail

/// Policies: softplus_step{}, step_bias{b}, skip{d}, gate{z}, carry{state} with state (sequences, C, S),
/// packed{offsets}, reversed{}, adding{}, chunked{tokens}, on{pool, arena}; one whose view has no data says nothing.
/// Elements float, double, bf16 or f16, each operand its own; computed in float, or double if any operand is. N = 1
/// with a carried state is a step of decoding; A and state whose channels are contiguous then spare it a transposition.
/// Throws shape_error or argument_error before anything is written.
template <class A = default_arch, class U, class Delta, class Decay, class In, class Out, class Y, class... P>
void selective_scan(const U& u, const Delta& delta, const Decay& decay, const In& in, const Out& out, Y&& y,
                    const P&... policies) {
    using namespace detail;
    static constexpr const char* op = "selective_scan";
    check_scan_roles<roles::form, roles::step, roles::step_bias, roles::skip, roles::gate>(policies...);
    const auto o = std::tuple(writes("y", y));
    const auto x = std::tuple(reads("u", u), reads("delta", delta), reads("A", decay), reads("B", grouped(as_view(in))),
                              reads("C", grouped(as_view(out))));
    const auto bias = optional_operand<roles::step_bias>("the step bias", policies...);
    const auto through = optional_operand<roles::skip>("D", policies...);
    const auto z = optional_operand<roles::gate>("z", policies...);
    const auto state = carried_state(policies...);

    const auto& [ux, dx, ax, bx, cx] = x;
    const auto shape = std::get<0>(o).v.shape;
    const auto order = sequences::of(op, shape[0], shape[1], policies...);
    const index_t C = shape[2], S = ax.v.shape[1], G = bx.v.shape[2], segment = segment_tokens(op, policies...);
    each_operand(o, [&](const auto& w) { check_written(op, w); });
    check_shape(op, ux, shape, "y");
    check_shape(op, dx, shape, "y");
    check_shape(op, ax, {C, S}, "y");
    require_shape(S >= 0 && G >= 0, op, "B has ", G, " groups of ", S, " states");
    check_shape(op, bx, {shape[0], shape[1], G, S}, "A, y");
    check_shape(op, cx, bx.v.shape, "B");
    require_shape(G > 0 ? C % G == 0 : C == 0, op, C, " channels, not a multiple of the ", G, " groups of B");
    each_operand(bias, [&](const auto& b) { check_given(op, b, {C}, "y"); });
    each_operand(through, [&](const auto& d) { check_given(op, d, {C}, "y"); });
    each_operand(z, [&](const auto& w) { check_given(op, w, shape, "y"); });
    each_operand(state, [&](const auto& s) {
        check_written(op, s);
        check_given(op, s, {order.count(), C, S}, "the scan");
    });
    check_apart_from_all(op, std::tuple_cat(x, bias, through, z), std::tuple_cat(o, state));

    using T = accumulator_of<decltype(x), decltype(o), decltype(bias), decltype(through), decltype(z), decltype(state)>;
    const auto call = selective_call_of<A, T>(
        ux.v, dx.v, ax.v, bx.v, cx.v, std::get<0>(o).v, view_or_none<const float, 1>(bias),
        view_or_none<const float, 1>(through), view_or_none<const float, 3>(z), view_or_none<T, 3>(state), order,
        segment, pick<roles::step>(softplus_step{false}, policies...).wanted, (... || std::is_same_v<P, adding>));
    in_scratch(
        op, [&](auto& pool) { return call.scratch_bytes(pool); },
        [&](auto& pool, std::byte* memory) { call.run(pool, memory); }, policies...);
}

}  // namespace heed::inline HEED_ABI
