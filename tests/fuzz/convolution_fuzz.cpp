// libFuzzer: convolutions over lengths of sequences and filters, layouts, types, gates, biases, taps ahead, forms and
// pieces, and short ones with packed sequences, directions and segments, against their definitions.
//
// Data come from seeds, so the bytes are all structure. One input may be inf or NaN.
#include <heed/engine/convolution.hpp>
#include <heed/ops/causal_conv.hpp>
#include <heed/ref/causal_conv.hpp>
#include <heed/ref/convolution.hpp>
#include <string>

#include "sequence_scene.hpp"

using namespace test;

namespace {

/// The arithmetic that defines what is computed in T.
template <class T>
using exact_for = std::conditional_t<std::is_same_v<T, double>, long double, double>;

/// Tokens or taps: few, or around and beyond the blocks of transforms and direct sums.
index_t any_length(decisions& d) {
    constexpr index_t beyond[] = {509, 521, 1021, 1023, 1024, 1025, 2048, 2053, 3001, 4099};
    return d.one_in(4) ? beyond[d.below(std::size(beyond))] : d.between(0, d.one_in(2) ? 400 : 40);
}
/// x, or a view without data, which is an operand that is not given.
template <class V>
V given(bool wanted, V x) {
    if (!wanted) x.data = nullptr;
    return x;
}
/// Makes one element inf or NaN, sometimes.
template <class T>
void spoil_one(decisions& d, tensor<T>& x) {
    const auto [B, H, N, C] = x.shape();
    if (!d.one_in(5) || B * N * C == 0) return;
    const double values[] = {HUGE_VAL, -HUGE_VAL, std::nan("")};
    x(d.below(B), 0, d.below(N), d.below(C)) = static_cast<T>(values[d.below(3)]);
}
template <class T>
void expect_same(const scene& s, const char* op, const tensor<T>& got, const tensor<T>& want) {
    want.each([&](index_t b, index_t h, index_t n, index_t c) {
        const auto x = static_cast<double>(got(b, h, n, c)), y = static_cast<double>(want(b, h, n, c));
        if (x != y && !(std::isnan(x) && std::isnan(y))) fail(s, op, "what is carried", x, y);
    });
}

/// Long filters, direct or by transforms: x and y of X, gates of G, filters of T.
template <class X, class G, class T>
void fuzz_convolution(decisions& d, scene s) {
    s.only_pieces();
    const bool streams = s.way == scene::pieces;
    s.N = any_length(d);
    index_t K = any_length(d);
    constexpr index_t most_work = 400'000;  // the definitions are slow
    while (s.C > 1 && s.B * s.C * s.N * K > most_work) s.C /= 2;
    while (s.B * s.C * s.N * K > most_work) K /= 2;

    filter_options options;
    const index_t aheads[] = {0, K / 2, K - 1, d.below(K)};
    if (!streams && K > 0) options.ahead = aheads[d.below(4)];
    options.form = static_cast<convolution_form>(d.below(3));
    const index_t piece = d.one_in(3) ? 1500 : 40;  // tokens, at most
    if (d.one_in(2)) options.longest = std::max<index_t>(1, streams ? piece : s.N + d.between(0, 3));

    const auto seed = d.seed();
    auto x = normal<X>(s.shape(), seed, 1, d.any_layout());
    spoil_one(d, x);
    const auto taps = normal<T>({1, 1, s.C, K}, seed + 1, 1, d.any_layout());
    const auto gate_in = normal<G>(s.shape(), seed + 2, 1, d.any_layout()),
               gate_out = normal<G>(s.shape(), seed + 3, 1, d.any_layout());
    const auto raise = normal<T>({1, 1, 1, s.C}, seed + 4, 1, d.any_layout()),
               skip = normal<T>({1, 1, 1, s.C}, seed + 5, 1, d.any_layout());
    const bool gates_in = d.one_in(2), gates_out = d.one_in(2), raises = d.one_in(2), skips = K > 0 && d.one_in(2);
    const auto axis = static_cast<std::size_t>(d.between(1, 2));
    const bool gate_spoilt = gates_in && d.one_in(2);  // or x
    const convolution_filter<T> filter(matrix(taps), given(skips, vec(skip)), options);
    const index_t kept = streams ? std::max<index_t>(0, filter.taps() - 1) : 0;  // inputs from before
    auto before = normal<T>({s.B, 1, s.C, kept}, seed + 6, 1, d.any_layout());
    tensor<X> y(s.shape(), d.any_layout());

    const std::string name = "convolution of " + std::to_string(K) + " taps, ahead " + std::to_string(options.ahead) +
                             ", longest " + std::to_string(options.longest) + ", form " +
                             std::to_string(static_cast<int>(options.form));
    const char* const op = name.c_str();
    /// All inputs, gated: what came before and the sequence.
    const auto inputs = [&](auto real) {
        using R = decltype(real);
        tensor<R> all({s.B, 1, kept + s.N, s.C});
        all.each([&](index_t b, index_t h, index_t n, index_t c) {
            all(b, h, n, c) = n < kept ? static_cast<R>(before(b, 0, c, n))
                                       : static_cast<R>(x(b, h, n - kept, c)) *
                                             (gates_in ? static_cast<R>(gate_in(b, h, n - kept, c)) : R(1));
        });
        return all;
    };
    const auto define = [&](auto real) {
        using R = decltype(real);
        const index_t used = streams ? filter.taps() : K;  // taps that a call may need
        tensor<R> h({1, 1, s.C, used}), out({s.B, 1, kept + s.N, s.C}), last(s.shape());
        h.each([&](index_t b, index_t g, index_t c, index_t k) {
            h(b, g, c, k) = static_cast<R>(taps(b, g, c, k)) +
                            (skips && k == options.ahead ? static_cast<R>(skip(0, 0, 0, c)) : R(0));
        });
        const auto all = inputs(real);
        ref::convolution<R>(seq(all), matrix(h), seq(out), options.ahead);
        last.each([&](index_t b, index_t g, index_t n, index_t c) {
            const R sum = out(b, g, kept + n, c) + (raises ? static_cast<R>(raise(0, 0, 0, c)) : R(0));
            last(b, g, n, c) = gates_out ? sum * static_cast<R>(gate_out(b, g, n, c)) : sum;
        });
        return last;
    };
    const auto naive = define(T{});
    const auto exact = define(exact_for<T>{});
    // Rounding of a transform is relative to the norms, whatever meets whatever.
    tensor<double> summed(s.shape());
    const auto all = inputs(0.0);
    for (index_t b = 0; b < s.B; ++b)
        for (index_t c = 0; c < s.C; ++c) {
            double of_taps = skips ? std::pow(static_cast<double>(skip(0, 0, 0, c)), 2) : 0, of_inputs = 0;
            for (index_t k = 0; k < K; ++k) of_taps += std::pow(static_cast<double>(taps(0, 0, c, k)), 2);
            for (index_t n = 0; n < kept + s.N; ++n)
                if (std::isfinite(all(b, 0, n, c))) of_inputs += std::pow(all(b, 0, n, c), 2);
            for (index_t n = 0; n < s.N; ++n)
                summed(b, 0, n, c) =
                    (std::sqrt(of_taps * of_inputs) + (raises ? std::abs(static_cast<double>(raise(0, 0, 0, c))) : 0)) *
                    (gates_out ? std::abs(static_cast<double>(gate_out(b, 0, n, c))) : 1);
        }
    // The inputs that are carried on.
    tensor<T> carried(before.shape());
    const auto in_t = inputs(T{});
    carried.each([&](index_t b, index_t h, index_t c, index_t k) { carried(b, h, c, k) = in_t(b, h, s.N + k, c); });

    const auto call = [&](range at, const auto& context) {
        const auto part = [&](const auto& v, bool spoilt) {
            return spoilt ? spoiled(s, v, at, axis) : slice(v, 1, at);
        };
        convolution(part(seq(std::as_const(x)), !gate_spoilt), filter, slice(seq(y), 1, at),
                    input_gate(given(gates_in, part(seq(gate_in), gate_spoilt))),
                    output_gate(given(gates_out, slice(seq(gate_out), 1, at))), channel_bias(given(raises, vec(raise))),
                    past(given(streams, seq(before))), context);
    };
    if (make<knows::pieces>(d, s, op, call, y, piece)) {
        compare(s, op, y, naive, exact, summed);
        expect_same(s, op, before, carried);
    }
}

/// Short filters with a state.
template <class X>
void fuzz_causal_conv(decisions& d, const scene& s) {
    static constexpr const char* op = "causal_conv";
    using T = accumulator<X>;
    const index_t K = d.between(1, 7);
    const auto seed = d.seed();
    const bool raises = d.one_in(2), curves = d.one_in(2);
    auto x = normal<X>(s.shape(), seed, 1, d.any_layout());
    if (!curves) spoil_one(d, x);  // silu of -inf is 0 in heed, and NaN by its formula
    const auto w = normal<X>({1, 1, s.C, K}, seed + 1, 1, d.any_layout());
    const auto bias = normal<X>({1, 1, 1, s.C}, seed + 2, 1, d.any_layout());
    auto state = normal<T>({s.sequences(), 1, s.C, K - 1}, seed + 3, 1, d.any_layout());
    tensor<X> y(s.shape(), d.any_layout());
    const auto define = [&](auto of, bool curved) {
        const auto xx = of(x), ww = of(w), raise = of(bias);
        auto h = of(state);
        using R = std::remove_cvref_t<decltype(h(0, 0, 0, 0))>;
        tensor<R> out(s.shape());
        ref::causal_conv<R>(seq(xx), matrix(ww), seq(out), given(raises, vec(raise)), seq(h), curved, s.order());
        return std::pair(out, h);
    };
    const auto [naive, carried] = define([](const auto& t) { return in<T>(t); }, curves);
    const auto exact = define([](const auto& t) { return in<exact_for<T>>(t); }, curves).first;
    const auto summed = define([](const auto& t) { return absolute<double>(t); }, false).first;
    const auto axis = static_cast<std::size_t>(d.between(1, 2));
    const auto call = [&](range piece, const auto&... policies) {
        causal_conv(spoiled(s, seq(std::as_const(x)), piece, axis), matrix(w), slice(seq(y), 1, piece),
                    conv_bias{given(raises, vec(bias))}, silu_output{curves}, carry{seq(state)}, policies...);
    };
    if (make<knows::all>(d, s, op, call, y)) {
        compare(s, op, y, naive, exact, summed);
        expect_same(s, op, state, carried);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    decisions d(data, size);
    const index_t op = d.below(6);
    const scene s(d);
    switch (op) {
        case 0:
            fuzz_convolution<float, float, float>(d, s);
            break;
        case 1:
            fuzz_convolution<double, float, double>(d, s);
            break;
        case 2:
            fuzz_convolution<bf16, bf16, float>(d, s);
            break;
        case 3:
            fuzz_causal_conv<float>(d, s);
            break;
        case 4:
            fuzz_causal_conv<double>(d, s);
            break;
        default:
            fuzz_causal_conv<f16>(d, s);
    }
    return 0;
}
