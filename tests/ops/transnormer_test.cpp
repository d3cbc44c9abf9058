// heed_test: LABELS sanitize
// TransNormer against its definition, and its limits.
#include <heed/core/threads.hpp>
#include <heed/ops/transnormer.hpp>

#include "recurrent_op.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

constexpr index_t N = 37, D = 9, E = 5;

/// RMSNorm over all heads of the definition's outputs.
template <class T>
tensor<T> defined(const recurrence_data<T>& x, bool non_causal, const rms& by) {
    ref::recurrence_options<double> with;
    map_both(with, [](std::vector<double> row) {
        for (double& one : row) one = one > 0 ? one + 1 : std::exp(one);
        return row;
    });
    with.non_causal = non_causal;
    tensor<double> o(x.v.shape());
    ref::recurrence(x.q.v(), x.k.v(), x.v.v(), o.v(), with);
    tensor<T> normed(o.shape());
    rms_norm(o, normed, by);
    return normed;
}

TEST(norm_attention, is_the_definition) {
    const recurrence_data<float> x({2, 3, 3, 3, N, D, E});
    tensor<float> o(x.v.shape());
    norm_attention(x.q, x.k, x.v, o);
    EXPECT_TRUE(all_near(o, defined(x, false, rms{1e-6, true}), 2e-5));
    norm_attention(x.q, x.k, x.v, o, non_causal{});
    EXPECT_TRUE(all_near(o, defined(x, true, rms{1e-6, true}), 2e-5));
    norm_attention(x.q, x.k, x.v, o, rms{1e-3});
    EXPECT_TRUE(all_near(o, defined(x, false, rms{1e-3}), 2e-5));
}

TEST(norm_attention, one_token_after_the_other_and_in_chunks) {
    const recurrence_data<float> x({2, 3, 3, 3, N, D, E});
    tensor<float> whole(x.v.shape()), o(x.v.shape());
    norm_attention(x.q, x.k, x.v, whole);
    state<float> s(2, 3, D, E);
    EXPECT_TRUE(goes_on(
        whole, [&](range n, auto to) { norm_attention(part(x.q, n), part(x.k, n), part(x.v, n), to, s); }, 2e-5));
    norm_attention(x.q, x.k, x.v, o, chunked{16});
    EXPECT_TRUE(all_near(o, whole, 2e-5));
    norm_attention(x.q, x.k, x.v, o, parallel{});
    EXPECT_TRUE(all_near(o, whole, 2e-5));
}

TEST(norm_attention, bits_do_not_depend_on_threads_and_a_size_is_only_told) {
    const recurrence_data<float> x({2, 3, 3, 3, N, D, E});
    tensor<float> one(x.v.shape()), many(x.v.shape());
    threads pool(3);
    std::size_t bytes = 0;
    auto untouched = constant<float>(x.v.shape(), 3);
    norm_attention(x.q, x.k, x.v, untouched, scratch_size(pool, bytes));
    EXPECT_TRUE(same_values(untouched, constant<float>(x.v.shape(), 3)));
    arena scratch(bytes);
    norm_attention(x.q, x.k, x.v, one);
    norm_attention(x.q, x.k, x.v, many, on(pool, scratch));
    EXPECT_TRUE(same_values(one, many));
}

TEST(norm_attention, positive_factors_of_values_vanish) {
    const recurrence_data<double> x({1, 2, 2, 2, N, D, E});
    auto q = x.q, v = x.v;
    q.each([&](index_t b, index_t h, index_t n, index_t d) { q(b, h, n, d) *= 3; });
    v.each([&](index_t b, index_t h, index_t n, index_t e) { v(b, h, n, e) *= 1000; });
    tensor<double> o(x.v.shape()), p(x.v.shape());
    norm_attention(x.q, x.k, x.v, o, rms{0, true});
    norm_attention(x.q, x.k, v, p, rms{0, true});
    EXPECT_TRUE(all_near(o, p, 1e-12));
    norm_attention(x.q, x.k, x.v, o, rms{0, true}, identity_features{});
    norm_attention(q, x.k, v, p, rms{0, true}, identity_features{});
    EXPECT_TRUE(all_near(o, p, 1e-12));
}

TEST(norm_attention, a_bad_norm_is_named_before_anything_is_written) {
    const recurrence_data<float> x({1, 2, 2, 2, 5, D, E});
    auto o = constant<float>(x.v.shape(), 7);
    refuses<argument_error>([&] { norm_attention(x.q, x.k, x.v, o, rms{-1}); },
                            "norm_attention: eps is -1, the least is 0");
    EXPECT_TRUE(same_values(o, constant<float>(o.shape(), 7)));
}

TEST(norm_attention, of_one_token_is_the_norm_of_its_value) {
    const recurrence_data<double> x({3, 1, 1, 1, 1, D, E});
    tensor<double> o(x.v.shape()), want(x.v.shape());
    norm_attention(x.q, x.k, x.v, o, rms{0, true});
    rms_norm(x.v, want, rms{0, true});
    EXPECT_TRUE(all_near(o, want, 1e-12));
}

TEST(diag_attention, is_attention_in_blocks) {
    const recurrence_data<float> x({2, 4, 2, 2, N, D, E});
    tensor<float> o({2, 4, N, E}), dense(o.shape());
    for (index_t w : {1, 8, 36, 37, 100})
        for (bool with_order : {false, true}) {
            if (with_order)
                diag_attention(x.q, x.k, x.v, o, w, causal{});
            else
                diag_attention(x.q, x.k, x.v, o, w);
            EXPECT_TRUE(attends(o, x.q, x.k, x.v, [&](auto real) {
                ref::options<decltype(real)> with;
                with.visible = [=](index_t, index_t, index_t, index_t i, index_t j) {
                    return i / w == j / w && (!with_order || j <= i);
                };
                return with;
            })) << w;
        }
    attention(x.q, x.k, x.v, dense);
    diag_attention(x.q, x.k, x.v, o, 100);
    EXPECT_TRUE(same_values(o, dense));
}

}  // namespace
