// What operators share that attend to disjoint keys and merge: parts that own their memory, policies sorted by role.
#pragma once

#include <vector>

#include "../engine/attention.hpp"
#include "../engine/merge.hpp"
#include "../policy/mask_position.hpp"

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

/// What attention over some keys leaves of each row; where it saw no key, lse is -inf. Log-sum-exps are double: float
/// would cost the weights exp(lse_a - lse_b) as many digits as |lse| has.
template <class T>
class owned_partial {
public:
    using value_type = T;

    explicit owned_partial(const extents<4>& shape)
        : shape_(shape),
          o_(static_cast<std::size_t>(shape[0] * shape[1] * shape[2] * shape[3])),
          lse_(static_cast<std::size_t>(shape[0] * shape[1] * shape[2]), -std::numeric_limits<double>::infinity()) {}

    view<T> o() { return {o_.data(), shape_, dense_strides(shape_)}; }
    view<double, 3> lse() {
        const extents<3> rows{shape_[0], shape_[1], shape_[2]};
        return {lse_.data(), rows, dense_strides(rows)};
    }
    partial<T, double> all() { return {o(), lse()}; }

private:
    extents<4> shape_;
    std::vector<T> o_;
    std::vector<double> lse_;
};

/// What q over the source is accumulated in, when it ends in o.
template <class Q, class Source, class O>
using accumulated = accumulator<Q, typename Source::key_rows::storage, typename Source::value_rows::storage, O>;

template <class Q, class Source, class O>
auto operands_of(const view<Q>& q, const Source& source, const view<O>& o) {
    return attention_operands<std::remove_const_t<Q>, Source, O>{q, source, o};
}

/// Position of row 0 of sequence b: what the pack's offset says, or such that the last row stands at the last key.
template <class Q, class Source, class O, class... P>
index_t first_position(const attention_operands<Q, Source, O>& x, index_t b, const P&... policies) {
    return pick<roles::offset>(offset{x.end(b) - x.N()}, policies...).n;
}

/// An empty part of o.
template <class Q, class Source, class O>
auto partial_of(const attention_operands<Q, Source, O>& x) {
    return owned_partial<accumulated<Q, Source, O>>(x.o.shape);
}

/// Attention over the keys that `among` keeps of those the pack's mask allows, into `to`. Of the policies mask, score,
/// scale, offset and on are used; `probes` come on top.
template <class A, class Q, class Source, class T, class Among, class Probes, class... P>
void attend_part(const view<Q>& q, const Source& source, owned_partial<T>& to, const Among& among, const Probes& probes,
                 const P&... policies) {
    const auto rest = policies_of<role_list<roles::score, roles::scale, roles::offset, roles::context>>(policies...);
    std::apply(
        [&](const auto&... p) {
            const auto mask = pick<roles::mask>(everything{}, policies...) & among;
            attention<A>(q, source, to.o(), mask, lse{to.lse()}, p...);
        },
        std::tuple_cat(rest, probes));
}

/// Whether P asks for log-sum-exps and nothing else: the probes that attention in parts can serve.
template <class P>
inline constexpr bool probes_lse_only =
    !has_role<P, roles::probe> || (finishes_rows<P> && !observes_rows<P> && !observes_keys<P>);

/// Checks the probes of the pack against the rows they will be told of.
template <class Probes>
void check_probes(const char* op, const Probes& probes, const extents_of_scores& s) {
    std::apply([&](const auto&... probe) { (check_policy(probe, op, s), ...); }, probes);
}

/// What every operator in parts asks of its operands and policies.
template <class Q, class Source, class O, class... P>
void check_parts(const char* op, const attention_operands<Q, Source, O>& x, const P&... policies) {
    using taken = role_list<roles::mask, roles::score, roles::scale, roles::offset, roles::context, roles::probe>;
    check_roles<P...>();
    static_assert(only_roles<taken, P...> && (probes_lse_only<P> && ...),
                  "heed: attention in parts takes a mask, a score, scale, offset, lse and on");
    x.check(op, policies...);
    check_probes(op, pick_all<roles::probe>(policies...), {x.B(), x.H(), x.N(), x.M()});
}

/// The same, of one part that is all there is: its weight may be another.
template <class Q, class Source, class O, class... P>
void check_parts_and_weight(const char* op, const attention_operands<Q, Source, O>& x, const P&... policies) {
    check_roles<P...>();
    std::apply([&](const auto&... p) { check_parts(op, x, p...); }, leave_out<roles::weight>(policies...));
    check_policy(pick<roles::weight>(softmax{}, policies...), op, {x.B(), x.H(), x.N(), x.M()});
}

/// Places on the key axis, each no less than the one before.
inline void check_ascending(const char* op, const char* name, std::span<const index_t> at) {
    for (std::size_t s = 1; s < at.size(); ++s)
        require_argument(at[s - 1] <= at[s], op, name, " ", at[s], " stands after ", at[s - 1],
                         ", they must not decrease");
}

/// Calls f(b, h, n) for every row.
template <class F>
void each_row(const extents<4>& shape, const F& f) {
    for (index_t b = 0; b < shape[0]; ++b)
        for (index_t h = 0; h < shape[1]; ++h)
            for (index_t n = 0; n < shape[2]; ++n) f(b, h, n);
}

/// o = the output of the merged parts; the probes hear of their log-sum-exps.
template <class O, class T, class Probes>
void deliver(owned_partial<T>& whole, const view<O>& o, const Probes& probes) {
    merge(partial(o, whole.lse()), whole.all());
    const auto sums = whole.lse();
    const auto tell = [&](const auto& probe) {
        each_row(o.shape, [&](index_t b, index_t h, index_t n) { probe.finish(b, h, n, sums(b, h, n)); });
    };
    std::apply([&](const auto&... probe) { (tell(probe), ...); }, probes);
}

}  // namespace heed::inline HEED_ABI::detail
