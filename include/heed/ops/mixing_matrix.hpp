// The mixing matrix of an operator that is linear in its values: o = M v, per head, whatever form computes it.
//
//   M (N, N) = what the operator makes of the identity; by blocks of its columns, (N, columns) at a time
// For tests, and for distilling one operator into another, with the losses of [17]: |A - M|^2 of two mixing matrices,
// |x - y| of hidden states, KL(p || q) of logits. Cost: the operator with values of width N.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "../core/half.hpp"
#include "../core/view.hpp"

namespace heed::inline HEED_ABI {

/// m (B, H, N, M): row i has the weights of output i. run(v, o) applies the operator to values v (B, H, M, E), which
/// are views of the element type of m and have stride 0 over batch and heads, and writes o (B, H, N, E), a stretch of
/// m's columns. It is called once for every `columns` columns, each time from the same state.
template <class Run, class Matrix>
void mixing_matrix(Run&& run, Matrix&& m, index_t columns = 64) {
    const auto to = as_view(m);
    using T = typename decltype(to)::value_type;
    require_argument(columns >= 1, "mixing_matrix", "columns is ", columns, ", the least is 1");
    const index_t M = to.shape[3];
    std::vector<T> memory(static_cast<std::size_t>(M * std::min(columns, M)));
    for (index_t first = 0; first < M; first += columns) {
        const index_t width = std::min(columns, M - first);
        std::fill(memory.begin(), memory.end(), T(0));
        for (index_t i = 0; i < width; ++i) memory[static_cast<std::size_t>((first + i) * width + i)] = T(1);
        run(view<const T>{memory.data(), {to.shape[0], to.shape[1], M, width}, {0, 0, width, 1}},
            slice(to, 3, {first, first + width}));
    }
}

namespace detail {
template <class A, class B>
void check_same_shape(const char* op, const view<A>& a, const view<B>& b) {
    constexpr const char* axes[] = {"batch", "head", "row", "column"};
    for (std::size_t x = 0; x < 4; ++x)
        require_shape(a.shape[x] == b.shape[x], op, axes[x], " extents are ", a.shape[x], " and ", b.shape[x]);
}
}  // namespace detail

/// sum_ij (a_ij - m_ij)^2 of one head's matrices, in double: the loss of matrix mixing; its root for rows of width D is
/// the loss of hidden states.
template <class X, class Y>
double squared_distance(const X& a, const Y& m, index_t b, index_t h) {
    const auto x = as_view(a);
    const auto y = as_view(m);
    detail::check_same_shape("squared_distance", x, y);
    double sum = 0;
    for (index_t i = 0; i < x.shape[2]; ++i)
        for (index_t j = 0; j < x.shape[3]; ++j) {
            const double gap = static_cast<double>(x(b, h, i, j)) - static_cast<double>(y(b, h, i, j));
            sum += gap * gap;
        }
    return sum;
}

/// KL(softmax(p) || softmax(q)) of rows of logits (b, h, i, words), natural log, averaged over all rows; 0 if there are
/// none. A word of p at -inf counts for nothing.
template <class X, class Y>
double mean_divergence(const X& teacher, const Y& student) {
    const auto p = as_view(teacher);
    const auto q = as_view(student);
    detail::check_same_shape("mean_divergence", p, q);
    const auto log_sum = [](const auto& x, index_t b, index_t h, index_t i) {
        double top = -std::numeric_limits<double>::infinity(), sum = 0;
        for (index_t w = 0; w < x.shape[3]; ++w) top = std::max(top, static_cast<double>(x(b, h, i, w)));
        for (index_t w = 0; w < x.shape[3]; ++w) sum += std::exp(static_cast<double>(x(b, h, i, w)) - top);
        return top + std::log(sum);
    };
    double total = 0;
    const index_t B = p.shape[0], H = p.shape[1], N = p.shape[2];
    for (index_t row = 0; row < B * H * N; ++row) {
        const index_t i = row % N, h = row / N % H, b = row / N / H;
        const double zp = log_sum(p, b, h, i), zq = log_sum(q, b, h, i);
        for (index_t w = 0; w < p.shape[3]; ++w) {
            const double log_p = static_cast<double>(p(b, h, i, w)) - zp, weight = std::exp(log_p);
            if (weight != 0) total += weight * (log_p - static_cast<double>(q(b, h, i, w)) + zq);
        }
    }
    return B * H * N > 0 ? total / static_cast<double>(B * H * N) : 0;
}

}  // namespace heed::inline HEED_ABI
