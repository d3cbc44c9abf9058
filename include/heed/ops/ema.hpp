// The damped multi-dimensional moving average of Mega [83] (arXiv:2209.10655), also that of SeqBoat [12].
//
//   p = sigmoid(P), q = 1 - p sigmoid(A);  h_t[n] = q h_{t-1}[n] + p beta[n] x_t
//   y_t = sum_n gamma[n] h_t[n] / sqrt(S) + omega x_t, then silu; x, y (B, N, C), P, A, beta, gamma (C, S), omega (C)
// The average decays by its own kernel, so it is also a convolution. Cost: three multiply-adds a token, channel, state.
#pragma once

#include "../engine/modes_call.hpp"

namespace heed::inline HEED_ABI {

/// The logits P of alpha and A of delta, and beta and gamma, all (C, S).
template <class T>
struct ema_parameters {
    view<const T, 2> alpha, delta, beta, gamma;
    ema_parameters(const view<const T, 2>& p, const view<const T, 2>& a, const view<const T, 2>& b,
                   const view<const T, 2>& g)
        : alpha(p), delta(a), beta(b), gamma(g) {}
};
template <class T>
ema_parameters(view<T, 2>, view<T, 2>, view<T, 2>, view<T, 2>) -> ema_parameters<std::remove_const_t<T>>;

/// Adds omega x to the average; (C).
template <class T>
struct residual {
    using role = roles::skip;
    view<const T, 1> x;
    explicit residual(const view<T, 1>& omega) : x(omega) {}
};
namespace detail {
struct ema_constants {
    double read;  // 1 / sqrt(S)
    template <class X>
    std::array<X, 3> operator()(const std::array<X, 4>& x) const {
        const X p = sigmoid(x[0]);
        return {fma(-p, sigmoid(x[1]), X(1)), p * x[2], x[3] * X(read)};
    }
};
}  // namespace detail

/// Policies: residual{omega}, silu_output{}, carry{state} with (sequences, C, S), packed{offsets}, reversed{},
/// adding{}, chunked{tokens}, on{pool, arena}. Both ways: once forward, once with parameters of its own and
/// reversed{}, adding{}.
template <class A = default_arch, class X, class T, class Y, class... P>
void ema(const X& x, const ema_parameters<T>& with, Y&& y, const P&... policies) {
    using namespace detail;
    check_scan_roles<roles::form, roles::skip, roles::activation>(policies...);
    const auto S = static_cast<double>(std::max<index_t>(1, with.alpha.shape[1]));
    run_modes_over<A, false>("ema", ema_constants{1 / std::sqrt(S)}, reads("x", x),
                             std::tuple(reads("alpha", with.alpha), reads("delta", with.delta),
                                        reads("beta", with.beta), reads("gamma", with.gamma)),
                             writes("y", y), optional_operand<roles::skip>("omega", policies...), false,
                             pick<roles::activation>(silu_output{false}, policies...).wanted, policies...);
}

}  // namespace heed::inline HEED_ABI
