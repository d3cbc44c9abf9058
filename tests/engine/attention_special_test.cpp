// heed_test: AS_USED LABELS sanitize
// Special cases: adversarial values, hidden NaN, empty rows, empty extents, errors, and laws.
#include <heed/heed.hpp>

#include "compare.hpp"
#include "random.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

struct all_minus_infinity {
    template <class X>
    X operator()(X x, const where&) const {
        return x * 0 - std::numeric_limits<float>::infinity();
    }
};

TEST(attention_special, adversarial_values_follow_the_definition) {
    for (const auto& a : adversaries()) {
        SCOPED_TRACE(a.name);
        const auto q = filled<float>({1, 2, 50, 12}, a, 1), k = filled<float>({1, 2, 140, 12}, a, 2);
        const auto v = normal<float>({1, 2, 140, 12}, 3);
        tensor<float> o(q.shape());
        attention(q, k, v, o, causal{});
        EXPECT_TRUE(attends(o, q, k, v, [](auto real) {
            ref::options<decltype(real)> with;
            with.visible = [](index_t, index_t, index_t, index_t i, index_t j) { return j <= i; };
            return with;
        }));
    }
}

TEST(attention_special, nan_and_inf_in_values_reach_exactly_the_rows_that_see_them) {
    for (double bad : {std::nan(""), double(INFINITY), -double(INFINITY)}) {
        const auto q = normal<float>({1, 1, 60, 8}, 1), k = normal<float>({1, 1, 60, 8}, 2);
        auto v = normal<float>({1, 1, 60, 8}, 3);
        v(0, 0, 21, 5) = static_cast<float>(bad);
        tensor<float> o(q.shape());
        attention(q, k, v, o, causal{});
        o.each([&](index_t, index_t, index_t n, index_t d) {
            ASSERT_EQ(std::isfinite(o(0, 0, n, d)), !(n >= 21 && d == 5)) << n << ", " << d;
        });
    }
}

TEST(attention_special, a_row_that_sees_only_minus_infinity_is_nan_and_a_row_that_sees_nothing_is_zero) {
    const auto q = normal<float>({1, 1, 20, 8}, 1), k = normal<float>({1, 1, 20, 8}, 2), v = normal<float>({1, 1, 20, 8}, 3);
    tensor<float> o(q.shape());
    std::vector<float> sums(20);
    const auto log_sums = dense(sums.data(), {1, 1, 20});
    attention(q, k, v, o, all_minus_infinity{});
    o.each([&](index_t, index_t, index_t n, index_t d) { ASSERT_TRUE(std::isnan(o(0, 0, n, d))); });
    const auto nobody = [](const where& w) { return w.row % 2 == 1; };
    attention(q, k, v, o, nobody, lse{log_sums});
    for (index_t n = 0; n < 20; n += 2) {
        EXPECT_EQ(log_sums(0, 0, n), -std::numeric_limits<float>::infinity());
        for (index_t d = 0; d < 8; ++d) ASSERT_EQ(o(0, 0, n, d), 0.f);
    }
}

/// Masks that add the lowest number in place of -inf: such a key is visible, and has no weight beside others.
template <class T, class Policy>
void lowest_logits_share_a_row(index_t N, const Policy& policy, const tensor<T>& table) {
    const index_t M = table.shape()[3];
    const auto q = normal<T>({1, 1, N, 8}, 1), k = normal<T>({1, 1, M, 8}, 2), v = normal<T>({1, 1, M, 8}, 3);
    tensor<T> o({1, 1, N, 8}), weights({1, 1, N, M});
    attention(q, k, v, o, policy, logits{weights.v(), stage::probability});
    EXPECT_TRUE(attends(o, q, k, v, [&](auto real) {
        ref::options<decltype(real)> with;
        with.bias = [&](index_t b, index_t h, index_t row, index_t, index_t j) {
            return static_cast<decltype(real)>(table(b, h, row, j));
        };
        return with;
    })) << N << " rows";
    for (index_t n = 0; n < N; ++n)
        for (index_t j = 0; j < M; ++j)
            if (n % 3 == 0)
                ASSERT_NEAR(static_cast<double>(weights(0, 0, n, j)) * static_cast<double>(M), 1, 1e-5);
            else if (j % 2 == 0)
                ASSERT_EQ(weights(0, 0, n, j), T(0));
}

TEST(attention_special, a_row_of_the_lowest_numbers_is_a_mean) {
    const auto in = [&]<class T>(T) {
        for (index_t N : {1, 5, 40}) {
            const auto table = tensor<T>({1, 1, N, 70}).fill([](index_t i) {
                return i / 70 % 3 == 0 || i % 2 == 0 ? static_cast<double>(std::numeric_limits<T>::lowest()) : 0.0;
            });
            lowest_logits_share_a_row(N, additive{table.v()}, table);
            lowest_logits_share_a_row(N, bias{table.v()}, table);
        }
    };
    in(float{}), in(double{});
}

