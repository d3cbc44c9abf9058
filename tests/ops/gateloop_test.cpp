// GateLoop against its definition, its closed form, and its limits.
#include <heed/ops/gateloop.hpp>
#include <heed/ops/gla.hpp>
#include <heed/ops/retention.hpp>

#include "recurrent_op.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

TEST(gateloop, is_the_definition) {
    for (const recurrence_sizes& s :
         {recurrence_sizes{1, 1, 1, 1, 0, 8, 8}, {1, 2, 2, 2, 1, 8, 8, 1, 2}, {2, 4, 2, 2, 37, 17, 9}}) {
        SCOPED_TRACE(testing::Message() << s);
        const recurrence_data<float> x(s);
        tensor<float> o({s.B, s.Ho(), s.N, s.E});
        gateloop(x.q, x.k, x.v, o, x.channel, x.angle);
        EXPECT_TRUE(is_recurrence(o, x.q, x.k, x.v, [&](auto real) {
            auto with = x.defined(turning)(real);
            with.scale = 1;
            return with;
        }));
        state<float> carried(s.B, s.Hs(), 2 * s.D, s.E);
        EXPECT_TRUE(goes_on(o, [&](range n, auto to) {
            gateloop(part(x.q, n), part(x.k, n), part(x.v, n), to, part(x.channel, n), part(x.angle, n), carried);
        }));
    }
}

/// A constant a = gamma e^(i theta) gives every channel the kernel gamma^d cos(d theta) of the distance d.
TEST(gateloop, of_a_constant_is_a_damped_cosine) {
    constexpr double gamma = 0.9, theta = 0.4;
    const recurrence_data<double> x({1, 1, 1, 1, 60, 5, 3});
    tensor<double> o(x.v.shape()), want(x.v.shape());
    gateloop(x.q, x.k, x.v, o, constant<double>({1, 1, 60, 1}, std::log(gamma)),
             constant<double>({1, 1, 60, 1}, theta));
    want.each([&](index_t b, index_t h, index_t t, index_t e) {
        double sum = 0;
        for (index_t s = 0; s <= t; ++s)
            for (index_t d = 0; d < 5; ++d)
                sum += x.q(b, h, t, d) * x.k(b, h, s, d) * std::pow(gamma, double(t - s)) *
                       std::cos(theta * double(t - s)) * x.v(b, h, s, e);
        want(b, h, t, e) = sum;
    });
    EXPECT_TRUE(all_near(o, want, 1e-12));
}

TEST(gateloop, without_a_turn_is_gla_and_without_decay_a_plain_sum) {
    const recurrence_data<double> x({1, 2, 2, 2, 40, 9, 5});
    const auto zero = constant<double>({1, 1, 40, 1}, 0);
    tensor<double> o(x.v.shape()), p(x.v.shape());
    gateloop(x.q, x.k, x.v, o, x.channel, zero);
    gla(x.q, x.k, x.v, p, x.channel, scale{1});
    EXPECT_TRUE(all_near(o, p, 1e-12));
    gateloop(x.q, x.k, x.v, o, zero, zero);
    recurrence(x.q, x.k, x.v, p, scale{1});
    EXPECT_TRUE(all_near(o, p, 1e-12));
}

TEST(gateloop, does_not_overflow_however_long) {
    const recurrence_data<float> x({1, 1, 1, 1, 3000, 4, 3});
    tensor<float> o(x.v.shape());
    gateloop(x.q, x.k, x.v, o, constant<float>({1, 1, 3000, 1}, -1), x.angle);
    o.each([&](index_t b, index_t h, index_t n, index_t e) { ASSERT_TRUE(std::isfinite(o(b, h, n, e))); });
}

