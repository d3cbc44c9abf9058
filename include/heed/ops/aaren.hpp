// Aaren, attention as a recurrence [81] (arXiv:2405.13956): the output of one learned query after every prefix of the
// keys.
//
//   o_t = sum over j <= t of exp(s_j) v_j / sum over j <= t of exp(s_j),  s_j = scale q.k_j;  scale 1 / sqrt(D)
//   q (H, D), k (B, H, N, D), v (B, H, N, E), o (B, H, N, E); state (sequences, H, E + 2): largest logit, mass, sums
// The monoid is softmax_prefix, one logit for all channels of a head. Cost: D + 2 E multiply-adds a token and head, the
// memory of a head: E + 2 numbers. A token of logit -inf is masked; before any other o is 0.
#pragma once

#include "../engine/scan_operands.hpp"
#include "../engine/scratch.hpp"
#include "../engine/sequences.hpp"
#include "../policy/score.hpp"
#include "../simd/convert.hpp"
#include "../simd/gates.hpp"

namespace heed::inline HEED_ABI {
namespace detail {

/// One head of one sequence, and its rows in scratch.
template <class A, class T>
struct prefix_attention {
    using P = pack<T, A>;
    static constexpr auto L = static_cast<index_t>(P::size);
    index_t D, E;
    T *query, *key, *value, *sums, *out;  // padded with zeros to whole packs
    T top = -std::numeric_limits<T>::infinity(), mass = 0;

    static index_t size(index_t D, index_t E) { return 2 * round_up(D, L) + 3 * round_up(E, L); }
    prefix_attention(T* scratch, index_t width, index_t values) : D(width), E(values) {
        std::fill_n(scratch, size(D, E), T(0));
        query = scratch;
        key = query + round_up(D, L);
        value = key + round_up(D, L);
        sums = value + round_up(E, L);
        out = sums + round_up(E, L);
    }
    /// Takes in the key and value loaded; out is what the prefix gives.
    void step() {
        P dot(T(0));
        for (index_t d = 0; d < D; d += L) dot = fma(load<P>(query + d), load<P>(key + d), dot);
        const T logit = reduce_add(dot);
        T old = 1, fresh = 0;
        if (!(logit == -std::numeric_limits<T>::infinity())) {
            const T most = logit > top || logit != logit ? logit : top;
            old = top == most ? T(1) : std::exp(top - most);
            fresh = logit == most ? T(1) : std::exp(logit - most);
            top = most;
            mass = old * mass + fresh;
            for (index_t e = 0; e < E; e += L)
                store(sums + e, fma(P(old), load<P>(sums + e), P(fresh) * load<P>(value + e)));
        }
        const T share = mass == 0 ? T(0) : 1 / mass;
        for (index_t e = 0; e < E; e += L) store(out + e, load<P>(sums + e) * P(share));
    }
};

}  // namespace detail

/// Policies: scale{s}, carry{state}, packed{offsets} (of the batch of one), reversed{}, on{pool, arena}. Throws
/// shape_error or argument_error before anything is written.
template <class A = default_arch, class Q, class K, class V, class O, class... P>
void aaren(const view<Q, 2>& q, const K& k, const V& v, O&& o, const P&... policies) {
    using namespace detail;
    static constexpr const char* op = "aaren";
    static_assert((has_one_of<P, roles::scale, roles::state, roles::packed, roles::order, roles::context> && ...),
                  "heed: an argument is not a policy of this operator");
    const auto in = std::tuple(reads("q", q), reads("k", k), reads("v", v));
    const auto out = std::tuple(writes("o", o));
    const auto state = carried_state(policies...);
    const auto [qx, kx, vx] = in;
    const auto to = std::get<0>(out);
    const index_t B = to.v.shape[0], H = to.v.shape[1], N = to.v.shape[2], E = to.v.shape[3], D = qx.v.shape[1];
    const auto order = sequences::of(op, B, N, policies...);
    check_written(op, to);
    check_shape(op, vx, to.v.shape, "o");
    check_shape(op, kx, {B, H, N, D}, "o, q");
    check_shape(op, qx, {H, D}, "o");
    each_operand(state, [&](const auto& s) {
        check_written(op, s);
        check_shape(op, s, {order.count(), H, E + 2}, "the scan");
    });
    check_apart_from_all(op, in, std::tuple_cat(out, state));
    using T = accumulator_of<decltype(in), decltype(out), decltype(state)>;
    using head = prefix_attention<A, T>;
    double factor = D > 0 ? 1 / std::sqrt(static_cast<double>(D)) : 1.0;
    factor = pick<roles::scale>(scale{factor}, policies...).factor;
    const auto carried = view_or_none<T, 3>(state);
    const auto size = static_cast<std::size_t>(round_up(head::size(D, E), 16)) * sizeof(T);
    const auto of_head = [](const auto& x, index_t h) {
        using S = std::remove_reference_t<decltype(*x.data)>;
        return view<S, 3>{x.data + h * x.strides[1],
                          {x.shape[0], x.shape[2], x.shape[3]},
                          {x.strides[0], x.strides[2], x.strides[3]}};
    };
    const auto run = [&, kv = kx.v, vv = vx.v, ov = to.v, qv = qx.v](index_t i, index_t h, T* scratch) {
        head x(scratch, D, E);
        const auto ks = order.of(of_head(kv, h), i);
        const auto vs = order.of(of_head(vv, h), i);
        const auto os = order.of(of_head(ov, h), i);
        widen_row<A>(qv.data + h * qv.strides[0], qv.strides[1], D, x.query);
        for (index_t d = 0; d < D; ++d) x.query[d] *= static_cast<T>(factor);
        if (carried.data) {
            x.top = static_cast<T>(carried(i, h, 0));
            x.mass = static_cast<T>(carried(i, h, 1));
            for (index_t e = 0; e < E; ++e) x.sums[e] = static_cast<T>(carried(i, h, e + 2));
        }
        for (index_t t = 0; t < os.shape[0]; ++t) {
            widen_row<A>(ks.data + t * ks.strides[0], ks.strides[1], D, x.key);
            widen_row<A>(vs.data + t * vs.strides[0], vs.strides[1], E, x.value);
            x.step();
            narrow_row<A>(x.out, E, os.data + t * os.strides[0], os.strides[1]);
        }
        if (carried.data) {
            using S = std::remove_reference_t<decltype(*carried.data)>;
            carried(i, h, 0) = static_cast<S>(x.top);
            carried(i, h, 1) = static_cast<S>(x.mass);
            for (index_t e = 0; e < E; ++e) carried(i, h, e + 2) = static_cast<S>(x.sums[e]);
        }
    };
    in_scratch(
        op, [&](auto& pool) { return static_cast<std::size_t>(pool.width()) * size; },
        [&](auto& pool, std::byte* memory) {
            for_tasks(pool, order.count() * H, [&](index_t task, index_t worker) {
                run(task / H, task % H, reinterpret_cast<T*>(memory + static_cast<std::size_t>(worker) * size));
            });
        },
        policies...);
}

/// The state before any token.
template <class T>
void aaren_start(const view<T, 3>& state) {
    for (index_t b = 0; b < state.shape[0]; ++b)
        for (index_t h = 0; h < state.shape[1]; ++h)
            for (index_t e = 0; e < state.shape[2]; ++e)
                state(b, h, e) = static_cast<T>(e == 0 ? -std::numeric_limits<float>::infinity() : 0.0f);
}

}  // namespace heed::inline HEED_ABI
