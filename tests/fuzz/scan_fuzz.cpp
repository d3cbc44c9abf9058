// libFuzzer: scans over shapes, strides, directions, packed sequences, segments and pieces, against their definitions.
//
// Data come from seeds, so the bytes are all structure.
#include <heed/engine/scan.hpp>
#include <heed/ops/diagonal_ssm.hpp>
#include <heed/ref/modes.hpp>
#include <heed/ref/selective_scan.hpp>

#include "sequence_scene.hpp"

using namespace test;

namespace {

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
    const auto axis = static_cast<std::size_t>(d.between(1, 2));
    const auto call = [&](range piece, const auto&... policies) {
        const auto at = [&](const auto& v) { return slice(v, 1, piece); };
        const auto steps = spoiled(s, seq(delta), piece, axis);
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
    const auto axis = static_cast<std::size_t>(d.between(1, 2));
    const auto call = [&](range piece, const auto&... policies) {
        diagonal_ssm(spoiled(s, seq(u), piece, axis), m, slice(seq(y), 1, piece), carry{seq(state)}, policies...);
    };
    if (make<knows::all>(d, s, op, call, y)) compare(s, op, y, naive, exact, summed);
}

/// A monoid over elements drawn by draw(which number, random, index), against its own steps one after another. size(x,
/// before) is what a token's result may be off by roundings of, of its element and of that of the token before.
template <class M, class Draw, class Size>
void fuzz_monoid(decisions& d, const scene& s, const char* op, const Draw& draw, const Size& size) {
    constexpr auto elements = static_cast<std::size_t>(M::elements), states = static_cast<std::size_t>(M::states);
    constexpr auto results = static_cast<std::size_t>(heed::detail::plain_cell<M>::outputs);
    const auto seed = d.seed();
    std::array<tensor<float>, elements> x;
    for (std::size_t i = 0; i < elements; ++i) {
        const counter_random random(seed + i);
        x[i] = tensor<float>(s.shape(), d.any_layout());
        x[i].fill([&](index_t n) { return draw(i, random, number(2 * n)); });
    }
    std::array<tensor<float>, results> y;
    for (auto& one : y) one = tensor<float>(s.shape(), d.any_layout());
    constexpr auto S = static_cast<index_t>(states);
    tensor<float> state({s.sequences(), 1, s.C, S}, d.any_layout());
    numbers<float, M::states> first;
    M::start(first);
    state.each([&](index_t b, index_t h, index_t c, index_t n) { state(b, h, c, n) = first[number(n)]; });
    const auto define = [&](auto real, std::size_t which) {
        using R = decltype(real);
        tensor<R> out(s.shape());
        const auto start = [](index_t, index_t) {
            numbers<R, M::states> h;
            M::start(h);
            return h;
        };
        const auto step = [&](numbers<R, M::states>& h, index_t b, index_t n, index_t c) {
            numbers<R, M::elements> e;
            for (std::size_t i = 0; i < elements; ++i) e[i] = static_cast<R>(x[i](b, 0, n, c));
            M::act(h, e);
            out(b, 0, n, c) = heed::detail::plain_cell<M>{}.read(h, e, numbers<R, 0>{})[which];
        };
        ref::scan(seq(out).shape, s.order(), start, step, [](const auto&, index_t, index_t) {});
        return out;
    };
    tensor<double> summed(s.shape());
    ref::scan(
        seq(summed).shape, s.order(), [](index_t, index_t) { return 0.0; },
        [&](double& h, index_t b, index_t n, index_t c) {
            std::array<double, elements> e;
            for (std::size_t i = 0; i < elements; ++i) e[i] = x[i](b, 0, n, c);
            summed(b, 0, n, c) = h = size(e, h);
        },
        [](double, index_t, index_t) {});
    const auto axis = static_cast<std::size_t>(d.between(1, 2));
    const auto call = [&](range piece, const auto&... policies) {
        const auto in = [&]<std::size_t... i>(std::index_sequence<i...>) {
            return inputs(spoiled(s, seq(std::as_const(x[i])), piece, i == 0 ? axis : 3)...);
        };
        const auto out = [&]<std::size_t... i>(std::index_sequence<i...>) {
            return outputs(slice(seq(y[i]), 1, piece)...);
        };
        scan(M{}, in(std::make_index_sequence<elements>()), out(std::make_index_sequence<results>()), carry{seq(state)},
             policies...);
    };
    if (!make<knows::all>(d, s, op, call, y[0])) return;
    for (std::size_t i = 0; i < results; ++i) compare(s, op, y[i], define(0.0f, i), define(0.0, i), summed);
}
/// Now and then the zero of logarithms, else x.
double maybe_nothing(const counter_random& r, std::uint64_t i, double x) {
    return r.uniform(i + 1) < 0.1 ? -HUGE_VAL : x;
}
double finite_size(double x) { return std::isfinite(x) ? std::abs(x) : 0; }

void fuzz_monoids(decisions& d, const scene& s) {
    const auto normals = [](std::size_t, const counter_random& r, std::uint64_t i) { return r.normal(i); };
    const auto gates = [](std::size_t which, const counter_random& r, std::uint64_t i) {
        return which == 0 ? 2 * r.uniform(i) - 1 : r.normal(i);
    };
    const auto logs = [](std::size_t, const counter_random& r, std::uint64_t i) {
        return maybe_nothing(r, i, r.normal(i));
    };
    const auto sum = [](const auto& e, double h) {
        for (double x : e) h += finite_size(x);
        return h + 1;
    };
    switch (d.below(8)) {
        case 0:
            return fuzz_monoid<running_sum>(d, s, "running_sum", normals, sum);
        case 1:
            return fuzz_monoid<running_max>(d, s, "running_max", logs, sum);
        case 2:
            return fuzz_monoid<running_log_sum>(d, s, "running_log_sum", logs, sum);
        case 3:
            return fuzz_monoid<affine>(d, s, "affine", gates,
                                       [](const auto& e, double h) { return std::abs(e[0]) * h + std::abs(e[1]); });
        case 4:
            return fuzz_monoid<log_affine>(d, s, "log_affine", logs, sum);
        case 5:
            return fuzz_monoid<max_plus>(d, s, "max_plus", logs, sum);
        case 6:
            return fuzz_monoid<complex_affine>(
                d, s, "complex_affine",
                [&](std::size_t which, const counter_random& r, std::uint64_t i) {
                    return which < 2 ? 1.4 * r.uniform(i) - 0.7 : r.normal(i);
                },
                [](const auto& e, double h) { return std::hypot(e[0], e[1]) * h + std::hypot(e[2], e[3]); });
        default:
            return fuzz_monoid<softmax_prefix>(
                d, s, "softmax_prefix",
                [](std::size_t which, const counter_random& r, std::uint64_t i) {
                    return which == 0 ? maybe_nothing(r, i, 5 * r.normal(i)) : which == 1 ? 1 : r.normal(i);
                },
                [](const auto& e, double h) { return h + 1 + std::abs(e[2]); });
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    decisions d(data, size);
    const index_t op = d.below(5);
    const scene s(d);
    switch (op) {
        case 0:
            fuzz_selective<float>(d, s);
            break;
        case 1:
            fuzz_selective<bf16>(d, s);
            break;
        case 2:
            fuzz_modes<false>(d, s);
            break;
        case 3:
            fuzz_modes<true>(d, s);
            break;
        default:
            fuzz_monoids(d, s);
    }
    return 0;
}
