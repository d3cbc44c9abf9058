// Mixing matrices of operators, and the losses between them.
#include <heed/engine/attention.hpp>
#include <heed/ops/gated_deltanet.hpp>
#include <heed/ops/mixing_matrix.hpp>
#include <heed/policy/mask_position.hpp>

#include "defined.hpp"
#include "recurs.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

constexpr index_t N = 37;
struct mixing : testing::Test {
    recurrence_data<double> x{{2, 4, 4, 4, N, 6, 5, 1, 2}, 3}, shared{{2, 4, 2, 2, N, 6, 5, 1, 2}, 3};
    tensor<double> m{{2, 4, N, N}}, o{{2, 4, N, 5}}, product{{2, 4, N, 5}};

    /// m times values, heads shared.
    void multiply(const tensor<double>& v) {
        product.each([&](index_t b, index_t h, index_t n, index_t e) {
            double sum = 0;
            for (index_t j = 0; j < N; ++j) sum += m(b, h, n, j) * v(b, h * v.shape()[1] / 4, j, e);
            product(b, h, n, e) = sum;
        });
    }
};

TEST_F(mixing, times_the_values_is_the_operator) {
    for (const index_t columns : {1, 16, 37, 64}) {
        m.fill([](index_t) { return std::nan(""); });
        const auto g = numbers(shared.token), beta = numbers(shared.beta);
        mixing_matrix([&](const auto& v, const auto& to) { gated_deltanet(shared.q, shared.k, v, to, g, beta); }, m,
                      columns);
        gated_deltanet(shared.q, shared.k, shared.v, o, g, beta);
        multiply(shared.v);
        EXPECT_TRUE(all_near(product, o, 1e-13)) << columns;
        for (index_t i = 0; i < N; ++i)
            for (index_t j = i + 1; j < N; ++j) ASSERT_EQ(m(1, 3, i, j), 0) << i << ", " << j;
    }
}

TEST_F(mixing, of_gated_linear_attention_is_what_its_decays_leave_of_q_k) {
    mixing_matrix([&](const auto& v, const auto& to) { recurrence(x.q, x.k, v, to, x.channel_gate(), scale{1}); }, m);
    m.each([&](index_t b, index_t h, index_t i, index_t j) {
        double sum = 0;
        for (index_t d = 0; d < 6 && j <= i; ++d) {
            double log = 0;
            for (index_t s = j + 1; s <= i; ++s) log += x.channel(b, h / 2, s, d);
            sum += x.q(b, h, i, d) * std::exp(log) * x.k(b, h, j, d);
        }
        ASSERT_NEAR(m(b, h, i, j), sum, 1e-13);
    });
}

TEST_F(mixing, of_softmax_attention_is_its_weights) {
    mixing_matrix([&](const auto& v, const auto& to) { attention(x.q, x.k, v, to, causal{}); }, m);
    const auto wanted = defined(x.q, x.k, x.v, causally());
    EXPECT_TRUE(all_near(m, wanted.p, 1e-13));
    EXPECT_NEAR(squared_distance(m, wanted.p, 0, 0), 0, 1e-24);
    m(0, 1, 3, 2) += 0.5, m(0, 1, 9, 0) -= 1;
    EXPECT_NEAR(squared_distance(m, wanted.p, 0, 1), 1.25, 1e-12);
}

/// A student with features whose products are the exponentials of q.k: its matrix, normalised, is the teacher's.
TEST_F(mixing, of_exponential_features_is_softmax_attention) {
    tensor<double> q({2, 4, N, N}), k({2, 4, N, N}), weights({2, 4, N, N});
    k.each([&](index_t b, index_t h, index_t i, index_t j) {  // keys e_i, queries exp(q_i.k_j)
        double logit = 0;
        for (index_t d = 0; d < 6; ++d) logit += x.q(b, h, i, d) * x.k(b, h, j, d) / std::sqrt(6.0);
        k(b, h, i, j) = i == j;
        q(b, h, i, j) = std::exp(logit);
    });
    mixing_matrix([&](const auto& v, const auto& to) { recurrence(q, k, v, to, sum_of_keys{}, scale{1}); }, m);
    mixing_matrix([&](const auto& v, const auto& to) { attention(x.q, x.k, v, to, causal{}); }, weights);
    EXPECT_TRUE(all_near(m, weights, 1e-13));
}

TEST(divergence, of_logits) {
    auto p = normal<float>({1, 2, 5, 11}, 1, 2), q = normal<float>({1, 2, 5, 11}, 2, 2);
    EXPECT_NEAR(mean_divergence(p, p), 0, 1e-12);
    EXPECT_GT(mean_divergence(p, q), 0.1);
    auto shifted = p;
    shifted.fill(
        [&, i = 0](index_t) mutable { return static_cast<double>(p.memory()[static_cast<std::size_t>(i++)]) + 40; });
    EXPECT_NEAR(mean_divergence(p, shifted), 0, 1e-5);
    auto a = constant<double>({1, 1, 1, 2}, 0), b = a;
    a(0, 0, 0, 0) = -std::numeric_limits<double>::infinity();  // p = (0, 1), q = (1/4, 3/4)
    b(0, 0, 0, 1) = std::log(3.0);
    EXPECT_NEAR(mean_divergence(a, b), std::log(4.0 / 3), 1e-14);
    b(0, 0, 0, 0) = std::nan("");
    EXPECT_TRUE(std::isnan(mean_divergence(a, b)));
    EXPECT_EQ(mean_divergence(tensor<float>({1, 2, 0, 3}), tensor<float>({1, 2, 0, 3})), 0);
    refuses<shape_error>([&] { mean_divergence(p, a); }, "head extents are 2 and 1");
    refuses<argument_error>([&] { mixing_matrix([](const auto&, const auto&) {}, p, 0); }, "columns is 0");
}

}  // namespace
