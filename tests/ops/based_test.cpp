// heed_test: LABELS sanitize
// Based and ReBased against sums over weights, their definition, and their limits.
#include <heed/engine/attention.hpp>
#include <heed/ops/based.hpp>

#include "recurrent_op.hpp"

using namespace test;

namespace {

/// o_i = sum_j a(q_i, k_j) v_j / sum_j a(q_i, k_j), causal or not, in the arithmetic of R.
template <class R, class Weight>
tensor<R> weighed(const recurrence_data<float>& x, const Weight& a, bool causal) {
    tensor<R> o({x.s.B, x.s.Ho(), x.s.N, x.s.E});
    for (index_t b = 0; b < x.s.B; ++b)
        for (index_t h = 0; h < x.s.Ho(); ++h)
            for (index_t i = 0; i < x.s.N; ++i) {
                const index_t g = h * x.s.Hs() / x.s.Ho();
                std::vector<R> sum(static_cast<std::size_t>(x.s.E));
                R weight = 0;
                for (index_t j = 0; j < (causal ? i + 1 : x.s.N); ++j) {
                    const R w = a(ref::detail::row<R>(x.q.v(), b, h, i), ref::detail::row<R>(x.k.v(), b, g, j));
                    for (index_t e = 0; e < x.s.E; ++e)
                        sum[static_cast<std::size_t>(e)] += w * static_cast<R>(x.v(b, g, j, e));
                    weight += w;
                }
                ref::detail::write(o.v(), b, h, i, ref::detail::times(1 / weight, sum));
            }
    return o;
}
template <class Weight>
testing::AssertionResult is_weighed(const tensor<float>& got, const recurrence_data<float>& x, const Weight& a,
                                    bool causal) {
    return within_rule<float>(got, weighed<float>(x, a, causal), weighed<double>(x, a, causal));
}

constexpr auto taylor = [](const auto& q, const auto& k) {
    const auto s = ref::detail::dot(q, k) / std::sqrt(static_cast<decltype(ref::detail::dot(q, k))>(q.size()));
    return 1 + s + s * s / 2;
};

/// The definition as published, with the features [1, x / D^(1/4), vec(x x^T) / sqrt(2 D)].
auto based_by_features(bool non_causal, bool normalised) {
    return [=](auto real) {
        using R = decltype(real);
        ref::recurrence_options<R> with;
        map_both(with, [](std::vector<R> x) {
            const R root = std::sqrt(static_cast<R>(x.size()));
            std::vector<R> y{1};
            for (R a : x) y.push_back(a / std::sqrt(root));
            for (R a : x)
                for (R b : x) y.push_back(a * b / root / std::sqrt(R(2)));
            return y;
        });
        with.non_causal = non_causal;
        with.normalised = normalised;
        return with;
    };
}

TEST(based, is_the_definition) {
    for (const recurrence_sizes& s :
         {recurrence_sizes{1, 1, 1, 1, 1, 16, 8}, {2, 4, 2, 2, 37, 7, 9}, {1, 2, 2, 2, 50, 16, 20}}) {
        SCOPED_TRACE(testing::Message() << s);
        const recurrence_data<float> x(s);
        tensor<float> o({s.B, s.Ho(), s.N, s.E});
        based(x.q, x.k, x.v, o);
        EXPECT_TRUE(is_recurrence(o, x.q, x.k, x.v, based_by_features(false, true)));
        EXPECT_TRUE(all_near(o, weighed<float>(x, taylor, true), 1e-5));
        based(x.q, x.k, x.v, o, non_causal{});
        EXPECT_TRUE(is_recurrence(o, x.q, x.k, x.v, based_by_features(true, true)));
        EXPECT_TRUE(all_near(o, weighed<float>(x, taylor, false), 1e-5));
        based(x.q, x.k, x.v, o, not_normalised{});
        EXPECT_TRUE(is_recurrence(o, x.q, x.k, x.v, based_by_features(false, false)));
    }
}

TEST(based, one_token_after_the_other) {
    const recurrence_data<float> x({2, 4, 2, 2, 37, 7, 9});
    tensor<float> whole({2, 4, 37, 9});
    based(x.q, x.k, x.v, whole);
    state<float> s(2, 2, taylor_features{}.width(7), 9);
    EXPECT_TRUE(goes_on(whole, [&](range n, auto o) { based(part(x.q, n), part(x.k, n), part(x.v, n), o, s); }));
}

TEST(based, of_short_rows_is_softmax_attention) {
    recurrence_data<float> x({1, 2, 2, 2, 37, 7, 9});
    x.q.each([&](index_t b, index_t h, index_t n, index_t d) { x.q(b, h, n, d) *= 0.1f; });
    tensor<float> o(x.v.shape()), soft(x.v.shape());
    based(x.q, x.k, x.v, o);
    attention(x.q, x.k, x.v, soft, [](const where& at) { return at.j <= at.i; });
    EXPECT_TRUE(all_near(o, soft, 1e-3));
}

TEST(rebased, is_the_definition) {
    for (const recurrence_sizes& s :
         {recurrence_sizes{1, 1, 1, 1, 1, 16, 8}, {2, 4, 2, 2, 37, 7, 9}, {1, 2, 2, 2, 50, 16, 20}}) {
        SCOPED_TRACE(testing::Message() << s);
        const recurrence_data<float> x(s);
        const auto learned = uniform<float>({1, 1, 4, s.D}, 5, 0.5, 1.5);
        const auto numbers_of = [&](index_t i) {
            return std::span<const float>(&learned(0, 0, i, 0), static_cast<std::size_t>(s.D));
        };
        const rebased_features<float> map({numbers_of(0), numbers_of(1)}, {numbers_of(2), numbers_of(3)});
        tensor<float> o({s.B, s.Ho(), s.N, s.E});
        const auto square = [&](const auto& q, const auto& k) {
            const auto normed = [&](auto row, index_t i) {
                using R = typename decltype(row)::value_type;
                R mean = 0, spread = 0;
                for (R one : row) mean += one / static_cast<R>(s.D);
                for (R one : row) spread += (one - mean) * (one - mean) / static_cast<R>(s.D);
                for (index_t d = 0; d < s.D; ++d) {
                    R& one = row[static_cast<std::size_t>(d)];
                    one = static_cast<R>(learned(0, 0, i, d)) * (one - mean) / std::sqrt(spread + R(1e-5)) +
                          static_cast<R>(learned(0, 0, i + 1, d));
                }
                return row;
            };
            const auto product = ref::detail::dot(normed(q, 0), normed(k, 2));
            return product * product;
        };
        rebased(x.q, x.k, x.v, o, map);
        EXPECT_TRUE(is_weighed(o, x, square, true));
        state<float> carried(s.B, s.Hs(), map.width(s.D), s.E);
        EXPECT_TRUE(goes_on(
            o, [&](range n, auto to) { rebased(part(x.q, n), part(x.k, n), part(x.v, n), to, map, carried); }, 1e-3));
    }
}

}  // namespace
