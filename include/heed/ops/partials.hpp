// What the operators share that attend to disjoint sets of keys and merge: parts that own their memory, keys that are
// views or a source, and policies sorted by role.
#pragma once

#include <vector>

#include "../engine/attention.hpp"
#include "../engine/merge.hpp"

namespace heed::inline HEED_ABI::detail {

template <class... Roles>
struct role_list {
    template <class P>
    static constexpr bool has = (has_role<P, Roles> || ...);
};
template <class List, class... P>
inline constexpr bool only_roles = (List::template has<P> && ...);

/// The policies of these roles, as a tuple.
template <class List, class... P>
constexpr auto policies_of(const P&... policies) {
    return std::tuple_cat([](const auto& p) {
        if constexpr (List::template has<decltype(p)>)
            return std::make_tuple(p);
        else
            return std::tuple<>{};
    }(policies)...);
}

/// What attention over some keys leaves of each row; where it saw no key, lse is -inf.
template <class T>
class owned_partial {
public:
    explicit owned_partial(const extents<4>& shape)
        : shape_(shape),
          o_(static_cast<std::size_t>(shape[0] * shape[1] * shape[2] * shape[3])),
          lse_(static_cast<std::size_t>(shape[0] * shape[1] * shape[2]), -std::numeric_limits<T>::infinity()) {}

    view<T> o() { return {o_.data(), shape_, dense_strides(shape_)}; }
    view<T, 3> lse() {
        const extents<3> rows{shape_[0], shape_[1], shape_[2]};
        return {lse_.data(), rows, dense_strides(rows)};
    }
    partial<T, T> all() { return {o(), lse()}; }

private:
    extents<4> shape_;
    std::vector<T> o_, lse_;
};

/// Keys and values as views: k (B, G, M, D), v (B, G, M, E).
template <class K, class V>
struct key_views {
    view<const K> k;
    view<const V> v;

    template <class Q, class O>
    using accumulated = accumulator<Q, K, V, O>;

    template <class Q, class O>
    void check(const char* op, const view<Q>& q, const view<O>& o) const {
        attention_operands<std::remove_const_t<Q>, K, V, O>{q, k, v, o}.check(op);
    }
    /// Position of row 0: what `offset` says, or the last row at the last key.
    template <class... P>
    index_t first_position(index_t rows, const P&... policies) const {
        return pick<roles::offset>(offset{k.shape[2] - rows}, policies...).n;
    }
    template <class A, class Q, class O, class... P>
    void attend(const view<Q>& q, const view<O>& o, const P&... policies) const {
        attention<A>(q, k, v, o, policies...);
    }
};
template <class K, class V>
key_views(view<K>, view<V>) -> key_views<std::remove_const_t<K>, std::remove_const_t<V>>;

/// Whether P asks for log-sum-exps and nothing else: the probes that attention in parts can serve.
template <class P>
inline constexpr bool probes_lse_only =
    !has_role<P, roles::probe> || (finishes_rows<P> && !observes_rows<P> && !observes_keys<P>);

/// Checks the probes of the pack against the rows they will be told of.
template <class Probes>
void check_probes(const char* op, const Probes& probes, const extents_of_scores& s) {
    std::apply([&](const auto&... probe) { (check_policy(probe, op, s), ...); }, probes);
}

/// o = the output of the merged parts; the probes hear of their log-sum-exps.
template <class O, class T, class Probes>
void deliver(owned_partial<T>& whole, const view<O>& o, const Probes& probes) {
    merge(partial(o, whole.lse()), whole.all());
    const auto sums = whole.lse();
    const auto [B, H, N] = sums.shape;
    const auto tell = [&](const auto& probe) {
        for (index_t b = 0; b < B; ++b)
            for (index_t h = 0; h < H; ++h)
                for (index_t n = 0; n < N; ++n) probe.finish(b, h, n, static_cast<double>(sums(b, h, n)));
    };
    std::apply([&](const auto&... probe) { (tell(probe), ...); }, probes);
}

}  // namespace heed::inline HEED_ABI::detail