TEST(gateloop, of_complex_rows_is_the_definition) {
    for (const recurrence_sizes& s :
         {recurrence_sizes{1, 1, 1, 1, 1, 2, 8}, {1, 2, 2, 2, 40, 18, 8, 1, 2}, {2, 4, 2, 2, 37, 34, 9}}) {
        SCOPED_TRACE(testing::Message() << s);
        const recurrence_data<float> x(s);
        const auto half = [&](const tensor<float>& t) { return slice(t.v(), 3, {0, s.D / 2}); };
        const auto with = [&](unsigned parts) {
            return [&, parts](auto real) {
                auto options = x.defined(turning | parts)(real);
                options.scale = 1;
                options.complex_rows = true;
                return options;
            };
        };
        const view<const float, 2> u{x.u.v().data, {s.gates, s.D / 2}, {x.u.v().strides[1], 1}};
        tensor<float> o({s.B, s.Ho(), s.N, s.E}), p(o.shape());
        const auto run = [&](const auto&... policies) {
            gateloop(x.q, x.k, x.v, o, half(x.channel), half(x.angle), complex_rows{}, policies...);
        };
        run();
        EXPECT_TRUE(is_recurrence(o, x.q, x.k, x.v, with(plain)));
        state<float> carried(s.B, s.Hs(), s.D, s.E);
        EXPECT_TRUE(goes_on(o, [&](range n, auto to) {
            gateloop(part(x.q, n), part(x.k, n), part(x.v, n), to, slice(half(x.channel), 2, n),
                     slice(half(x.angle), 2, n), complex_rows{}, carried);
        }));
        run(chunked{16});
        EXPECT_TRUE(is_recurrence(o, x.q, x.k, x.v, with(plain)));
        run(bonus{u}, chunked{32});
        EXPECT_TRUE(is_recurrence(o, x.q, x.k, x.v, with(with_bonus)));
        run(bonus{u});
        EXPECT_TRUE(is_recurrence(o, x.q, x.k, x.v, with(with_bonus)));
        run(read_before{});
        EXPECT_TRUE(is_recurrence(o, x.q, x.k, x.v, with(before)));
        run(non_causal{}, chunked{16});
        EXPECT_TRUE(is_recurrence(o, x.q, x.k, x.v, with(all_at_once)));
    }
}

/// Pairs of channels as complex numbers, the conjugates of keys, and a = gamma e^(i theta).
TEST(gateloop, of_complex_rows_is_retention_of_rotated_rows) {
    const index_t H = 2, N = 50, D = 12, E = 5;
    const recurrence_data<double> x({1, H, H, H, N, D, E});
    auto q = x.q, k = x.k;
    rotary(q, q, interleaved{}, retention_angles{});
    rotary(k, k, interleaved{}, retention_angles{});
    tensor<double> want(x.v.shape()), o(x.v.shape()), m({1, H, N, D / 2}), p(m.shape()), qc(x.q.shape()),
        kc(x.k.shape());
    retention(q, k, x.v, want);
    m.each([&](index_t b, index_t h, index_t n, index_t d) {
        m(b, h, n, d) = retention_decay{}.log(h);
        p(b, h, n, d) = retention_angles{}.frequency(d, D);
        for (index_t part : {0, 1}) {
            qc(b, h, n, part * D / 2 + d) = x.q(b, h, n, 2 * d + part);
            kc(b, h, n, part * D / 2 + d) = part ? -x.k(b, h, n, 2 * d + 1) : x.k(b, h, n, 2 * d);
        }
    });
    const double root = 1 / std::sqrt(static_cast<double>(D));
    gateloop(qc, kc, x.v, o, m, p, complex_rows{}, scale{root});
    EXPECT_TRUE(all_near(o, want, 1e-11));
    gateloop(qc, kc, x.v, o, m, p, complex_rows{}, scale{root}, chunked{16});
    EXPECT_TRUE(all_near(o, want, 1e-11));
    refuses<shape_error>(
        [&] {
            gateloop(slice(qc.v(), 3, {0, 11}), slice(kc.v(), 3, {0, 11}), x.v, o, m, p, complex_rows{});
        },
        "complex rows have an even width, q has 11");
}

}  // namespace