template <class T>
void rows_beside_full_ones_may_see_nothing() {
    const index_t N = 60, M = 128;
    const auto q = normal<T>({1, 1, N, 8}, 1), k = normal<T>({1, 1, M, 8}, 2), v = normal<T>({1, 1, M, 8}, 3);
    tensor<T> o(q.shape());
    std::vector<float> sums(static_cast<std::size_t>(N));
    for (index_t seeing = 0; seeing <= N; ++seeing) {
        attention(q, k, v, o, [=](const where& w) { return w.row < seeing; }, lse{dense(sums.data(), {1, 1, N})});
        for (index_t n = 0; n < N; ++n) {
            ASSERT_EQ(std::isfinite(sums[static_cast<std::size_t>(n)]), n < seeing) << n << " of " << seeing;
            for (index_t d = 0; d < 8; ++d) {
                ASSERT_EQ(static_cast<double>(o(0, 0, n, d)) != 0, n < seeing) << n << " of " << seeing;
                ASSERT_TRUE(std::isfinite(static_cast<double>(o(0, 0, n, d)))) << n << " of " << seeing;
            }
        }
    }
}

TEST(attention_special, probes_share_out_logits_of_any_size_as_the_output_does) {
    constexpr index_t N = 20, M = 40, D = 16;
    const auto k = constant<float>({1, 1, M, D}, 1.1e15), v = constant<float>({1, 1, M, D}, 1);
    for (double size : {1e15, 1.234e15, 3.7e10, 77.7e3}) {
        SCOPED_TRACE(size);
        const auto q = constant<float>({1, 1, N, D}, size);
        tensor<float> o(q.shape()), shares({1, 1, N, M});
        attention(q, k, v, o, logits{shares.v(), stage::probability});
        shares.each([&](index_t b, index_t h, index_t n, index_t m) { ASSERT_FLOAT_EQ(shares(b, h, n, m), 1.0f / M); });
    }
}

TEST(attention_special, rows_beside_full_ones_may_see_nothing) {
    rows_beside_full_ones_may_see_nothing<float>();
    rows_beside_full_ones_may_see_nothing<double>();
    rows_beside_full_ones_may_see_nothing<bf16>();
}

TEST(attention_special, empty_extents_are_valid) {
    for (extents<4> qs : {extents<4>{0, 2, 3, 4}, {2, 0, 3, 4}, {2, 2, 0, 4}, {2, 2, 3, 0}})
        for (index_t M : {0, 5}) {
            const index_t B = qs[0], H = qs[1], D = qs[3];
            const auto q = normal<float>(qs, 1), k = normal<float>({B, H, M, D}, 2), v = normal<float>({B, H, M, 6}, 3);
            tensor<float> o({B, H, qs[2], 6});
            attention(q, k, v, o);
            o.each([&](index_t b, index_t h, index_t n, index_t d) {
                if (M == 0) {
                    ASSERT_EQ(o(b, h, n, d), 0.f);
                } else if (D == 0) {  // all logits are 0: the mean of v
                    float mean = 0;
                    for (index_t j = 0; j < M; ++j) mean += v(b, h, j, d) / static_cast<float>(M);
                    ASSERT_NEAR(o(b, h, n, d), mean, 1e-6);
                }
            });
        }
    tensor<float> none({1, 1, 3, 0});
    attention(normal<float>({1, 1, 3, 4}, 1), normal<float>({1, 1, 5, 4}, 2), tensor<float>({1, 1, 5, 0}), none);
}

TEST(attention_special, values_of_one_give_one) {
    const auto q = normal<float>({1, 2, 50, 16}, 1, 3), k = normal<float>({1, 2, 300, 16}, 2, 3);
    const auto v = constant<float>({1, 2, 300, 16}, 1);
    tensor<float> o({1, 2, 50, 16});
    attention(q, k, v, o, causal{});
    o.each([&](index_t b, index_t h, index_t n, index_t d) { ASSERT_NEAR(o(b, h, n, d), 1, 1e-6); });
}

TEST(attention_special, keys_may_be_permuted) {
    const auto q = normal<double>({1, 1, 30, 8}, 1), k = normal<double>({1, 1, 97, 8}, 2), v = normal<double>({1, 1, 97, 8}, 3);
    tensor<double> k2(k.shape()), v2(v.shape()), o(q.shape()), o2(q.shape());
    k.each([&](index_t, index_t, index_t j, index_t d) {
        k2(0, 0, (j * 35) % 97, d) = k(0, 0, j, d);
        v2(0, 0, (j * 35) % 97, d) = v(0, 0, j, d);
    });
    attention(q, k, v, o);
    attention(q, k2, v2, o2);
    o.each([&](index_t, index_t, index_t n, index_t d) { ASSERT_NEAR(o(0, 0, n, d), o2(0, 0, n, d), 1e-14); });
}

