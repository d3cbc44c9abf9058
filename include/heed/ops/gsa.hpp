// Gated slot attention (GSA) and attention with bounded memory control (ABC): M slots hold keys and values, and a
// softmax over the slots reads them; two recurrences with that softmax between.
//
//   K_t = K_{t-1} diag(exp g_t) + k_t s_t^T  (D, M),   V_t = diag(exp g_t) V_{t-1} + s_t v_t^T  (M, E)
//   o_t = V_t^T softmax(scale K_t^T q_t)
//   q (B, Hq, N, D), k (B, H, N, D), v (B, H, N, E), s and g (B, H, N, M), g <= 0 natural logs, o (B, Hq, N, E)
// GSA has s = 1 - exp(g). Cost: 4 M (D + E) flops a token. arXiv:2409.07146 (Zhang et al.), 2110.02488 (Peng et al.).
#pragma once

#include <limits>

#include "../engine/recurrence.hpp"
#include "../policy/score.hpp"

namespace heed::inline HEED_ABI {

/// What a gated slot attention carries: keys (B, H, D, M) and values (B, H, M, E) of the slots. Copies are snapshots.
template <class T>
struct slot_state {
    state<T> keys, values;
    slot_state(index_t B, index_t H, index_t D, index_t M, index_t E) : keys(B, H, D, M), values(B, H, M, E) {}
    /// In scratch that must outlive it.
    slot_state(carver& from, index_t B, index_t H, index_t D, index_t M, index_t E)
        : keys(from, B, H, D, M), values(from, B, H, M, E) {}
};

namespace detail {

template <class T>
inline constexpr bool is_slot_state = false;
template <class T>
inline constexpr bool is_slot_state<slot_state<T>> = true;

/// Rows p of `width` numbers become their softmax; the rest of a row, to whole packs, is left at 0.
template <class A, class T>
void softmax_row(T* p, index_t width) {
    using P = pack<T, A>;
    constexpr auto L = static_cast<index_t>(P::size);
    const index_t end = round_up(width, L);
    std::fill(p + width, p + end, -std::numeric_limits<T>::infinity());
    T top = -std::numeric_limits<T>::infinity(), sum = 0;
    for (index_t i = 0; i < width; ++i) top = p[i] > top || p[i] != p[i] ? p[i] : top;
    for (index_t i = 0; i < end; i += L) store_aligned(p + i, exp(load_aligned<P>(p + i) - P(top)));
    for (index_t i = 0; i < width; ++i) sum += p[i];
    const P by(1 / sum);
    for (index_t i = 0; i < end; i += L) store_aligned(p + i, by * load_aligned<P>(p + i));
}

}  // namespace detail

/// From the state carried, which is updated. Policies: scale{} (default 1/sqrt(D)), a form, reversed{}, packed{offsets}
/// with as many states, on{...} or scratch_size. Scratch beside: (B, Hq, N, M). Throws shape_error or argument_error
/// before o or the state is written.
template <class A = default_arch, class T, class Q, class K, class V, class O, class W, class G, class... P>
void gated_slot_attention(slot_state<T>& carried, const Q& q, const K& k, const V& v, O&& o, const view<W, 4>& s,
                          const view<G, 4>& g, const P&... policies) {
    static_assert(((has_role<P, roles::scale> || has_role<P, roles::form> || has_role<P, roles::packed> ||
                    has_role<P, roles::context> || std::is_same_v<P, reversed>)&&...),
                  "heed: an argument is not a policy of gated slot attention");
    const auto query = as_view(q);
    const index_t B = query.shape[0], H = query.shape[1], N = query.shape[2], M = s.shape[3];
    const index_t row = round_up(M, lanes<T, A>);
    require_shape(!overlap(as_view(o), query) && !overlap(as_view(o), as_view(k)), "gated_slot_attention",
                  "o overlaps q or k in memory");
    const auto context = detail::pick<roles::context>(detail::calling_thread{}, policies...);
    detail::in_shared_scratch(
        "gated_slot_attention",
        [&](carver& from, const auto&... with) {
            T* const first = from.take<T>(std::max<index_t>(B * H * N * row, 0));
            const view<T> p = slice(dense(first, {B, H, N, row}), 3, {0, M});
            recurrence<A>(q, k, s, p, value_decay{g}, with..., carried.keys);
            for_tasks(*context.pool, from.counts() ? 0 : B * H, [&](index_t head, index_t) {
                for (index_t n = 0; n < N; ++n) detail::softmax_row<A>(first + (head * N + n) * row, M);
            });
            std::apply(
                [&](const auto&... each) {
                    recurrence<A>(p, s, v, o, channel_decay{g}, scale{1}, each..., carried.values);
                },
                detail::leave_out<roles::scale>(with...));
        },
        policies...);
}

/// From empty slots.
template <class A = default_arch, class Q, class K, class V, class O, class W, class G, class... P>
    requires(!detail::is_slot_state<Q>)
void gated_slot_attention(const Q& q, const K& k, const V& v, O&& o, const view<W, 4>& s, const view<G, 4>& g,
                          const P&... policies) {
    const auto query = as_view(q);
    const auto keys = as_view(k);
    const auto values = as_view(v);
    using T = accumulator<typename decltype(query)::value_type, typename decltype(keys)::value_type,
                          typename decltype(values)::value_type, std::remove_const_t<W>,
                          typename decltype(as_view(o))::value_type>;
    detail::in_shared_scratch(
        "gated_slot_attention",
        [&](carver& from, const auto&... with) {
            const index_t sequences = detail::count_sequences(query.shape[0], policies...);
            slot_state<T> empty(from, sequences, keys.shape[1], query.shape[3], s.shape[3], values.shape[3]);
            gated_slot_attention<A>(empty, q, k, v, o, s, g, with...);
        },
        policies...);
}

/// One token: the operands have N = 1.
template <class A = default_arch, class T, class Q, class K, class V, class O, class W, class G, class... P>
void gated_slot_attention_step(slot_state<T>& carried, const Q& q, const K& k, const V& v, O&& o, const view<W, 4>& s,
                               const view<G, 4>& g, const P&... policies) {
    gated_slot_attention<A>(carried, q, k, v, o, s, g, policies...);
}

/// The s and g of ABC from its logits x, all (B, H, N, M): with z_t the log-sum-exp of x up to t, s_t = exp(x_t - z_t)
/// and g_t = z_{t-1} - z_t. z (B, H, M) is where it starts, and then what it ends with; -inf (and g = 0) before any
/// token.
template <class X, class W, class G, class Z>
void abc_gates(const view<X, 4>& x, const view<W, 4>& s, const view<G, 4>& g, const view<Z, 3>& z) {
    static constexpr const char* op = "abc_gates";
    constexpr const char* axes[] = {"batch", "heads", "tokens", "slots"};
    for (std::size_t a = 0; a < 4; ++a) {
        require_shape(s.shape[a] == x.shape[a], op, "s has ", axes[a], " ", s.shape[a], ", x has ", x.shape[a]);
        require_shape(g.shape[a] == x.shape[a], op, "g has ", axes[a], " ", g.shape[a], ", x has ", x.shape[a]);
    }
    require_shape(z.shape == extents<3>{x.shape[0], x.shape[1], x.shape[3]}, op, "z is (", z.shape[0], ", ", z.shape[1],
                  ", ", z.shape[2], "), expected (", x.shape[0], ", ", x.shape[1], ", ", x.shape[3], ")");
    using T = accumulator<std::remove_const_t<X>, W, G, Z>;
    constexpr T none = -std::numeric_limits<T>::infinity();
    for (index_t b = 0; b < x.shape[0]; ++b)
        for (index_t h = 0; h < x.shape[1]; ++h)
            for (index_t m = 0; m < x.shape[3]; ++m) {
                T sum = static_cast<T>(z(b, h, m));
                for (index_t n = 0; n < x.shape[2]; ++n) {
                    const T one = static_cast<T>(x(b, h, n, m)), before = sum;
                    if (one != none) sum = std::max(one, before) + std::log1p(std::exp(-std::abs(one - before)));
                    s(b, h, n, m) = static_cast<W>(one == none ? T(0) : std::exp(one - sum));
                    g(b, h, n, m) = static_cast<G>(before == none ? T(0) : before - sum);
                }
                z(b, h, m) = static_cast<Z>(sum);
            }
}

}  // namespace heed::inline HEED_ABI
