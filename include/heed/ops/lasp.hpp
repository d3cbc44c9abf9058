// One sequence of a linear recurrence cut into parts that run at once [3].
//
//   local_r = S after part r from 0            parts at once, nothing read
//   in_0 = S,  in_{r+1} = A_r in_r + local_r   A_r the product of the decays of part r
//   o of part r: the recurrence from in_r      parts at once
// Equal to the recurrence in one piece, to rounding. Cost: 6 D E flops a token and head in place of 4 D E, so it serves
// a sequence whose state has too few columns to be cut; recurrence(..., on{pool}) cuts columns, which costs less.
// The exponents never leave [0, 1]: nothing is divided by a decay, which may be 0.
#pragma once

#include <functional>
#include <numeric>
#include <vector>

#include "../core/aligned.hpp"
#include "../engine/recurrence.hpp"
#include "../policy/token_views.hpp"

namespace heed::inline HEED_ABI {
namespace detail {

/// next += A before, A the decay of all tokens: in double, a number for each row, or one for all.
template <class A, class T, class Decay>
void carry_over(const state<T>& before, state<T>& next, const Decay& decay, index_t tokens) {
    constexpr bool by_row = Decay::kind == decay_kind::rows;
    const auto [B, H, D, E] = before.shape();
    const index_t width = by_row ? round_up(D, lanes<double, A>) : token_block, block = by_row ? 1 : token_block;
    aligned_vector<double> factors(static_cast<std::size_t>(width), 1), all(factors.size());
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h) {
            std::fill(all.begin(), all.end(), 1.0);
            for (index_t t = 0; t < tokens; t += block) {
                const index_t n = std::min(block, tokens - t);
                decay.template load<A>(token_walk{b, t, 1, n}, h, H, factors.data(), width);
                for (index_t i = 0; i < (by_row ? D : n); ++i)
                    all[static_cast<std::size_t>(i)] *= factors[static_cast<std::size_t>(i)];
            }
            if constexpr (!by_row) all[0] = std::accumulate(all.begin(), all.end(), 1.0, std::multiplies<>());
            for (index_t d = 0; d < D; ++d) {
                const auto a = static_cast<T>(all[by_row ? static_cast<std::size_t>(d) : 0]);
                const T* const from = &before.values()(b, h, d, 0);
                T* const to = &next.values()(b, h, d, 0);
                for (index_t e = 0; e < E; ++e) to[e] += a * from[e];
                next.key_sums()(b, h, d) += a * before.key_sums()(b, h, d);
            }
        }
}

}  // namespace detail

