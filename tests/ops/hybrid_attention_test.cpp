// heed_test: LABELS sanitize
// Hybrid attention against its definition, and between softmax and linear attention.
#include <heed/ops/hybrid_attention.hpp>
#include <heed/ref/hybrid_attention.hpp>

#include "compare.hpp"
#include "random.hpp"
#include "refuses.hpp"

namespace {

using namespace heed;
using namespace test;

struct data {
    tensor<float> q, k, v;
    data(index_t N, index_t M, index_t D = 9)
        : q(normal<float>({2, 2, N, D}, 1)), k(normal<float>({2, 2, M, D}, 2)), v(normal<float>({2, 2, M, 19}, 3)) {}
    tensor<float> out() const { return tensor<float>({2, 2, q.shape()[2], 19}); }
};

std::vector<index_t> every(index_t step, index_t M) {
    std::vector<index_t> at;
    for (index_t j = 0; j < M; j += step) at.push_back(j);
    return at;
}

tensor<float> attended(const data& x, const std::vector<index_t>& exact) {
    auto o = x.out();
    hybrid_attention(x.q, x.k, x.v, o, std::span<const index_t>(exact), elu_plus_one{});
    return o;
}

template <class Real, class O>
void define(const data& x, const std::vector<index_t>& exact, tensor<O>& o, std::optional<Real> c = {}) {
    ref::hybrid_attention<Real>(
        x.q.v(), x.k.v(), x.v.v(), o.v(), [&](index_t j) { return std::binary_search(exact.begin(), exact.end(), j); },
        [](std::vector<Real> y) {
            for (Real& one : y) one = one > 0 ? one + 1 : std::exp(one);
            return y;
        },
        Real(1e-6), c);
}

TEST(hybrid_attention, is_the_definition) {
    for (index_t N : {1, 17})
        for (index_t M : {0, 1, 16, 45})
            for (index_t step : {1, 2, 7, 100}) {
                SCOPED_TRACE(testing::Message() << N << " queries, " << M << " keys, one in " << step);
                const data x(N, M);
                const auto exact = every(step, M);
                tensor<double> o(x.out().shape());
                tensor<float> naive(o.shape());
                define<double>(x, exact, o);
                define<float>(x, exact, naive);
                EXPECT_TRUE(within_rule<float>(attended(x, exact), naive, o));
            }
}

TEST(hybrid_attention, weighs_logits_against_any_number) {
    const data x(17, 45);
    const auto exact = every(3, 45);
    for (double c : {0.0, -2.0, 3.5}) {
        auto o = x.out();
        hybrid_attention(x.q, x.k, x.v, o, std::span<const index_t>(exact), elu_plus_one{}, 1e-6, logit_offset(c));
        tensor<double> want(o.shape());
        tensor<float> naive(o.shape());
        define<double>(x, exact, want, c);
        define<float>(x, exact, naive, static_cast<float>(c));
        EXPECT_TRUE(within_rule<float>(o, naive, want)) << c;
    }
}

TEST(hybrid_attention, is_softmax_attention_of_exact_keys_and_linear_attention_of_none) {
    const data x(21, 21);
    auto soft = x.out(), linear = x.out();
    attention(x.q, x.k, x.v, soft);
    EXPECT_TRUE(all_near(attended(x, every(1, 21)), soft, 1e-5));
    recurrence(x.q, x.k, x.v, linear, non_causal{}, elu_plus_one{}, sum_of_keys{});
    EXPECT_TRUE(all_near(attended(x, {}), linear, 1e-5));
}

TEST(hybrid_attention, averages_values) {
    data x(9, 30);
    x.v.fill([](index_t) { return -2.5; });
    EXPECT_TRUE(all_near(attended(x, every(3, 30)), constant<float>(x.out().shape(), -2.5), 1e-5));
}

TEST(hybrid_attention, bears_large_logits) {
    data x(9, 30);
    for (auto* t : {&x.q, &x.k}) t->each([&](index_t b, index_t h, index_t n, index_t d) { (*t)(b, h, n, d) *= 60; });
    const auto o = attended(x, every(2, 30));
    o.each([&](index_t b, index_t h, index_t n, index_t e) { EXPECT_TRUE(std::isfinite(o(b, h, n, e))); });
}

TEST(hybrid_attention, refuses_before_it_writes) {
    const data x(4, 8);
    auto o = x.out();
    const auto meets = [&](std::vector<index_t> exact, double eps = 1e-6) {
        hybrid_attention(x.q, x.k, x.v, o, std::span<const index_t>(exact), elu_plus_one{}, eps);
    };
    refuses<argument_error>([&] { meets({3, 8}); }, "exact key 8 does not ascend within the 8 keys");
    refuses<argument_error>([&] { meets({3, 3}); }, "exact key 3 does not ascend");
    refuses<argument_error>([&] { meets({0}, 0); }, "eps is 0");
    refuses<shape_error>(
        [&] {
            hybrid_attention(x.q, x.k, slice(x.v.v(), 2, {0, 7}), o, {}, elu_plus_one{});
        },
        "hybrid_attention");
    o.each(
        [&](index_t b, index_t h, index_t n, index_t e) { EXPECT_TRUE(std::isnan(o(b, h, n, e))) << "was written"; });
}

TEST(hybrid_attention, of_sequences_side_by_side_is_that_of_each) {
    const std::vector<index_t> offsets{0, 1, 1, 30, 45}, exact = every(4, 45);
    data x(45, 45);
    for (auto* t : {&x.q, &x.k, &x.v}) *t = copied(slice(t->v(), 0, {0, 1}));
    tensor<float> o({1, 2, 45, 19}), one(o.shape());
    const auto run = [&](const auto& cut, const std::vector<index_t>& at, const auto& to, const auto&... more) {
        hybrid_attention(cut(x.q.v()), cut(x.k.v()), cut(x.v.v()), to, std::span<const index_t>(at), elu_plus_one{},
                         1e-6, more...);
    };
    run([](const auto& y) { return y; }, exact, o.v(), packed{offsets});
    for (std::size_t s = 1; s < offsets.size(); ++s) {
        const auto cut = [&](const auto& y) { return slice(y, 2, {offsets[s - 1], offsets[s]}); };
        std::vector<index_t> own;
        for (index_t j : exact)
            if (j >= offsets[s - 1] && j < offsets[s]) own.push_back(j - offsets[s - 1]);
        run(cut, own, cut(one.v()));
    }
    EXPECT_TRUE(same_values(o, one));
    const std::vector<index_t> few{0, 44};
    refuses<shape_error>([&] { run([](const auto& y) { return y; }, exact, one.v(), packed{few}); },
                         "packed offsets end at 44, there are 45 tokens");
    EXPECT_TRUE(same_values(o, one));
}

}  // namespace
