// HGRN as in fla's naive code, and ONNX CausalConvWithState, opset 27.
#include <heed/ops/causal_conv.hpp>
#include <heed/ops/hgrn.hpp>
#include <heed/ref/causal_conv.hpp>
#include <heed/ref/diagonal.hpp>

#include "replay.hpp"

namespace conformance {
namespace {

void require(bool ok, const std::string& what) {
    if (!ok) throw std::runtime_error(what);
}

template <class T>
view<const T, 3> read(const std::vector<T>& x, index_t B, index_t N, index_t C) {
    return dense(x.data(), {B, N, C});
}

template <class T>
double replay_hgrn_in(golden_case& g, engine by) {
    const array &X = g.needed("x"), &gates = g.needed("g");
    require(X.rank() == 3 && gates.shape == X.shape, "x is [B, N, C], and g too");
    const std::string recurrence = g.text("recurrence");
    require(recurrence.empty() || recurrence == "h=exp(g)*h+x", "no recurrence " + recurrence);
    g.take_remarks();
    for (const char* hint : {"chunk_size", "output_final_state"}) g.text(hint);  // without effect on values
    const index_t B = X.shape[0], N = X.shape[1], C = X.shape[2];
    const auto x = X.as<T>(), l = gates.as<T>();
    std::vector<T> o(x.size()), state(static_cast<std::size_t>(B * C));
    if (const array* first = g.input("h0")) state = first->as<T>();
    const auto xs = read(x, B, N, C), ls = read(l, B, N, C);
    const auto to = dense(o.data(), {B, N, C}), carried = dense(state.data(), {B, C, 1});
    if (by == engine::reference)
        ref::diagonal<T>(
            to, [&](index_t b, index_t n, index_t c) { return ref::hgrn(xs(b, n, c), ls(b, n, c)); }, carried);
    else
        hgrn(xs, ls, to, carry{carried});
    const array *wanted = g.output("o"), *last = g.output("ht");
    require(wanted, "the output o is missing");
    const double tolerance = tolerance_of(X.type), worst = compare("o", X.shape, o, *wanted, tolerance);
    return last ? std::max(worst, compare("ht", {B, C}, state, *last, tolerance)) : worst;
}

/// x [B, C, N] as (B, N, C).
template <class T>
view<T, 3> by_token(T* data, index_t B, index_t C, index_t N) {
    return {data, {B, N, C}, {C * N, 1, N}};
}

template <class T>
double replay_conv_in(golden_case& g, engine by) {
    const array &X = g.needed("input"), &W = g.needed("weight");
    require(X.rank() == 3 && W.rank() == 3 && W.shape[1] == 1, "the input is [B, C, N], the weight [C, 1, K]");
    const index_t B = X.shape[0], C = X.shape[1], N = X.shape[2], K = W.shape[2];
    const std::string activation = g.text("activation");
    const bool silu = activation == "silu" || activation == "swish";
    require(silu || activation.empty() || activation == "none", "no activation " + activation);
    require(g.integer("ndim", 1) == 1, "more axes than one");
    const auto x = X.as<T>(), w = W.as<T>();
    const array *bias = g.input("bias"), *past = g.input("past_state");
    const auto b = bias ? bias->as<T>() : std::vector<T>();
    std::vector<T> y(x.size()), state(static_cast<std::size_t>(B * C * (K - 1)));
    if (past) state = past->as<T>();
    const auto xs = by_token(x.data(), B, C, N);
    const auto to = by_token(y.data(), B, C, N);
    const auto taps = dense(w.data(), {C, K});
    const auto added = bias ? dense(b.data(), {C}) : view<const T, 1>{};
    const auto carried = dense(state.data(), {B, C, K - 1});
    if (by == engine::heed)
        causal_conv(xs, taps, to, conv_bias{added}, silu_output{silu}, carry{carried});
    else if constexpr (std::is_same_v<T, double> || std::is_same_v<T, float>)
        ref::causal_conv<T>(xs, taps, to, added, carried, silu);
    const array *wanted = g.output("output"), *last = g.output("present_state");
    require(wanted, "the output is missing");
    const double tolerance = tolerance_of(X.type), worst = compare("output", X.shape, y, *wanted, tolerance);
    return last ? std::max(worst, compare("present_state", {B, C, K - 1}, state, *last, tolerance)) : worst;
}

}  // namespace

double replay_hgrn(golden_case& g, engine by) {
    const bool narrow = g.needed("x").type != "float64" && by == engine::heed;
    return narrow ? replay_hgrn_in<float>(g, by) : replay_hgrn_in<double>(g, by);
}
double replay_causal_conv(golden_case& g, engine by) {
    if (by == engine::reference) return replay_conv_in<double>(g, by);
    return with_type(g.needed("input").type, [&](auto zero) { return replay_conv_in<decltype(zero)>(g, by); });
}

}  // namespace conformance
