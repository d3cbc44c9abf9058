// Hybrid attention: some keys are met by softmax, the others by a feature map, in one normaliser; not causal [61].
//
//   y_i = (sum_{j in T} e_ij v_j + sum_{j not in T} p_ij v_j) / max(eps, the same with v = 1)
//   e_ij = exp(x_ij - c_i),  x_ij = q_i.k_j / sqrt D,  c_i = max_{j in T} x_ij,   p_ij = phi(q_i).phi(k_j)
// c_i does not cancel, as p is not scaled by exp(-c_i): it is part of the definition. phi must not be negative.
//   = (w attention_T + phi(q)^T S) / (w + phi(q).z),  w = exp(lse - c) in [1, |T|];  logit_offset gives another c
// Cost: 2 N |T| (D + E) flops, again N |T| D for c, and 4 N D E. Ghafoorian et al., arXiv:2509.24899.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>

#include "../engine/recurrence.hpp"
#include "partials.hpp"

namespace heed::inline HEED_ABI {

/// c, one number for all rows, in place of the largest logit of each: 0 weighs exact keys by e^x as they are. It spares
/// the second reading of the exact keys; rows with logits far above it overflow.
struct logit_offset {
    using role = roles::reference;
    double c;
    explicit logit_offset(double of_all) : c(of_all) {}
};

namespace detail {

/// Some tokens of a view, (B, H, n, D + more), with `more` columns of ones.
template <class T, class S>
view<const T> picked_tokens(carver& memory, const view<S>& from, std::span<const index_t> tokens, index_t more = 0) {
    const extents<4> shape{from.shape[0], from.shape[1], static_cast<index_t>(tokens.size()), from.shape[3] + more};
    const view<T> to{memory.take<T>(shape[0] * shape[1] * shape[2] * shape[3]), shape, dense_strides(shape)};
    if (memory.counts()) return to;
    each_row(shape, [&](index_t b, index_t h, index_t n) {
        for (index_t d = 0; d < shape[3]; ++d)
            to(b, h, n, d) = d < from.shape[3] ? static_cast<T>(from(b, h, tokens[static_cast<std::size_t>(n)], d))
                                               : static_cast<T>(1.0f);
    });
    return to;
}

/// Those of `some`, which ascend, that are in `tokens`.
inline std::span<const index_t> within(std::span<const index_t> some, range tokens) {
    const auto first = std::lower_bound(some.begin(), some.end(), tokens.first);
    const auto last = std::lower_bound(first, some.end(), tokens.last);
    return some.subspan(static_cast<std::size_t>(first - some.begin()), static_cast<std::size_t>(last - first));
}

/// The numbers of `all` that are not among `some` of them, which ascend.
inline std::span<const index_t> others(carver& memory, std::span<const index_t> some, range all) {
    const index_t count = all.size() - static_cast<index_t>(some.size());
    index_t* const rest = memory.take<index_t>(count);
    std::size_t next = 0;
    for (index_t j = all.first, n = 0; !memory.counts() && j < all.last; ++j)
        if (next < some.size() && some[next] == j)
            ++next;
        else
            rest[n++] = j;
    return {rest, static_cast<std::size_t>(count)};
}

/// o = (w soft + linear) / (w + its last column), w = exp(lse - c), 0 without exact keys.
template <class T, class O>
void join_kinds(const view<T>& soft, const view<T>& linear, const view<double, 3>& log_sums,
                const view<const double, 3>& c, bool none, T eps, const view<O>& o) {
    const index_t E = o.shape[3];
    each_row(o.shape, [&](index_t b, index_t h, index_t n) {
        const T w = none ? T(0) : static_cast<T>(std::exp(log_sums(b, h, n) - c(b, h, n)));
        const T all = w + linear(b, h, n, E), by = 1 / (all < eps ? eps : all);
        for (index_t e = 0; e < E; ++e)
            o(b, h, n, e) = static_cast<O>(by * (w * soft(b, h, n, e) + linear(b, h, n, e)));
    });
}

}  // namespace detail

/// q (B, H, N, D), k (B, G, M, D), v (B, G, M, E), o (B, H, N, E), G dividing H; exact: the keys met by softmax,
/// ascending, the rest by `features`. Without exact keys linear attention, with all of them softmax attention.
/// Policies: logit_offset{c}; packed{offsets}, where M is N and queries meet the keys of their own sequence; on or
/// scratch_size. Scratch beside: k and v once more, two outputs, of the longest sequence. Throws shape_error or
/// argument_error before o is touched.
template <class A = default_arch, class Q, class K, class V, class O, class Features, class... P>
void hybrid_attention(const Q& q, const K& k, const V& v, O&& o, std::span<const index_t> exact,
                      const Features& features, double eps = 1e-6, const P&... policies) {
    static constexpr const char* op = "hybrid_attention";
    static_assert(has_role<Features, roles::features> && ((has_role<P, roles::context> || has_role<P, roles::packed> ||
                                                           has_role<P, roles::reference>)&&...),
                  "heed: hybrid attention takes features, a logit_offset, packed and on");
    const auto queries = as_view(q);
    const auto keys = as_view(k);
    const auto values = as_view(v);
    const auto out = as_view(o);
    using S = typename decltype(keys)::value_type;
    using W = typename decltype(values)::value_type;
    using T = accumulator<typename decltype(queries)::value_type, S, W, typename decltype(out)::value_type>;
    const index_t B = out.shape[0], H = out.shape[1], E = out.shape[3], M = keys.shape[2];
    for (std::size_t i = 0; i < exact.size(); ++i)
        require_argument(exact[i] >= 0 && exact[i] < M && (i == 0 || exact[i - 1] < exact[i]), op, "exact key ",
                         exact[i], " does not ascend within the ", M, " keys");
    require_argument(eps > 0, op, "eps is ", eps, ", it must be above 0");
    detail::make_attention_call<A>(queries, detail::source_of(keys, values), out, op).check(op);

    const auto sequences = detail::pick<roles::packed>(not_packed{}, policies...);
    constexpr bool side_by_side = std::is_same_v<std::remove_const_t<decltype(sequences)>, packed>;
    if constexpr (side_by_side) {
        sequences.check(op, B, M);
        require_shape(queries.shape[2] == M, op, "packed sequences have ", M, " keys and ", queries.shape[2],
                      " queries");
        detail::check_apart(op, out, {"packed offsets"}, sequences);
    }

    const logit_offset given = detail::pick<roles::reference>(logit_offset(0), policies...);
    constexpr bool by_largest = detail::count_of_role<roles::reference, P...> == 0;
    const auto meet = [&](range tokens, range rows, carver& from, const auto&... with) {
        const auto own = detail::within(exact, tokens), rest = detail::others(from, own, tokens);
        const auto near = detail::picked_tokens<S>(from, keys, own), far = detail::picked_tokens<S>(from, keys, rest);
        const auto asked = slice(queries, 2, rows);
        const auto to = slice(out, 2, rows);
        const index_t N = rows.size();
        const auto seen = detail::picked_tokens<W>(from, values, own),
                   read = detail::picked_tokens<W>(from, values, rest, 1);  // its last column sums the weights
        const auto soft = dense(from.take<T>(B * H * N * E), {B, H, N, E});
        const auto linear = dense(from.take<T>(B * H * N * (E + 1)), {B, H, N, E + 1});
        const auto log_sums = dense(from.take<double>(B * H * N), {B, H, N});
        const auto top = dense(from.take<double>(by_largest ? B * H * N : 0), {B, H, N});
        state<T> sums(from, B, keys.shape[1], features.width(keys.shape[3]), E + 1);
        if constexpr (by_largest)
            attention<A>(asked, near, seen, soft, lse{log_sums}, row_max{top}, with...);
        else
            attention<A>(asked, near, seen, soft, lse{log_sums}, with...);
        absorb<A>(sums, far, read, features, with...);
        recall<A>(sums, asked, linear, features, with...);
        const view<const double, 3> of_all{&given.c, {B, H, N}, {}},
            c = by_largest ? view<const double, 3>(top) : of_all;
        if (!from.counts()) detail::join_kinds(soft, linear, log_sums, c, own.empty(), static_cast<T>(eps), to);
    };
    const auto run = [&](carver&, const auto&... with) {
        const auto one = [&](range tokens, range rows) {
            detail::in_shared_scratch(
                op, [&](carver& from, const auto&... inner) { meet(tokens, rows, from, inner...); }, with...);
        };
        if constexpr (side_by_side)
            for (std::size_t s = 1; s < sequences.offsets.size(); ++s) {
                const range tokens{sequences.offsets[s - 1], sequences.offsets[s]};
                one(tokens, tokens);
            }
        else
            one({0, M}, {0, queries.shape[2]});
    };
    detail::in_shared_scratch(op, run, detail::pick<roles::context>(detail::calling_thread{}, policies...));
}

}  // namespace heed::inline HEED_ABI
