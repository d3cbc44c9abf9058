// The right-angle transform: real sequences of length 2P as complex polynomials modulo x^P - i.
//
//   coefficient n = x_n + i x_(P+n).  Products modulo x^P - i are convolutions modulo x^(2P) + 1: nothing is padded
//   with zeros, no conjugates are told apart, and the order of the spectrum is free, so that nothing is ever reversed.
// The first splitting, into Q = 4 polynomials modulo x^M - r, M = P / 4, goes into the lanes: L / Q sequences of Q
// parts each. Radix-4 passes split on, depth first, so that a part stays in a cache until its product and inverse are
// done. Cost about 8 log2 P + 20 operations a point, there and back. M is 2^a or 3 2^a. Source: Crandall and Pomerance,
// Prime Numbers, 2nd ed., section 9.5.3; the order is Bernstein's tree of remainders.
#pragma once

#include <cmath>
#include <numbers>
#include <vector>

#include "../core/range.hpp"
#include "../simd/rows.hpp"

namespace heed::inline HEED_ABI {

/// Length and twiddles of a transform.
template <class T, class A = default_arch>
class fft_plan {
    using real = std::conditional_t<std::is_same_v<T, double>, long double, double>;

public:
    static constexpr int L = lanes<T, A>;
    static constexpr int parts = L < 4 ? L : 4;  // Q
    static constexpr int sequences = L / parts;  // transformed at once
    static constexpr index_t least = parts * L;  // tiles of L positions are transposed

    /// The shortest length of at least n points.
    static constexpr index_t length_for(index_t n) {
        index_t size = least;
        while (size < n) size *= 2;
        const index_t shorter = size / 4 * 3;
        return shorter >= n && shorter >= 3 * least ? shorter : size;
    }

    /// P is a length_for(n).
    explicit fft_plan(index_t P) : block_(P / parts) {
        for (int power = 1; power < parts; ++power) push(roots_, real(power) * root_angle(0));
        twiddles_.reserve(static_cast<std::size_t>(twiddles_of(block_)));
        real angles[parts];
        for (int k = 0; k < parts; ++k) angles[k] = root_angle(k);
        split(block_, angles);
    }

    index_t size() const { return parts * block_; }
    /// M, the positions that a part has.
    index_t block() const { return block_; }
    /// w, w^2, w^3 of the first splitting, as pairs (re, im).
    const T* roots() const { return roots_.data(); }
    /// Those of all other splittings in the order of use; Q real parts and then Q imaginary ones for each.
    const T* twiddles() const { return twiddles_.data(); }

    /// Numbers that splitting a block takes.
    static constexpr index_t twiddles_of(index_t block) {
        if (block % 3 == 0) return 4 * parts + 3 * twiddles_of(block / 3);
        return block == 1 ? 0 : block == 2 ? 2 * parts : 6 * parts + 4 * twiddles_of(block / 4);
    }

private:
    // Angles are in turns. Root k of x^Q = i.
    static real root_angle(int k) { return (real(0.25) + static_cast<real>(k)) / static_cast<real>(parts); }

    static std::array<real, 2> at_angle(real turns) {
        const real angle = 2 * std::numbers::pi_v<real> * (turns - std::floor(turns));
        return {std::cos(angle), std::sin(angle)};
    }
    static void push(std::vector<T>& to, real turns) {
        for (real x : at_angle(turns)) to.push_back(static_cast<T>(x));
    }
    void push_power(const real (&angles)[parts], real factor) {
        for (std::size_t component : {0, 1})
            for (real angle : angles) twiddles_.push_back(static_cast<T>(at_angle(factor * angle)[component]));
    }
    /// The twiddles of x^block - e^(2 pi i angle), an angle for each part, then those of what it splits into.
    void split(index_t block, const real (&angles)[parts]) {
        if (block == 1) return;
        const int radix = block % 3 == 0 ? 3 : block == 2 ? 2 : 4;
        for (int power = 1; power < radix; ++power) push_power(angles, real(power) / static_cast<real>(radix));
        for (int k = 0; k < radix; ++k) {
            real next[parts];
            for (int q = 0; q < parts; ++q) next[q] = (angles[q] + static_cast<real>(k)) / static_cast<real>(radix);
            split(block / radix, next);
        }
    }

    index_t block_;
    std::vector<T> roots_, twiddles_;
};

namespace detail {

/// A complex number in each lane; in memory L real parts and then L imaginary ones.
template <class P>
struct complex_lanes {
    using T = typename P::value_type;
    P re, im;

