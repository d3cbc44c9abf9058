// The definitions beside the plain recurrence: log-linear attention, the Mesa layer, slots, the mLSTM, TaylorShift,
// hybrid and infini-attention, each in the limits in which it is something else, or against another form.
#include <gtest/gtest.h>

#include <heed/ref/attention.hpp>
#include <heed/ref/hybrid_attention.hpp>
#include <heed/ref/infini_attention.hpp>
#include <heed/ref/log_linear_attention.hpp>
#include <heed/ref/mesa_net.hpp>
#include <heed/ref/mlstm.hpp>
#include <heed/ref/slot_attention.hpp>
#include <heed/ref/taylor_shift.hpp>

#include "../support/compare.hpp"
#include "../support/random.hpp"

namespace {

using namespace heed;
using test::all_near;
using test::tensor;
using options = ref::recurrence_options<double>;

struct problem {
    static constexpr index_t H = 2, N = 13, D = 4, E = 3;
    tensor<double> q = test::normal<double>({1, H, N, D}, 1), k = test::normal<double>({1, H, N, D}, 2);
    tensor<double> v = test::normal<double>({1, H, N, E}, 3), o{{1, H, N, E}}, other{{1, H, N, E}};
    tensor<double> g = test::uniform<double>({1, H, N, 1}, 4, -1, 0),
                   beta = test::uniform<double>({1, H, N, 1}, 5, 0, 1);

