// attention(q, k, v, o, policies...): o = weights(score(scale q k^T), mask) v, blockwise, without an N x M matrix.
//
//   for each task (b, kv head g, a few row blocks of the heads of g)     attention_call.hpp, cut by shape alone
//     for each key tile some row sees, by mask.next                      attention_call.hpp
//       for each row block: S, softmax, O += P V                         attention_tile.hpp
//     finish: o = O / l, lse
// Source: FlashAttention's tiling and online softmax (arXiv:2205.14135), with lanes over queries.
#pragma once

#include "../policy/position.hpp"
#include "attention_call.hpp"
#include "scratch.hpp"

namespace heed::inline HEED_ABI {
namespace detail {

/// The factor of q.k that a policy pack asks for.
template <class... P>
double scale_of(index_t width, const P&... policies) {
    const auto piped = pick<roles::score>(identity{}, policies...);
    const scale usual(width > 0 ? 1 / std::sqrt(static_cast<double>(width)) : 1);
    if constexpr (requires { piped.by.factor; })
        return piped.by.factor;
    else
        return pick<roles::scale>(usual, policies...).factor;
}

/// Reads the policy pack into a call, which refers to the source.
template <class A, class Q, class Source, class O, class... P>
auto make_attention_call(const view<Q>& q, const Source& source, const view<O>& o, const char* op,
                         const P&... policies) {
    check_roles<P...>();
    static_assert(!std::is_const_v<O>, "heed: the output is a view of const");
    using q_type = std::remove_const_t<Q>;
    static_assert(storage<q_type> && storage<O>, "heed: elements are float, double, bf16 or f16");
    const attention_operands<q_type, Source, O> x{q, source, o};
    x.check(op, policies...);
    const auto mask = pick<roles::mask>(everything{}, policies...);
    const auto weight = pick<roles::weight>(softmax{}, policies...);
    const auto piped = pick<roles::score>(identity{}, policies...);
    const auto place = pick<roles::offset>(last_query_at_last_key{}, policies...);
    const auto score = score_of(piped);
    constexpr bool has_piped_scale = requires { piped.by.factor; };
    static_assert(!(has_piped_scale && count_of_role<roles::scale, P...> > 0), "heed: two scales");
    const double factor = scale_of(x.D(), policies...);
    std::optional<index_t> offset;
    if constexpr (requires { place.n; }) offset = place.n;
    std::span<const index_t> offsets;
    if constexpr (requires { place.numbers; }) offsets = place.numbers;
    check_policy(place, op, {x.B(), x.H(), x.N(), x.M()});
    using T = accumulator<q_type, typename Source::key_rows::storage, typename Source::value_rows::storage, O>;
    const attention_cut cut(x.B(), x.H(), x.G(), x.N(), x.D() + x.E(), lanes<T, A>);
    const auto probes = pick_all<roles::probe>(policies...);
    return std::apply(
        [&](const auto&... probe) {
            return attention_call<A, q_type, Source, O, std::remove_const_t<decltype(mask)>,
                                  std::remove_const_t<decltype(score)>, std::remove_const_t<decltype(weight)>,
                                  std::remove_cvref_t<decltype(probe)>...>{
                x, mask, score, weight, std::tuple(probe...), offset, offsets, factor, cut};
        },
        probes);
}

/// k and v, whatever as_view takes, as a source.
template <class K, class V>
auto source_of(const view<K>& k, const view<V>& v) {
    using k_type = std::remove_const_t<K>;
    using v_type = std::remove_const_t<V>;
    static_assert(storage<k_type> && storage<v_type>, "heed: elements are float, double, bf16 or f16");
    return view_source<k_type, v_type>{k, v};
}

/// Runs a call on the executor and in the arena of the pack.
template <class Call, class... Policies>
void run_attention(const Call& call, const char* op, const Policies&... policies) {
    call.check(op);
    in_scratch(
        op, [&](auto& pool) { return call.scratch_bytes(pool); },
        [&](auto& pool, std::byte* memory) { call.run(pool, memory); }, policies...);
}

}  // namespace detail

/// Softmax attention, o = softmax(scale q k^T) v per head; see README.md for the policies.
///
/// Shapes: q (B, H, N, D), k (B, G, M, D), v (B, G, M, E), o (B, H, N, E); G divides H, head h reads k and v of
/// h / (H / G). Any strides; elements float, double, bf16 or f16, each operand its own; sums are float (double if any
/// operand is). A row that sees no key gives 0. Throws shape_error or argument_error before o is touched.
/// Scratch is allocated when a thread first needs that much, unless on{pool, arena} brings it.
template <class A = default_arch, class Q, class K, class V, class O, class... Policies>
    requires(!key_value_source<K>)
void attention(const Q& q, const K& k, const V& v, O&& o, const Policies&... policies) {
    const auto source = detail::source_of(as_view(k), as_view(v));
    attention<A>(q, source, o, policies...);
}

/// The same over a source of keys and values: a cache, or any model of key_value_source with G heads, widths D and E.
/// Sequences may differ in length; row n of sequence b stands at position end(b) - N + n unless an offset is given.
template <class A = default_arch, class Q, key_value_source Source, class O, class... Policies>
void attention(const Q& q, const Source& source, O&& o, const Policies&... policies) {
    static constexpr const char* op = "attention";
    detail::run_attention(detail::make_attention_call<A>(as_view(q), source, as_view(o), op, policies...), op,
                          policies...);
}

/// Bytes of scratch that attention with the same arguments needs; independent of the data.
template <class A = default_arch, class Q, key_value_source Source, class O, class... Policies>
std::size_t attention_scratch(const Q& q, const Source& source, O&& o, const Policies&... policies) {
    const auto call =
        detail::make_attention_call<A>(as_view(q), source, as_view(o), "attention_scratch", policies...);
    const auto context = detail::pick<roles::context>(detail::calling_thread{}, policies...);
    return call.scratch_bytes(*context.pool);
}
template <class A = default_arch, class Q, class K, class V, class O, class... Policies>
    requires(!key_value_source<K>)
std::size_t attention_scratch(const Q& q, const K& k, const V& v, O&& o, const Policies&... policies) {
    return attention_scratch<A>(q, detail::source_of(as_view(k), as_view(v)), o, policies...);
}

}  // namespace heed::inline HEED_ABI
