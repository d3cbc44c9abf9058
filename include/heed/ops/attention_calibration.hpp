// Attention calibration, ACT [62]: sinks in the middle of the text are damped, what they lose goes to the other keys.
//
//   a_j = (sum_i P_ij) / (N - j), causal N x N; sinks = {j: a_j > threshold} without the first such j
//   P'_ij = beta P_ij for sinks, P_ij (1 + f_i / sum of the rest) else, f_i = (1 - beta) sum over sinks of P_ij
// By parts: with (o_s, lse_s) over the sinks and (o_r, lse_r) over the rest, m = exp(lse_s - lse), it is
// o = beta m o_s + (1 - beta m) o_r, so no weight is stored. A row that sees nothing but sinks stays as it is.
#pragma once

#include "../policy/mask_segment.hpp"
#include "partials.hpp"

namespace heed::inline HEED_ABI {

/// Which keys of each query head are sinks, (b, h, j). A head with no mark is not calibrated.
struct attention_sinks {
    extents<3> shape{};
    std::vector<unsigned char> memory;

    view<unsigned char, 3> marks() { return {memory.data(), shape, dense_strides(shape)}; }
    view<const unsigned char, 3> marks() const { return {memory.data(), shape, dense_strides(shape)}; }
};

/// The sinks of a causal self-attention, from its key_mass (B, H, N): keys whose mean received weight exceeds the
/// threshold (the paper: 5 / N), but for the first of each head. Keep them for decoding: later keys are not sinks.
template <class T>
attention_sinks find_sinks(const view<T, 3>& key_mass, double threshold) {
    require_argument(!std::isnan(threshold), "find_sinks", "the threshold is not a number");
    const auto [B, H, N] = key_mass.shape;
    attention_sinks out{key_mass.shape, std::vector<unsigned char>(static_cast<std::size_t>(B * H * N))};
    const auto marks = out.marks();
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h) {
            bool first = true;
            for (index_t j = 0; j < N; ++j) {
                if (!(static_cast<double>(key_mass(b, h, j)) / static_cast<double>(N - j) > threshold)) continue;
                marks(b, h, j) = !first;
                first = false;
            }
        }
    return out;
}

/// Attention with the weights of sinks damped by beta of [0, 1]: q (B, H, N, D), a source of G heads, o (B, H, N, E).
/// Policies: mask, score, scale, offset, lse (of the weights before), on. Memory beside: two outputs in the
/// accumulator's type. Throws shape_error or argument_error before o is touched.
template <class A = default_arch, class Q, key_value_source Source, class O, class... P>
void calibrated_attention(const Q& q, const Source& source, O&& o, const attention_sinks& sinks, double beta,
                          const P&... policies) {
    static constexpr const char* op = "calibrated_attention";
    const auto x = detail::operands_of(as_view(q), source, as_view(o));
    detail::check_parts(op, x, policies...);
    require_argument(0 <= beta && beta <= 1, op, "beta is ", beta, ", must be of [0, 1]");
    const keys_where damped{sinks.marks()}, others{sinks.marks(), false};
    detail::check_policy(damped, op, {x.B(), x.H(), x.N(), x.M()});

    auto sink = detail::partial_of(x), rest = detail::partial_of(x);
    detail::attend_part<A>(x.q, source, sink, damped, std::tuple<>{}, policies...);
    detail::attend_part<A>(x.q, source, rest, others, std::tuple<>{}, policies...);
    detail::each_row(x.o.shape, [&](index_t b, index_t h, index_t n) {
        double &of_sinks = sink.lse()(b, h, n), &of_rest = rest.lse()(b, h, n);
        constexpr double none = -std::numeric_limits<double>::infinity();
        if (of_sinks == none || of_rest == none) return;
        const double lse = std::max(of_sinks, of_rest) + std::log1p(std::exp(-std::abs(of_sinks - of_rest)));
        const double m = std::exp(of_sinks - lse);
        of_sinks += std::log(beta);  // the merge weighs by exp of these: beta m and 1 - beta m, times exp(lse)
        of_rest = lse + std::log1p(-beta * m);
    });
    merge(sink.all(), sink.all(), rest.all());
    detail::deliver(sink, x.o, detail::pick_all<roles::probe>(policies...));
}

/// The same over k (B, G, M, D) and v (B, G, M, E).
template <class A = default_arch, class Q, class K, class V, class O, class... P>
    requires(!key_value_source<K>)
void calibrated_attention(const Q& q, const K& k, const V& v, O&& o, const attention_sinks& sinks, double beta,
                          const P&... policies) {
    calibrated_attention<A>(q, detail::source_of(as_view(k), as_view(v)), o, sinks, beta, policies...);
}

}  // namespace heed::inline HEED_ABI
