// convolution(x, filter, y, policies...): y = g' (h conv (g x) + bias) along the tokens, each channel with its filter.
//
//   (h conv x)[b, t, c] = sum_k h[c, k] x[b, t + ahead - k, c],  x = 0 outside the sequence
// x, y (b, n, c): dense(p, {B, N, C}), channels(p, {B, C, N}), or any strides. Long filters by products of spectra, at
// O(log K) a token; short ones, and calls of a few tokens, by direct sums (convolution_filter.hpp says when).
//
// Direct sums are causal to the bit, and IEEE. A transform mixes what it meets, so there
//   - rounding is relative to the norms: the error of a channel is about 1e-7 |h| |x| in float, with |x| taken over the
//     window of a chunk (a whole call if it is no longer than the filter), later tokens included;
//   - an input that is inf or NaN makes the outputs that the filter reaches from it NaN, and touches no other.
#pragma once

#include "../core/half.hpp"
#include "convolution_call.hpp"

namespace heed::inline HEED_ABI {

/// Policy: x is multiplied by this (b, n, c) first.
template <class T>
struct input_gate {
    using role = roles::input_gate;
    view<const T, 3> g;
    template <class V>
    explicit input_gate(const V& v) : g(as_view(v)) {}
};
template <class V>
input_gate(const V&) -> input_gate<typename decltype(as_view(std::declval<const V&>()))::value_type>;

/// Policy: y is multiplied by this (b, n, c) last.
template <class T>
struct output_gate {
    using role = roles::output_gate;
    view<const T, 3> g;
    template <class V>
    explicit output_gate(const V& v) : g(as_view(v)) {}
};
template <class V>
output_gate(const V&) -> output_gate<typename decltype(as_view(std::declval<const V&>()))::value_type>;

/// Policy: y is raised by this (c), before the output gate.
template <class T>
struct channel_bias {
    using role = roles::channel_bias;
    view<const T, 1> b;
    template <class V>
    explicit channel_bias(const V& v) : b(as_view(v)) {}
};
template <class V>
channel_bias(const V&) -> channel_bias<typename decltype(as_view(std::declval<const V&>()))::value_type>;

/// Policy: what came before, (b, c, K - 1), oldest first, zeros at the start of a sequence. It is read, and holds the
/// last K - 1 inputs (gated) afterwards, so that a sequence may come in pieces of any lengths. Causal filters only.
template <class T>
struct past {
    using role = roles::past;
    view<T, 3> inputs;
    explicit past(const view<T, 3>& p) : inputs(p) {}
};

namespace detail {

template <class T, class X, class Y, class GI, class GO>
void check_convolution(const view<const X, 3>& x, index_t C, index_t K, const view<Y, 3>& y,
                       const view<const GI, 3>& input_gate, const view<const GO, 3>& output_gate,
                       const view<T, 3>& past) {
    constexpr const char* op = "convolution";
    constexpr const char* axes[] = {"batch", "token", "channel"};
    const auto fits = [&](const char* name, const auto& v) {
        for (std::size_t a = 0; a < 3; ++a)
            require_shape(v.shape[a] == x.shape[a], op, axes[a], " extent of ", name, " is ", v.shape[a], ", of x ",
                          x.shape[a]);
    };
    const auto written = [&](const char* name, const auto& v) {
        for (std::size_t a = 0; a < 3; ++a)
            require_shape(v.shape[a] <= 1 || v.strides[a] != 0, op, "stride ", static_cast<index_t>(a), " of ", name,
                          " is 0");
        require_shape(!overlap(v, x), op, name, " overlaps x");
        require_shape(!input_gate.data || !overlap(v, input_gate), op, name, " overlaps the input gate");
        require_shape(!output_gate.data || !overlap(v, output_gate), op, name, " overlaps the output gate");
    };
    for (std::size_t a = 0; a < 3; ++a) require_shape(x.shape[a] >= 0, op, axes[a], " extent of x is ", x.shape[a]);
    require_shape(x.shape[2] == C, op, "x has ", x.shape[2], " channels, the filter has ", C);
    fits("y", y);
    written("y", y);
    if (input_gate.data) fits("the input gate", input_gate);
    if (output_gate.data) fits("the output gate", output_gate);
    if (!past.data) return;
    require_shape(past.shape[0] == x.shape[0] && past.shape[1] == C, op, "the past is of ", past.shape[0],
                  " sequences and ", past.shape[1], " channels, x of ", x.shape[0], " and ", C);
    require_shape(past.shape[2] == std::max<index_t>(0, K - 1), op, "the past has ", past.shape[2], " tokens, ", K,
                  " taps need ", std::max<index_t>(0, K - 1));
    written("the past", past);
    require_shape(!overlap(past, y), op, "the past overlaps y");
}

}  // namespace detail

/// x (b, n, c), filter of C channels, y (b, n, c); x, y and gates float, double, bf16 or f16. Policies, in any order:
/// input_gate{g}, output_gate{g}, channel_bias{b} and past{p} in T, on{pool, arena} (or scratch_size). Throws
/// shape_error or argument_error before anything is written.
template <class X, class T, class A, class Y, class... Policies>
void convolution(const X& x, const convolution_filter<T, A>& filter, Y&& y, const Policies&... policies) {
    constexpr const char* op = "convolution";
    static_assert(((has_role<Policies, roles::input_gate> || has_role<Policies, roles::output_gate> ||
                    has_role<Policies, roles::past> || has_role<Policies, roles::channel_bias> ||
                    has_role<Policies, roles::context>)&&...),
                  "heed: an argument is not a policy of convolution");
    static_assert(detail::count_of_role<roles::input_gate, Policies...> <= 1, "heed: two input gates");
    static_assert(detail::count_of_role<roles::output_gate, Policies...> <= 1, "heed: two output gates");
    static_assert(detail::count_of_role<roles::channel_bias, Policies...> <= 1, "heed: two biases");
    static_assert(detail::count_of_role<roles::past, Policies...> <= 1, "heed: two pasts");
    static_assert(detail::count_of_role<roles::context, Policies...> <= 1, "heed: two contexts");
    const auto in = as_view(x);
    const auto out = as_view(y);
    using x_type = typename decltype(in)::value_type;
    using y_type = std::remove_pointer_t<decltype(out.data)>;
    static_assert(!std::is_const_v<y_type>, "heed: the output is a view of const");
    static_assert(storage<x_type> && storage<y_type>, "heed: elements are float, double, bf16 or f16");
    static_assert(std::is_same_v<accumulator<x_type, y_type, T>, T>, "heed: doubles need a filter of doubles");
    const auto gate_in = detail::pick<roles::input_gate>(input_gate<T>(view<const T, 3>{}), policies...);
    const auto gate_out = detail::pick<roles::output_gate>(output_gate<T>(view<const T, 3>{}), policies...);
    const view<const T, 1> added =
        detail::pick<roles::channel_bias>(channel_bias<T>(view<const T, 1>{}), policies...).b;
    const view<T, 3> before = detail::pick<roles::past>(past<T>(view<T, 3>{}), policies...).inputs;
    const view<const x_type, 3> read = in;
    detail::check_convolution<T>(read, filter.channels(), filter.taps(), out, gate_in.g, gate_out.g, before);
    require_shape(!added.data || added.shape[0] == filter.channels(), op, "the bias has ", added.shape[0],
                  " channels, the filter has ", filter.channels());
    require_shape(!added.data || (!overlap(out, added) && !overlap(before, added)), op,
                  "y or the past overlaps the bias");
    require_argument(filter.longest() == 0 || in.shape[1] <= filter.longest(), op, "x has ", in.shape[1],
                     " tokens, the filter is for at most ", filter.longest());
    require_argument(!before.data || filter.ahead() == 0, op, "the filter looks ", filter.ahead(),
                     " tokens ahead, a past is for causal ones");
    const detail::convolution_call<A, T, x_type, y_type, typename decltype(gate_in.g)::value_type,
                                   typename decltype(gate_out.g)::value_type>
        call{read, filter, out, gate_in.g, gate_out.g, added, before};
    detail::in_scratch(
        op, [&](auto& pool) { return call.scratch_bytes(pool); },
        [&](auto& pool, std::byte* memory) { call.run(pool, memory); }, policies...);
}

}  // namespace heed::inline HEED_ABI