    static constexpr index_t step = 2 * static_cast<index_t>(P::size);  // elements of memory
    static HEED_INLINE complex_lanes at(const T* p) { return {load_aligned<P>(p), load_aligned<P>(p + P::size)}; }
    HEED_INLINE void to(T* p) const {
        store_aligned(p, re);
        store_aligned(p + P::size, im);
    }
    friend HEED_INLINE complex_lanes operator+(const complex_lanes& a, const complex_lanes& b) {
        return {a.re + b.re, a.im + b.im};
    }
    friend HEED_INLINE complex_lanes operator-(const complex_lanes& a, const complex_lanes& b) {
        return {a.re - b.re, a.im - b.im};
    }
    friend HEED_INLINE complex_lanes operator*(const complex_lanes& a, const complex_lanes& b) {
        return {fnma(a.im, b.im, a.re * b.re), fma(a.im, b.re, a.re * b.im)};
    }
    /// a conj(b)
    friend HEED_INLINE complex_lanes times_conjugate(const complex_lanes& a, const complex_lanes& b) {
        return {fma(a.im, b.im, a.re * b.re), fnma(a.re, b.im, a.im * b.re)};
    }
};

/// Q numbers for the real parts and Q for the imaginary ones, the same for all sequences.
template <class P, int Q>
HEED_INLINE complex_lanes<P> twiddle(const typename P::value_type* p) {
    return {load_repeated<P, Q>(p), load_repeated<P, Q>(p + Q)};
}

/// Radix 4: coefficients a quarter of a block from each other become those of four polynomials; joined, times 4.
template <class P>
struct four {
    using C = complex_lanes<P>;
    C w, w2, w3;

    HEED_INLINE void split(C& a, C& b, C& c, C& d) const {
        const C cw = c * w2, bw = b * w, dw = d * w3;
        const C e = a + cw, f = a - cw, g = bw + dw, h = bw - dw;
        a = e + g, c = e - g;
        b = {f.re - h.im, f.im + h.re};
        d = {f.re + h.im, f.im - h.re};
    }
    HEED_INLINE void join(C& a, C& b, C& c, C& d) const {
        const C e = a + c, g = a - c, f = b + d, h = b - d;
        a = e + f, c = times_conjugate(e - f, w2);
        b = times_conjugate(C{g.re + h.im, g.im - h.re}, w);
        d = times_conjugate(C{g.re - h.im, g.im + h.re}, w3);
    }
};
template <class P, int Q>
HEED_INLINE four<P> four_at(const typename P::value_type* t) {
    return {twiddle<P, Q>(t), twiddle<P, Q>(t + 2 * Q), twiddle<P, Q>(t + 4 * Q)};
}

/// Radix 3, the same.
template <class P>
struct three {
    using C = complex_lanes<P>;
    using T = typename P::value_type;
    C w, w2;

