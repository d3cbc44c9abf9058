// Attention with relations between tokens: structure-aware self-attention [86], and Shaw's relative positions
// (arXiv:1803.02155), where the relation is the clipped distance.
//
//   x_ij = scale q_i.(k_j + rk_id)      o_i = sum_j p_ij (v_j + rv_id)      id = ids(b, i, j)
//
// The vectors of pairs are never formed. The P relations are keys of their own: q.rk are logits over them, and the
// weight a row gives to each is what mixes rv. Cost: attention with a probe, and over P keys twice.
#pragma once

#include "../engine/attention.hpp"
#include "../engine/scratch.hpp"
#include "../policy/relation_mass.hpp"
#include "../policy/scores.hpp"

namespace heed::inline HEED_ABI {

/// The vectors of P relations for keys (B, G, P, D) and for values (B, G, P, E), axes b and g of extent 1 broadcast;
/// and the relation of each query to each key, ids (B, N, M) in [0, P), every axis of extent 1 broadcast.
template <class K, class V, class Id>
struct relations {
    view<const std::remove_const_t<K>> keys;
    view<const std::remove_const_t<V>> values;
    view<const std::remove_const_t<Id>, 3> ids;
    relations(view<K> of_keys, view<V> of_values, view<Id, 3> id_of_pair)
        : keys(of_keys), values(of_values), ids(id_of_pair) {}

    void reads(const view_visitor& see) const {
        see(keys, "the keys of relations");
        see(values, "the values of relations");
        see(ids, "the ids of relations");
    }
};

namespace detail {

/// Hides the relations no visible key of a row has, so that an inf or NaN in their vectors does not reach it.
template <class T>
struct met_relations {
    using role = roles::mask;
    view<const T> mass;
    bool finite;  // nothing to hide
    bool allows(const where& w) const {
        const T m = mass(w.b, w.h, w.row, w.j);
        return finite || m != T(0) || !std::signbit(m);
    }
    bool full(const rows&, range) const { return finite; }
    index_t next(const rows&, index_t j) const { return j; }
};

/// A table (B or 1, G or 1, P, width) as (B, G, P, width).
template <class T>
view<const T> for_all_heads(view<const T> table, const extents<4>& want, const char* op, const char* name) {
    require_shape(want[2] >= 0, op, "there are ", want[2], " relations");
    for (std::size_t a = 0; a < 4; ++a)
        require_shape(table.shape[a] == want[a] || (a < 2 && table.shape[a] == 1), op, name,
                      " of relations have extent ", table.shape[a], " on axis ", a, ", expected ", want[a]);
    for (std::size_t a = 0; a < 2; ++a)
        if (table.shape[a] == 1) table.strides[a] = 0;
    return {table.data, want, table.strides};
}

template <class A, class T, class S>
bool all_finite(const view<const S>& table) {
    for (index_t b = 0; b < table.shape[0]; ++b)
        for (index_t g = 0; g < table.shape[1]; ++g)
            for (index_t p = 0; p < table.shape[2]; ++p) {
                const S* row = table.data + b * table.strides[0] + g * table.strides[1] + p * table.strides[2];
                if (!heed::all_finite<A, T>(row, table.strides[3], table.shape[3])) return false;
            }
    return true;
}

}  // namespace detail

/// Attention whose pairs have relations: operands, policies and errors are those of attention. A score of the pack
/// follows that of the relations. Scratch holds 2 B H N (P + E) sums beside that of the calls within.
template <class A = default_arch, class Q, class K, class V, class O, class RK, class RV, class Id, class... Policies>
void relational_attention(const Q& q, const K& k, const V& v, O&& o, const relations<RK, RV, Id>& r,
                          const Policies&... policies) {
    static constexpr const char* op = "relational_attention";
    detail::check_roles<Policies...>();
    const auto qs = as_view(q);
    const auto ks = as_view(k);
    const auto vs = as_view(v);
    const auto out = as_view(o);
    using stored = typename decltype(out)::value_type;
    using T = accumulator<typename decltype(qs)::value_type, typename decltype(ks)::value_type,
                          typename decltype(vs)::value_type, stored, typename decltype(r.keys)::value_type,
                          typename decltype(r.values)::value_type>;
    const auto source = detail::source_of(ks, vs);
    const detail::attention_operands<typename decltype(qs)::value_type, std::remove_const_t<decltype(source)>, stored> x{
        qs, source, out};
    x.check(op, r, policies...);
    const index_t P = r.keys.shape[2];
    const auto rk = detail::for_all_heads(r.keys, {x.B(), x.G(), P, x.D()}, op, "keys");
    const auto rv = detail::for_all_heads(r.values, {x.B(), x.G(), P, x.E()}, op, "values");

    const scale by(detail::scale_of(x.D(), policies...));
    const auto score_of_pack = detail::score_of(detail::pick<roles::score>(identity{}, policies...));
    const bool finite = detail::all_finite<A, T>(rv);
    const auto no_width = [](const auto& any) { return slice(any, 3, {0, 0}); };
    detail::in_shared_scratch(
        op,
        [&](carver& from, const auto&... with) {
            const auto taken = [&](index_t width) {
                const extents<4> shape{x.B(), x.H(), x.N(), width};
                return heads(from.take<T>(x.B() * x.H() * x.N() * width), shape);
            };
            const auto dots = taken(P), mass = taken(P);           // scale q.rk; what a row gives to each relation
            const auto sums = taken(x.E()), added = taken(x.E());  // sum_j p_ij v_j; mass rv
            const auto context = detail::pick<roles::context>(detail::calling_thread{}, with...);
            attention<A>(qs, rk, no_width(rv), no_width(added), by, linear{}, logits(dots, stage::raw), context);
            std::apply(
                [&](const auto&... rest) {
                    attention<A>(qs, ks, vs, sums, by >> (relation(dots, r.ids) >> score_of_pack),
                                 relation_mass(mass, r.ids), rest...);
                },
                detail::leave_out<roles::score, roles::scale>(with...));
            attention<A>(no_width(qs), no_width(rk), rv, added, bias(mass), linear{},
                         detail::met_relations<T>{mass, finite}, context);
            for_tasks(*context.pool, from.counts() ? 0 : x.B() * x.H(), [&](index_t head, index_t) {
                const index_t b = head / x.H(), h = head % x.H();
                for (index_t n = 0; n < x.N(); ++n)
                    for (index_t e = 0; e < x.E(); ++e)
                        out(b, h, n, e) = static_cast<stored>(sums(b, h, n, e) + added(b, h, n, e));
            });
        },
        policies...);
}

}  // namespace heed::inline HEED_ABI