/// recurrence(q, k, v, o, policies...) with the tokens cut into [cuts[r], cuts[r + 1]), from 0 to N. Additive updates;
/// policies: decays by numbers or of key channels (retention_decay among them), feature maps, reads, sum_of_keys or a
/// norm of heads, scale, a state, on. Bits depend on the cuts, not on the executor. Memory beside: a state a part.
/// Throws shape_error or argument_error before anything is written.
template <class A = default_arch, class Q, class K, class V, class O, class... P>
void lasp(const Q& q, const K& k, const V& v, O&& o, std::span<const index_t> cuts, P&&... policies) {
    static constexpr const char* op = "lasp";
    static_assert(((has_role<P, roles::decay> || has_role<P, roles::features> || has_role<P, roles::read> ||
                    has_role<P, roles::normaliser> || has_role<P, roles::scale> || has_role<P, roles::state> ||
                    has_role<P, roles::context>)&&...),
                  "heed: an argument is not a policy of recurrences cut into parts");
    const auto queries = as_view(q);
    const auto keys = as_view(k);
    const auto values = as_view(v);
    const auto out = as_view(o);
    using T = accumulator<typename decltype(queries)::value_type, typename decltype(keys)::value_type,
                          typename decltype(values)::value_type, typename decltype(out)::value_type>;
    const auto decay = detail::pick<roles::decay>(no_decay{}, policies...);
    const auto features = detail::pick<roles::features>(identity_features{}, policies...);
    const auto normaliser = detail::pick<roles::normaliser>(not_normalised{}, policies...);
    const auto context = detail::pick<roles::context>(detail::calling_thread{}, policies...);
    static_assert(decltype(decay)::kind != decay_kind::columns && decltype(decay)::kind != decay_kind::complex,
                  "heed: parts are joined by decays of heads, tokens or key channels");
    static_assert(std::is_same_v<const sum_of_keys, decltype(normaliser)> ||
                      std::is_same_v<const not_normalised, decltype(normaliser)> ||
                      std::is_base_of_v<detail::row_norm, std::remove_const_t<decltype(normaliser)>>,
                  "heed: a normaliser of one's own may depend on the place of a token, which parts do not know");
    detail::with_recurrence<A>(
        op, queries, keys, values, out, [](const auto&) {}, policies...);
    require_argument(cuts.size() >= 2 && cuts.front() == 0 && cuts.back() == queries.shape[2], op,
                     "cuts do not go from 0 to the ", queries.shape[2], " tokens");
    for (std::size_t r = 1; r < cuts.size(); ++r)
        require_argument(cuts[r - 1] <= cuts[r], op, "cuts fall from ", cuts[r - 1], " to ", cuts[r]);

    const auto parts = static_cast<index_t>(cuts.size()) - 1;
    const auto tokens = [&](index_t r) {
        const auto i = static_cast<std::size_t>(r);
        return range{cuts[i], cuts[i + 1]};
    };
    const index_t heads = std::max(keys.shape[1], values.shape[1]);
    std::vector<state<T>> in;  // of each part, in the end
    const index_t rows = features.width(keys.shape[3]);
    for (index_t r = 0; r < parts; ++r) in.emplace_back(queries.shape[0], heads, rows, values.shape[3]);
    state<T>* const carried = detail::state_in<T>(policies...);
    if (carried) in[0] = *carried;
    const auto state_of = [&](index_t r) -> state<T>& { return in[static_cast<std::size_t>(r)]; };

    for_tasks(*context.pool, parts - 1, [&](index_t r, index_t) {
        const auto cut = [&](const auto& x) { return slice(x, 2, tokens(r)); };
        absorb<A>(state_of(r + 1), cut(keys), cut(values), detail::at_tokens(decay, tokens(r)),
                  detail::at_tokens(features, tokens(r)), normaliser);
    });
    for (index_t r = 0; r + 1 < parts; ++r)
        detail::carry_over<A>(state_of(r), state_of(r + 1), detail::at_tokens(decay, tokens(r)), tokens(r).size());
    const auto reads = detail::pick<roles::read>(read_after{}, policies...);
    const auto rest = std::tuple_cat(detail::pick_all<roles::scale>(policies...), std::tuple(normaliser, reads));
    for_tasks(*context.pool, parts, [&](index_t r, index_t) {
        const auto cut = [&](const auto& x) { return slice(x, 2, tokens(r)); };
        std::apply(
            [&](const auto&... policy) {
                recurrence<A>(cut(queries), cut(keys), cut(values), cut(out), state_of(r),
                              detail::at_tokens(decay, tokens(r)), detail::at_tokens(features, tokens(r)), policy...);
            },
            rest);
    });
    if (carried) *carried = state_of(parts - 1);
}

/// The same in `parts` of about equal length.
template <class A = default_arch, class Q, class K, class V, class O, class... P>
void lasp(const Q& q, const K& k, const V& v, O&& o, index_t parts, P&&... policies) {
    require_argument(parts >= 1, "lasp", parts, " parts, the least is 1");
    const index_t N = as_view(q).shape[2];
    std::vector<index_t> cuts;
    for (index_t r = 0; r <= parts; ++r) cuts.push_back(r * N / parts);
    lasp<A>(q, k, v, o, std::span<const index_t>(cuts), policies...);
}

}  // namespace heed::inline HEED_ABI
