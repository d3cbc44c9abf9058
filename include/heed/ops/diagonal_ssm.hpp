// Linear time-invariant diagonal state spaces: S4D (arXiv:2206.11893), and its real form; the temporal layers of video
// diffusion [56] are this one, forward and back, over a strided view.
//
//   h_t[n] = a[n] h_{t-1}[n] + b[n] u_t;  y_t = sum_n Re(c[n] h_t[n]) + D u_t;  u, y (B, N, C); a, b, c (C, S)
// discretised() makes a and b from a continuous system and its steps. Conjugate pairs: keep one, double c.
// Cost: three multiply-adds (real) or eight (complex) a token, channel and state; by FFT it would be O(log N) a token.
#pragma once

#include <complex>
#include <vector>

#include "../engine/modes_call.hpp"
#include "selective_scan.hpp"

namespace heed::inline HEED_ABI {

/// One continuous mode, dh/dt = A h + B u, as h_t = a h_{t-1} + b u_t over steps of dt.
template <class Number>
struct discrete_mode {
    Number a, b;
};
namespace detail {
/// e^z - 1 without cancellation.
inline std::complex<double> expm1_of(std::complex<double> z) {
    const double s = std::sin(z.imag() / 2), e = std::expm1(z.real());
    return {e - 2 * s * s * (e + 1), std::exp(z.real()) * std::sin(z.imag())};
}
inline double expm1_of(double x) { return std::expm1(x); }
}  // namespace detail

/// u constant between tokens: a = e^(dt A), b = (a - 1) / A B; A = 0 gives b = dt B. Re A <= 0 decays.
struct zero_order_hold {
    template <class Number>
    discrete_mode<Number> operator()(Number A, Number B, double dt) const {
        const Number grown = detail::expm1_of(A * dt);
        return {grown + 1.0, A == Number(0) ? B * dt : grown / A * B};
    }
};
/// The trapezoidal rule: a = (1 + dt A / 2) / (1 - dt A / 2), b = dt B / (1 - dt A / 2).
struct bilinear {
    template <class Number>
    discrete_mode<Number> operator()(Number A, Number B, double dt) const {
        const Number half = A * (dt / 2);
        return {(1.0 + half) / (1.0 - half), dt * B / (1.0 - half)};
    }
};

/// The constants of C channels of S modes, in float or double: complex numbers as real and imaginary parts.
template <class T, bool Complex>
class modes_of {
public:
    using number = std::conditional_t<Complex, std::complex<double>, double>;

    modes_of(index_t channels, index_t states)
        : C_(channels), S_(states), memory_(static_cast<std::size_t>(3 * parts * channels * states)) {}
    index_t channels() const { return C_; }
    index_t states() const { return S_; }
    void set(index_t c, index_t n, number a, number b, number read) {
        put(0, c, n, a), put(1, c, n, b), put(2, c, n, read);
    }
    /// Part k of a, b, c: real parts, then imaginary ones; (C, S), channels contiguous.
    view<const T, 2> part(index_t k) const { return {memory_.data() + k * C_ * S_, {C_, S_}, {1, C_}}; }

    static constexpr index_t parts = Complex ? 2 : 1;

private:
    void put(index_t k, index_t c, index_t n, number x) {
        const auto at = static_cast<std::size_t>(parts * k * C_ * S_ + n * C_ + c);
        memory_[at] = static_cast<T>(std::real(x));
        if constexpr (Complex) memory_[at + static_cast<std::size_t>(C_ * S_)] = static_cast<T>(std::imag(x));
    }
    index_t C_, S_;
    std::vector<T> memory_;
};
template <class T = float>
using real_modes = modes_of<T, false>;
template <class T = float>
using complex_modes = modes_of<T, true>;

/// mode(c, n) -> {A, B, c, dt} of a continuous system, in the discrete form that `rule` makes.
template <class T, bool Complex>
struct continuous_mode {
    typename modes_of<T, Complex>::number A, B, read;
    double dt;
};
template <class T, bool Complex, class Mode, class Rule>
modes_of<T, Complex> discretised(index_t C, index_t S, const Rule& rule, const Mode& mode) {
    modes_of<T, Complex> x(C, S);
    for (index_t c = 0; c < C; ++c)
        for (index_t n = 0; n < S; ++n) {
            const continuous_mode<T, Complex> m = mode(c, n);
            const auto d = rule(m.A, m.B, m.dt);
            x.set(c, n, d.a, d.b, m.read);
        }
    return x;
}

/// Reads the states before the token moves them: y_t = sum_n Re(c h_{t-1}).
struct read_late {
    using role = roles::read;
};

namespace detail {
struct as_they_are {
    template <class X, std::size_t n>
    const std::array<X, n>& operator()(const std::array<X, n>& x) const {
        return x;
    }
};
}  // namespace detail

/// Policies: skip{D}, read_late{}, silu_output{}, carry{state} with (sequences, C, S), complex ones (sequences, C, 2 S)
/// as real then imaginary parts, packed{offsets}, reversed{}, adding{}, chunked{tokens}, on{pool, arena}.
template <class A = default_arch, class U, class T, bool Complex, class Y, class... P>
void diagonal_ssm(const U& u, const modes_of<T, Complex>& modes, Y&& y, const P&... policies) {
    using namespace detail;
    check_scan_roles<roles::form, roles::skip, roles::read, roles::activation>(policies...);
    const auto parameters = [&]<std::size_t... k>(std::index_sequence<k...>) {
        return std::tuple(((void)k, reads("a mode", modes.part(static_cast<index_t>(k))))...);
    }
    (std::make_index_sequence<3 * modes_of<T, Complex>::parts>());
    run_modes_over<A, Complex>("diagonal_ssm", as_they_are{}, reads("u", u), parameters, writes("y", y),
                               optional_operand<roles::skip>("D", policies...), (... || std::is_same_v<P, read_late>),
                               pick<roles::activation>(silu_output{false}, policies...).wanted, policies...);
}

/// Both ways, as in S4: y_t = sum over l of K0[l] u_{t-l} + sum over m >= 1 of K1[m - 1] u_{t+m} + D u_t, where K0 and
/// K1 are the kernels of two systems, so the token itself counts once.
template <class A = default_arch, class U, class T, bool Complex, class Y, class... P>
void bidirectional_ssm(const U& u, const modes_of<T, Complex>& ahead, const modes_of<T, Complex>& back, Y&& y,
                       const P&... policies) {
    static_assert(((!has_role<P, roles::order> && !has_role<P, roles::state> && !has_role<P, roles::activation> &&
                    !has_role<P, roles::writing>)&&...),
                  "heed: both ways take skip, packed, a form and a context");
    diagonal_ssm<A>(u, ahead, y, policies...);
    const auto without_skip = [&](const auto&... rest) {
        diagonal_ssm<A>(u, back, y, reversed{}, adding{}, read_late{}, rest...);
    };
    std::apply(without_skip, std::tuple_cat([](const auto& p) {
                   if constexpr (has_role<decltype(p), roles::skip>)
                       return std::tuple<>{};
                   else
                       return std::make_tuple(p);
               }(policies)...));
}

}  // namespace heed::inline HEED_ABI
