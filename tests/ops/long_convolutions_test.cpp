// heed_test: LABELS sanitize
// S4D's filters, HyperZZW and multi-head long convolution.
#include <heed/ops/hyperzzw.hpp>
#include <heed/ops/multi_head_convolution.hpp>
#include <heed/ops/s4d.hpp>
#include <heed/ref/convolution.hpp>

#include "../support/allocations.hpp"
#include "../support/compare.hpp"
#include "../support/refuses.hpp"
#include "../support/sequences.hpp"

namespace {

using namespace heed;
using test::layout;
using test::matrix;
using test::refuses;
using test::sequence;
using test::tensor;
using complex = std::complex<double>;

struct model {
    std::vector<double> dt;
    std::vector<complex> A, C;

    model(index_t channels, index_t modes) {
        const counter_random random(3);
        std::uint64_t i = 0;
        for (index_t c = 0; c < channels; ++c) {
            dt.push_back(0.001 * std::pow(100, random.uniform(i++)));
            for (index_t n = 0; n < modes; ++n) {
                A.emplace_back(-0.5 - random.uniform(i++), 3.14159 * double(n));
                C.emplace_back(random.normal(i), random.normal(i + 1));
                i += 2;
            }
        }
    }
    s4d_parameters with(discretisation by) const { return {dt, A, C, by}; }
};

constexpr discretisation both[] = {discretisation::zero_order_hold, discretisation::bilinear};

TEST(s4d, taps_are_the_powers) {
    const model m(3, 5);
    for (auto by : both) {
        tensor<double> k({1, 1, 3, 5000}, layout::strided());
        s4d_taps(m.with(by), matrix(k));
        for (index_t c = 0; c < 3; ++c)
            for (index_t l : {0, 1, 2, 63, 64, 65, 1000, 4999}) {
                complex sum = 0;
                for (index_t n = 0; n < 5; ++n) {
                    const complex a = m.A[c * 5 + n], half = m.dt[c] / 2 * a;
                    const complex pole =
                        by == discretisation::bilinear ? (1.0 + half) / (1.0 - half) : std::exp(m.dt[c] * a);
                    const complex in = by == discretisation::bilinear ? m.dt[c] / (1.0 - half) : (pole - 1.0) / a;
                    sum += m.C[c * 5 + n] * in * std::exp(double(l) * std::log(pole));
                }
                ASSERT_NEAR(k(0, 0, c, l), 2 * sum.real(), 1e-13) << l;
            }
    }
}

TEST(s4d, poles_at_zero_and_steps_that_tend_to_zero) {
    const std::vector<complex> A{{-2, 0}}, C{{3, 1}};
    tensor<double> k({1, 1, 1, 130});
    const std::vector<double> one{1};
    s4d_taps<double>({one, A, C, discretisation::bilinear}, matrix(k));  // 1 + dt A / 2 is 0
    k.each([&](index_t, index_t, index_t, index_t l) { EXPECT_EQ(k(0, 0, 0, l), l == 0 ? 3 : 0) << l; });
    const std::vector<double> tiny{1e-13};
    for (auto by : both) {
        s4d_taps<double>({tiny, A, C, by}, matrix(k));
        EXPECT_NEAR(k(0, 0, 0, 0) / (2 * 3 * 1e-13), 1, 1e-12);
    }
}

TEST(s4d, both_discretisations_tend_to_each_other) {
    model m(1, 4);
    m.dt[0] = 1e-4;
    tensor<double> a({1, 1, 1, 100}), b(a.shape());
    s4d_taps(m.with(discretisation::zero_order_hold), matrix(a));
    s4d_taps(m.with(discretisation::bilinear), matrix(b));
    EXPECT_LT(test::distance(a, b), 1e-4 * test::norm(a));
}

TEST(s4d, recurrence_is_the_convolution) {
    constexpr index_t C = 7, N = 300;
    const model m(C, 6);
    for (auto by : both) {
        const auto x = test::normal<double>({2, 1, N, C}, 1);
        tensor<double> k({1, 1, C, N}), y(x.shape()), z(x.shape());
        s4d_taps(m.with(by), matrix(k));
        convolution(sequence(x), convolution_filter<double>(matrix(k), {.longest = N}), sequence(y));
        const modal_filter<double> filter(s4d_modes(m.with(by)));
        auto state = filter.start(2);
        filter(sequence(x), sequence(z), state);
        EXPECT_LT(test::distance(y, z), 1e-12 * test::norm(y));
    }
}

TEST(s4d, both_ways) {
    constexpr index_t F = 90, C = 5;
    const auto x = test::normal<double>({2, 1, F, C}, 1), k0 = test::normal<double>({1, 1, C, F}, 2);
    auto k1 = test::normal<double>({1, 1, C, F - 1}, 3);
    const auto run = [&](const tensor<double>& behind, const tensor<double>& ahead, const tensor<double>& in) {
        tensor<double> k({1, 1, C, 2 * F - 1}), y(in.shape());
        bidirectional_taps(matrix(behind), matrix(ahead), matrix(k));
        convolution(sequence(in), convolution_filter<double>(matrix(k), {.longest = F, .ahead = F - 1}), sequence(y));
        return y;
    };
    const auto y = run(k0, k1, x);
    y.each([&](index_t b, index_t, index_t t, index_t c) {
        double sum = 0;
        for (index_t l = 0; l <= t; ++l) sum += k0(0, 0, c, l) * x(b, 0, t - l, c);
        for (index_t n = 1; n < F - t; ++n) sum += k1(0, 0, c, n - 1) * x(b, 0, t + n, c);
        ASSERT_NEAR(y(b, 0, t, c), sum, 1e-12);
    });
    // An even filter does not mind the direction of time; without a second half it is causal.
    k1.each([&](index_t, index_t, index_t c, index_t n) { k1(0, 0, c, n) = k0(0, 0, c, n + 1); });
    tensor<double> reversed(x.shape()), causal(x.shape());
    x.each([&](index_t b, index_t, index_t t, index_t c) { reversed(b, 0, t, c) = x(b, 0, F - 1 - t, c); });
    const auto even = run(k0, k1, x), back = run(k0, k1, reversed);
    even.each([&](index_t b, index_t, index_t t, index_t c) {
        ASSERT_NEAR(even(b, 0, t, c), back(b, 0, F - 1 - t, c), 1e-12);
    });
    convolution(sequence(x), convolution_filter<double>(matrix(k0)), sequence(causal));
    EXPECT_TRUE(test::all_near(run(k0, test::constant<double>(k1.shape(), 0), x), causal, 1e-12));
}

TEST(hyperzzw, matches_its_sum_and_limits) {
    constexpr index_t B = 3, C = 6;
    for (index_t N : {1, 30, 50, 131})
        for (auto how : {alignment::causal, alignment::centred}) {
            const index_t ahead = how == alignment::centred ? N / 2 : 0;
            const auto w = test::normal<float>({1, 1, C, N}, 1), z = test::normal<float>({B, 1, N, C}, 2);
            const std::vector<float> raise{1, 2, 3, 4, 5, 6};
            tensor<float> y(z.shape()), naive(z.shape()), once({1, 1, N, C});
            tensor<double> exact(z.shape());
            hyperzzw(matrix(w), sequence(z), sequence(y), how, channel_bias(dense(raise.data(), {C})));
            for (index_t b = 0; b < B; ++b) {
                tensor<double> taps(w.shape()), out({1, 1, N, C});
                tensor<float> taps_float(w.shape()), out_float({1, 1, N, C});
                taps.each([&](index_t, index_t, index_t c, index_t k) {
                    taps(0, 0, c, k) = double(w(0, 0, c, k)) * double(z(b, 0, k, c));
                    taps_float(0, 0, c, k) = w(0, 0, c, k) * z(b, 0, k, c);
                });
                const auto one = slice(sequence(z), 0, range{b, b + 1});
                ref::convolution(one, matrix(taps), sequence(out), ahead);
                ref::convolution<float>(one, matrix(taps_float), sequence(out_float), ahead);
                out.each([&](index_t, index_t, index_t n, index_t c) {
                    exact(b, 0, n, c) = out(0, 0, n, c) + raise[c];
                    naive(b, 0, n, c) = out_float(0, 0, n, c) + raise[c];
                });
            }
            EXPECT_TRUE((test::within_norm<float>(y, naive, exact)));
            // A sample does not know its neighbours.
            hyperzzw(matrix(w), slice(sequence(z), 0, range{1, 2}), sequence(once), how,
                     channel_bias(dense(raise.data(), {C})));
            for (index_t n = 0; n < N; ++n) ASSERT_EQ(once(0, 0, n, 3), y(1, 0, n, 3));
            // z = 1 is the convolution with W; twice z is four times y.
            const auto ones = test::constant<float>({1, 1, N, C}, 1);
            tensor<float> plain(once.shape()), twice_in(z.shape()), twice(z.shape()), four_times(z.shape());
            hyperzzw(matrix(w), sequence(ones), sequence(once), how);
            convolution(sequence(ones), convolution_filter<float>(matrix(w), {.longest = N, .ahead = ahead}),
                        sequence(plain));
            EXPECT_TRUE(test::same_values(once, plain));
            twice_in.each([&](index_t b, index_t, index_t n, index_t c) { twice_in(b, 0, n, c) = 2 * z(b, 0, n, c); });
            hyperzzw(matrix(w), sequence(z), sequence(four_times), how);
            hyperzzw(matrix(w), sequence(twice_in), sequence(twice), how);
            twice.each([&](index_t b, index_t, index_t n, index_t c) {
                ASSERT_EQ(twice(b, 0, n, c), 4 * four_times(b, 0, n, c));
            });
        }
    refuses<shape_error>(
        [&] {
            std::vector<float> m(100);
            hyperzzw(dense(m.data(), {2, 3}), dense(m.data(), {1, 4, 2}), dense(m.data() + 50, {1, 4, 2}),
                     alignment::causal);
        },
        "hyperzzw: W is (2, 3), z asks for (2, 4) at least");
}

TEST(hyperzzw, what_is_not_finite_makes_what_it_reaches_nan) {
    constexpr index_t B = 2, C = 3;
    for (index_t N : {20, 150})
        for (auto how : {alignment::causal, alignment::centred})
            for (bool in_w : {false, true}) {
                const index_t ahead = how == alignment::centred ? N / 2 : 0, at = 2 * N / 3;
                auto w = test::normal<float>({1, 1, C, N}, 1), z = test::normal<float>({B, 1, N, C}, 2);
                tensor<float> y(z.shape()), spoilt(z.shape());
                if (in_w)
                    w(0, 0, 1, at) = 0;
                else
                    z(1, 0, at, 1) = 0;
                hyperzzw(matrix(w), sequence(z), sequence(y), how);
                if (in_w)
                    w(0, 0, 1, at) = HUGE_VALF;
                else
                    z(1, 0, at, 1) = std::nanf("");
                hyperzzw(matrix(w), sequence(z), sequence(spoilt), how);
                y.each([&](index_t b, index_t, index_t n, index_t c) {
                    const bool reached = c == 1 && (in_w || b == 1) && n + ahead - at >= 0 && n + ahead - at < N;
                    if (reached)
                        ASSERT_TRUE(std::isnan(spoilt(b, 0, n, c))) << n;
                    else
                        ASSERT_EQ(spoilt(b, 0, n, c), y(b, 0, n, c)) << n << " " << c;
                });
            }
}

TEST(hyperzzw, memory_does_not_grow_with_the_samples) {
    const auto w = test::normal<float>({1, 1, 4, 100}, 1), z = test::normal<float>({5, 1, 100, 4}, 2);
    tensor<float> y(z.shape());
    const auto allocated = [&](index_t samples) {
        const std::size_t before = test::allocations;
        hyperzzw(matrix(w), slice(sequence(z), 0, range{0, samples}), slice(sequence(y), 0, range{0, samples}),
                 alignment::causal);
        return test::allocations - before;
    };
    allocated(1);  // scratch of the thread
    EXPECT_EQ(allocated(1), allocated(5));
}

/// The definition; o in double.
template <class T>
tensor<double> defined(const tensor<T>& q, const tensor<T>& k, const tensor<T>& v, const tensor<T>& h) {
    tensor<double> o(v.shape());
    o.each([&](index_t b, index_t m, index_t t, index_t e) {
        double sum = 0;
        for (index_t j = std::max<index_t>(0, t - h.shape()[3] + 1); j <= t; ++j) {
            double dot = 0;
            for (index_t d = 0; d < q.shape()[3]; ++d) dot += double(q(b, m, t, d)) * double(k(b, m, j, d));
            sum += double(h(0, 0, m, t - j)) * dot * double(v(b, m, j, e));
        }
        o(b, m, t, e) = sum;
    });
    return o;
}

TEST(multi_head_convolution, matches_its_definition) {
    for (index_t E : {1, 3, 4, 6, 17})
        for (index_t N : {1, 60, 130}) {
            const auto q = test::normal<float>({2, 3, N, 5}, 1, 1, layout::tokens());
            const auto k = test::normal<float>(q.shape(), 2), v = test::normal<float>({2, 3, N, E}, 3);
            const auto h = test::normal<float>({1, 1, 3, 100}, 4);
            tensor<float> o(v.shape(), layout::tokens());
            multi_head_convolution(q, k, v, matrix(h), o);
            const auto exact = defined(q, k, v, h);
            EXPECT_LT(test::distance(o, exact), 1e-6 * test::norm(exact));
        }
}

TEST(multi_head_convolution, refuses_taps_that_are_not_finite_before_it_writes) {
    const auto q = test::normal<float>({1, 2, 50, 2}, 1), v = test::normal<float>({1, 2, 50, 3}, 2);
    auto h = test::normal<float>({1, 1, 2, 60}, 4);
    tensor<float> o(v.shape());
    h(0, 0, 1, 55) = std::nanf("");
    multi_head_convolution(q, q, v, matrix(h), o);  // no token meets it
    o.fill([](index_t) { return 7; });
    h(0, 0, 1, 20) = std::nanf("");
    refuses<argument_error>([&] { multi_head_convolution(q, q, v, matrix(h), o); },
                            "multi_head_convolution: head 1 has a tap that is not finite");
    EXPECT_TRUE(test::same_values(o, test::constant<float>(o.shape(), 7)));
}

TEST(multi_head_convolution, a_power_is_linear_attention_with_decay) {
    constexpr index_t N = 90, D = 4, E = 5;
    const auto q = test::normal<double>({1, 2, N, D}, 1), k = test::normal<double>(q.shape(), 2);
    const auto v = test::normal<double>({1, 2, N, E}, 3);
    tensor<double> h({1, 1, 2, N}), o(v.shape());
    h.each([&](index_t, index_t, index_t m, index_t t) { h(0, 0, m, t) = std::pow(m == 0 ? 0.9 : 0.99, double(t)); });
    multi_head_convolution(q, k, v, matrix(h), o);
    for (index_t m = 0; m < 2; ++m) {
        double S[D][E] = {};
        for (index_t t = 0; t < N; ++t)
            for (index_t e = 0; e < E; ++e) {
                double sum = 0;
                for (index_t d = 0; d < D; ++d) {
                    S[d][e] = (m == 0 ? 0.9 : 0.99) * S[d][e] + k(0, m, t, d) * v(0, m, t, e);
                    sum += q(0, m, t, d) * S[d][e];
                }
                ASSERT_NEAR(o(0, m, t, e), sum, 1e-12);
            }
    }
}

}  // namespace