TEST(attention_special, the_scale_is_replaced_alone_or_first_in_a_pipe) {
    const auto q = normal<float>({1, 1, 30, 8}, 1), k = normal<float>({1, 1, 40, 8}, 2), v = normal<float>({1, 1, 40, 8}, 3);
    tensor<float> o(q.shape());
    const auto with_scale = [](double s, bool capped) {
        return [=](auto real) {
            ref::options<decltype(real)> with;
            with.scale = s;
            if (capped) with.score = [](auto x, auto...) { return 5 * std::tanh(x / 5); };
            return with;
        };
    };
    for (double s : {0.0, 0.01, 2.0, -1.5}) {
        attention(q, k, v, o, scale{s});
        EXPECT_TRUE(attends(o, q, k, v, with_scale(s, false))) << s;
        attention(q, k, v, o, scale{s} >> softcap{5});
        EXPECT_TRUE(attends(o, q, k, v, with_scale(s, true))) << s;
        attention(q, k, v, o, softcap{5}, scale{s});
        EXPECT_TRUE(attends(o, q, k, v, with_scale(s, true))) << s;
    }
}

TEST(attention_special, a_sink_takes_mass_and_has_no_value) {
    const auto q = normal<float>({1, 3, 30, 8}, 1), k = normal<float>({1, 3, 40, 8}, 2), v = normal<float>({1, 3, 40, 8}, 3);
    tensor<float> o(q.shape());
    for (std::vector<float> logit : {std::vector<float>{0, 0, 0}, {1, -3, 20}, {100, -100, 0.5f}}) {
        std::vector<float> sums(90);
        attention(q, k, v, o, causal{}, sink{logit}, lse{dense(sums.data(), {1, 3, 30})}, offset{-5});
        EXPECT_TRUE(attends(o, q, k, v, [&](auto real) {
            ref::options<decltype(real)> with;
            with.sink.assign(logit.begin(), logit.end());
            with.offset = -5;
            with.visible = [](index_t, index_t, index_t, index_t i, index_t j) { return j <= i; };
            return with;
        }));
        EXPECT_FLOAT_EQ(sums[0], logit[0]);  // sees no key: only the sink is summed
    }
}

TEST(attention_special, errors_name_the_operator_the_argument_and_both_numbers_and_nothing_is_written) {
    const auto q = normal<float>({2, 4, 10, 8}, 1), k = normal<float>({2, 2, 12, 8}, 2), v = normal<float>({2, 2, 12, 6}, 3);
    tensor<float> o({2, 4, 10, 6});
    const auto T = [](extents<4> s) { return normal<float>(s, 9); };
    refuses<std::invalid_argument>([&] { attention(q, T({2, 2, 12, 9}), v, o); }, "attention: k has width 9, q has 8");
    refuses<std::invalid_argument>([&] { attention(q, T({3, 2, 12, 8}), v, o); }, "attention: k has batch 3, q has 2");
    refuses<std::invalid_argument>([&] { attention(q, T({2, 3, 12, 8}), T({2, 3, 12, 6}), o); },
                "attention: q has 4 heads, not a multiple of the 3 of k");
    refuses<std::invalid_argument>([&] { attention(q, k, T({2, 2, 13, 6}), o); }, "attention: v has keys 13, k has 12");
    refuses<std::invalid_argument>([&] { attention(q, k, T({2, 1, 12, 6}), o); }, "attention: v has heads 1, k has 2");
    refuses<std::invalid_argument>([&] { tensor<float> bad({2, 4, 10, 7}); attention(q, k, v, bad); }, "attention: o has width 7, v has 6");
    refuses<std::invalid_argument>([&] { tensor<float> bad({2, 4, 11, 6}); attention(q, k, v, bad); }, "attention: o has rows 11, q has 10");
    auto same = T({2, 4, 10, 8});
    refuses<std::invalid_argument>([&] { attention(same, T({2, 2, 12, 8}), T({2, 2, 12, 8}), same); }, "attention: o overlaps q in memory");
    refuses<std::invalid_argument>([&] { attention(q, k, v, o, softcap{0}); }, "softcap is 0");
    refuses<std::invalid_argument>([&] { attention(q, k, v, o, scale{INFINITY}); }, "attention: scale is not finite");
    const std::vector<float> three(3);
    refuses<std::invalid_argument>([&] { attention(q, k, v, o, sink{three}); }, "attention: sink holds 3 logits, q has 4 heads");
    std::vector<float> sums(80);
    refuses<std::invalid_argument>([&] { attention(q, k, v, o, lse{dense(sums.data(), {2, 4, 9})}); }, "attention: lse has shape (2, 4, 9)");
    o.each([&](index_t b, index_t h, index_t n, index_t d) { ASSERT_TRUE(std::isnan(o(b, h, n, d))); });
}

}  // namespace
