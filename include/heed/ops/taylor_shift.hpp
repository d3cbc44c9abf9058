// TaylorShift: softmax with e^x to the second degree, in two exact forms [110].
//
//   a_ij = 1 + x + x^2 / 2 >= 1/2, x = tau_h q_i.k_j / (|q_i| |k_j|),   o_i = sqrt(N / D) sum_j a_ij v_j / sum_j a_ij
//   direct: attention, 2 N (D + E) a row and head      efficient: a recurrence of 1 + D + D (D + 1) / 2 features
// Rows are made before, by unit_rows(q, q, tau) and unit_rows(k, k). Nauen et al., arXiv:2403.02920.
#pragma once

#include "../engine/attention.hpp"
#include "../policy/feature_power.hpp"
#include "unit_rows.hpp"
#include "with_default.hpp"

namespace heed::inline HEED_ABI {

/// ln(1 + x + x^2 / 2): softmax of it weighs by 1 + x + x^2 / 2.
struct taylor_softmax {
    using role = roles::score;
    template <class X>
    HEED_INLINE X operator()(X x, const where&) const {
        return log(X(1) + x * (X(1) + X(0.5) * x));
    }
    template <class X>
    HEED_INLINE X slope(X x, const where&) const {
        return (X(1) + x) / (X(1) + x * (X(1) + X(0.5) * x));
    }
};

/// o = factor q^T S / q.z: a sum of weights, and one factor for all.
struct sized_sum_of_keys {
    using role = roles::normaliser;
    double factor_of_all = 1;
    template <class T>
    T factor(T sum, index_t, index_t, index_t) const {
        return sum == 0 ? T(0) : static_cast<T>(factor_of_all) / sum;
    }
};

/// Lengths from which the efficient form has less arithmetic: 4 (E + 1) per feature against 2 (D + E) and the logarithm
/// and the exponential per key. (The paper's count, of D^2 features, crosses at D^2 + D + 3/4.)
constexpr index_t taylor_shift_crossover(index_t D, index_t E) {
    const index_t features = 1 + D + D * (D + 1) / 2;
    return 4 * features * (E + 1) / (2 * (D + E) + 32);
}

enum class taylor_form { fastest, direct, efficient };

/// q (B, H, N, D), k (B, G, M, D), v (B, G, M, E), o (B, H, N, E); the efficient form wants M = N. Every row sees every
/// key. `sized` asks for the factor sqrt(M / D). Policies: on{...}.
template <class A = default_arch, class Q, class K, class V, class O, class... P>
void taylor_shift(const Q& q, const K& k, const V& v, O&& o, bool sized = true, taylor_form form = taylor_form::fastest,
                  const P&... policies) {
    const auto to = as_view(o);
    const index_t N = as_view(q).shape[2], D = as_view(q).shape[3], M = as_view(k).shape[2];
    const double size = sized && D > 0 ? std::sqrt(static_cast<double>(M) / static_cast<double>(D)) : 1.0;
    if (form == taylor_form::fastest)
        form = N == M && N > taylor_shift_crossover(D, to.shape[3]) ? taylor_form::efficient : taylor_form::direct;
    if (form == taylor_form::efficient) {
        recurrence<A>(q, k, v, to, taylor_features{1}, sized_sum_of_keys{size}, non_causal{}, policies...);
        return;
    }
    attention<A>(q, k, v, to, scale{1} >> taylor_softmax{}, policies...);
    if (size == 1) return;
    using R = typename decltype(to)::value_type;
    for (index_t b = 0; b < to.shape[0]; ++b)
        for (index_t h = 0; h < to.shape[1]; ++h)
            for (index_t n = 0; n < to.shape[2]; ++n)
                for (index_t e = 0; e < to.shape[3]; ++e) {
                    R& y = to(b, h, n, e);
                    y = static_cast<R>(static_cast<accumulator<R>>(size) * static_cast<accumulator<R>>(y));
                }
}

/// The same of the past only, an extension of the paper's, token by token or of whole sequences, with a state of
/// taylor_features{}.width(D) rows among the policies to go on from. No factor sqrt(N / D).
template <class A = default_arch, class Q, class K, class V, class O, class... P>
void causal_taylor_shift(const Q& q, const K& k, const V& v, O&& o, P&&... policies) {
    const taylor_features features{1};
    detail::with_default(
        sum_of_keys{}, [&](auto&... all) { recurrence<A>(q, k, v, o, features, all...); }, policies...);
}

}  // namespace heed::inline HEED_ABI
