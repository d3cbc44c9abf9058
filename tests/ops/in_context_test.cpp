// heed_test: LABELS sanitize
// In-context regression by linear self-attention against its closed form, and its limits.
#include <heed/ops/in_context.hpp>

#include "random.hpp"
#include "refuses.hpp"

#include "compare.hpp"

using namespace test;

namespace {

constexpr index_t D = 4;

/// A prompt of M rows (x, y = w.x) and (x, 0), and what the layer says of it by a preconditioner (D, D).
struct prompt {
    index_t M;
    tensor<double> e, w;
    explicit prompt(index_t rows, std::uint64_t seed = 1)
        : M(rows), e(normal<double>({1, 1, rows + 1, D + 1}, seed)), w(normal<double>({1, 1, 1, D}, seed + 1)) {
        for (index_t n = 0; n <= M; ++n) e(0, 0, n, D) = n < M ? label(n) : 0;
    }
    double label(index_t n) const {
        double y = 0;
        for (index_t d = 0; d < D; ++d) y += w(0, 0, 0, d) * e(0, 0, n, d);
        return y;
    }
    double predicted(const std::vector<double>& preconditioner) const {
        const auto P = dense(preconditioner.data(), {D, D});
        tensor<double> q(e.shape()), v(e.shape()), o(e.shape());
        q.each([&](index_t, index_t, index_t n, index_t i) {
            double sum = 0;
            for (index_t j = 0; i < D && j < D; ++j) sum += P(i, j) * e(0, 0, n, j);
            q(0, 0, n, i) = sum;
            v(0, 0, n, i) = i == D ? e(0, 0, n, D) : 0;
        });
        linear_self_attention(q, e, v, o, static_cast<double>(M));
        return e(0, 0, M, D) + o(0, 0, M, D);
    }
    double closed_form(const std::vector<double>& preconditioner) const {
        const auto P = dense(preconditioner.data(), {D, D});
        double y = 0;
        for (index_t n = 0; n < M; ++n)
            for (index_t i = 0; i < D; ++i)
                for (index_t j = 0; j < D; ++j)
                    y += e(0, 0, M, i) * P(i, j) * e(0, 0, n, j) * e(0, 0, n, D) / static_cast<double>(M);
        return y;
    }
};
std::vector<double> diagonal(std::array<double, D> x) {
    std::vector<double> m(D * D);
    for (std::size_t d = 0; d < D; ++d) m[d * D + d] = x[d];
    return m;
}
std::vector<double> trained(const std::vector<double>& lambda, index_t M) {
    return trained_preconditioner(dense(lambda.data(), {D, D}), M);
}

TEST(in_context, is_the_closed_form) {
    const auto P = trained(diagonal({1, 2, 0.5, 3}), 20);
    for (index_t M : {1, 5, 33, 200}) {
        const prompt x(M);
        EXPECT_NEAR(x.predicted(P), x.closed_form(P), 1e-12 * M) << M;
    }
}

TEST(in_context, the_preconditioner_is_an_inverse) {
    const std::vector<double> lambda{2, 0.5, 0, 0.1, 0.5, 1, 0.2, 0, 0, 0.2, 3, 0.4, 0.1, 0, 0.4, 1.5};
    const auto P = trained(lambda, 7);
    for (std::size_t i = 0; i < D; ++i)
        for (std::size_t j = 0; j < D; ++j) {
            double sum = 0;
            for (std::size_t k = 0; k < D; ++k) {
                const double g = 8.0 / 7 * lambda[i * D + k] + (i == k ? 7.5 / 7 : 0);
                sum += g * P[k * D + j];
            }
            EXPECT_NEAR(sum, i == j, 1e-12);
        }
    refuses<argument_error>(
        [&] {
            trained(diagonal({1, -8, 1, 1}), 7);
        },
        "trained_preconditioner: lambda is not positive definite: pivot 1 is");
    refuses<argument_error>([&] { trained(lambda, 0); },
                            "trained_preconditioner: prompts have 0 tokens, the least is 1");
}

TEST(in_context, of_long_prompts_finds_the_line) {
    const auto P = trained(diagonal({1, 1, 1, 1}), 200000);
    const prompt x(200000);
    EXPECT_NEAR(x.predicted(P), x.label(x.M), 0.03);
}

/// A multiple eta of the identity is one step of gradient descent from 0 on the mean squared error.
TEST(in_context, is_a_step_of_gradient_descent) {
    constexpr double eta = 0.3;
    const prompt x(50);
    std::array<double, D> w{};
    for (index_t n = 0; n < 50; ++n)
        for (index_t d = 0; d < D; ++d) w[static_cast<std::size_t>(d)] += eta / 50 * x.label(n) * x.e(0, 0, n, d);
    double y = 0;
    for (index_t d = 0; d < D; ++d) y += w[static_cast<std::size_t>(d)] * x.e(0, 0, 50, d);
    EXPECT_NEAR(x.predicted(diagonal({eta, eta, eta, eta})), y, 1e-12);
}

TEST(in_context, does_not_depend_on_the_order_of_the_prompt) {
    prompt x(40);
    const auto P = trained(diagonal({1, 2, 0.5, 3}), 40);
    const double before = x.predicted(P);
    for (index_t n = 0; n < 20; ++n)
        for (index_t d = 0; d <= D; ++d) std::swap(x.e(0, 0, n, d), x.e(0, 0, 39 - n, d));
    EXPECT_NEAR(x.predicted(P), before, 1e-12);
    tensor<double> o(x.e.shape());
    refuses<argument_error>([&] { linear_self_attention(x.e, x.e, x.e, o, 0); },
                            "linear_self_attention: rho is 0, must be above 0");
}

}  // namespace