    HEED_INLINE void split(C& a, C& b, C& c) const {
        const C x = b * w, y = c * w2;
        turn(a, x + y, x - y, b, c);
    }
    HEED_INLINE void join(C& a, C& b, C& c) const {
        C x, y;
        turn(a, b + c, c - b, x, y);
        b = times_conjugate(x, w), c = times_conjugate(y, w2);
    }

private:
    /// b, c = a - sum / 2 +- i sqrt(3) / 2 difference; a += sum.
    static HEED_INLINE void turn(C& a, const C& sum, const C& difference, C& b, C& c) {
        const P half(T(-0.5)), side(T(0.866025403784438646763723170752936183));
        const C m{fma(sum.re, half, a.re), fma(sum.im, half, a.im)};
        a = a + sum;
        b = {fnma(difference.im, side, m.re), fma(difference.re, side, m.im)};
        c = {fma(difference.im, side, m.re), fnma(difference.re, side, m.im)};
    }
};

/// f(a, b, ...) of the R numbers that are a part of the block from each other, in place, for every such set.
template <int R, class P, class T, class F>
HEED_INLINE void across(T* z, index_t part, const F& f) {
    using C = complex_lanes<P>;
    const index_t stride = part * C::step;
    for (T* p = z; p < z + stride; p += C::step) {
        C x[R];
        unroll<R>([&](auto r) HEED_INLINE_LAMBDA { x[r] = C::at(p + r * stride); });
        f(x);
        unroll<R>([&](auto r) HEED_INLINE_LAMBDA { x[r].to(p + r * stride); });
    }
}

/// The last splitting, of a block of 4 or 2, the product, and the first joining.
template <class P, int Q, bool Filters, class T>
HEED_INLINE void finish_four(T* z, const T* twiddles, const T* filter) {
    using C = complex_lanes<P>;
    constexpr index_t s = C::step;
    const auto by = four_at<P, Q>(twiddles);
    C a = C::at(z), b = C::at(z + s), c = C::at(z + 2 * s), d = C::at(z + 3 * s);
    by.split(a, b, c, d);
    if constexpr (Filters) {
        a = a * C::at(filter), b = b * C::at(filter + s), c = c * C::at(filter + 2 * s), d = d * C::at(filter + 3 * s);
        by.join(a, b, c, d);
    }
    a.to(z), b.to(z + s), c.to(z + 2 * s), d.to(z + 3 * s);
}
template <class P, int Q, bool Filters, class T>
HEED_INLINE void finish_two(T* z, const T* twiddles, const T* filter) {
    using C = complex_lanes<P>;
    constexpr index_t s = C::step;
    const C w = twiddle<P, Q>(twiddles), even = C::at(z), odd = C::at(z + s) * w;
    C a = even + odd, b = even - odd;
    if constexpr (Filters) {
        const C x = a * C::at(filter), y = b * C::at(filter + s);
        a = x + y, b = times_conjugate(x - y, w);
    }
    a.to(z), b.to(z + s);
}

/// Transforms z modulo x^block - r, in place, block 2^a >= 2; with Filters multiplies by the filter's and transforms
/// back.
template <class P, int Q, bool Filters, class T>
void transform_power_of_two(T* z, index_t block, const T* twiddles, const T* filter) {
    using C = complex_lanes<P>;
    constexpr index_t s = C::step, own = 6 * Q;
    if (block == 4) return finish_four<P, Q, Filters>(z, twiddles, filter);
    if (block == 2) return finish_two<P, Q, Filters>(z, twiddles, filter);
    const auto by = four_at<P, Q>(twiddles);
    const index_t quarter = block / 4, each = fft_plan<T, typename P::arch_type>::twiddles_of(quarter);
    across<4, P>(z, quarter, [&](C(&x)[4]) HEED_INLINE_LAMBDA { by.split(x[0], x[1], x[2], x[3]); });
    for (index_t k = 0; k < 4; ++k) {
        const index_t at = k * quarter * s;
        const T* const next = twiddles + own + k * each;
        if (quarter == 4)
            finish_four<P, Q, Filters>(z + at, next, filter + at);
        else
            transform_power_of_two<P, Q, Filters>(z + at, quarter, next, filter + at);
    }
    if constexpr (Filters)
        across<4, P>(z, quarter, [&](C(&x)[4]) HEED_INLINE_LAMBDA { by.join(x[0], x[1], x[2], x[3]); });
}

/// All positions of the parts of a plan.
template <bool Filters, class T, class A>
void transform(const fft_plan<T, A>& plan, T* z, const T* filter) {
    using P = pack<T, A>;
    using C = complex_lanes<P>;
    constexpr int Q = fft_plan<T, A>::parts;
    const index_t block = plan.block();
    const T* const twiddles = plan.twiddles();
    if (block % 3 != 0) return transform_power_of_two<P, Q, Filters>(z, block, twiddles, filter);
    const three<P> by{twiddle<P, Q>(twiddles), twiddle<P, Q>(twiddles + 2 * Q)};
    const index_t third = block / 3, each = plan.twiddles_of(third);
    across<3, P>(z, third, [&](C(&x)[3]) HEED_INLINE_LAMBDA { by.split(x[0], x[1], x[2]); });
    for (index_t k = 0; k < 3; ++k) {
        const index_t at = k * third * C::step;
        transform_power_of_two<P, Q, Filters>(z + at, third, twiddles + 4 * Q + k * each, filter + at);
    }
    if constexpr (Filters) across<3, P>(z, third, [&](C(&x)[3]) HEED_INLINE_LAMBDA { by.join(x[0], x[1], x[2]); });
}

/// The first splitting, whose twiddles are the same for all sequences: x[j] at j M from each other.
template <class P, int Q>
struct first_splitting {
    using C = complex_lanes<P>;
    using T = typename P::value_type;
    C w[Q];  // w[0] = 1 is not used

