// What fuzz targets of sequences share: how a call is made, a comparison with the definition, operands that do not fit.
//
// Scratch ends where its allocation does, for ASan to see a step too far. Bad shapes must be refused by heed's
// exceptions, with the output untouched.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <heed/policy/scan_policies.hpp>
#include <heed/ref/scan.hpp>

#include "decisions.hpp"
#include "sequence.hpp"

namespace test {

struct scene {
    index_t B, N, C;
    enum { whole, pieces, segments, packs } way = whole;
    bool back = false;             // with packs alone: reversed, in segments
    index_t segment = 1;           // tokens
    std::vector<index_t> offsets;  // of packs
    bool spoilt = false;           // an operand of another shape

    explicit scene(decisions& d) : B(d.between(0, 2)), N(d.between(0, 70)), C(d.between(0, d.one_in(6) ? 300 : 40)) {
        while (N * C > 1500) N /= 2;  // the definitions are slow
        way = static_cast<decltype(way)>(d.below(4));
        segment = d.between(1, 40);
        if (way == packs) {
            B = 1, back = d.one_in(2);
            offsets = {0};
            for (index_t left = d.between(0, 3); left > 0; --left) offsets.push_back(d.between(offsets.back(), N));
            offsets.push_back(N);
        }
        spoilt = d.one_in(8);
    }
    /// Of an operator that knows neither packs nor segments.
    void only_pieces() {
        if (way != pieces) way = whole;
        back = false, offsets.clear();
    }
    extents<4> shape() const { return {B, 1, N, C}; }
    index_t sequences() const { return way == packs ? static_cast<index_t>(offsets.size()) - 1 : B; }
    ref::token_order order() const { return {way == packs ? offsets : std::vector<index_t>{}, back}; }
};

[[noreturn]] inline void fail(const scene& s, const char* op, const char* what, double got = 0, double want = 0,
                              double bound = 0) {
    std::fprintf(stderr, "%s: %s: got %g, defined as %g, bound %g\nB%td N%td C%td way %d back %d segments of %td\n", op,
                 what, got, want, bound, s.B, s.N, s.C, static_cast<int>(s.way), s.back, s.segment);
    std::abort();
}

/// What an operator knows beside pieces of a sequence.
enum class knows { pieces, all };

/// call(piece, policies...) as the scene says: at once, in pieces of at most so many tokens, in segments, packed. False
/// if it was refused.
template <knows Ways, class Call, class T>
bool make(decisions& d, const scene& s, const char* op, const Call& call, const tensor<T>& y, index_t longest = 30) {
    const range all{0, s.N};
    try {
        switch (s.way) {
            case scene::pieces:
                for (index_t n = 0; n < s.N;) {
                    const range piece{n, std::min(s.N, n + d.between(1, longest))};
                    in_exact_scratch([&](const auto& context) { call(piece, context); });
                    n = piece.last;
                }
                break;
            case scene::segments:
                if constexpr (Ways == knows::all)
                    in_exact_scratch([&](const auto& context) { call(all, chunked{s.segment}, context); });
                break;
            case scene::packs:
                if constexpr (Ways == knows::all) {
                    const packed side_by_side(s.offsets);
                    in_exact_scratch([&](const auto& context) {
                        if (!s.back)
                            call(all, side_by_side, context);
                        else
                            call(all, side_by_side, reversed{}, chunked{s.segment}, context);
                    });
                }
                break;
            default:
                in_exact_scratch([&](const auto& context) { call(all, context); });
        }
    } catch (const shape_error&) {
        y.each([&](index_t b, index_t h, index_t n, index_t c) {
            if (!std::isnan(static_cast<double>(y(b, h, n, c)))) fail(s, op, "refused, but the output is touched");
        });
        return false;
    }
    if (s.spoilt && s.B > 0 && (s.way != scene::pieces || s.N > 0)) fail(s, op, "a bad shape is taken");
    return true;
}

/// got against exact: twice the error of the naive loops in the same arithmetic, and roundings of what was summed.
/// What is not finite in the definition must not be in what was got.
template <class T, class N, class E>
void compare(const scene& s, const char* op, tensor<T>& got, const tensor<N>& naive, const tensor<E>& exact,
             const tensor<double>& summed) {
    double worst = 0;
    exact.each([&](index_t b, index_t h, index_t n, index_t c) {
        const auto off = static_cast<double>(naive(b, h, n, c) - exact(b, h, n, c));
        if (std::isfinite(off)) worst = std::max(worst, std::abs(off));
    });
    constexpr double rounding = 16 * epsilon<N> + (std::is_same_v<T, N> ? 0 : epsilon<T>);
    constexpr double denormal = std::is_same_v<T, f16> ? 0x1p-25 : 0;  // half the distance of the least numbers
    exact.each([&](index_t b, index_t h, index_t n, index_t c) {
        const auto x = static_cast<double>(got(b, h, n, c)), y = static_cast<double>(exact(b, h, n, c));
        const double bound = 2 * worst + rounding * (1e-30 + summed(b, h, n, c)) + denormal;
        if (std::isfinite(y) ? !(std::abs(x - y) <= bound) : std::isfinite(x)) fail(s, op, "output", x, y, bound);
    });
    if (!got.poisoned_outside()) fail(s, op, "written beside the output");
}

/// Some tokens of a view (b, n, c); of one with a number more on an axis, if the scene is spoilt and there is that
/// axis.
template <class V>
V spoiled(const scene& s, V x, range piece, std::size_t axis) {
    x = slice(x, 1, piece);
    if (s.spoilt && axis < 3) x.shape[axis] += 1;
    return x;
}

template <class R, class T>
tensor<R> absolute(const tensor<T>& x) {
    auto y = in<R>(x);
    y.each([&](index_t b, index_t h, index_t n, index_t c) { y(b, h, n, c) = std::abs(y(b, h, n, c)); });
    return y;
}

}  // namespace test
