// heed_test: AS_USED BUSY LABELS sanitize
#include <heed/engine/convolution.hpp>
#include <heed/ref/convolution.hpp>

#include "../support/guarded.hpp"
#include "../support/sequences.hpp"

namespace {

using namespace heed;
using test::layout;
using test::matrix;
using test::sequence;
using test::tensor;

template <class T>
class convolution_of : public testing::Test {};
using reals = testing::Types<float, double>;
TYPED_TEST_SUITE(convolution_of, reals);

struct shape {
    index_t B, N, C, K, ahead = 0;
};

/// The convolution against the definition, everything random.
template <class T>
void agrees(const shape& s, const filter_options& options, const layout& in = {}, const layout& out = {},
            bool gated = false) {
    using real = std::conditional_t<std::is_same_v<T, double>, long double, double>;
    SCOPED_TRACE("B " + std::to_string(s.B) + " N " + std::to_string(s.N) + " C " + std::to_string(s.C) + " K " +
                 std::to_string(s.K) + " ahead " + std::to_string(s.ahead) + " form " +
                 std::to_string(static_cast<int>(options.form)));
    const auto x = test::normal<T>({s.B, 1, s.N, s.C}, 1, 1, in), h = test::normal<T>({1, 1, s.C, s.K}, 2);
    const auto g = test::normal<T>(x.shape(), 3, 1, in), g2 = test::normal<T>(x.shape(), 4, 1, out);
    tensor<T> y(x.shape(), out), naive(x.shape());
    tensor<double> exact(x.shape());
    const convolution_filter<T> filter(matrix(h), options);
    const view<const T, 3> none;
    const auto before = gated ? sequence(g) : none, after = gated ? sequence(g2) : none;
    if (gated)
        convolution(sequence(x), filter, sequence(y), output_gate(after), input_gate(before));
    else
        convolution(sequence(x), filter, sequence(y));
    ref::convolution<real>(sequence(x), matrix(h), sequence(exact), s.ahead, before, after);
    ref::convolution<T>(sequence(x), matrix(h), sequence(naive), s.ahead, before, after);
    EXPECT_TRUE((test::within_norm<T>(y, naive, exact)));
    EXPECT_TRUE(y.poisoned_outside());
}

TYPED_TEST(convolution_of, every_length_both_forms) {
    for (index_t N = 1; N <= 300; ++N)
        for (auto form : {convolution_form::direct, convolution_form::transform}) {
            agrees<TypeParam>({1, N, 2, N}, {.longest = N, .form = form});
            agrees<TypeParam>({1, N, 1, 1 + N % 97}, {.form = form});
        }
    for (index_t N : {509, 521, 1021, 1031, 2053})
        agrees<TypeParam>({1, N, 1, N}, {.longest = N, .form = convolution_form::transform});
}

TYPED_TEST(convolution_of, taps_ahead) {
    for (index_t N : {1, 16, 63, 64, 65, 200})
        for (index_t K : {1, 2, 65, 127, 400})
            for (index_t ahead : {K / 3, K - 1})
                for (index_t longest : {index_t(0), N})
                    for (auto form : {convolution_form::direct, convolution_form::transform})
                        agrees<TypeParam>({1, N, 3, K, ahead}, {longest, ahead, form});
}

TYPED_TEST(convolution_of, layouts_widths_and_gates) {
    for (const layout& in : {layout::heads(), layout::channels_first(), layout::padded(), layout::strided()})
        for (const layout& out : {layout::heads(), layout::channels_first(), layout::strided()})
            for (index_t C : {1, 3, 4, 5, 16, 17, 33})
                for (auto form : {convolution_form::direct, convolution_form::transform})
                    agrees<TypeParam>({2, 67, C, 50}, {.form = form}, in, out, C % 2 == 1);
}

TYPED_TEST(convolution_of, short_filters_over_long_sequences) {
    for (index_t K : {1, 2, 3, 8, 40, 41, 100, 300})
        for (index_t N : {1023, 1024, 1025, 5000}) {
            agrees<TypeParam>({1, N, 2, K}, {});
            agrees<TypeParam>({1, N, 2, K}, {.form = convolution_form::transform}, layout::channels_first(),
                              layout::channels_first(), true);
        }
}

/// bf16 and f16 in and out: computed in float, rounded once.
template <class S>
void stored_in() {
    for (auto form : {convolution_form::direct, convolution_form::transform})
        for (const layout& l : {layout::heads(), layout::channels_first()}) {
            const auto x = test::normal<S>({2, 1, 130, 18}, 1, 1, l), h = test::normal<S>({1, 1, 18, 60}, 2);
            tensor<S> y(x.shape(), l);
            tensor<float> wide(x.shape());
            const convolution_filter<float> filter(matrix(h), {.form = form});
            convolution(sequence(x), filter, sequence(y));
            convolution(sequence(x), filter, sequence(wide));
            y.each([&](index_t b, index_t o, index_t n, index_t c) {
                ASSERT_EQ(static_cast<float>(y(b, o, n, c)), static_cast<float>(static_cast<S>(wide(b, o, n, c))));
            });
        }
}

TEST(convolution, storage_types) {
    stored_in<bf16>();
    stored_in<f16>();
}

TEST(convolution, skip_and_bias) {
    const auto x = test::normal<double>({2, 1, 100, 5}, 1), h = test::normal<double>({1, 1, 5, 80}, 2);
    const std::vector<double> d{1, -2, 3, 0.5, 7}, raise{5, 4, 3, 2, 1};
    for (auto form : {convolution_form::direct, convolution_form::transform})
        for (index_t ahead : {0, 20}) {
            tensor<double> plain(x.shape()), y(x.shape());
            const filter_options options{.ahead = ahead, .form = form};
            convolution(sequence(x), convolution_filter<double>(matrix(h), options), sequence(plain));
            convolution(sequence(x), convolution_filter<double>(matrix(h), dense(d.data(), {5}), options), sequence(y),
                        channel_bias(dense(raise.data(), {5})));
            y.each([&](index_t b, index_t, index_t n, index_t c) {
                ASSERT_NEAR(y(b, 0, n, c), plain(b, 0, n, c) + d[c] * x(b, 0, n, c) + raise[c], 1e-12);
            });
        }
}

TEST(convolution, linear_and_a_delta_is_the_identity) {
    constexpr index_t N = 333;
    const auto a = test::normal<double>({1, 1, N, 3}, 1), b = test::normal<double>(a.shape(), 2);
    const auto h = test::normal<double>({1, 1, 3, N}, 3);
    tensor<double> sum(a.shape()), ya(a.shape()), yb(a.shape()), y(a.shape()), delta({1, 1, 3, N});
    sum.each(
        [&](index_t i, index_t o, index_t n, index_t c) { sum(i, o, n, c) = 2 * a(i, o, n, c) - 3 * b(i, o, n, c); });
    delta.fill([](index_t i) { return i % N == 0; });
    const convolution_filter<double> filter(matrix(h));
    convolution(sequence(a), filter, sequence(ya));
    convolution(sequence(b), filter, sequence(yb));
    convolution(sequence(sum), filter, sequence(y));
    y.each([&](index_t i, index_t o, index_t n, index_t c) {
        ASSERT_NEAR(y(i, o, n, c), 2 * ya(i, o, n, c) - 3 * yb(i, o, n, c), 1e-12);
    });
    convolution(sequence(a), convolution_filter<double>(matrix(delta)), sequence(y));
    y.each([&](index_t i, index_t o, index_t n, index_t c) { ASSERT_NEAR(y(i, o, n, c), a(i, o, n, c), 1e-14); });
}

TEST(convolution, nothing_outside_is_touched) {
    for (auto side : {test::flush::front, test::flush::back})
        for (index_t N : {1, 15, 64, 100})
            for (index_t C : {1, 4, 17})
                for (bool by_token : {false, true})
                    for (auto form : {convolution_form::direct, convolution_form::transform}) {
                        test::guarded<float> x(N * C, side), y(N * C, side);
                        for (index_t i = 0; i < N * C; ++i) x.data()[i] = static_cast<float>(i % 7);
                        x.read_only();
                        const auto h = test::normal<float>({1, 1, C, 40}, 1);
                        const auto at = [&](float* p) {
                            return by_token ? dense(p, {1, N, C}) : channels(p, {1, C, N});
                        };
                        convolution(at(x.data()), convolution_filter<float>(matrix(h), {.form = form}), at(y.data()));
                        for (index_t i = 0; i < N * C; ++i) ASSERT_TRUE(std::isfinite(y.data()[i]));
                    }
}

}  // namespace