    HEED_INLINE explicit first_splitting(const T* roots) {
        unroll<Q - 1>([&](auto j) HEED_INLINE_LAMBDA { w[j + 1] = {P(roots[2 * j]), P(roots[2 * j + 1])}; });
    }
    HEED_INLINE void split(C* x) const {
        if constexpr (Q == 4) {
            four<P>{w[1], w[2], w[3]}.split(x[0], x[1], x[2], x[3]);
        } else {
            const C odd = x[1] * w[1];
            x[1] = x[0] - odd, x[0] = x[0] + odd;
        }
    }
    /// Where all imaginary parts of x are zero; they are not read.
    HEED_INLINE void split_real(C* x) const {
        const auto times = [](const P& a, const C& b) HEED_INLINE_LAMBDA { return C{a * b.re, a * b.im}; };
        if constexpr (Q == 4) {
            const C bw = times(x[1].re, w[1]), cw = times(x[2].re, w[2]), dw = times(x[3].re, w[3]);
            const C g = bw + dw, h = bw - dw;
            const P e = x[0].re + cw.re, f = x[0].re - cw.re;
            x[0] = {e + g.re, cw.im + g.im}, x[2] = {e - g.re, cw.im - g.im};
            x[1] = {f - h.im, h.re - cw.im}, x[3] = {f + h.im, P(0) - (cw.im + h.re)};
        } else {
            const C odd = times(x[1].re, w[1]);
            x[1] = {x[0].re - odd.re, P(0) - odd.im}, x[0] = {x[0].re + odd.re, odd.im};
        }
    }
    HEED_INLINE void join(C* x) const {
        if constexpr (Q == 4) {
            four<P>{w[1], w[2], w[3]}.join(x[0], x[1], x[2], x[3]);
        } else {
            const C difference = x[0] - x[1];
            x[0] = x[0] + x[1], x[1] = times_conjugate(difference, w[1]);
        }
    }
};

/// Sequences into z: load(c, n) gives L numbers of sequence c from n on, 0 <= n < 2 P. Those from P on are read if
/// Wide; if not they are zero.
template <bool Wide, class T, class A, class Load>
HEED_INLINE void enter(const fft_plan<T, A>& plan, T* z, const Load& load) {
    using P = pack<T, A>;
    using C = complex_lanes<P>;
    constexpr int L = lanes<T, A>, Q = fft_plan<T, A>::parts, G = fft_plan<T, A>::sequences;
    const first_splitting<P, Q> by(plan.roots());
    for (index_t n = 0; n < plan.block(); n += L) {
        P re[L], im[L];
        unroll<G>([&](auto c) HEED_INLINE_LAMBDA {
            C x[Q];
            unroll<Q>([&](auto j) HEED_INLINE_LAMBDA {
                x[j].re = load(c, n + j * plan.block());
                if constexpr (Wide) x[j].im = load(c, n + j * plan.block() + plan.size());
            });
            if constexpr (Wide)
                by.split(x);
            else
                by.split_real(x);
            unroll<Q>([&](auto k) HEED_INLINE_LAMBDA { re[c * Q + k] = x[k].re, im[c * Q + k] = x[k].im; });
        });
        transpose(re), transpose(im);
        unroll<L>([&](auto l) HEED_INLINE_LAMBDA { C{re[l], im[l]}.to(z + (n + l) * C::step); });
    }
}

/// And back, times P: store(c, n, x) takes L numbers; those from P on only if Wide.
template <bool Wide, class T, class A, class Store>
HEED_INLINE void leave(const fft_plan<T, A>& plan, const T* z, const Store& store) {
    using P = pack<T, A>;
    using C = complex_lanes<P>;
    constexpr int L = lanes<T, A>, Q = fft_plan<T, A>::parts, G = fft_plan<T, A>::sequences;
    const first_splitting<P, Q> by(plan.roots());
    for (index_t n = 0; n < plan.block(); n += L) {
        P re[L], im[L];
        unroll<L>([&](auto l) HEED_INLINE_LAMBDA {
            const C x = C::at(z + (n + l) * C::step);
            re[l] = x.re, im[l] = x.im;
        });
        transpose(re), transpose(im);
        unroll<G>([&](auto c) HEED_INLINE_LAMBDA {
            C x[Q];
            unroll<Q>([&](auto k) HEED_INLINE_LAMBDA { x[k] = {re[c * Q + k], im[c * Q + k]}; });
            by.join(x);
            unroll<Q>([&](auto j) HEED_INLINE_LAMBDA {
                store(c, n + j * plan.block(), x[j].re);
                if constexpr (Wide) store(c, n + j * plan.block() + plan.size(), x[j].im);
            });
        });
    }
}

}  // namespace detail
}  // namespace heed::inline HEED_ABI
