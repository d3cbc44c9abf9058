// libFuzzer: scans and convolutions over shapes, strides, directions, packed sequences, segments and pieces, against
// their definitions.
//
// Data come from seeds, so the bytes are all structure. Scratch ends where its allocation does, for ASan to see a step
// too far. Bad shapes must be refused by heed's exceptions, with the output untouched.
#include <cstdio>
#include <cstdlib>
#include <heed/engine/convolution.hpp>
#include <heed/ops/causal_conv.hpp>
#include <heed/ops/diagonal_ssm.hpp>
#include <heed/ref/causal_conv.hpp>
#include <heed/ref/convolution.hpp>
#include <heed/ref/modes.hpp>
#include <heed/ref/selective_scan.hpp>

#include "decisions.hpp"
#include "sequence.hpp"

using namespace test;

namespace {

/// How a call is made: what the operators of this file have in common.
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
    index_t sequences() const { return way == packs ? static_cast<index_t>(offsets.size()) - 1 : B; }
    ref::token_order order() const { return {way == packs ? offsets : std::vector<index_t>{}, back}; }
};

[[noreturn]] void fail(const scene& s, const char* op, const char* what, double got = 0, double want = 0,
                       double bound = 0) {
    std::fprintf(stderr, "%s: %s: got %g, defined as %g, bound %g\nB%td N%td C%td way %d back %d segments of %td\n", op,
                 what, got, want, bound, s.B, s.N, s.C, static_cast<int>(s.way), s.back, s.segment);
    std::abort();
}

/// What an operator knows beside pieces of a sequence.
enum class knows { pieces, all };

