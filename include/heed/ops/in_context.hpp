// In-context linear regression by one layer of linear self-attention [15].
//
//   prompt: rows (x_i, y_i), i < M, then (x, 0)     f(e)_t = e_t + (1 / M) sum_j (w_kq e_t . e_j) w_pv e_j
//   trained on x ~ N(0, Lambda):  w_kq = s^-1 diag(G^-1, 0),  w_pv = s diag(0, 1),  s = tr(G^-2)^(1/4)
//   then the last of f(e)_M is  x^T G^-1 (1 / M) sum_j y_j x_j,  G = (1 + 1/M) Lambda + tr(Lambda) / M I
// Cost: 4 D E a token. Zhang et al., arXiv:2306.09927.
#pragma once

#include <vector>

#include "../engine/recurrence.hpp"
#include "../policy/score.hpp"

namespace heed::inline HEED_ABI {

/// sum_j (q_t.k_j) v_j / rho for every t: non-causal linear attention as it is. For queries w_kq e, keys e and values
/// w_pv e, o is what the layer adds to e. q, k (B, H, N, D), v and o (B, H, N, E). Policies of recurrence but order and
/// scale.
template <class A = default_arch, class Q, class K, class V, class O, class... P>
void linear_self_attention(const Q& q, const K& k, const V& v, O&& o, double rho, P&&... policies) {
    require_argument(rho > 0, "linear_self_attention", "rho is ", rho, ", must be above 0");
    recurrence<A>(q, k, v, o, non_causal{}, scale{1 / rho}, policies...);
}

/// G^-1 (D, D) of what training on covariance lambda (D, D), symmetric and positive definite, and prompts of M tokens
/// ends with: the queries of such a layer are G^-1 x, s cancels. By Gauss-Jordan elimination.
inline std::vector<double> trained_preconditioner(view<const double, 2> lambda, index_t M) {
    static constexpr const char* op = "trained_preconditioner";
    const index_t D = lambda.shape[0];
    require_shape(lambda.shape[1] == D, op, "lambda is of ", D, " rows and ", lambda.shape[1], " columns");
    require_argument(M >= 1, op, "prompts have ", M, " tokens, the least is 1");
    std::vector<double> g(static_cast<std::size_t>(D * D)), inverse(g.size());
    const auto G = dense(g.data(), {D, D}), I = dense(inverse.data(), {D, D});
    double trace = 0;
    for (index_t i = 0; i < D; ++i) trace += lambda(i, i);
    const double m = static_cast<double>(M);
    for (index_t i = 0; i < D; ++i)
        for (index_t j = 0; j < D; ++j) {
            I(i, j) = i == j;
            G(i, j) = (1 + 1 / m) * lambda(i, j) + (i == j ? trace / m : 0);
        }
    for (index_t p = 0; p < D; ++p) {
        const double pivot = G(p, p);
        require_argument(pivot > 0, op, "lambda is not positive definite: pivot ", p, " is ", pivot);
        for (index_t j = 0; j < D; ++j) G(p, j) /= pivot, I(p, j) /= pivot;
        for (index_t i = 0; i < D; ++i) {
            const double by = i == p ? 0 : G(i, p);
            for (index_t j = 0; j < D; ++j) G(i, j) -= by * G(p, j), I(i, j) -= by * I(p, j);
        }
    }
    return inverse;
}

}  // namespace heed::inline HEED_ABI
