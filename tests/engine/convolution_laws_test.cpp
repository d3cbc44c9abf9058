// heed_test: BUSY LABELS sanitize threads
#include <heed/core/threads.hpp>
#include <heed/engine/convolution.hpp>
#include <heed/ref/convolution.hpp>

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

constexpr convolution_form forms[] = {convolution_form::direct, convolution_form::transform};

TEST(convolution, pieces_of_any_lengths_are_one_shot) {
    constexpr index_t B = 2, N = 700, C = 6;
    const auto x = test::normal<double>({B, 1, N, C}, 1, 1, layout::channels_first());
    const auto g = test::normal<double>(x.shape(), 2);
    for (index_t K : {1, 2, 5, 64, 150, 700})
        for (auto form : forms)
            for (std::uint64_t seed = 0; seed < 6; ++seed) {
                const auto h = test::normal<double>({1, 1, C, K}, 3);
                const convolution_filter<double> filter(matrix(h), {.form = form});
                tensor<double> whole(x.shape()), pieces(x.shape());
                convolution(sequence(x), filter, sequence(whole), input_gate(sequence(g)));
                auto before = test::constant<double>({B, 1, C, std::max<index_t>(K - 1, 1)}, 0);
                view<double, 3> held = sequence(before);
                held.shape[2] = K - 1;
                const counter_random random(seed);
                std::uint64_t drawn = 0;
                for (index_t n = 0; n < N;) {
                    const index_t most = random.integer(drawn, 0, 3) == 0 ? 200 : 20;
                    const range piece{n, std::min(N, n + random.integer(drawn + 1, 0, most))};
                    drawn += 2;
                    convolution(slice(sequence(x), 1, piece), filter, slice(sequence(pieces), 1, piece), past(held),
                                input_gate(slice(sequence(g), 1, piece)));
                    n = piece.last;
                }
                if (form == convolution_form::direct) EXPECT_TRUE(test::same_values(whole, pieces)) << K;
                EXPECT_LE(test::distance(whole, pieces), 1e-14 * test::norm(whole)) << K;
                for (index_t i = 0; i < K - 1; ++i)
                    ASSERT_EQ(held(1, 2, i), x(1, 0, N - (K - 1) + i, 2) * g(1, 0, N - (K - 1) + i, 2));
            }
}

/// A stream of a few tokens at a time through a long filter, by direct sums, against one transform; a past of any
/// strides, and inputs of a narrower type.
template <class X>
void streams(index_t K, const layout& of_past, const layout& of_tokens) {
    constexpr index_t B = 2, N = 260, C = 5;
    const auto x = test::normal<X>({B, 1, N, C}, 1, 1, of_tokens);
    const auto g = test::normal<float>(x.shape(), 2), h = test::normal<float>({1, 1, C, K}, 3);
    const std::vector<float> raise{1, -2, 3, 0, 5};
    const convolution_filter<float> chosen(matrix(h)), transform(matrix(h), {.form = convolution_form::transform});
    tensor<float> whole(x.shape());
    convolution(sequence(x), transform, sequence(whole), input_gate(sequence(g)), output_gate(sequence(g)),
                channel_bias(dense(raise.data(), {C})));
    for (index_t length : {1, 2, 3, 7, 64, 200}) {
        SCOPED_TRACE("K " + std::to_string(K) + ", pieces of " + std::to_string(length));
        tensor<float> pieces(x.shape(), of_tokens), before({B, 1, C, K - 1}, of_past);
        before.fill([](index_t) { return 0; });
        for (index_t n = 0; n < N; n += length) {
            const range piece{n, std::min(N, n + length)};
            const auto some = [&](const auto& v) { return slice(v, 1, piece); };
            convolution(some(sequence(x)), chosen, some(sequence(pieces)), past(sequence(before)),
                        input_gate(some(sequence(g))), output_gate(some(sequence(g))),
                        channel_bias(dense(raise.data(), {C})));
        }
        EXPECT_LE(test::distance(whole, pieces), 2e-7 * test::norm(whole));
        EXPECT_TRUE(pieces.poisoned_outside());
        EXPECT_TRUE(before.poisoned_outside());
        for (index_t i = 0; i < std::min(N, K - 1); ++i)
            ASSERT_EQ(before(1, 0, 2, K - 2 - i), static_cast<float>(x(1, 0, N - 1 - i, 2)) * g(1, 0, N - 1 - i, 2));
    }
}

