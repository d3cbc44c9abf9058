// Scans of an image in several orders, and how their outputs are brought together: MaIR [34].
//
//   reordered: y[t] = x[order[t]], (B, H W, C);  restored: y[order[t]] = x[t]
//   sequence shuffle attention: s[k,c] = mean over pixels of y_k[c];  a[.,c] = sigmoid(W_c s[.,c] + b_c);
//   out[c] = sum over k of a[k,c] y_k[c]
// Cost: one pass for the means, one for the sum.
#pragma once

#include "../engine/scan_operands.hpp"
#include "../policy/scan_order.hpp"
#include "row_maps.hpp"

namespace heed::inline HEED_ABI {
namespace detail {
template <class X, class Y>
void check_order(const char* op, const operand<const X, 3>& x, const operand<Y, 3>& y, const scan_order& order) {
    check_written(op, y);
    check_shape(op, x, y.v.shape, y.name);
    check_apart(op, y, x);
    require_shape(static_cast<index_t>(order.size()) == y.v.shape[1], op, "the order has ", order.size(), " places, ",
                  y.name, " has ", y.v.shape[1], " tokens");
    for (index_t place : order)
        require_argument(place >= 0 && place < y.v.shape[1], op, "place ", place, " of ", y.v.shape[1]);
}
/// Token from(t) of x becomes token to(t) of y.
template <class A, class X, class Y, class From, class To, class... P>
void move_tokens(const view<X, 3>& x, const view<Y, 3>& y, const From& from, const To& to, const P&... policies) {
    static_assert((has_role<P, roles::context> && ...), "heed: an argument is not a policy of an order");
    using T = accumulator<std::remove_const_t<X>, Y>;
    each_token(pick<roles::context>(calling_thread{}, policies...), y.shape[0], y.shape[1], y.shape[2],
               [&](index_t b, index_t t) { map_row<A, T>(row_of(y, b, to(t)), as_it_is, row_of(x, b, from(t))); });
}
}  // namespace detail

/// y[t] = x[order[t]]: x, y (B, N, C). Policies: on{pool}.
template <class A = default_arch, class X, class Y, class... P>
void reordered(const view<X, 3>& x, const scan_order& order, const view<Y, 3>& y, const P&... policies) {
    detail::check_order("reordered", detail::reads("x", x), detail::writes("y", y), order);
    detail::move_tokens<A>(
        x, y, [&](index_t t) { return order[static_cast<std::size_t>(t)]; }, [](index_t t) { return t; }, policies...);
}
/// y[order[t]] = x[t]: undoes reordered. Policies: on{pool}.
template <class A = default_arch, class X, class Y, class... P>
void restored(const view<X, 3>& x, const scan_order& order, const view<Y, 3>& y, const P&... policies) {
    detail::check_order("restored", detail::reads("x", x), detail::writes("y", y), order);
    detail::move_tokens<A>(
        x, y, [](index_t t) { return t; }, [&](index_t t) { return order[static_cast<std::size_t>(t)]; }, policies...);
}

/// y (K, B, N, C), K orders' outputs brought back to the image; W (C, K, K), b (C, K); out (B, N, C). Policies:
/// on{pool, arena}, the arena for 2 K numbers a batch entry and channel. Throws shape_error before out is touched.
template <class A = default_arch, class Y, class W, class Bias, class O, class... P>
void sequence_shuffle_attention(const view<Y, 4>& y, const view<W, 3>& w, const view<Bias, 2>& bias,
                                const view<O, 3>& out, const P&... policies) {
    using namespace detail;
    static constexpr const char* op = "sequence_shuffle_attention";
    static_assert((has_role<P, roles::context> && ...), "heed: an argument is not a policy of this operator");
    const auto to = writes("out", out);
    const auto [B, N, C] = out.shape;
    const index_t K = y.shape[0];
    check_written(op, to);
    check_shape(op, reads("y", y), {K, B, N, C}, "out");
    check_shape(op, reads("W", w), {C, K, K}, "y");
    check_shape(op, reads("b", bias), {C, K}, "y");
    check_apart_from_all(op, std::tuple(reads("y", y), reads("W", w), reads("b", bias)), std::tuple(to));
    using T = accumulator<std::remove_const_t<Y>, std::remove_const_t<W>, std::remove_const_t<Bias>, O>;
    const auto image = [&](index_t k) {
        return view<Y, 3>{y.data + k * y.strides[0], out.shape, {y.strides[1], y.strides[2], y.strides[3]}};
    };
    const auto run = [&, B = B, N = N, C = C](carver& from, const auto& with) {
        const auto means = dense(from.take<T>(K * B * C), {K, B, C});
        const auto shares = dense(from.take<T>(B * K * C), {B, K, C});
        if (from.counts()) return;
        for_tasks(*with.pool, K * B, [&](index_t task, index_t) {
            const auto mean = row_of(means, task / B, task % B);
            std::fill_n(mean.data, C, T(0));
            for (index_t n = 0; n < N; ++n) map_row<A, T>(mean, sum_of, mean, row_of(image(task / B), task % B, n));
        });
        for (index_t b = 0; b < B; ++b)
            for (index_t k = 0; k < K; ++k)
                for (index_t c = 0; c < C; ++c) {
                    T sum = static_cast<T>(bias(c, k));
                    for (index_t j = 0; j < K; ++j)
                        sum += static_cast<T>(w(c, k, j)) * means(j, b, c) / static_cast<T>(N);
                    shares(b, k, c) = sigmoid(sum);
                }
        each_token(with, B, N, K * C, [&](index_t b, index_t n) {
            constexpr index_t piece = 128;
            T sums[piece];
            for (index_t c = 0; c < C; c += piece) {
                const range some{c, std::min(C, c + piece)};
                const view<T, 1> sum{sums, {some.size()}, {1}};
                std::fill_n(sums, some.size(), T(0));
                for (index_t k = 0; k < K; ++k)
                    map_row<A, T>(sum, times_plus, slice(row_of(shares, b, k), 0, some),
                                  slice(row_of(image(k), b, n), 0, some), sum);
                map_row<A, T>(slice(row_of(out, b, n), 0, some), as_it_is, sum);
            }
        });
    };
    in_shared_scratch(op, run, pick<roles::context>(calling_thread{}, policies...));
}

}  // namespace heed::inline HEED_ABI
