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

/// ln(c0 + c1 x + c2 x^2): softmax of it weighs by that polynomial, by default 1 + x + x^2 / 2. Nowhere may it be
/// negative: c1^2 <= 4 c0 c2, with c0 above 0 so that a row of zeros weighs something.
struct taylor_softmax {
    using role = roles::score;
    double c0 = 1, c1 = 1, c2 = 0.5;
    taylor_softmax() = default;
    constexpr taylor_softmax(double constant, double first, double second) : c0(constant), c1(first), c2(second) {}

    template <class X>
    HEED_INLINE X operator()(X x, const where&) const {
        return log(X(c0) + x * (X(c1) + X(c2) * x));
    }
    template <class X>
    HEED_INLINE X slope(X x, const where&) const {
        return (X(c1) + X(2 * c2) * x) / (X(c0) + x * (X(c1) + X(c2) * x));
    }
    void check(const char* op) const {
        require_argument(c0 > 0 && c1 * c1 <= 4 * c0 * c2, op, "weights of ", c0, " + ", c1, " x + ", c2,
                         " x^2 may be negative, or 0 for a row of zeros");
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

/// The length from which the efficient form is faster: 2 / (1 / N + 1 / M) for N queries of M keys. It is where the
/// paper's count of operations crosses; the two forms here do so close by, at about 340, 1050 and 5000 for D = E = 16,
/// 32 and 64 (AVX-512).
constexpr index_t taylor_shift_crossover(index_t D) { return D * D + D + 1; }

enum class taylor_form { fastest, direct, efficient };

/// q (B, H, N, D), k (B, G, M, D), v (B, G, M, E), o (B, H, N, E). Every row sees every key. `sized` asks for the
/// factor sqrt(M / D). Policies: on{...}; taylor_features{1, c0, c1, c2} for other coefficients, within the bounds of
/// taylor_softmax.
template <class A = default_arch, class Q, class K, class V, class O, class... P>
void taylor_shift(const Q& q, const K& k, const V& v, O&& o, bool sized = true, taylor_form form = taylor_form::fastest,
                  const P&... policies) {
    const auto to = as_view(o);
    const index_t N = as_view(q).shape[2], D = as_view(q).shape[3], M = as_view(k).shape[2];
    const double size = sized && D > 0 ? std::sqrt(static_cast<double>(M) / static_cast<double>(D)) : 1.0;
    if (form == taylor_form::fastest)
        form = 2 * N * M > taylor_shift_crossover(D) * (N + M) ? taylor_form::efficient : taylor_form::direct;
    const auto map = detail::pick<roles::features>(taylor_features{1}, policies...);
    static_assert(std::is_same_v<decltype(map), const taylor_features>,
                  "heed: the features of TaylorShift are taylor_features");
    const taylor_softmax weights(map.c0, map.c1, map.c2);
    weights.check("taylor_shift");
    const auto run = [&](const auto&... others) {
        if (form == taylor_form::efficient) {
            recurrence<A>(q, k, v, to, map, sized_sum_of_keys{size}, non_causal{}, others...);
        } else {
            const double factor = map.factor.value_or(D > 0 ? 1 / std::sqrt(static_cast<double>(D)) : 1.0);
            attention<A>(q, k, v, to, scale{factor} >> weights, others...);
        }
    };
    std::apply(run, detail::leave_out<roles::features>(policies...));
    if (form == taylor_form::efficient) return;
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
/// taylor_features{}.width(D) rows among the policies to go on from, and taylor_features of your own. No factor
/// sqrt(N / D).
template <class A = default_arch, class Q, class K, class V, class O, class... P>
void causal_taylor_shift(const Q& q, const K& k, const V& v, O&& o, P&&... policies) {
    const auto mapped = [&](auto&... all) {
        detail::with_default(
            taylor_features{1}, [&](auto&... both) { recurrence<A>(q, k, v, o, both...); }, all...);
    };
    detail::with_default(sum_of_keys{}, mapped, policies...);
}

}  // namespace heed::inline HEED_ABI
