// QAdA, query-adaptive attention [92]: a query whose local keys hold enough weight sees them alone, any other sees all.
//
//   local keys: the first `first` and the last `last` (its own among them); bulk: the keys between, n of them
//   p = A_loc / (A_loc + A_bulk), A = sum of exp(scale q.k); local if p >= tau, so nothing local if tau >= 1
// A_bulk is estimated from moments of the keys in O(D^2), or, as an oracle, computed. The decision is made on logs.
// Cost of decode: local keys for every head, bulk keys for those that are not local.
#pragma once

#include "../policy/mask_stride.hpp"
#include "key_moments.hpp"
#include "partials.hpp"

namespace heed::inline HEED_ABI {

/// Which keys are local, and the least share of weight that makes a query local: tau <= 0 makes all local.
struct locality {
    index_t first, last;
    double tau;
    constexpr locality(index_t sinks, index_t recent_keys, double least_share)
        : first(sinks), last(recent_keys), tau(least_share) {}

    constexpr range bulk(index_t i) const { return {first, i + 1 - last}; }
    /// From log A_loc - log A_bulk.
    bool local(double advantage) const {
        if (tau <= 0 || tau >= 1) return tau <= 0;
        return advantage >= std::log(tau / (1 - tau));
    }
    void check(const char* op) const {
        require_argument(first >= 0, op, first, " first keys are local, the least is 0");
        require_argument(last >= 0, op, last, " last keys are local, the least is 0");
        require_argument(!std::isnan(tau), op, "tau is not a number");
    }
};

/// In place of moments: the bulk is attended to for every query, then dropped for local ones. Measures; saves nothing.
struct oracle {};

namespace detail {

/// The bulk keys of the rows (b, h, n) that want them.
struct bulk_keys {
    using role = roles::mask;
    locality rule;
    view<const unsigned char, 3> wanted;
    range keys(const where& w) const { return wanted(w.b, w.h, w.row) ? rule.bulk(w.i) : range{0, 0}; }
};

inline void check_estimate(const char*, const oracle&, const extents<3>&) {}
inline void check_estimate(const char* op, const key_moments& moments, const extents<3>& want) {
    for (std::size_t a = 0; a < 3; ++a)
        require_shape(moments.shape()[a] == want[a], op, "the moments have extent ", moments.shape()[a], " on axis ", a,
                      ", the keys have ", want[a]);
}

}  // namespace detail

/// q (B, H, N, D), causal over a source of G heads with a key at every position; o (B, H, N, E). estimate: key_moments
/// of (B, G, D), of the bulk or of any keys like it, or oracle{}. Policies: scale, offset, lse (of what was seen), on.
/// Returns p of every row, (b, h, n) in order, 1 where there is no bulk. Memory beside: two outputs in the
/// accumulator's type. Throws shape_error or argument_error before o is touched.
template <class A = default_arch, class Q, key_value_source Source, class O, class Estimate, class... P>
std::vector<double> adaptive_attention(const Q& q, const Source& source, O&& o, const locality& rule,
                                       const Estimate& estimate, const P&... policies) {
    static constexpr const char* op = "adaptive_attention";
    static_assert(!(has_role<P, roles::score> || ...),
                  "heed: adaptive_attention estimates plain logits, without a score");
    const auto x = detail::operands_of(as_view(q), source, as_view(o));
    detail::check_parts(op, x, causal{}, policies...);
    rule.check(op);
    detail::check_estimate(op, estimate, {x.B(), x.G(), x.D()});

    const extents<3> rows{x.B(), x.H(), x.N()};
    const auto count = static_cast<std::size_t>(x.B() * x.H() * x.N());
    std::vector<double> shares(count);
    std::vector<unsigned char> marks(count);
    const auto share = dense(shares.data(), {rows[0], rows[1], rows[2]});
    const view<unsigned char, 3> wanted{marks.data(), rows, dense_strides(rows)};
    auto near = detail::partial_of(x), far = detail::partial_of(x);
    const auto attend_bulk = [&] {
        detail::attend_part<A>(x.q, source, far, detail::bulk_keys{rule, wanted}, std::tuple<>{}, causal{},
                               policies...);
    };
    detail::attend_part<A>(x.q, source, near, first{rule.first} | recent{rule.last}, std::tuple<>{}, causal{},
                           policies...);
    if constexpr (std::is_same_v<Estimate, oracle>) {
        std::fill(marks.begin(), marks.end(), 1);
        attend_bulk();
    }
    const double factor = detail::scale_of(x.D(), policies...);
    detail::each_row(x.o.shape, [&](index_t b, index_t h, index_t n) {
        double& log_bulk = far.lse()(b, h, n);
        if constexpr (std::is_same_v<Estimate, key_moments>) {
            const auto query = [&](index_t d) { return x.q(b, h, n, d); };
            const index_t keys = rule.bulk(detail::first_position(x, b, policies...) + n).size();
            log_bulk = estimate.log_mass(b, h / x.group(), query, factor, keys);
        }
        const bool no_bulk = log_bulk == -std::numeric_limits<double>::infinity();
        const double advantage = near.lse()(b, h, n) - log_bulk;
        share(b, h, n) = no_bulk ? 1 : 1 / (1 + std::exp(-advantage));
        wanted(b, h, n) = !no_bulk && !rule.local(advantage);
        if (!wanted(b, h, n)) log_bulk = -std::numeric_limits<double>::infinity();
    });
    if constexpr (std::is_same_v<Estimate, key_moments>) attend_bulk();
    merge(near.all(), near.all(), far.all());
    detail::deliver(near, x.o, detail::pick_all<roles::probe>(policies...));
    return shares;
}

/// The same over k (B, G, M, D) and v (B, G, M, E).
template <class A = default_arch, class Q, class K, class V, class O, class Estimate, class... P>
    requires(!key_value_source<K>)
std::vector<double> adaptive_attention(const Q& q, const K& k, const V& v, O&& o, const locality& rule,
                                       const Estimate& estimate, const P&... policies) {
    return adaptive_attention<A>(q, detail::source_of(as_view(k), as_view(v)), o, rule, estimate, policies...);
}

}  // namespace heed::inline HEED_ABI
