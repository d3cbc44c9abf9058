// Monotonic alignment and monotonic chunkwise attention (MoChA), one step of the decoder at a time [1]
// (arXiv:1704.00784, arXiv:1712.05382).
//
//   p_j = sigmoid(e_j);  q_j = (1 - p_{j-1}) q_{j-1} + before_j,  alpha_j = p_j q_j
//   beta_j = sum over k in [j, j + w) of alpha_k exp(u_j) / sum over l in (k - w, k] of exp(u_l)
// The sum of alpha may be below 1: the rest ran off the end, and is not put back. A quotient of cumulative products,
// the usual statement, underflows after a few hundred keys; this recurrence does not. Decoding stops at the first p >=
// 1/2, key t, and reads  c = sum over l in (t - w, t] of v_l exp(u_l) / sum of exp(u_l)  there, 0 if there is none.
#pragma once

#include <span>

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

/// Softmax of u over the keys (k - w, k] of sequence b.
template <class T>
struct window_softmax {
    T top, total;

    static index_t first(index_t k, index_t window) { return std::max<index_t>(0, k - window + 1); }
    template <class U>
    static window_softmax of(const view<U, 2>& u, index_t b, index_t k, index_t window) {
        window_softmax at{-std::numeric_limits<T>::infinity(), 0};
        for (index_t l = first(k, window); l <= k; ++l) at.top = std::max(at.top, static_cast<T>(u(b, l)));
        for (index_t l = first(k, window); l <= k; ++l) at.total += std::exp(static_cast<T>(u(b, l)) - at.top);
        return at;
    }
    /// The weight of a key with this energy; 0 where all keys of the window are masked, with energies -inf.
    template <class X>
    T operator()(const X& energy) const {
        return top == -std::numeric_limits<T>::infinity() ? T(0) : std::exp(static_cast<T>(energy) - top) / total;
    }
};

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
/// ends at its own, by softmax of u. Sums to what alpha sums to. Cost O(M w). Policies: on{pool, arena}. Throws
/// shape_error or argument_error before beta is touched.
template <class Alpha, class U, class Beta, class... P>
void chunkwise_alignment(const view<Alpha, 2>& alpha, const view<U, 2>& u, index_t window, const view<Beta, 2>& beta,
                         const P&... policies) {
    using namespace detail;
    static constexpr const char* op = "chunkwise_alignment";
    static_assert((has_role<P, roles::context> && ...), "heed: an argument is not a policy of this operator");
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
    const index_t M = beta.shape[1], w = std::min(window, M);
    const auto spread = [&](index_t b, window_softmax<T>* windows) {
        for (index_t k = 0; k < M; ++k) windows[k] = window_softmax<T>::of(u, b, k, w);
        for (index_t j = 0; j < M; ++j) {
            // Keys whose window holds j, each with the softmax of its own window at j.
            T sum = 0;
            for (index_t k = j; k < std::min(j + w, M); ++k)
                sum += static_cast<T>(alpha(b, k)) * windows[k](u(b, j));
            beta(b, j) = static_cast<Beta>(sum);
        }
    };
    carver own;
    own.take<window_softmax<T>>(M);
    in_scratch(
        op, [&](auto& pool) { return static_cast<std::size_t>(workers(pool, beta.shape[0])) * own.used(); },
        [&](auto& pool, std::byte* memory) {
            for_tasks(pool, beta.shape[0], [&](index_t b, index_t worker) {
                std::byte* const mine = memory + static_cast<std::size_t>(worker) * own.used();
                spread(b, carver(mine).take<window_softmax<T>>(M));
            });
        },
        policies...);
}

/// Hard decoding: the first key from `from` on with p >= 1/2, or M if there is none (the context is then 0).
template <class E>
index_t monotonic_stop(const view<E, 1>& e, index_t from) {
    index_t j = std::max<index_t>(0, from);
    while (j < e.shape[0] && !(static_cast<double>(e(j)) >= 0)) ++j;
    return std::min(j, e.shape[0]);
}

/// And what it reads: context (B, E) from second energies u (B, M) and values v (B, M, E), softmax of u over the window
/// of w >= 1 keys that ends at stops[b]; 0 where that is M, no stop. w = 1 reads the value of the stop. Throws
/// shape_error or argument_error before the context is touched.
template <class U, class V, class O>
void chunkwise_context(std::span<const index_t> stops, const view<U, 2>& u, const view<V, 3>& v, index_t window,
                       const view<O, 2>& context) {
    using namespace detail;
    static constexpr const char* op = "chunkwise_context";
    const auto x = reads("u", u);
    const auto values = reads("v", v);
    const auto out = writes("the context", context);
    const auto [B, E] = context.shape;
    const index_t M = u.shape[1];
    require_argument(window >= 1, op, "windows have ", window, " keys, the least is 1");
    check_written(op, out);
    check_shape(op, x, {B, M}, "the context");
    check_shape(op, values, {B, M, E}, "u, the context");
    check_apart(op, out, x);
    check_apart(op, out, values);
    require_shape(static_cast<index_t>(stops.size()) == B, op, "there are ", static_cast<index_t>(stops.size()),
                  " stops of ", B, " sequences");
    for (const index_t stop : stops) require_argument(stop >= 0 && stop <= M, op, "stop ", stop, " of ", M, " keys");
    using T = accumulator<std::remove_const_t<U>, std::remove_const_t<V>, O>;
    for (index_t b = 0; b < B; ++b) {
        const index_t stop = stops[static_cast<std::size_t>(b)];
        const bool none = stop == M;
        const auto weight = none ? window_softmax<T>{} : window_softmax<T>::of(u, b, stop, window);
        for (index_t e = 0; e < E; ++e) {
            T sum = 0;
            for (index_t l = window_softmax<T>::first(stop, window); !none && l <= stop; ++l)
                sum += weight(u(b, l)) * static_cast<T>(v(b, l, e));
            context(b, e) = static_cast<O>(sum);
        }
    }
}

}  // namespace heed::inline HEED_ABI
