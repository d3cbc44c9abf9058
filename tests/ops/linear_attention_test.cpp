// Linear attention against its definition, and its limits.
#include <heed/ops/linear_attention.hpp>

#include "recurrent_op.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

template <class R>
std::vector<R> elu_of(std::vector<R> x) {
    for (R& one : x) one = one > 0 ? one + 1 : std::exp(one);
    return x;
}
template <class R>
std::vector<R> relu_of(std::vector<R> x) {
    for (R& one : x) one = one < 0 ? R(0) : one;
    return x;
}
/// The definition with features f, or none.
template <class F>
auto defined(const F& f, bool normalised, bool non_causal = false) {
    return [=](auto real) {
        using R = decltype(real);
        ref::recurrence_options<R> with;
        map_both(with, [f](std::vector<R> x) { return f(std::move(x)); });
        with.normalised = normalised;
        with.non_causal = non_causal;
        return with;
    };
}
constexpr auto elu = [](auto x) { return elu_of(std::move(x)); };
constexpr auto relu = [](auto x) { return relu_of(std::move(x)); };
constexpr auto exponential = [](auto x) {
    for (auto& one : x) one = std::exp(one);
    return x;
};

TEST(linear_attention, is_the_definition) {
    for (const recurrence_sizes& s : {recurrence_sizes{1, 1, 1, 1, 0, 8, 8},
                                      {1, 2, 2, 2, 1, 8, 8},
                                      {2, 4, 2, 2, 37, 17, 9},
                                      {1, 2, 2, 2, 33, 3, 20}}) {
        SCOPED_TRACE(testing::Message() << s);
        const recurrence_data<float> x(s);
        tensor<float> o({s.B, s.Ho(), s.N, s.E});
        const auto check = [&](const auto& make, const auto&... policies) {
            linear_attention(x.q, x.k, x.v, o, policies...);
            EXPECT_TRUE(is_recurrence(o, x.q, x.k, x.v, make));
        };
        check(defined(elu, true));
        check(defined(elu, true, true), non_causal{});
        check(defined(elu, false), not_normalised{});
        check(defined(exponential, true), exp_features{});
        check(defined(relu, false, true), relu_features{}, not_normalised{}, non_causal{});
    }
}

TEST(linear_attention, one_token_after_the_other) {
    const recurrence_data<float> x({2, 4, 2, 2, 37, 9, 5});
    tensor<float> whole({2, 4, 37, 5});
    linear_attention(x.q, x.k, x.v, whole);
    state<float> s(2, 2, 9, 5);
    EXPECT_TRUE(
        goes_on(whole, [&](range n, auto o) { linear_attention(part(x.q, n), part(x.k, n), part(x.v, n), o, s); }));
}

TEST(linear_attention, the_last_row_sees_what_non_causal_rows_see) {
    const recurrence_data<float> x({1, 2, 2, 2, 30, 9, 5});
    tensor<float> causal(x.v.shape()), all(x.v.shape());
    linear_attention(x.q, x.k, x.v, causal);
    linear_attention(x.q, x.k, x.v, all, non_causal{});
    EXPECT_TRUE(all_near(copied(slice(causal.v(), 2, {29, 30})), copied(slice(all.v(), 2, {29, 30})), 1e-6));
}

TEST(linear_attention, a_nan_ahead_is_not_seen) {
    recurrence_data<float> x({1, 1, 1, 1, 20, 9, 5});
    tensor<float> clean(x.v.shape()), o(x.v.shape());
    linear_attention(x.q, x.k, x.v, clean);
    for (auto* t : {&x.q, &x.k, &x.v}) (*t)(0, 0, 13, 2) = std::nanf("");
    linear_attention(x.q, x.k, x.v, o);
    EXPECT_TRUE(same_values(copied(slice(o.v(), 2, {0, 13})), copied(slice(clean.v(), 2, {0, 13}))));
    EXPECT_TRUE(std::isnan(o(0, 0, 13, 2)));
}

/// cosFormer as weights: relu(q).relu(k) cos(pi/2 (i - j) / length), rows normalised.
TEST(cosformer, is_relu_attention_that_prefers_near_keys) {
    constexpr index_t N = 40, length = 50, first = 10;
    const recurrence_data<float> x({1, 2, 2, 2, N, 7, 5});
    tensor<float> o(x.v.shape()), all(x.v.shape());
    linear_attention(x.q, x.k, x.v, o, cosformer_features{length, first});
    linear_attention(x.q, x.k, x.v, all, cosformer_features{length}, non_causal{});
    for (bool causal : {true, false}) {
        const auto& got = causal ? o : all;
        tensor<float> want(o.shape());
        for (index_t h = 0; h < 2; ++h)
            for (index_t i = 0; i < N; ++i) {
                std::vector<double> sum(5);
                double weight = 0;
                for (index_t j = 0; j < (causal ? i + 1 : N); ++j) {
                    double w = 0;
                    for (index_t d = 0; d < 7; ++d)
                        w += std::max(x.q(0, h, i, d), 0.0f) * std::max(x.k(0, h, j, d), 0.0f);
                    w *= std::cos(std::numbers::pi / 2 * static_cast<double>(i - j) / length);
                    for (index_t e = 0; e < 5; ++e) sum[static_cast<std::size_t>(e)] += w * x.v(0, h, j, e);
                    weight += w;
                }
                for (index_t e = 0; e < 5; ++e)
                    want(0, h, i, e) = weight == 0 ? 0 : static_cast<float>(sum[static_cast<std::size_t>(e)] / weight);
            }
        EXPECT_TRUE(all_near(got, want, 2e-4)) << causal;
    }
    refuses<argument_error>([&] { linear_attention(x.q, x.k, x.v, o, cosformer_features{0}); },
                            "recurrence: cosformer_features has length 0, the least is 1");
}

TEST(cosformer, of_a_great_length_is_relu_attention) {
    const recurrence_data<double> x({1, 2, 2, 2, 30, 7, 5});
    tensor<double> o(x.v.shape()), plain(x.v.shape());
    linear_attention(x.q, x.k, x.v, o, cosformer_features{1 << 30});
    linear_attention(x.q, x.k, x.v, plain, relu_features{});
    EXPECT_TRUE(all_near(o, plain, 1e-9));
}

}  // namespace
