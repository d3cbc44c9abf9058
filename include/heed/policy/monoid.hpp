// Monoids: what a scan carries along the sequence, channel by channel.
//
//   s_t = s_{t-1} x_t         x_t: the element of token t, s: the state; (s x) y = s (x y)
// A monoid has `elements` and `states`, how many numbers each of them is, and four functions on numbers or packs X:
//   act(s, x)       s <- s x         one step
//   multiply(x, y)  x <- x y         x before y; with it pieces of a sequence can run at once
//   start(s), identity(x)            the state before any token, the element that changes nothing
// Optional: `outputs` and read(s), what is written at each token; without them the state itself.
#pragma once

#include <array>

#include "../simd/gates.hpp"

namespace heed::inline HEED_ABI {

/// A state or an element: n numbers, or n packs of neighbouring channels.
template <class X, int n>
using numbers = std::array<X, static_cast<std::size_t>(n)>;

template <class M>
concept monoid = requires(numbers<float, M::states>& s, numbers<float, M::elements>& x) {
    M::start(s);
    M::identity(x);
    M::act(s, x);
    M::multiply(x, x);
};

/// Semirings: a sum and a product that distributes over it; zero is the identity of the sum, one that of the product.
struct real_numbers {
    static constexpr double zero = 0, one = 1;
    static HEED_INLINE auto plus(const auto& a, const auto& b) { return a + b; }
    static HEED_INLINE auto times(const auto& a, const auto& b) { return a * b; }
    static HEED_INLINE auto times_plus(const auto& a, const auto& b, const auto& c) { return fma(a, b, c); }
};
/// Logarithms: the sum is log(e^a + e^b), the product a + b.
struct log_numbers {
    static constexpr double zero = -std::numeric_limits<double>::infinity(), one = 0;
    static HEED_INLINE auto plus(const auto& a, const auto& b) { return log_add(a, b); }
    static HEED_INLINE auto times(const auto& a, const auto& b) { return a + b; }
    static HEED_INLINE auto times_plus(const auto& a, const auto& b, const auto& c) { return log_add(a + b, c); }
};
/// Paths: the sum is the larger one, the product a + b.
struct path_numbers {
    static constexpr double zero = -std::numeric_limits<double>::infinity(), one = 0;
    static HEED_INLINE auto plus(const auto& a, const auto& b) { return select((a > b) | (a != a), a, b); }
    static HEED_INLINE auto times(const auto& a, const auto& b) { return a + b; }
    static HEED_INLINE auto times_plus(const auto& a, const auto& b, const auto& c) { return plus(a + b, c); }
};

/// s_t = s_{t-1} + x_t in a semiring.
template <class R>
struct prefix_in {
    static constexpr int elements = 1, states = 1;
    template <class X>
    static HEED_INLINE void start(numbers<X, 1>& s) {
        s = {X(R::zero)};
    }
    template <class X>
    static HEED_INLINE void identity(numbers<X, 1>& x) {
        start(x);
    }
    template <class X>
    static HEED_INLINE void act(numbers<X, 1>& s, const numbers<X, 1>& x) {
        s[0] = R::plus(s[0], x[0]);
    }
    template <class X>
    static HEED_INLINE void multiply(numbers<X, 1>& x, const numbers<X, 1>& y) {
        act(x, y);
    }
};
using running_sum = prefix_in<real_numbers>;
using running_log_sum = prefix_in<log_numbers>;
using running_max = prefix_in<path_numbers>;

/// s_t = a_t s_{t-1} + b_t in a semiring; an element is (a, b).
template <class R>
struct affine_in {
    static constexpr int elements = 2, states = 1;
    template <class X>
    static HEED_INLINE void start(numbers<X, 1>& s) {
        s = {X(R::zero)};
    }
    template <class X>
    static HEED_INLINE void identity(numbers<X, 2>& x) {
        x = {X(R::one), X(R::zero)};
    }
    template <class X>
    static HEED_INLINE void act(numbers<X, 1>& s, const numbers<X, 2>& x) {
        s[0] = R::times_plus(x[0], s[0], x[1]);
    }
    template <class X>
    static HEED_INLINE void multiply(numbers<X, 2>& x, const numbers<X, 2>& y) {
        x = {R::times(y[0], x[0]), R::times_plus(y[0], x[1], y[1])};
    }
};
using affine = affine_in<real_numbers>;
using log_affine = affine_in<log_numbers>;
using max_plus = affine_in<path_numbers>;

/// s_t = a_t s_{t-1} + b_t in complex numbers; an element is (Re a, Im a, Re b, Im b), a state (Re s, Im s).
struct complex_affine {
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
        s = {fma(x[0], s[0], fma(-x[1], s[1], x[2])), fma(x[0], s[1], fma(x[1], s[0], x[3]))};
    }
    template <class X>
    static HEED_INLINE void multiply(numbers<X, 4>& x, const numbers<X, 4>& y) {
        numbers<X, 2> a{x[0], x[1]}, b{x[2], x[3]};
        act(a, numbers<X, 4>{y[0], y[1], X(0), X(0)});
        act(b, y);
        x = {a[0], a[1], b[0], b[1]};
    }
};

/// Softmax over a prefix [81]: an element is (logit m, mass l, weighted value w), a token's is (s, 1, v). Written is
/// w / l, 0 where nothing has weight. A token of logit -inf is masked: the identity, whatever v is.
struct softmax_prefix {
    static constexpr int elements = 3, states = 3, outputs = 1;
    template <class X>
    static HEED_INLINE void start(numbers<X, 3>& s) {
        s = {X(log_numbers::zero), X(0), X(0)};
    }
    template <class X>
    static HEED_INLINE void identity(numbers<X, 3>& x) {
        start(x);
    }
    template <class X>
    static HEED_INLINE void act(numbers<X, 3>& s, const numbers<X, 3>& x) {
        const X top = path_numbers::plus(s[0], x[0]);
        // -inf - -inf is no number, but infinities of one sign are not apart. What has logit -inf is not touched.
        const X old = exp_nonpositive(select(s[0] == top, X(0), s[0] - top));
        const X fresh = exp_nonpositive(select(x[0] == top, X(0), x[0] - top));
        const auto masked = x[0] == X(log_numbers::zero);
        s = {top, fma(old, s[1], select(masked, X(0), fresh * x[1])),
             fma(old, s[2], select(masked, X(0), fresh * x[2]))};
    }
    template <class X>
    static HEED_INLINE void multiply(numbers<X, 3>& x, const numbers<X, 3>& y) {
        act(x, y);
    }
    template <class X>
    static HEED_INLINE numbers<X, 1> read(const numbers<X, 3>& s) {
        return {select(s[1] == X(0), X(0), s[2] / s[1])};
    }
};

}  // namespace heed::inline HEED_ABI
