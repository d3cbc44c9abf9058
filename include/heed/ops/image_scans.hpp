// Scans of an image in several orders, and how their outputs are brought together: MaIR [34].
//
//   reordered: y[t] = x[order[t]], (B, H W, C);  restored: y[order[t]] = x[t]
//   sequence shuffle attention: s[k,c] = mean over pixels of y_k[c];  a[.,c] = sigmoid(W_c s[.,c] + b_c);
//   out[c] = sum over k of a[k,c] y_k[c]
// Cost: one pass for the means, one for the sum.
#pragma once

#include "../engine/scan_operands.hpp"
#include "../policy/scan_order.hpp"
#include "../simd/convert.hpp"
#include "../simd/gates.hpp"

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
template <class X, class Y, class From, class To>
void move_rows(const view<X, 3>& x, const view<Y, 3>& y, const From& from, const To& to) {
    for (index_t b = 0; b < y.shape[0]; ++b)
        for (index_t t = 0; t < y.shape[1]; ++t)
            for (index_t c = 0; c < y.shape[2]; ++c) y(b, to(t), c) = static_cast<Y>(x(b, from(t), c));
}
}  // namespace detail

/// y[t] = x[order[t]]: x, y (B, N, C).
template <class X, class Y>
void reordered(const view<X, 3>& x, const scan_order& order, const view<Y, 3>& y) {
    detail::check_order("reordered", detail::reads("x", x), detail::writes("y", y), order);
    detail::move_rows(
        x, y, [&](index_t t) { return order[static_cast<std::size_t>(t)]; }, [](index_t t) { return t; });
}
/// y[order[t]] = x[t]: undoes reordered.
template <class X, class Y>
void restored(const view<X, 3>& x, const scan_order& order, const view<Y, 3>& y) {
    detail::check_order("restored", detail::reads("x", x), detail::writes("y", y), order);
    detail::move_rows(
        x, y, [](index_t t) { return t; }, [&](index_t t) { return order[static_cast<std::size_t>(t)]; });
}

/// y (K, B, N, C), K orders' outputs brought back to the image; W (C, K, K), b (C, K); out (B, N, C). Memory beside: K
/// C weights.
template <class Y, class W, class Bias, class O>
void sequence_shuffle_attention(const view<Y, 4>& y, const view<W, 3>& w, const view<Bias, 2>& bias,
                                const view<O, 3>& out) {
    using namespace detail;
    static constexpr const char* op = "sequence_shuffle_attention";
    const auto to = writes("out", out);
    const auto [B, N, C] = out.shape;
    const index_t K = y.shape[0];
    check_written(op, to);
    check_shape(op, reads("y", y), {K, B, N, C}, "out");
    check_shape(op, reads("W", w), {C, K, K}, "y");
    check_shape(op, reads("b", bias), {C, K}, "y");
    check_apart(op, to, reads("y", y));
    using T = accumulator<std::remove_const_t<Y>, std::remove_const_t<W>, std::remove_const_t<Bias>, O>;
    std::vector<T> mean(static_cast<std::size_t>(K * C)), share(mean.size());
    const auto at = [C = C](index_t k, index_t c) { return static_cast<std::size_t>(k * C + c); };
    for (index_t b = 0; b < B; ++b) {
        std::fill(mean.begin(), mean.end(), T(0));
        for (index_t k = 0; k < K; ++k)
            for (index_t n = 0; n < N; ++n)
                for (index_t c = 0; c < C; ++c) mean[at(k, c)] += static_cast<T>(y(k, b, n, c));
        for (index_t k = 0; k < K; ++k)
            for (index_t c = 0; c < C; ++c) {
                T sum = static_cast<T>(bias(c, k));
                for (index_t j = 0; j < K; ++j) sum += static_cast<T>(w(c, k, j)) * mean[at(j, c)] / static_cast<T>(N);
                share[at(k, c)] = sigmoid(sum);
            }
        for (index_t n = 0; n < N; ++n)
            for (index_t c = 0; c < C; ++c) {
                T sum = 0;
                for (index_t k = 0; k < K; ++k) sum += share[at(k, c)] * static_cast<T>(y(k, b, n, c));
                out(b, n, c) = static_cast<O>(sum);
            }
    }
}

}  // namespace heed::inline HEED_ABI
