// Values of recurrences by how they read, forget and normalise: reads before the update, a bonus, value decays, complex
// decays, normalisers and feature maps.
#include "recurs.hpp"

using namespace test;

namespace {

const recurrence_sizes shapes[] = {
    {1, 1, 1, 1, 0, 8, 8},        {1, 1, 1, 1, 1, 8, 8},         {1, 1, 1, 1, 15, 7, 3},
    {1, 1, 1, 1, 17, 5, 17},      {3, 4, 4, 4, 100, 1, 1, 1, 4}, {1, 1, 1, 1, 40, 33, 80},
    {2, 4, 4, 4, 20, 9, 8, 1, 4}, {2, 4, 2, 2, 33, 8, 9, 1, 2},  {1, 1, 2, 4, 20, 8, 8, 1, 1},
};

template <class F>
void each_shape(F&& f) {
    for (const auto& s : shapes) {
        SCOPED_TRACE(testing::Message() << s);
        f(recurrence_data<float>(s, static_cast<std::uint64_t>(s.N)));
    }
}

TEST(recurrence_reads, before_the_update) {
    each_shape([](const auto& x) {
        EXPECT_TRUE(recurs(x, before | by_token, x.token_gate(), read_before{}));
        EXPECT_TRUE(recurs(x, before | by_token, x.token_gate(), read_before{}, chunked{32}));
        EXPECT_TRUE(recurs(x, before | by_channel, x.channel_gate(), read_before{}));
        EXPECT_TRUE(recurs(x, before | delta, x.delta_update(), read_before{}));
        EXPECT_TRUE(recurs(x, before | delta, x.delta_update(), read_before{}, chunked{32}));
    });
}

TEST(recurrence_reads, before_the_update_a_token_does_not_feel_itself) {
    const recurrence_data<float> x({1, 2, 2, 2, 60, 12, 17});
    const auto check = [&](const auto&... policies) {
        tensor<float> o(x.v.shape()), spoilt(x.v.shape());
        recurrence(x.q, x.k, x.v, o, read_before{}, policies...);
        for (index_t t : {0, 1, 15, 16, 37, 59}) {
            auto k = x.k, v = x.v;
            for (auto* y : {&k, &v})
                y->each([&](index_t b, index_t h, index_t n, index_t d) {
                    if (n >= t) (*y)(b, h, n, d) = static_cast<float>(std::nan(""));
                });
            recurrence(x.q, k, v, spoilt, read_before{}, policies...);
            o.each([&](index_t b, index_t h, index_t n, index_t e) {
                if (n <= t)
                    ASSERT_EQ(o(b, h, n, e), spoilt(b, h, n, e)) << "t " << t << " row " << n;
                else
                    ASSERT_TRUE(std::isnan(spoilt(b, h, n, e)));
            });
        }
    };
    check(x.token_gate());
    check(x.token_gate(), chunked{32});
    check(x.channel_gate(), chunked{32});
    check(x.delta_update(), chunked{32});
}

TEST(recurrence_reads, with_a_bonus) {
    each_shape([](const auto& x) {
        EXPECT_TRUE(recurs(x, with_bonus | by_channel, x.channel_gate(), x.bonus_read()));
        EXPECT_TRUE(recurs(x, with_bonus | by_channel, x.channel_gate(), x.bonus_read(), chunked{32}));
        EXPECT_TRUE(recurs(x, with_bonus, x.bonus_read()));
    });
}

TEST(recurrence_reads, value_decays) {
    each_shape([](const auto& x) { EXPECT_TRUE(recurs(x, by_value, x.value_gate())); });
    const recurrence_data<double> x({1, 2, 2, 2, 40, 9, 17, 1, 2});
    EXPECT_TRUE(recurs(x, by_value, x.value_gate()));
}

TEST(recurrence_reads, value_decays_and_the_delta_rule) {
    each_shape([](const auto& x) { EXPECT_TRUE(recurs(x, by_value | delta, x.value_gate(), x.delta_update())); });
}

TEST(recurrence_reads, complex_decays) {
    each_shape([](const auto& x) { EXPECT_TRUE(recurs(x, turning, x.complex_gate())); });
    const recurrence_data<double> x({1, 2, 2, 2, 40, 9, 17, 1, 2});
    EXPECT_TRUE(recurs(x, turning, x.complex_gate()));
}

TEST(recurrence_reads, a_complex_decay_may_be_one_for_all_channels) {
    recurrence_data<float> x({1, 2, 2, 2, 20, 9, 8});
    const auto first = [](const tensor<float>& g) { return slice(g.v(), 3, {0, 1}); };
    const auto from = beginning<float>(1, 2, 18, 8);
    const auto run = [&](view<const float> magnitude, view<const float> phase) {
        return recur_from(from, x.q, x.k, x.v, complex_decay{magnitude, phase});
    };
    const auto alike = [](tensor<float> g) {
        g.each([&](index_t b, index_t h, index_t n, index_t d) { g(b, h, n, d) = g(b, h, n, 0); });
        return g;
    };
    const auto magnitude = alike(x.channel), phase = alike(x.angle);
    EXPECT_TRUE(same_values(run(first(x.channel), first(x.angle)), run(magnitude.v(), phase.v())));
    EXPECT_TRUE(same_values(run(first(x.channel), x.angle.v()), run(magnitude.v(), x.angle.v())));
    EXPECT_TRUE(same_values(run(x.channel.v(), first(x.angle)), run(x.channel.v(), phase.v())));
}

TEST(recurrence_reads, complex_decays_of_no_channels_read_nothing) {
    const recurrence_data<float> x({2, 2, 2, 2, 20, 0, 5}), wide({2, 2, 2, 2, 20, 1, 5});
    EXPECT_TRUE(recurs(x, turning, x.complex_gate()));
    EXPECT_TRUE(recurs(x, turning, complex_decay{x.channel.v(), wide.angle.v()}));
    EXPECT_TRUE(recurs(x, turning, complex_decay{wide.channel.v(), x.angle.v()}));
}

TEST(recurrence_reads, complex_decays_turn_by_any_angle) {
    recurrence_data<float> x({1, 2, 2, 2, 40, 9, 17, 1, 2});
    for (double reach : {1.0, 3e3, 3e5}) {  // within what packs turn by, at its edge and beyond
        x.angle.each([&](index_t b, index_t h, index_t n, index_t d) {
            x.angle(b, h, n, d) = static_cast<float>(reach * (d % 3 + 1) * std::cos(static_cast<double>(n * 9 + d)));
        });
        EXPECT_TRUE(recurs(x, turning, x.complex_gate()));
    }
}

TEST(recurrence_reads, complex_decay_without_a_turn_is_channel_decay) {
    recurrence_data<double> x({1, 2, 2, 2, 40, 9, 17, 1, 2});
    x.angle.fill([](index_t) { return 0; });
    tensor<double> o(x.v.shape()), turned(x.v.shape());
    recurrence(x.q, x.k, x.v, o, x.channel_gate());
    recurrence(x.q, x.k, x.v, turned, x.complex_gate());
    EXPECT_TRUE(all_near(o, turned, 1e-14));
}

/// The definition normalised, with the feature map elu + 1.
template <class T>
auto normalised(const recurrence_data<T>& x, unsigned parts, double floor = 0, bool absolute = false) {
    return [&x, parts, floor, absolute](auto real) {
        using R = decltype(real);
        auto with = x.defined(parts)(real);
        with.query_features = [](std::vector<R> row, index_t) {
            for (R& one : row) one = one > 0 ? one + 1 : std::exp(one);
            return row;
        };
        with.key_features = with.query_features;
        with.normalised = true;
        with.absolute = absolute;
        if (floor > 0) with.floor = [floor](index_t, index_t, index_t) { return static_cast<R>(floor); };
        return with;
    };
}

TEST(recurrence_reads, normalised_features) {
    each_shape([](const auto& x) {
        const auto check = [&](const auto& make, const auto&... policies) {
            EXPECT_TRUE(recurs(x.q, x.k, x.v, make, elu_plus_one{}, policies...));
            EXPECT_TRUE(recurs(x.q, x.k, x.v, make, elu_plus_one{}, policies..., chunked{32}));
        };
        check(normalised(x, plain), sum_of_keys{});
        check(normalised(x, plain, 40), sum_of_keys{40});
        check(normalised(x, by_token), x.token_gate(), sum_of_keys{});
        check(normalised(x, by_channel), x.channel_gate(), sum_of_keys{});
    });
}

TEST(recurrence_reads, weights_of_a_row_sum_to_1) {
    const recurrence_data<float> x({1, 2, 2, 2, 50, 8, 4});
    const auto ones = constant<float>(x.v.shape(), 1);
    tensor<float> o(x.v.shape());
    recurrence(x.q, x.k, ones, o, elu_plus_one{}, sum_of_keys{}, x.channel_gate());
    EXPECT_TRUE(all_near(o, ones, 1e-5));
    recurrence(x.q, x.k, ones, o, sum_of_keys{0, true}, x.channel_gate());  // of either sign: |q.z|
    o.each([&](index_t, index_t h, index_t n, index_t e) { ASSERT_NEAR(std::abs(o(0, h, n, e)), 1, 1e-5); });
}

TEST(recurrence_reads, a_denominator_of_0_gives_0) {
    recurrence_data<float> x({1, 1, 1, 1, 30, 4, 6});
    for (index_t n = 0; n < 30; ++n)
        for (index_t d = 0; d < 4; ++d) {
            x.q(0, 0, n, d) = n % 2 ? 1.0f : 0.0f;
            x.k(0, 0, n, d) = n < 5 ? 0.0f : 1.0f;
        }
    tensor<float> o(x.v.shape());
    recurrence(x.q, x.k, x.v, o, sum_of_keys{});
    o.each([&](index_t, index_t, index_t n, index_t e) {
        ASSERT_EQ(o(0, 0, n, e) == 0, n < 5 || n % 2 == 0) << n << ", " << e;
    });
}

TEST(recurrence_reads, scales) {
    const recurrence_data<float> x({1, 2, 2, 2, 30, 9, 5});
    for (double by : {0.0, 0.25, 1.0, -3.0})
        EXPECT_TRUE(recurs(
            x.q, x.k, x.v,
            [&](auto real) {
                auto with = x.defined(by_token)(real);
                with.scale = by;
                return with;
            },
            x.token_gate(), scale{by}));
}

}  // namespace
