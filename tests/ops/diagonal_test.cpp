// heed_test: LABELS sanitize
// HGRN, RG-LRU, minGRU and minLSTM against their definitions, and their limits.
#include <heed/ops/hgrn.hpp>
#include <heed/ops/min_rnn.hpp>
#include <heed/ops/rg_lru.hpp>
#include <heed/ref/diagonal.hpp>

#include "../support/compare.hpp"
#include "../support/refuses.hpp"
#include "../support/sequence.hpp"

namespace {

using namespace heed;
using test::seq;
using test::tensor;
using test::vec;

/// h by the definition in Real: step(operands at a place...) over tensors of T.
template <class Real, class T, class Step, class... X>
tensor<Real> defined(const Step& step, const tensor<T>& first, const X&... rest) {
    tensor<Real> h(first.shape());
    ref::diagonal<Real>(seq(h), [&](index_t b, index_t n, index_t c) {
        return step(static_cast<Real>(first(b, 0, n, c)), static_cast<Real>(rest(b, 0, n, c))...);
    });
    return h;
}
/// The rule for values, of h = run(operands...).
template <class T, class Step, class... X>
void expect_defined(const tensor<T>& h, const Step& step, const X&... x) {
    using A = accumulator<T>;
    const auto exact = defined<test::definition_of<A>>(step, x...);
    const auto naive = defined<A>(step, x...);
    EXPECT_TRUE(test::within_rule<A>(h, test::in<T>(naive), exact));
}

constexpr extents<4> shape{2, 1, 43, 37};

template <class T>
class diagonal_of : public testing::Test {
public:
    tensor<T> x = test::normal<T>(shape, 1), r = test::normal<T>(shape, 2, 3), i = test::normal<T>(shape, 3, 3),
              h = tensor<T>(shape);
    tensor<T> lambda = test::normal<T>({1, 1, 1, 37}, 4);
};
using storages = testing::Types<float, double, bf16, f16>;
TYPED_TEST_SUITE(diagonal_of, storages);

TYPED_TEST(diagonal_of, hgrn) {
    auto g = this->r;
    g.each([&](index_t b, index_t k, index_t n, index_t c) {
        g(b, k, n, c) = static_cast<TypeParam>(-std::abs(static_cast<float>(g(b, k, n, c))) * (c % 3 ? 0.1f : 20.0f));
    });
    hgrn(seq(this->x), seq(g), seq(this->h));
    expect_defined(
        this->h, [](auto a, auto b) { return ref::hgrn(a, b); }, this->x, g);
}

TYPED_TEST(diagonal_of, rg_lru) {
    rg_lru(seq(this->x), seq(this->r), seq(this->i), vec(this->lambda), seq(this->h));
    tensor<TypeParam> all(shape);
    all.each([&](index_t b, index_t k, index_t n, index_t c) { all(b, k, n, c) = this->lambda(0, 0, 0, c); });
    expect_defined(
        this->h, [](auto u, auto a, auto b, auto l) { return ref::rg_lru(u, a, b, l); }, this->x, this->r, this->i,
        all);
}

TYPED_TEST(diagonal_of, min_gru_and_min_lstm) {
    min_gru(seq(this->r), seq(this->x), seq(this->h));
    expect_defined(
        this->h, [](auto z, auto u) { return ref::min_gru(z, u); }, this->r, this->x);
    min_lstm(seq(this->r), seq(this->i), seq(this->x), seq(this->h));
    expect_defined(
        this->h, [](auto f, auto a, auto u) { return ref::min_lstm(f, a, u); }, this->r, this->i, this->x);
}

/// Decays close to 1 keep their digits: sqrt(1 - a^2) by way of 1 - a would have none.
TEST(rg_lru, slow_decays) {
    const auto u = test::constant<float>(shape, 1), open = test::constant<float>(shape, 30);
    for (double slow : {-20.0, -12.0, -5.0}) {
        const auto lambda = test::constant<float>({1, 1, 1, 37}, slow);
        tensor<float> h(shape);
        rg_lru(seq(u), seq(open), seq(open), vec(lambda), seq(h));
        double want = 0;
        const auto by = ref::rg_lru(1.0, 30.0, 30.0, slow);
        for (index_t n = 0; n < 43; ++n) {
            want = by.a * want + by.b;
            EXPECT_NEAR(h(1, 0, n, 5), want, 4e-6 * want);
        }
    }
}

TEST(rg_lru, another_power) {
    const auto u = test::normal<float>(shape, 1), r = test::normal<float>(shape, 2), i = test::normal<float>(shape, 3);
    const auto lambda = test::normal<float>({1, 1, 1, 37}, 4);
    tensor<float> all(shape), h(shape), eight(shape);
    all.each([&](index_t b, index_t k, index_t n, index_t c) { all(b, k, n, c) = lambda(0, 0, 0, c); });
    rg_lru(seq(u), seq(r), seq(i), vec(lambda), seq(h), decay_power{0.75});
    expect_defined(
        h, [](auto x, auto a, auto b, auto l) { return ref::rg_lru(x, a, b, l, false, decltype(x)(0.75)); }, u, r, i,
        all);
    rg_lru(seq(u), seq(r), seq(i), vec(lambda), seq(h));
    rg_lru(seq(u), seq(r), seq(i), vec(lambda), seq(eight), decay_power{8});
    EXPECT_TRUE(test::same_values(h, eight));
    for (double wrong : {0.0, -1.0, std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()})
        test::refuses<argument_error>([&] { rg_lru(seq(u), seq(r), seq(i), vec(lambda), seq(h), decay_power{wrong}); },
                                      "rg_lru: c is");
    EXPECT_TRUE(test::same_values(h, eight));
}

TEST(rg_lru, limits) {
    const auto u = test::normal<float>(shape, 1), r = test::normal<float>(shape, 2), i = test::normal<float>(shape, 3);
    tensor<float> h(shape);
    const auto fast = test::constant<float>({1, 1, 1, 37}, 1e4);
    rg_lru(seq(u), seq(test::constant<float>(shape, 10)), seq(i), vec(fast), seq(h));  // the past is gone at once
    h.each([&](index_t b, index_t k, index_t n, index_t c) {
        EXPECT_NEAR(h(b, k, n, c), u(b, k, n, c) * sigmoid(i(b, k, n, c)), 1e-6);
    });
    const auto usual = test::constant<float>({1, 1, 1, 37}, 0.5);
    rg_lru(seq(u), seq(test::constant<float>(shape, -1e4)), seq(i), vec(usual), seq(h));  // a = 1: frozen at 0
    h.each([&](index_t b, index_t k, index_t n, index_t c) { EXPECT_EQ(h(b, k, n, c), 0); });
}

TEST(rg_lru, a_restart_forgets_and_counts_whole) {
    const auto u = test::normal<float>(shape, 1), r = test::normal<float>(shape, 2), i = test::normal<float>(shape, 3);
    const auto lambda = test::normal<float>({1, 1, 1, 37}, 4);
    std::vector<float> marks(2 * 43);
    for (std::size_t at : {0, 17, 43 + 5}) marks[at] = 1;
    tensor<float> h(shape), want(shape);
    rg_lru(seq(u), seq(r), seq(i), vec(lambda), seq(h),
           restarts{dense(static_cast<const float*>(marks.data()), {2, 43})});
    ref::diagonal<float>(seq(want), [&](index_t b, index_t n, index_t c) {
        return ref::rg_lru(u(b, 0, n, c), r(b, 0, n, c), i(b, 0, n, c), lambda(0, 0, 0, c),
                           marks[static_cast<std::size_t>(b * 43 + n)] != 0);
    });
    EXPECT_TRUE(test::all_near(h, want, 1e-5));
}

/// Gates that both vanish, and gates that are not numbers of any size.
TEST(min_lstm, vanishing_gates) {
    const auto x = test::normal<float>(shape, 1);
    tensor<float> h(shape), want(shape);
    for (float both : {-200.0f, -1e4f, 0.0f, 1e4f}) {
        const auto gate = test::constant<float>(shape, both);
        min_lstm(seq(gate), seq(gate), seq(x), seq(h));
        ref::diagonal<float>(seq(want), [&](index_t b, index_t n, index_t c) {
            return ref::linear_step<float>{0.5f, 0.5f * x(b, 0, n, c)};
        });
        EXPECT_TRUE(test::all_near(h, want, 1e-6)) << both;
    }
}

TEST(min_gru, closed_and_open_gates) {
    const auto x = test::normal<float>(shape, 1);
    tensor<float> h(shape);
    min_gru(seq(test::constant<float>(shape, 1e4)), seq(x), seq(h));
    EXPECT_TRUE(test::same_values(h, x));
    min_gru(seq(test::constant<float>(shape, -1e4)), seq(x), seq(h));
    EXPECT_TRUE(test::same_values(h, test::constant<float>(shape, 0)));
}

}  // namespace
