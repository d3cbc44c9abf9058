// heed_test: LABELS sanitize
// Time-invariant state spaces: the moving average of Mega, S4D real and complex, both ways, and complex diagonals.
#include <heed/core/threads.hpp>
#include <heed/ops/diagonal_ssm.hpp>
#include <heed/ops/ema.hpp>
#include <heed/ops/lru.hpp>
#include <heed/ref/modes.hpp>

#include "../support/compare.hpp"
#include "../support/refuses.hpp"
#include "../support/sequence.hpp"

namespace {

using namespace heed;
using test::matrix;
using test::seq;
using test::tensor;
using test::vec;

template <class T>
struct average {
    index_t C, S;
    tensor<T> x, p, a, beta, gamma, omega, state, y;
    average(index_t B, index_t N, index_t channels, index_t states, const test::layout& l = {})
        : C(channels),
          S(states),
          x(test::normal<T>({B, 1, N, C}, 1, 1, l)),
          p(test::normal<T>({1, 1, C, S}, 2, 1, l)),
          a(test::normal<T>({1, 1, C, S}, 3, 1, l)),
          beta(test::normal<T>({1, 1, C, S}, 4, 1, l)),
          gamma(test::normal<T>({1, 1, C, S}, 5, 1, l)),
          omega(test::normal<T>({1, 1, 1, C}, 6, 1, l)),
          state(test::normal<T>({B, 1, C, S}, 7, 1, l)),
          y({B, 1, N, C}, l) {}
    template <class... P>
    average& run(const P&... policies) {
        ema(seq(std::as_const(x)), ema_parameters{matrix(p), matrix(a), matrix(beta), matrix(gamma)}, seq(y),
            residual{vec(omega)}, carry{seq(state)}, policies...);
        return *this;
    }
};

template <class Real, class T>
std::pair<tensor<Real>, tensor<Real>> defined(const average<T>& x) {
    const auto u = test::in<Real>(x.x);
    tensor<Real> y(x.y.shape()), state = test::in<Real>(x.state);
    const auto at = [](const auto& t, index_t c, index_t n) { return static_cast<Real>(t(0, 0, c, n)); };
    ref::diagonal_ssm<Real, Real>(
        seq(u), seq(y), x.S,
        [&](index_t c, index_t n) {
            return ref::ema_mode<Real>(at(x.p, c, n), at(x.a, c, n), at(x.beta, c, n), at(x.gamma, c, n), x.S);
        },
        [&](index_t c) { return at(x.omega, 0, c); }, seq(state));
    return {y, state};
}

template <class T>
void expect_defined(average<T> x) {
    using A = accumulator<T>;
    const auto exact = defined<test::definition_of<A>>(x);
    const auto naive = defined<A>(x);
    x.run();
    EXPECT_TRUE(test::within_rule<A>(x.y, test::in<T>(naive.first), exact.first));
    EXPECT_TRUE(test::within_rule<A>(x.state, test::in<T>(naive.second), exact.second));
    EXPECT_TRUE(x.y.poisoned_outside());
}

template <class T>
class ema_of : public testing::Test {};
using storages = testing::Types<float, bf16>;
TYPED_TEST_SUITE(ema_of, storages);

TYPED_TEST(ema_of, matches_the_definition_in_every_layout) {
    for (const auto& l : test::layouts())
        for (index_t S : {1, 4, 16, 23}) expect_defined(average<TypeParam>(2, 37, S % 2 ? 19 : 32, S, l));
}
TEST(ema, in_double) { expect_defined(average<double>(1, 20, 9, 6)); }

/// delta = 1 and one state with beta = gamma = 1: h = (1 - alpha) h + alpha x.
TEST(ema, the_classical_average_is_a_limit) {
    average<float> x(1, 50, 17, 1);
    x.a = test::constant<float>({1, 1, 17, 1}, 100), x.beta = test::constant<float>({1, 1, 17, 1}, 1);
    x.gamma = x.beta, x.omega = test::constant<float>({1, 1, 1, 17}, 0),
    x.state = test::constant<float>({1, 1, 17, 1}, 0);
    x.run();
    for (index_t c = 0; c < 17; ++c) {
        double h = 0;
        for (index_t n = 0; n < 50; ++n) {
            const double alpha = ref::sigmoid(double(x.p(0, 0, c, 0)));
            h = (1 - alpha) * h + alpha * x.x(0, 0, n, c);
            ASSERT_NEAR(x.y(0, 0, n, c), h, 1e-5);
        }
    }
}

/// The kernel k[tau] = sum p beta gamma q^tau / sqrt(S) of a convolution, forward and back.
TEST(ema, is_a_convolution_both_ways) {
    average<double> x(1, 40, 3, 5);
    x.state = test::constant<double>({1, 1, 3, 5}, 0), x.omega = test::constant<double>({1, 1, 1, 3}, 0);
    x.run();
    auto both = x;
    both.state = x.state = test::constant<double>({1, 1, 3, 5}, 0);
    both.run(reversed{}, adding{});
    const auto kernel = [&](index_t c, index_t tau) {
        double k = 0;
        for (index_t n = 0; n < 5; ++n) {
            const auto m =
                ref::ema_mode<double>(x.p(0, 0, c, n), x.a(0, 0, c, n), x.beta(0, 0, c, n), x.gamma(0, 0, c, n), 5);
            k += m.c * m.b * std::exp(static_cast<double>(tau) * std::log(m.a));
        }
        return k;
    };
    x.y.each([&](index_t, index_t, index_t n, index_t c) {
        double ahead = 0, back = 0;
        for (index_t m = 0; m < 40; ++m) (m <= n ? ahead : back) += kernel(c, std::abs(n - m)) * x.x(0, 0, m, c);
        back += kernel(c, 0) * x.x(0, 0, n, c);
        ASSERT_NEAR(x.y(0, 0, n, c), ahead, 1e-12);
        ASSERT_NEAR(both.y(0, 0, n, c), ahead + back, 1e-12);
    });
}

TEST(ema, silu_streams_and_refusals) {
    average<float> whole(2, 41, 35, 16), parts = whole, curved = whole;
    whole.run();
    curved.run(silu_output{});
    curved.y.each([&](index_t b, index_t h, index_t n, index_t c) {
        EXPECT_NEAR(curved.y(b, h, n, c), silu(whole.y(b, h, n, c)), 1e-5);
    });
    for (range piece : {range{0, 1}, range{1, 34}, range{34, 41}}) {
        const auto at = [&](const auto& v) { return slice(v, 1, piece); };
        ema(at(seq(parts.x)), ema_parameters{matrix(parts.p), matrix(parts.a), matrix(parts.beta), matrix(parts.gamma)},
            at(seq(parts.y)), residual{vec(parts.omega)}, carry{seq(parts.state)});
    }
    EXPECT_TRUE(test::same_values(parts.y, whole.y));
    EXPECT_TRUE(test::same_values(parts.state, whole.state));
    average<float> few(2, 41, 35, 15);
    test::refuses<shape_error>(
        [&] {
            ema(seq(parts.x), ema_parameters{matrix(parts.p), matrix(few.a), matrix(parts.beta), matrix(parts.gamma)},
                seq(parts.y));
        },
        "ema: delta has extent 15 on axis 1, y asks for 16");
}

/// Damped oscillations of many speeds.
template <class T>
complex_modes<T> oscillations(index_t C, index_t S, bool trapezoid = false) {
    const counter_random r(5);
    const auto mode = [&](index_t c, index_t n) {
        const auto at = test::number(c * S + n);
        return continuous_mode<T, true>{{-0.5 - r.uniform(3 * at), 3.14 * double(n)},
                                        1,
                                        {r.normal(3 * at), r.normal(3 * at + 1)},
                                        0.01 + 0.1 * r.uniform(at)};
    };
    return trapezoid ? discretised<T, true>(C, S, bilinear{}, mode)
                     : discretised<T, true>(C, S, zero_order_hold{}, mode);
}
template <class Real, class T>
tensor<Real> defined(const complex_modes<T>& m, const tensor<T>& u, const tensor<T>& D, bool late, bool back,
                     tensor<T>* last = nullptr) {
    using number = std::complex<Real>;
    const auto x = test::in<Real>(u);
    tensor<Real> y(u.shape());
    std::vector<number> memory(static_cast<std::size_t>(u.shape()[0] * m.channels() * m.states()));
    const auto state = dense(memory.data(), {u.shape()[0], m.channels(), m.states()});
    const auto part = [&](index_t k, index_t c, index_t n) {
        return number(static_cast<Real>(m.part(2 * k)(c, n)), static_cast<Real>(m.part(2 * k + 1)(c, n)));
    };
    ref::diagonal_ssm<number, Real>(
        seq(x), seq(y), m.states(),
        [&](index_t c, index_t n) {
            return ref::mode<number>{part(0, c, n), part(1, c, n), part(2, c, n)};
        },
        [&](index_t c) { return static_cast<Real>(D(0, 0, 0, c)); }, state, late, {{}, back});
    if (last)
        last->each([&](index_t b, index_t h, index_t c, index_t n) {
            const number s = state(b, c, n % m.states());
            (*last)(b, h, c, n) = static_cast<T>(n < m.states() ? s.real() : s.imag());
        });
    return y;
}

TEST(diagonal_ssm, complex_modes_match_the_definition) {
    for (const auto& l : test::layouts())
        for (index_t S : {1, 4, 8, 13})
            for (bool late : {false, true}) {
                const auto m = oscillations<float>(19, S, S == 4);
                const auto u = test::normal<float>({2, 1, 40, 19}, 1, 1, l), D = test::normal<float>({1, 1, 1, 19}, 2);
                tensor<float> y(u.shape(), l), state({2, 1, 19, 2 * S}), last(state.shape());
                state.fill([](index_t) { return 0; });
                if (late)
                    diagonal_ssm(seq(u), m, seq(y), skip{vec(D)}, carry{seq(state)}, read_late{}, reversed{});
                else
                    diagonal_ssm(seq(u), m, seq(y), skip{vec(D)}, carry{seq(state)});
                const auto exact = defined<double>(m, u, D, late, late, &last);
                EXPECT_TRUE(test::within_rule<float>(y, defined<float>(m, u, D, late, late), exact));
                EXPECT_TRUE(test::all_near(state, last, 1e-4));
            }
}

/// Segments at once are one run: to rounding, whatever a segment is, and to the bit where there is but one.
TEST(diagonal_ssm, segments_are_one_run) {
    threads pool(3);
    for (index_t S : {1, 3, 4, 13})
        for (bool late : {false, true}) {
            const auto m = oscillations<float>(19, S);
            const auto u = test::normal<float>({2, 1, 90, 19}, 1), D = test::normal<float>({1, 1, 1, 19}, 2);
            struct result {
                tensor<float> y, state;
            };
            const auto run = [&](const auto&... form) {
                result r{tensor<float>(u.shape()), test::constant<float>({2, 1, 19, 2 * S}, 0)};
                if (late)
                    diagonal_ssm(seq(u), m, seq(r.y), skip{vec(D)}, carry{seq(r.state)}, read_late{}, reversed{},
                                 form...);
                else
                    diagonal_ssm(seq(u), m, seq(r.y), skip{vec(D)}, carry{seq(r.state)}, form...);
                return r;
            };
            tensor<float> last({2, 1, 19, 2 * S});
            const auto exact = defined<double>(m, u, D, late, late, &last);
            const auto naive = defined<float>(m, u, D, late, late);
            for (index_t segment : {1, 7, 32, 89}) {
                const auto got = run(chunked{segment}), shared = run(chunked{segment}, on(pool));
                EXPECT_TRUE(test::within_rule<float>(got.y, naive, exact)) << segment;
                EXPECT_TRUE(test::all_near(got.state, last, 1e-4)) << segment;
                EXPECT_TRUE(test::same_values(shared.y, got.y));
                EXPECT_TRUE(test::same_values(shared.state, got.state));
            }
            const auto one = run(chunked{90}), plain = run();
            EXPECT_TRUE(test::same_values(one.y, plain.y));
            EXPECT_TRUE(test::same_values(one.state, plain.state));
        }
}

/// A million tokens in segments, of averages that hardly forget.
TEST(ema, segments_do_not_drift) {
    average<float> x(1, 1 << 20, 1, 2), whole = x;
    x.p.fill([](index_t n) { return n ? -2.0 : -9.0; });
    whole.p = x.p;
    const auto exact = defined<double>(x);
    const auto naive = defined<float>(x);
    x.run(chunked{4096});
    EXPECT_TRUE(test::within_rule<float>(x.y, naive.first, exact.first));
    EXPECT_TRUE(test::within_rule<float>(x.state, naive.second, exact.second));
    std::size_t bytes = 0;
    threads pool(2);
    whole.run(chunked{4096}, scratch_size(pool, bytes));
    arena enough(bytes);
    whole.run(chunked{4096}, on(pool, enough));
    EXPECT_TRUE(test::same_values(whole.y, x.y));
}

TEST(diagonal_ssm, real_modes_are_complex_ones_without_imaginary_parts) {
    real_modes<float> r(18, 6);
    complex_modes<float> z(18, 6);
    const counter_random random(1);
    for (index_t c = 0; c < 18; ++c)
        for (index_t n = 0; n < 6; ++n) {
            const auto at = test::number(c * 6 + n);
            const double a = random.uniform(at), b = random.normal(at), read = random.normal(at + 1000);
            r.set(c, n, a, b, read), z.set(c, n, a, b, {read, 5});
        }
    const auto u = test::normal<float>({1, 1, 30, 18}, 1);
    tensor<float> y(u.shape()), w(u.shape());
    diagonal_ssm(seq(u), r, seq(y));
    diagonal_ssm(seq(u), z, seq(w));
    EXPECT_TRUE(test::all_near(y, w, 1e-5));
}

/// The two rules agree as steps shrink, and with the exact solution of dh/dt = A h + B for a constant input.
TEST(discretised, rules) {
    const std::complex<double> A{-0.3, 2.0}, B{1, 0.5};
    for (double dt : {0.1, 1e-3, 1e-9, 1e-12}) {
        const auto held = zero_order_hold{}(A, B, dt), ruled = bilinear{}(A, B, dt);
        EXPECT_NEAR(std::abs(held.a - std::exp(A * dt)), 0, 1e-15);
        EXPECT_NEAR(std::abs(held.b / dt - ruled.b / dt), 0, 3 * dt);
        EXPECT_NEAR(std::abs(held.b - (held.a - 1.0) / A * B), 0, 1e-15);
        EXPECT_LT(std::abs(ruled.a), 1);
    }
    EXPECT_EQ(zero_order_hold{}(0.0, 2.0, 0.25).b, 0.5);
    EXPECT_NEAR(zero_order_hold{}(-1.0, 1.0, 1e-14).b / 1e-14, 1, 1e-12);  // no digit lost
}

/// y = K0 * u + (K1 shifted) reversed + D u over the kernels; an even filter turns with its input; a strided time axis.
TEST(bidirectional_ssm, is_the_sum_over_both_kernels) {
    const index_t N = 24, C = 5, S = 3;
    const auto ahead = oscillations<double>(C, S), back = oscillations<double>(C, S, true);
    const auto D = test::normal<double>({1, 1, 1, C}, 2);
    const auto kernel = [&](const complex_modes<double>& m, index_t c, index_t l) {
        std::complex<double> sum;
        for (index_t n = 0; n < S; ++n) {
            const auto part = [&](index_t k) {
                return std::complex<double>(m.part(2 * k)(c, n), m.part(2 * k + 1)(c, n));
            };
            sum += part(2) * part(1) * std::pow(part(0), static_cast<double>(l));
        }
        return sum.real();
    };
    for (const auto& l : test::layouts()) {
        const auto u = test::normal<double>({2, 1, N, C}, 1, 1, l);
        tensor<double> y(u.shape());
        bidirectional_ssm(seq(u), ahead, back, seq(y), skip{vec(D)});
        y.each([&](index_t b, index_t, index_t t, index_t c) {
            double sum = D(0, 0, 0, c) * u(b, 0, t, c);
            for (index_t s = 0; s < N; ++s)
                sum += (s <= t ? kernel(ahead, c, t - s) : kernel(back, c, s - t - 1)) * u(b, 0, s, c);
            ASSERT_NEAR(y(b, 0, t, c), sum, 1e-11);
        });
    }
}

TEST(lru, matches_the_definition) {
    const index_t N = 60, C = 21;
    std::vector<float> k(static_cast<std::size_t>(4 * C));
    for (index_t c = 0; c < C; ++c) {
        const lru_mode m(-3.0 + 0.2 * double(c), -1.0 + 0.1 * double(c));
        EXPECT_LT(std::abs(m.lambda), 1);
        EXPECT_NEAR(m.s * m.s + std::norm(m.lambda), 1, 1e-14);
        const auto at = static_cast<std::size_t>(c);
        const auto row = static_cast<std::size_t>(C);
        k[at] = static_cast<float>(m.lambda.real()), k[at + row] = static_cast<float>(m.lambda.imag());
        k[at + 2 * row] = static_cast<float>(m.s), k[at + 3 * row] = 0.25f;
    }
    const auto part = [&](index_t i) { return view<const float, 1>{k.data() + i * C, {C}, {1}}; };
    const auto re = test::normal<float>({2, 1, N, C}, 1), im = test::normal<float>({2, 1, N, C}, 2);
    tensor<float> hr(re.shape()), hi(re.shape());
    const auto xr = seq(re), xi = seq(im);
    const auto lr = part(0), li = part(1), sr = part(2), si = part(3);
    const auto to_re = seq(hr), to_im = seq(hi);
    const auto check = [&](double by) {
        for (index_t b = 0; b < 2; ++b)
            for (index_t c = 0; c < C; ++c) {
                std::complex<double> h;
                for (index_t n = 0; n < N; ++n) {
                    h = std::complex<double>(lr(c), li(c)) * h +
                        std::complex<double>(sr(c), si(c)) * std::complex<double>(xr(b, n, c), xi(b, n, c));
                    ASSERT_NEAR(hr(b, 0, n, c), h.real(), by);
                    ASSERT_NEAR(hi(b, 0, n, c), h.imag(), by);
                }
            }
    };
    complex_diagonal(complex_view(xr, xi), complex_view(lr, li), complex_view(sr, si), complex_view(to_re, to_im));
    check(1e-5);
    complex_diagonal(complex_view(xr, xi), complex_view(lr, li), complex_view(sr, si), complex_view(to_re, to_im),
                     chunked{7});
    check(2e-5);
}

/// S5: the discretised modes in complex_diagonal follow the continuous system dh/dt = A h + B x, x held between tokens,
/// integrated in small steps; the trapezoidal rule to the square of its step.
TEST(s5, discretised_modes_follow_the_continuous_system) {
    constexpr index_t N = 40, C = 6;
    using complex = std::complex<double>;
    const auto mode = [](index_t c) { return complex(-0.1 - 0.2 * double(c), 0.5 * double(c)); };
    const complex B{0.7, -0.4};
    const auto x = test::normal<double>({1, 1, N, C}, 1), no_part = test::constant<double>(x.shape(), 0);
    const auto far = [&](const auto& rule, double dt) {
        std::vector<double> k(4 * C);
        for (index_t c = 0; c < C; ++c) {
            const auto d = rule(mode(c), B, dt);
            k[c] = d.a.real(), k[C + c] = d.a.imag(), k[2 * C + c] = d.b.real(), k[3 * C + c] = d.b.imag();
        }
        const auto part = [&](index_t i) { return view<const double, 1>{k.data() + i * C, {C}, {1}}; };
        tensor<double> hr(x.shape()), hi(x.shape());
        const auto xr = seq(x), xi = seq(no_part);
        const auto lr = part(0), li = part(1), sr = part(2), si = part(3);
        const auto to_re = seq(hr), to_im = seq(hi);
        complex_diagonal(complex_view(xr, xi), complex_view(lr, li), complex_view(sr, si), complex_view(to_re, to_im));
        double worst = 0;
        for (index_t c = 0; c < C; ++c) {
            complex h;
            for (index_t n = 0; n < N; ++n) {
                const auto slope = [&](complex at) { return mode(c) * at + B * x(0, 0, n, c); };
                constexpr int steps = 500;  // of the classical Runge-Kutta method
                const double small = dt / steps;
                for (int i = 0; i < steps; ++i) {
                    const complex k1 = slope(h), k2 = slope(h + small / 2 * k1), k3 = slope(h + small / 2 * k2);
                    h += small / 6 * (k1 + 2.0 * k2 + 2.0 * k3 + slope(h + small * k3));
                }
                worst = std::max(worst, std::abs(complex(hr(0, 0, n, c), hi(0, 0, n, c)) - h));
            }
        }
        return worst;
    };
    for (double dt : {1.0, 0.1}) EXPECT_LT(far(zero_order_hold{}, dt), 1e-8);
    const double coarse = far(bilinear{}, 0.1), fine = far(bilinear{}, 0.01);
    EXPECT_LT(coarse, 1e-2);
    EXPECT_LT(fine, coarse / 50);
}

}  // namespace
