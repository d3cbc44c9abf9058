// Hybrid attention: some keys are met by softmax, the others by a feature map, in one normaliser; not causal [61].
//
//   y_i = (sum_{j in T} e_ij v_j + sum_{j not in T} p_ij v_j) / max(eps, the same with v = 1)
//   e_ij = exp(x_ij - c_i),  x_ij = q_i.k_j / sqrt D,  c_i = max_{j in T} x_ij,   p_ij = phi(q_i).phi(k_j)
// c_i does not cancel, as p is not scaled by exp(-c_i): it is part of the definition. phi must not be negative.
//   = (w attention_T + phi(q)^T S) / (w + phi(q).z),  w = exp(lse - c) in [1, |T|]
// Cost: 2 N |T| (D + E) flops, again N |T| D for c, and 4 N D E. Ghafoorian et al., arXiv:2509.24899.
#pragma once

#include <cmath>
#include <span>
#include <vector>

#include "../engine/attention.hpp"
#include "../engine/recurrence.hpp"

namespace heed::inline HEED_ABI {
namespace detail {

/// Some tokens of a view, (B, H, n, D + more), with `more` columns of ones.
template <class T>
class picked_tokens {
public:
    template <class S>
    picked_tokens(const view<S>& from, std::span<const index_t> tokens, index_t more = 0)
        : shape_{from.shape[0], from.shape[1], static_cast<index_t>(tokens.size()), from.shape[3] + more} {
        memory_.assign(static_cast<std::size_t>(shape_[0] * shape_[1] * shape_[2] * shape_[3]), static_cast<T>(1.0f));
        const view<T> to{memory_.data(), shape_, dense_strides(shape_)};
        for (index_t b = 0; b < shape_[0]; ++b)
            for (index_t h = 0; h < shape_[1]; ++h)
                for (index_t n = 0; n < shape_[2]; ++n)
                    for (index_t d = 0; d < from.shape[3]; ++d)
                        to(b, h, n, d) = from(b, h, tokens[static_cast<std::size_t>(n)], d);
    }
    view<const T> v() const { return {memory_.data(), shape_, dense_strides(shape_)}; }

private:
    extents<4> shape_;
    std::vector<T> memory_;
};

/// The numbers of [0, M) that are not among `some`, which ascend.
inline std::vector<index_t> others(std::span<const index_t> some, index_t M) {
    std::vector<index_t> rest;
    std::size_t next = 0;
    for (index_t j = 0; j < M; ++j)
        if (next < some.size() && some[next] == j)
            ++next;
        else
            rest.push_back(j);
    return rest;
}

}  // namespace detail

/// q (B, H, N, D), k (B, G, M, D), v (B, G, M, E), o (B, H, N, E), G dividing H; exact: the keys met by softmax,
/// ascending, the rest by `features`. Without exact keys linear attention, with all of them softmax attention.
/// Policies: on. Memory beside: k and v once more, two outputs. Throws shape_error or argument_error before o is
/// touched.
template <class A = default_arch, class Q, class K, class V, class O, class Features, class... P>
void hybrid_attention(const Q& q, const K& k, const V& v, O&& o, std::span<const index_t> exact,
                      const Features& features, double eps = 1e-6, const P&... policies) {
    static constexpr const char* op = "hybrid_attention";
    static_assert(has_role<Features, roles::features> && (has_role<P, roles::context> && ...),
                  "heed: hybrid attention takes features and on");
    const auto queries = as_view(q);
    const auto keys = as_view(k);
    const auto values = as_view(v);
    const auto out = as_view(o);
    using S = typename decltype(keys)::value_type;
    using W = typename decltype(values)::value_type;
    using O_ = typename decltype(out)::value_type;
    using T = accumulator<typename decltype(queries)::value_type, S, W, O_>;
    const auto [B, H, N, E] = out.shape;
    const index_t M = keys.shape[2];
    for (std::size_t i = 0; i < exact.size(); ++i)
        require_argument(exact[i] >= 0 && exact[i] < M && (i == 0 || exact[i - 1] < exact[i]), op, "exact key ",
                         exact[i], " does not ascend within the ", M, " keys");
    require_argument(eps > 0, op, "eps is ", eps, ", it must be above 0");
    detail::make_attention_call<A>(queries, detail::source_of(keys, values), out, op).check(op);

    const auto rest = detail::others(exact, M);
    std::vector<T> soft(static_cast<std::size_t>(B * H * N * E)), linear(static_cast<std::size_t>(B * H * N * (E + 1)));
    std::vector<double> logs(static_cast<std::size_t>(B * H * N)), tops(logs.size());
    const auto o_soft = dense(soft.data(), {B, H, N, E}), o_linear = dense(linear.data(), {B, H, N, E + 1});
    const auto log_sums = dense(logs.data(), {B, H, N}), top = dense(tops.data(), {B, H, N});
    {
        const detail::picked_tokens<S> near(keys, exact);
        const detail::picked_tokens<W> seen(values, exact);
        attention<A>(queries, near.v(), seen.v(), o_soft, lse{log_sums}, row_max{top}, policies...);
    }
    {
        const detail::picked_tokens<S> far(keys, rest);
        const detail::picked_tokens<W> read(values, rest, 1);  // its last column sums the weights
        state<T> sums(B, keys.shape[1], features.width(keys.shape[3]), E + 1);
        absorb<A>(sums, far.v(), read.v(), features, policies...);
        recall<A>(sums, queries, o_linear, features, policies...);
    }
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h)
            for (index_t n = 0; n < N; ++n) {
                const T w = exact.empty() ? T(0) : static_cast<T>(std::exp(log_sums(b, h, n) - top(b, h, n)));
                const T all = w + o_linear(b, h, n, E),
                        by = 1 / (all < static_cast<T>(eps) ? static_cast<T>(eps) : all);
                for (index_t e = 0; e < E; ++e)
                    out(b, h, n, e) = static_cast<O_>(by * (w * o_soft(b, h, n, e) + o_linear(b, h, n, e)));
            }
}

}  // namespace heed::inline HEED_ABI