/// call(piece, policies...) as the scene says: at once, in pieces, in segments, packed. False if it was refused.
template <knows Ways, class Call, class T>
bool make(decisions& d, const scene& s, const char* op, const Call& call, const tensor<T>& y) {
    const range all{0, s.N};
    try {
        switch (s.way) {
            case scene::pieces:
                for (index_t n = 0; n < s.N;) {
                    const range piece{n, std::min(s.N, n + d.between(1, 30))};
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
            default: in_exact_scratch([&](const auto& context) { call(all, context); });
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

/// got against exact: twice the error of the naive loops, and roundings of what was summed.
template <class T>
void compare(const scene& s, const char* op, tensor<T>& got, const tensor<float>& naive, const tensor<double>& exact,
             const tensor<double>& summed) {
    double worst = 0;
    exact.each([&](index_t b, index_t h, index_t n, index_t c) {
        worst = std::max(worst, std::abs(naive(b, h, n, c) - exact(b, h, n, c)));
    });
    exact.each([&](index_t b, index_t h, index_t n, index_t c) {
        const auto x = static_cast<double>(got(b, h, n, c)), y = exact(b, h, n, c);
        const double bound = 2 * worst + (16 * epsilon<float> + (std::is_same_v<T, float> ? 0 : epsilon<T>)) *
                                             (1e-30 + summed(b, h, n, c));
        if (!(std::abs(x - y) <= bound)) fail(s, op, "output", x, y, bound);
    });
    if (!got.poisoned_outside()) fail(s, op, "written beside the output");
}

/// A view with one number more on an axis, if the scene is spoilt.
template <class T>
view<const T, 3> spoiled(decisions& d, const scene& s, const view<const T, 3>& x) {
    auto y = x;
    if (s.spoilt) y.shape[static_cast<std::size_t>(d.between(1, 2))] += 1;
    return y;
}

template <class R, class T>
tensor<R> absolute(const tensor<T>& x) {
    auto y = in<R>(x);
    y.each([&](index_t b, index_t h, index_t n, index_t c) { y(b, h, n, c) = std::abs(y(b, h, n, c)); });
    return y;
}
/// (B, G, N, S) as (B, N, G, S).
template <class T>
view<const T, 4> grouped(const tensor<T>& x) {
    const auto v = x.v();
    return {v.data,
            {v.shape[0], v.shape[2], v.shape[1], v.shape[3]},
            {v.strides[0], v.strides[2], v.strides[1], v.strides[3]}};
}

template <class T>
void fuzz_selective(decisions& d, scene s) {
    static constexpr const char* op = "selective_scan";
    const index_t S = d.between(0, 20), G = d.between(1, 3);
    s.C = s.C / G * G;
    const auto seed = d.seed();
    const extents<4> shape{s.B, 1, s.N, s.C};
    const auto u = normal<T>(shape, seed, 1, d.any_layout()), delta = normal<T>(shape, seed + 1, 1, d.any_layout()),
               z = normal<T>(shape, seed + 2, 1, d.any_layout());
    const auto A = uniform<T>({1, 1, s.C, S}, seed + 3, -2, 0, d.any_layout());
    const auto b = normal<T>({s.B, G, s.N, S}, seed + 4, 1, d.any_layout()),
               c = normal<T>({s.B, G, s.N, S}, seed + 5, 1, d.any_layout());
    const auto bias = normal<T>({1, 1, 1, s.C}, seed + 6), through = normal<T>({1, 1, 1, s.C}, seed + 7);
    auto state = normal<float>({s.sequences(), 1, s.C, S}, seed + 8, 1, d.any_layout());
    tensor<T> y(shape, d.any_layout());
    const auto define = [&](auto real, auto of) {
        using R = decltype(real);
        const auto uu = of(u), bb = of(b), cc = of(c), dd = of(through), zz = in<R>(z), steps = in<R>(delta),
                   aa = in<R>(A), raise = in<R>(bias);
        auto h = of(state);
        tensor<R> out(shape);
        const ref::selective_options<R> with{vec(raise), vec(dd), seq(zz), seq(h), true, s.order()};
        ref::selective_scan<R>(seq(uu), seq(steps), matrix(aa), grouped(bb), grouped(cc), seq(out), with);
        return out;
    };
    const auto naive = define(0.0f, [](const auto& x) { return in<float>(x); });
    const auto exact = define(0.0, [](const auto& x) { return in<double>(x); });
    auto summed = define(0.0, [](const auto& x) { return absolute<double>(x); });
    summed = absolute<double>(summed);
    const auto bad = spoiled(d, s, view<const T, 3>(seq(delta)));
    const auto call = [&](range piece, const auto&... policies) {
        const auto at = [&](const auto& v) { return slice(v, 1, piece); };
        auto steps = at(bad);
        if (s.spoilt) steps.shape[1] = piece.size() + bad.shape[1] - s.N;
        selective_scan(at(seq(u)), steps, matrix(A), at(grouped(b)), at(grouped(c)), at(seq(y)), softplus_step{},
                       step_bias{vec(bias)}, skip{vec(through)}, gate{at(seq(z))}, carry{seq(state)}, policies...);
    };
    if (make<knows::all>(d, s, op, call, y)) compare(s, op, y, naive, exact, summed);
}

template <bool Complex>
void fuzz_modes(decisions& d, const scene& s) {
    static constexpr const char* op = "diagonal_ssm";
    const index_t S = d.between(0, 20);
    const auto seed = d.seed();
    const extents<4> shape{s.B, 1, s.N, s.C};
    const auto u = normal<float>(shape, seed, 1, d.any_layout());
    modes_of<float, Complex> m(s.C, S);
    const counter_random random(seed + 1);
    for (index_t c = 0; c < s.C; ++c)
        for (index_t n = 0; n < S; ++n) {
            const auto at = number(4 * (c * S + n));
            const double size = random.uniform(at), angle = 6 * random.uniform(at + 1);
            if constexpr (Complex)
                m.set(c, n, std::polar(size, angle), {random.normal(at + 2), 1}, {random.normal(at + 3), -1});
            else
                m.set(c, n, size, random.normal(at + 2), random.normal(at + 3));
        }
    constexpr index_t parts = Complex ? 2 : 1;
    auto state = normal<float>({s.sequences(), 1, s.C, parts * S}, seed + 2, 1, d.any_layout());
    tensor<float> y(shape, d.any_layout());
    const auto define = [&](auto real, bool sizes) {
        using R = decltype(real);
        using Number = std::conditional_t<Complex, std::complex<R>, R>;
        const auto value = [&](R re, R im) {
            if constexpr (Complex)
                return sizes ? Number(std::hypot(re, im)) : Number(re, im);
            else
                return sizes ? std::abs(re) : re;
        };
        const auto part = [&](index_t k, index_t c, index_t n) {
            return value(static_cast<R>(m.part(parts * k)(c, n)),
                         Complex ? static_cast<R>(m.part(parts * k + 1)(c, n)) : R(0));
        };
        const auto x = sizes ? absolute<R>(u) : in<R>(u);
        std::vector<Number> h(static_cast<std::size_t>(s.sequences() * s.C * S));
        const auto states = dense(h.data(), {s.sequences(), s.C, S});
        for (index_t i = 0; i < s.sequences(); ++i)
            for (index_t c = 0; c < s.C; ++c)
                for (index_t n = 0; n < S; ++n)
                    states(i, c, n) = value(static_cast<R>(state(i, 0, c, n)),
                                            Complex ? static_cast<R>(state(i, 0, c, n + S)) : R(0));
        tensor<R> out(shape);
        ref::diagonal_ssm<Number, R>(
            seq(x), seq(out), S,
            [&](index_t c, index_t n) {
                return ref::mode<Number>{part(0, c, n), part(1, c, n), part(2, c, n)};
            },
            [](index_t) { return R(0); }, states, false, s.order());
        return out;
    };
    const auto naive = define(0.0f, false);
    const auto exact = define(0.0, false), summed = define(0.0, true);
    const auto bad = spoiled(d, s, view<const float, 3>(seq(u)));
    const auto call = [&](range piece, const auto&... policies) {
        auto x = slice(bad, 1, piece);
        if (s.spoilt) x.shape[1] = piece.size() + bad.shape[1] - s.N;
        diagonal_ssm(x, m, slice(seq(y), 1, piece), carry{seq(state)}, policies...);
    };
    if (make<knows::all>(d, s, op, call, y)) compare(s, op, y, naive, exact, summed);
}

void fuzz_causal_conv(decisions& d, const scene& s) {
    static constexpr const char* op = "causal_conv";
    const index_t K = d.between(1, 7);
    const auto seed = d.seed();
    const extents<4> shape{s.B, 1, s.N, s.C};
    const auto x = normal<float>(shape, seed, 1, d.any_layout());
    const auto w = normal<float>({1, 1, s.C, K}, seed + 1, 1, d.any_layout());
    auto state = normal<float>({s.sequences(), 1, s.C, K - 1}, seed + 2, 1, d.any_layout());
    tensor<float> y(shape, d.any_layout());
    const auto define = [&](auto real, auto of) {
        using R = decltype(real);
        const auto xx = of(x), ww = of(w);
        auto h = of(state);
        tensor<R> out(shape);
        ref::causal_conv<R>(seq(xx), matrix(ww), seq(out), {}, seq(h), false, s.order());
        return out;
    };
    const auto naive = define(0.0f, [](const auto& t) { return in<float>(t); });
    const auto exact = define(0.0, [](const auto& t) { return in<double>(t); });
    const auto summed = define(0.0, [](const auto& t) { return absolute<double>(t); });
    const auto bad = spoiled(d, s, view<const float, 3>(seq(x)));
    const auto call = [&](range piece, const auto&... policies) {
        auto from = slice(bad, 1, piece);
        if (s.spoilt) from.shape[1] = piece.size() + bad.shape[1] - s.N;
        causal_conv(from, matrix(w), slice(seq(y), 1, piece), carry{seq(state)}, policies...);
    };
    if (make<knows::all>(d, s, op, call, y)) compare(s, op, y, naive, exact, summed);
}

/// Long filters, direct or by transforms, at once or in pieces with a past.
void fuzz_convolution(decisions& d, scene s) {
    static constexpr const char* op = "convolution";
    if (s.way != scene::pieces) s.way = scene::whole;
    s.back = false, s.offsets.clear();
    s.N = d.between(0, 300), s.C = std::min<index_t>(s.C, s.N > 100 ? 8 : 40);
    const index_t K = d.between(0, 300);
    const index_t ahead = s.way == scene::whole && K > 0 && d.one_in(2) ? d.below(K) : 0;
    const auto seed = d.seed();
    const extents<4> shape{s.B, 1, s.N, s.C};
    const auto x = normal<float>(shape, seed, 1, d.any_layout());
    const auto h = normal<float>({1, 1, s.C, K}, seed + 1, 1, d.any_layout());
    const auto gate_in = normal<float>(shape, seed + 2, 1, d.any_layout()),
               gate_out = normal<float>(shape, seed + 3, 1, d.any_layout());
    tensor<float> y(shape, d.any_layout());
    auto before = constant<float>({s.B, 1, s.C, std::max<index_t>(0, K - 1)}, 0, d.any_layout());
    const auto define = [&](auto real, auto of) {
        using R = decltype(real);
        const auto xx = of(x), hh = of(h), in_gate = of(gate_in), out_gate = of(gate_out);
        tensor<R> out(shape);
        ref::convolution<R>(seq(xx), matrix(hh), seq(out), ahead, seq(in_gate), seq(out_gate));
        return out;
    };
    const auto naive = define(0.0f, [](const auto& t) { return in<float>(t); });
    const auto exact = define(0.0, [](const auto& t) { return in<double>(t); });
    // Rounding of a transform is relative to the norms, whatever meets whatever.
    auto summed = absolute<double>(gate_out);
    for (index_t b = 0; b < s.B; ++b)
        for (index_t c = 0; c < s.C; ++c) {
            double taps = 0, inputs = 0;
            for (index_t k = 0; k < K; ++k) taps += std::pow(double(h(0, 0, c, k)), 2);
            for (index_t n = 0; n < s.N; ++n) inputs += std::pow(double(x(b, 0, n, c)) * gate_in(b, 0, n, c), 2);
            for (index_t n = 0; n < s.N; ++n) summed(b, 0, n, c) *= std::sqrt(taps * inputs);
        }
    filter_options options;
    options.ahead = ahead;
    if (s.way == scene::whole && d.one_in(2)) options.longest = std::max<index_t>(1, s.N);
    options.form = static_cast<convolution_form>(d.below(3));
    const convolution_filter<float> filter(matrix(h), options);
    const auto bad = spoiled(d, s, view<const float, 3>(seq(x)));
    const auto call = [&](range piece, const auto& context) {
        const auto at = [&](const auto& v) { return slice(v, 1, piece); };
        auto from = at(bad);
        if (s.spoilt) from.shape[1] = piece.size() + bad.shape[1] - s.N;
        if (s.way == scene::pieces)
            convolution(from, filter, at(seq(y)), input_gate(at(seq(gate_in))), output_gate(at(seq(gate_out))),
                        past(seq(before)), context);
        else
            convolution(from, filter, at(seq(y)), input_gate(at(seq(gate_in))), output_gate(at(seq(gate_out))),
                        context);
    };
    const bool shorter = filter.taps() != K;  // taps that no call needs are dropped
    if (s.way == scene::pieces && shorter) return;
    if (make<knows::pieces>(d, s, op, call, y)) compare(s, op, y, naive, exact, summed);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    decisions d(data, size);
    const index_t op = d.below(6);
    const scene s(d);
    switch (op) {
        case 0: fuzz_selective<float>(d, s); break;
        case 1: fuzz_selective<bf16>(d, s); break;
        case 2: fuzz_modes<false>(d, s); break;
        case 3: fuzz_modes<true>(d, s); break;
        case 4: fuzz_causal_conv(d, s); break;
        default: fuzz_convolution(d, s);
    }
    return 0;
}