TEST(convolution, a_few_tokens_of_a_long_filter_are_direct_sums) {
    for (index_t K : {100, 1000, 1037, 2048}) {
        streams<float>(K, layout::heads(), layout::channels_first());
        streams<bf16>(K, layout::strided(), layout::strided());
    }
    // One token costs no transform: no scratch for one, whatever its length.
    const auto h = test::normal<float>({1, 1, 1, 5000}, 1);
    const convolution_filter<float> chosen(matrix(h)), transform(matrix(h), {.form = convolution_form::transform});
    std::vector<float> x(1), y(1), before(4999);
    const auto bytes = [&](const auto& filter) {
        serial alone;
        std::size_t need = 0;
        convolution(dense(x.data(), {1, 1, 1}), filter, dense(y.data(), {1, 1, 1}), scratch_size(alone, need),
                    past(dense(before.data(), {1, 1, 4999})));
        return need;
    };
    EXPECT_LT(bytes(chosen), 100'000u);
    EXPECT_GT(bytes(transform), 2 * bytes(chosen));
}

TEST(convolution, a_few_tokens_are_causal_to_the_bit) {
    const auto h = test::normal<float>({1, 1, 3, 1003}, 1);
    for (index_t ahead : {0, 2}) {
        const convolution_filter<float> filter(matrix(h), {.ahead = ahead});
        for (index_t N : {1, 5, 30})
            for (index_t cut = 0; cut < N; ++cut) {
                const auto x = test::normal<float>({1, 1, N, 3}, 2);
                auto spoilt = x;
                for (index_t n = cut; n < N; ++n)
                    for (index_t c = 0; c < 3; ++c)
                        spoilt(0, 0, n, c) = c == 0 ? std::nanf("") : c == 1 ? HUGE_VALF : 1e38f;
                tensor<float> y(x.shape()), z(x.shape());
                convolution(sequence(x), filter, sequence(y));
                convolution(sequence(spoilt), filter, sequence(z));
                for (index_t n = 0; n < cut - ahead; ++n)
                    for (index_t c = 0; c < 3; ++c) ASSERT_EQ(y(0, 0, n, c), z(0, 0, n, c)) << n;
                for (index_t n = std::max<index_t>(0, cut - ahead); n < N; ++n) {
                    ASSERT_TRUE(std::isnan(z(0, 0, n, 0)));
                    ASSERT_FALSE(std::isfinite(z(0, 0, n, 1)));
                }
            }
    }
}

TEST(convolution, direct_sums_are_causal_to_the_bit) {
    for (index_t N : {40, 1500})
        for (index_t cut : {1, 17, 39}) {
            const auto h = test::normal<float>({1, 1, 3, 30}, 1);
            const convolution_filter<float> filter(matrix(h), {.form = convolution_form::direct});
            const auto x = test::normal<float>({1, 1, N, 3}, 2);
            auto spoilt = x;
            for (index_t n = cut; n < N; ++n)
                for (index_t c = 0; c < 3; ++c)
                    spoilt(0, 0, n, c) = c == 0 ? std::nanf("") : c == 1 ? HUGE_VALF : 1e38f;
            tensor<float> y(x.shape()), z(x.shape());
            convolution(sequence(x), filter, sequence(y));
            convolution(sequence(spoilt), filter, sequence(z));
            for (index_t n = 0; n < cut; ++n)
                for (index_t c = 0; c < 3; ++c) ASSERT_EQ(y(0, 0, n, c), z(0, 0, n, c)) << n;
            for (index_t n = cut; n < N; ++n) ASSERT_TRUE(std::isnan(z(0, 0, n, 0)));
        }
}

TEST(convolution, transforms_are_causal_to_rounding) {
    constexpr index_t N = 500, cut = 213;
    const auto h = test::normal<float>({1, 1, 2, N}, 1), x = test::normal<float>({1, 1, N, 2}, 2);
    const convolution_filter<float> filter(matrix(h), {.longest = N, .form = convolution_form::transform});
    auto changed = x;
    for (index_t n = cut; n < N; ++n) changed(0, 0, n, 0) = -x(0, 0, n, 0);
    tensor<float> y(x.shape()), z(x.shape());
    convolution(sequence(x), filter, sequence(y));
    convolution(sequence(changed), filter, sequence(z));
    const double size = test::norm(h) * test::norm(x);
    for (index_t n = 0; n < cut; ++n) ASSERT_NEAR(y(0, 0, n, 0), z(0, 0, n, 0), 1e-7 * size);
    EXPECT_GT(std::abs(y(0, 0, cut, 0) - z(0, 0, cut, 0)), 1e-3);
}

TEST(convolution, what_is_not_finite_reaches_what_the_filter_reaches) {
    for (index_t K : {50, 300, 900})
        for (index_t ahead : {0, 20})
            for (const layout& l : {layout::heads(), layout::channels_first()}) {
                constexpr index_t N = 900, at = 410;
                const auto h = test::normal<double>({1, 1, 6, K}, 1);
                const convolution_filter<double> filter(matrix(h),
                                                        {.ahead = ahead, .form = convolution_form::transform});
                auto x = test::normal<double>({1, 1, N, 6}, 2, 1, l);
                x(0, 0, at, 1) = 0;
                auto spoilt = x;
                spoilt(0, 0, at, 1) = K == 300 ? HUGE_VAL : std::nan("");
                tensor<double> y(x.shape(), l), z(x.shape(), l);
                convolution(sequence(x), filter, sequence(y));
                convolution(sequence(spoilt), filter, sequence(z));
                y.each([&](index_t, index_t, index_t n, index_t c) {
                    if (c == 1 && at - ahead <= n && n < at - ahead + K)
                        ASSERT_TRUE(std::isnan(z(0, 0, n, c))) << n;
                    else
                        ASSERT_EQ(y(0, 0, n, c), z(0, 0, n, c)) << n << " " << c;
                });
            }
}

TEST(convolution, bits_do_not_depend_on_threads_or_neighbours) {
    threads pool(3);
    for (auto form : forms) {
        const auto x = test::normal<float>({3, 1, 1200, 35}, 1), h = test::normal<float>({1, 1, 35, 90}, 2);
        const convolution_filter<float> filter(matrix(h), {.form = form});
        tensor<float> one(x.shape()), many(x.shape()), alone({1, 1, 1200, 35});
        convolution(sequence(x), filter, sequence(one));
        std::size_t bytes = 0;
        convolution(sequence(x), filter, sequence(many), scratch_size(pool, bytes));
        arena scratch(bytes);
        std::fill_n(reinterpret_cast<float*>(scratch.data()), bytes / sizeof(float), std::nanf(""));
        convolution(sequence(x), filter, sequence(many), on(pool, scratch));
        EXPECT_TRUE(test::same_values(one, many));
        convolution(slice(sequence(x), 0, range{1, 2}), filter, sequence(alone));
        for (index_t n = 0; n < 1200; ++n)
            for (index_t c = 0; c < 35; ++c) ASSERT_EQ(alone(0, 0, n, c), one(1, 0, n, c));
    }
}

TEST(convolution, a_million_tokens) {
    constexpr index_t N = 1'000'003, C = 1;
    std::vector<float> x(N * C), h(N * C), y(N * C);
    const counter_random random(1);
    double x2 = 0, h2 = 0;
    for (index_t i = 0; i < N; ++i) {
        x[i] = static_cast<float>(random.uniform(test::number(2 * i)) - 0.5);
        h[i] = static_cast<float>((random.uniform(test::number(2 * i + 1)) - 0.5) * std::exp(-3e-6 * double(i)));
        x2 += double(x[i]) * x[i], h2 += double(h[i]) * h[i];
    }
    const convolution_filter<float> filter(dense(h.data(), {C, N}), {.longest = N});
    convolution(channels(x.data(), {1, C, N}), filter, channels(y.data(), {1, C, N}));
    for (index_t t : {index_t(0), index_t(1), index_t(65536), N / 2, N - 2, N - 1}) {
        double exact = 0;
        for (index_t k = 0; k <= t; ++k) exact += double(h[k]) * x[t - k];
        EXPECT_NEAR(y[t], exact, 3e-8 * std::sqrt(x2 * h2)) << t;
    }
}

TEST(convolution, assigned_taps_are_those_of_a_new_filter) {
    const auto x = test::normal<float>({2, 1, 70, 5}, 1), first = test::normal<float>({1, 1, 5, 90}, 2),
               second = test::normal<float>(first.shape(), 3);
    const std::vector<float> skip(5, 1);
    for (auto form : forms)
        for (index_t ahead : {0, 80})
            for (index_t longest : {0, 70}) {
                const filter_options options{longest, ahead, form};
                convolution_filter<float> filter(matrix(first), dense(skip.data(), {5}), options);
                filter.assign(matrix(second));
                tensor<float> y(x.shape()), z(x.shape());
                convolution(sequence(x), filter, sequence(y));
                convolution(sequence(x), convolution_filter<float>(matrix(second), options), sequence(z));
                EXPECT_TRUE(test::same_values(y, z));
            }
}

TEST(convolution, empty_extents) {
    const auto h = test::normal<float>({1, 1, 4, 50}, 1);
    const convolution_filter<float> filter(matrix(h)), none(view<const float, 2>{nullptr, {4, 0}, {0, 1}}),
        no_channels(view<const float, 2>{nullptr, {0, 50}, {50, 1}});
    std::vector<float> x(40, 1), y(40, 5);
    convolution(dense(x.data(), {0, 10, 4}), filter, dense(y.data(), {0, 10, 4}));
    convolution(dense(x.data(), {1, 0, 4}), filter, dense(y.data(), {1, 0, 4}));
    convolution(dense(x.data(), {1, 10, 0}), no_channels, dense(y.data(), {1, 10, 0}));
    EXPECT_EQ(y, std::vector<float>(40, 5));
    convolution(dense(x.data(), {1, 10, 4}), none, dense(y.data(), {1, 10, 4}));
    EXPECT_EQ(y, std::vector<float>(40, 0));
}

TEST(convolution, refuses_what_does_not_fit) {
    std::vector<float> m(4000, 1);
    auto at = [&](index_t i) { return m.data() + i; };
    const auto x = dense(at(0), {2, 10, 4}), y = dense(at(100), {2, 10, 4});
    const auto h = dense(at(200), {4, 50});
    const convolution_filter<float> filter(h), limited(h, {.longest = 9}), looking(h, {.ahead = 3});
    refuses<shape_error>(
        [&] {
            convolution(dense(at(0), {2, 10, 3}), filter, y);
        },
        "convolution: x has 3 channels, the filter has 4");
    refuses<shape_error>(
        [&] {
            convolution(x, filter, dense(at(100), {2, 9, 4}));
        },
        "convolution: token extent of y is 9, of x 10");
    refuses<shape_error>([&] { convolution(x, filter, dense(at(40), {2, 10, 4})); }, "convolution: y overlaps x");
    refuses<shape_error>(
        [&] {
            convolution(x, filter, y, input_gate(dense(at(0), {2, 10, 3})));
        },
        "channel extent of the input gate is 3, of x 4");
    refuses<shape_error>(
        [&] {
            convolution(x, filter, y, output_gate(dense(at(120), {2, 10, 4})));
        },
        "y overlaps the output gate");
    refuses<shape_error>([&] { convolution(x, filter, y, channel_bias(dense(at(0), {3}))); },
                         "the bias has 3 channels, the filter has 4");
    refuses<shape_error>([&] { convolution(x, filter, y, channel_bias(dense(at(176), {4}))); },
                         "y or the past overlaps the bias");
    refuses<shape_error>(
        [&] {
            convolution(x, filter, y, past(dense(at(1000), {2, 4, 49})), channel_bias(dense(at(1100), {4})));
        },
        "y or the past overlaps the bias");
    refuses<shape_error>(
        [&] {
            convolution(x, filter, y, past(dense(at(1000), {2, 4, 48})));
        },
        "the past has 48 tokens, 50 taps need 49");
    refuses<argument_error>([&] { convolution(x, limited, y); }, "x has 10 tokens, the filter is for at most 9");
    refuses<argument_error>(
        [&] {
            convolution(x, looking, y, past(dense(at(1000), {2, 4, 49})));
        },
        "the filter looks 3 tokens ahead");
    refuses<argument_error>([&] { convolution_filter<float> f(h, {.ahead = 50}); }, "ahead is 50 of 50 taps");
    refuses<shape_error>([&] { convolution_filter<float> f(h, dense(at(0), {3})); }, "skip has 3 channels");
    convolution_filter<float> other(h, {.longest = 9});
    refuses<shape_error>([&] { other.assign(dense(at(0), {4, 9})); },
                         "the taps assigned are (4, 9), those of before (4, 50)");
    m[333] = std::nanf("");
    refuses<argument_error>([&] { convolution_filter<float> f(h); }, "channel 2 has a tap that is not finite");
    refuses<argument_error>([&] { other.assign(h); }, "channel 2 has a tap that is not finite");
    arena small(64);
    threads one(1);
    refuses<argument_error>([&] { convolution(x, filter, y, on(one, small)); }, "the arena holds");
}

}  // namespace
