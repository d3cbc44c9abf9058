// Monotonic alignment and monotonic chunkwise attention (MoChA), one step of the decoder at a time [1]
// (arXiv:1704.00784, arXiv:1712.05382).
//
//   p_j = sigmoid(e_j);  q_j = (1 - p_{j-1}) q_{j-1} + before_j,  alpha_j = p_j q_j
//   beta_j = sum over k in [j, j + w) of alpha_k exp(u_j) / sum over l in (k - w, k] of exp(u_l)
// The sum of alpha may be below 1: the rest ran off the end, and is not put back. A quotient of cumulative products,
// the usual statement, underflows after a few hundred keys; this recurrence does not. Decoding stops at the first p >=
// 1/2.
#pragma once

#include "../engine/scan.hpp"

namespace heed::inline HEED_ABI {
namespace detail {

/// What passes a key: mass s beyond it, q that arrives at it. An element (A, C, D, F): s' = A s + C, q' = D s + F.
struct passing {
    static constexpr int elements = 4, states = 2;
    template <class X>
    static HEED_INLINE void start(numbers<X, 2>& s) {
        s = {X(0), X(0)};
    }
    template <class X>
    static HEED_INLINE void identity(numbers<X, 4>& x) {
        x = {X(1), X(0), X(0), X(0)};
    }
    template <class X>
    static HEED_INLINE void act(numbers<X, 2>& s, const numbers<X, 4>& x) {
        s = {fma(x[0], s[0], x[1]), fma(x[2], s[0], x[3])};
    }
    template <class X>
    static HEED_INLINE void multiply(numbers<X, 4>& x, const numbers<X, 4>& y) {
        x = {y[0] * x[0], fma(y[0], x[1], y[1]), y[2] * x[0], fma(y[2], x[1], y[3])};
    }
};
struct monotonic_cell {
    using carried = passing;
    static constexpr int inputs = 2, constants = 0, outputs = 1;
    template <class X>
    HEED_INLINE void prepare(numbers<X, 0>&) const {}
    template <class X>
    HEED_INLINE numbers<X, 4> leaf(const numbers<X, 2>& x, const numbers<X, 0>&) const {
        const X on = sigmoid(-x[0]);
        return {on, on * x[1], X(1), x[1]};
    }
    template <class X>
    HEED_INLINE numbers<X, 1> read(const numbers<X, 2>& s, const numbers<X, 2>& x, const numbers<X, 0>&) const {
        return {sigmoid(x[0]) * s[1]};
    }
};
/// (B, M) as one sequence of M tokens with B channels.
template <class T>
view<T, 3> by_key(const view<T, 2>& x) {
    return {x.data, {1, x.shape[1], x.shape[0]}, {0, x.strides[1], x.strides[0]}};
}

}  // namespace detail

/// alpha (B, M) of a step, from energies e (B, M) and the alpha of the step before (the first: 1 at key 0, else 0). The
/// lanes are sequences. Policies: on{pool, arena}.
template <class A = default_arch, class E, class Before, class Alpha, class... P>
void monotonic_alignment(const E& e, const Before& before, Alpha&& alpha, const P&... policies) {
    using namespace detail;
    static_assert((has_role<P, roles::context> && ...), "heed: an argument is not a policy of this operator");
    run_scan<A>("monotonic_alignment", monotonic_cell{},
                std::tuple(reads("e", by_key(as_view(e))), reads("the alignment before", by_key(as_view(before)))),
                std::tuple<>{}, std::tuple(writes("alpha", by_key(as_view(alpha)))), policies...);
}

/// beta (B, M) from alpha (B, M) and a second energy u (B, M): each alpha spread over the window of w >= 1 keys that
/// ends at its own, by softmax of u. Sums to what alpha sums to.
template <class Alpha, class U, class Beta>
void chunkwise_alignment(const view<Alpha, 2>& alpha, const view<U, 2>& u, index_t window, const view<Beta, 2>& beta) {
    using namespace detail;
    static constexpr const char* op = "chunkwise_alignment";
    const auto a = reads("alpha", alpha);
    const auto x = reads("u", u);
    const auto y = writes("beta", beta);
    require_argument(window >= 1, op, "windows have ", window, " keys, the least is 1");
    check_written(op, y);
    check_shape(op, a, y.v.shape, "beta");
    check_shape(op, x, y.v.shape, "beta");
    check_apart(op, y, a);
    check_apart(op, y, x);
    using T = accumulator<std::remove_const_t<Alpha>, std::remove_const_t<U>, Beta>;
    for (index_t b = 0; b < beta.shape[0]; ++b)
        for (index_t j = 0; j < beta.shape[1]; ++j) {
            // Keys whose window holds j, each with the softmax of its own window at j.
            T sum = 0;
            for (index_t k = j; k < std::min(j + window, beta.shape[1]); ++k) {
                const index_t first = std::max<index_t>(0, k - window + 1);
                T top = -std::numeric_limits<T>::infinity(), total = 0;
                for (index_t l = first; l <= k; ++l) top = std::max(top, static_cast<T>(u(b, l)));
                for (index_t l = first; l <= k; ++l) total += std::exp(static_cast<T>(u(b, l)) - top);
                sum += static_cast<T>(alpha(b, k)) * (std::exp(static_cast<T>(u(b, j)) - top) / total);
            }
            beta(b, j) = static_cast<Beta>(sum);
        }
}

/// Hard decoding: the first key from `from` on with p >= 1/2, or M if there is none (the context is then 0).
template <class E>
index_t monotonic_stop(const view<E, 1>& e, index_t from) {
    index_t j = std::max<index_t>(0, from);
    while (j < e.shape[0] && !(static_cast<double>(e(j)) >= 0)) ++j;
    return std::min(j, e.shape[0]);
}

}  // namespace heed::inline HEED_ABI