    options gates(bool delta) {
        options with{.key_decay = ref::gate_of<double>(g.v(), H), .scale = 1};
        if (delta) with.beta = ref::gate_of<double>(beta.v(), H);
        return with;
    }
};

std::vector<double> elu(const std::vector<double>& x, index_t) { return ref::elu_plus_one(x); }
auto floor_of(double x) {
    return [x](index_t, index_t, index_t) { return x; };
}

TEST(ref_log_linear, levels_are_those_of_a_fenwick_tree) {
    for (index_t t = 0; t < 70; ++t) {
        std::vector<index_t> count(9);
        index_t before = 100;
        for (index_t s = 0; s <= t; ++s) {
            const index_t level = ref::fenwick_level(t, s);
            EXPECT_LE(level, before) << "levels fall towards the token";
            ++count[static_cast<std::size_t>(before = level)];
        }
        EXPECT_EQ(count[0], 1);
        for (index_t l = 1; l < 9; ++l) EXPECT_EQ(count[static_cast<std::size_t>(l)], t & (index_t{1} << (l - 1)));
    }
}

TEST(ref_log_linear, is_a_stack_of_states) {
    problem p;
    const auto scales = test::uniform<double>({1, p.H, p.N, 5}, 9);
    for (bool delta : {false, true}) {
        const auto with = p.gates(delta);
        ref::log_linear_attention(p.q.v(), p.k.v(), p.v.v(), scales.v(), p.o.v(), with);
        for (index_t h = 0; h < p.H; ++h) {
            std::vector<ref::detail::matrix<double>> S(5, {p.D, p.E});
            for (index_t t = 0; t < p.N; ++t) {
                if (t > 0) {  // the levels below the lowest set bit of t merge
                    std::size_t m = 0;
                    while ((t >> m) % 2 == 0) ++m;
                    for (std::size_t l = 0; l <= m; ++l) {
                        for (std::size_t i = 0; i < S[l].data.size(); ++i) S[m + 1].data[i] += S[l].data[i];
                        S[l].scale(0);
                    }
                }
                const auto key = ref::detail::row<double>(p.k.v(), 0, h, t);
                for (auto& s : S) {
                    s.scale(std::exp(p.g(0, h, t, 0)));
                    if (delta) s.add(ref::detail::times(-p.beta(0, h, t, 0), key), s.read(key));
                }
                S[0].add(ref::detail::times(delta ? p.beta(0, h, t, 0) : 1, key),
                         ref::detail::row<double>(p.v.v(), 0, h, t));
                for (index_t e = 0; e < p.E; ++e) {
                    double sum = 0;
                    for (index_t l = 0; l < 5; ++l)
                        sum += scales(0, h, t, l) * S[static_cast<std::size_t>(l)].read(ref::detail::row<double>(
                                                        p.q.v(), 0, h, t))[static_cast<std::size_t>(e)];
                    EXPECT_NEAR(p.o(0, h, t, e), sum, 1e-12);
                }
            }
        }
    }
}

TEST(ref_log_linear, with_equal_levels_is_the_recurrence) {
    problem p;
    const auto ones = test::constant<double>({1, p.H, p.N, 5}, 1);
    for (bool delta : {false, true}) {
        ref::log_linear_attention(p.q.v(), p.k.v(), p.v.v(), ones.v(), p.o.v(), p.gates(delta));
        ref::recurrence(p.q.v(), p.k.v(), p.v.v(), p.other.v(), p.gates(delta));
        EXPECT_TRUE(all_near(p.o, p.other, 1e-12));
    }
}

TEST(ref_mesa_net, is_the_fit_of_least_squares) {
    problem p;
    const std::vector<double> lambda(p.H * p.D, 0.3);
    ref::mesa_net(p.q.v(), p.k.v(), p.v.v(), dense(lambda.data(), {p.H, p.D}), p.o.v(), p.gates(true));
    // o_t = W^T q for the W that minimises sum_s a_s |W^T k_s - v_s|^2 + lambda |W|^2: the gradient there is 0.
    const index_t t = p.N - 1;
    ref::detail::matrix<double> H{p.D, p.D}, G{p.D, p.E};
    double a = 1;
    for (index_t s = t; s >= 0; --s) {
        const auto key = ref::detail::row<double>(p.k.v(), 0, 1, s);
        H.add(ref::detail::times(a * p.beta(0, 1, s, 0), key), key);
        G.add(ref::detail::times(a * p.beta(0, 1, s, 0), key), ref::detail::row<double>(p.v.v(), 0, 1, s));
        a *= std::exp(p.g(0, 1, s, 0));
    }
    for (index_t d = 0; d < p.D; ++d) H(d, d) += 0.3;
    const auto x = ref::solved(H, ref::detail::row<double>(p.q.v(), 0, 1, t));
    const auto back = H.read(x);
    for (index_t d = 0; d < p.D; ++d) EXPECT_NEAR(back[static_cast<std::size_t>(d)], p.q(0, 1, t, d), 1e-13);
    for (index_t e = 0; e < p.E; ++e) EXPECT_NEAR(p.o(0, 1, t, e), G.read(x)[static_cast<std::size_t>(e)], 1e-12);
}

TEST(ref_mesa_net, with_a_great_lambda_is_linear_attention) {
    problem p;
    const std::vector<double> lambda(p.H * p.D, 1e9);
    ref::mesa_net(p.q.v(), p.k.v(), p.v.v(), dense(lambda.data(), {p.H, p.D}), p.o.v(), p.gates(true));
    auto with = p.gates(false);
    tensor<double> weighted(p.k);
    p.k.each([&](index_t b, index_t h, index_t n, index_t d) { weighted(b, h, n, d) *= p.beta(b, h, n, 0); });
    ref::recurrence(p.q.v(), weighted.v(), p.v.v(), p.other.v(), with);
    p.o.each([&](index_t b, index_t h, index_t n, index_t e) {
        EXPECT_NEAR(1e9 * p.o(b, h, n, e), p.other(b, h, n, e), 1e-6);
    });
}

TEST(ref_slots, abc_are_running_softmaxes_over_the_tokens) {
    problem p;
    const index_t M = 5;
    const auto x = test::normal<double>({1, p.H, p.N, M}, 7);
    tensor<double> s(x.shape()), g(x.shape());
    ref::abc_gates(x.v(), s.v(), g.v());
    ref::gated_slot_attention(p.q.v(), p.k.v(), p.v.v(), s.v(), g.v(), p.o.v());
    for (index_t h = 0; h < p.H; ++h)
        for (index_t t = 0; t < p.N; ++t) {
            std::vector<double> logits, y(p.E);
            std::vector<std::vector<double>> values;
            for (index_t m = 0; m < M; ++m) {
                std::vector<double> weights;
                for (index_t j = 0; j <= t; ++j) weights.push_back(x(0, h, j, m));
                weights = ref::softmax(weights);
                std::vector<double> key(p.D), value(p.E);
                for (index_t j = 0; j <= t; ++j) {
                    const double w = weights[static_cast<std::size_t>(j)];
                    for (index_t d = 0; d < p.D; ++d) key[static_cast<std::size_t>(d)] += w * p.k(0, h, j, d);
                    for (index_t e = 0; e < p.E; ++e) value[static_cast<std::size_t>(e)] += w * p.v(0, h, j, e);
                }
                logits.push_back(ref::detail::dot(ref::detail::row<double>(p.q.v(), 0, h, t), key) / 2);
                values.push_back(value);
            }
            const auto weights = ref::softmax(logits);
            for (index_t e = 0; e < p.E; ++e) {
                double sum = 0;
                for (std::size_t m = 0; m < weights.size(); ++m)
                    sum += weights[m] * values[m][static_cast<std::size_t>(e)];
                EXPECT_NEAR(p.o(0, h, t, e), sum, 1e-13);
            }
        }
}

TEST(ref_mlstm, the_maximum_cancels) {
    problem p;
    const auto i = test::normal<double>({1, p.H, p.N, 1}, 8, 2);
    const auto three = [](auto x) {
        return view<const double, 3>{
            x.data, {x.shape[0], x.shape[1], x.shape[2]}, {x.strides[0], x.strides[1], x.strides[2]}};
    };
    ref::mlstm(p.q.v(), p.k.v(), p.v.v(), three(i.v()), three(std::as_const(p.g).v()), p.o.v());
    tensor<double> keys(p.k);
    keys.each([&](index_t b, index_t h, index_t n, index_t d) { keys(b, h, n, d) *= std::exp(i(b, h, n, 0)); });
    auto with = p.gates(false);
    with.scale = {}, with.normalised = with.absolute = true, with.floor = floor_of(1);
    ref::recurrence(p.q.v(), keys.v(), p.v.v(), p.other.v(), with);
    EXPECT_TRUE(all_near(p.o, p.other, 1e-12));
}

TEST(ref_taylor_shift, is_a_recurrence_of_squares) {
    problem p;
    const auto features = [](const std::vector<double>& x, index_t) {
        const auto u = ref::unit(x);
        std::vector<double> y{1};
        y.insert(y.end(), u.begin(), u.end());
        for (double a : u)
            for (double b : u) y.push_back(a * b / std::sqrt(2));
        return y;
    };
    for (bool causal : {false, true}) {
        ref::taylor_shift(p.q.v(), p.k.v(), p.v.v(), p.o.v(), {1, 1}, false, causal);
        ref::recurrence(p.q.v(), p.k.v(), p.v.v(), p.other.v(),
                        {.query_features = features,
                         .key_features = features,
                         .normalised = true,
                         .non_causal = !causal,
                         .scale = 1});
        EXPECT_TRUE(all_near(p.o, p.other, 1e-13));
    }
    ref::taylor_shift(p.q.v(), p.k.v(), p.v.v(), p.o.v(), {0, 0}, true);
    for (index_t e = 0; e < p.E; ++e) {
        double mean = 0;
        for (index_t j = 0; j < p.N; ++j) mean += p.v(0, 1, j, e) / p.N;
        EXPECT_NEAR(p.o(0, 1, 5, e), mean * std::sqrt(13.0 / 4), 1e-14);
    }
}

TEST(ref_hybrid, between_softmax_and_linear_attention) {
    problem p;
    const auto phi = [](const std::vector<double>& x) { return ref::elu_plus_one(x); };
    ref::hybrid_attention<double>(
        p.q.v(), p.k.v(), p.v.v(), p.o.v(), [](index_t) { return true; }, phi);
    ref::attention(p.q.v(), p.k.v(), p.v.v(), p.other.v());
    EXPECT_TRUE(all_near(p.o, p.other, 1e-13));
    ref::hybrid_attention<double>(
        p.q.v(), p.k.v(), p.v.v(), p.o.v(), [](index_t) { return false; }, phi);
    ref::recurrence(p.q.v(), p.k.v(), p.v.v(), p.other.v(),
                    {.query_features = elu, .key_features = elu, .normalised = true, .non_causal = true, .scale = 1});
    EXPECT_TRUE(all_near(p.o, p.other, 1e-13));
    // One token by softmax has weight exp(0) = 1, whatever its logit.
    ref::hybrid_attention<double>(
        p.q.v(), p.k.v(), p.v.v(), p.o.v(), [](index_t j) { return j == 3; },
        [](const std::vector<double>&) { return std::vector<double>{0}; });
    p.o.each([&](index_t b, index_t h, index_t n, index_t e) { EXPECT_NEAR(p.o(b, h, n, e), p.v(b, h, 3, e), 1e-14); });
}

TEST(ref_infini, closed_is_attention_within_segments_and_open_reads_the_segments_before) {
    problem p;
    const index_t C = 4;
    ref::infini_attention(p.q.v(), p.k.v(), p.v.v(), p.o.v(), C, {-1000, -1000});
    ref::attention(
        p.q.v(), p.k.v(), p.v.v(), p.other.v(),
        {.visible = [](index_t, index_t, index_t, index_t i, index_t j) { return j <= i && j / C == i / C; }});
    EXPECT_TRUE(all_near(p.o, p.other, 1e-13));
    ref::infini_attention(p.q.v(), p.k.v(), p.v.v(), p.o.v(), C, {1000, 1000});
    for (index_t n = 0; n < p.N; ++n)
        for (index_t e = 0; e < p.E; ++e) {
            double sum = 0, weight = 0;
            for (index_t j = 0; j < n / C * C; ++j) {
                const double a = ref::detail::dot(elu(ref::detail::row<double>(p.q.v(), 0, 0, n), 0),
                                                  elu(ref::detail::row<double>(p.k.v(), 0, 0, j), 0));
                sum += a * p.v(0, 0, j, e), weight += a;
            }
            EXPECT_NEAR(p.o(0, 0, n, e), weight > 0 ? sum / weight : 0, 1e-13);
        }
}

TEST(ref_infini, the_delta_rule_does_not_track_its_normaliser) {
    problem p;
    p.k.each([&](index_t b, index_t h, index_t n, index_t d) { p.k(b, h, n, d) = p.k(0, 0, 0, d); });
    p.v.each([&](index_t b, index_t h, index_t n, index_t e) { p.v(b, h, n, e) = p.v(0, 0, 0, e); });
    ref::infini_attention(p.q.v(), p.k.v(), p.v.v(), p.o.v(), 1, {1000, 1000}, true);
    for (index_t e = 0; e < p.E; ++e) {
        EXPECT_EQ(p.o(0, 0, 0, e), 0);
        EXPECT_NEAR(p.o(0, 0, 1, e), p.v(0, 0, 0, e), 1e-14);
        EXPECT_NEAR(p.o(0, 0, 2, e), p.v(0, 0, 0, e) / 2, 1e-14);  // M stands, z doubles
    }
}

}  // namespace
