// mLSTM: a matrix memory with exponential gates, which a running maximum m keeps in range [17].
//
//   m_t = max(log f_t + m_{t-1}, log i_t),   f' = exp(log f_t + m_{t-1} - m_t),   i' = exp(log i_t - m_t)
//   S_t = f' S_{t-1} + i' k_t v_t^T,  n_t = f' n_{t-1} + i' k_t,  o_t = S_t^T q_t / max(|n_t.q_t|, exp(-m_t))
//   q, k (B, H, N, D), v, o (B, H, N, E), log i, log f (B, H, N), any numbers; q is scaled by 1/sqrt(D)
// At first S and n are 0 and m is -inf: until a gate lets something in, o is 0. Where exp(-m) is inf, o is 0 too.
// Cost: 4 D E flops a token, three numbers a token and head of memory. Beck et al., arXiv:2405.04517.
#pragma once

#include <limits>
#include <vector>

#include "../engine/recurrence.hpp"
#include "../policy/score.hpp"

namespace heed::inline HEED_ABI {

/// What an mLSTM carries: S and n (sums.key_sums()) over exp(m), and m (B, H). Copies are snapshots.
template <class T>
struct mlstm_state {
    state<T> sums;
    std::vector<T> maxima;

    mlstm_state(index_t B, index_t H, index_t D, index_t E)
        : sums(B, H, D, E), maxima(static_cast<std::size_t>(B * H)) {
        clear();
    }
    view<T, 2> m() { return dense(maxima.data(), {sums.shape()[0], sums.shape()[1]}); }
    void clear() {
        sums.clear();
        std::fill(maxima.begin(), maxima.end(), -std::numeric_limits<T>::infinity());
    }
};

/// A normaliser with a floor a token: o_t = S^T q / max(|q.z_t|, floors(b, h, t)), floors (B, H of o or fewer, N).
template <class T>
struct floored_sum_of_keys {
    using role = roles::normaliser;
    view<const T, 3> floors;
    index_t heads;  // of o

    auto token_views() { return std::tie(floors); }
    template <class S>
    S factor(S sum, index_t b, index_t head, index_t n) const {
        const S least = static_cast<S>(floors(b, detail::serving(head, heads, floors.shape[1]), n));
        return sum_of_keys(0, true).factor(std::abs(sum) < least ? least : sum, b, head, n);
    }
};

namespace detail {

/// log f', i' and exp(-m) of each token, (B, H, N).
template <class T>
struct mlstm_gates {
    view<T, 3> decay, weight, floor;

    mlstm_gates(carver& from, const extents<3>& shape) {
        for (auto* x : {&decay, &weight, &floor})
            *x = {from.take<T>(shape[0] * shape[1] * shape[2]), shape, dense_strides(shape)};
    }
    /// From m (sequences, H), which becomes the last one; walk(s) are the tokens of sequence s.
    template <class I, class F, class Walk>
    void load(const view<I, 3>& log_i, const view<F, 3>& log_f, const view<T, 2>& m, const Walk& walk) const {
        for (index_t s = 0; s < m.shape[0]; ++s)
            for (index_t h = 0; h < m.shape[1]; ++h) {
                T& top = m(s, h);
                const token_walk all = walk(s);
                for (index_t i = 0; i < all.count; ++i) {
                    const index_t b = all.b, t = all[i];
                    const T kept = static_cast<T>(log_f(b, h, t)) + top, let_in = static_cast<T>(log_i(b, h, t));
                    top = kept > let_in || kept != kept ? kept : let_in;
                    const bool none = top == -std::numeric_limits<T>::infinity();
                    decay(b, h, t) = none ? T(0) : kept - top;
                    weight(b, h, t) = none ? T(0) : std::exp(let_in - top);
                    floor(b, h, t) = std::exp(-top);
                }
            }
    }
};

/// mlstm from the sums and maxima (sequences, H), which are updated.
template <class A, class T, class Q, class K, class V, class O, class I, class F, class... P>
void run_mlstm(state<T>& sums, const view<T, 2>& maxima, const Q& q, const K& k, const V& v, O&& o,
               const view<I, 3>& log_i, const view<F, 3>& log_f, const P&... policies) {
    static constexpr const char* op = "mlstm";
    const auto order = pick<roles::order>(causal_order{}, policies...);
    const auto sequences = pick<roles::packed>(not_packed{}, policies...);
    using Order = std::remove_const_t<decltype(order)>;
    static_assert(std::is_same_v<Order, causal_order> || std::is_same_v<Order, reversed>,
                  "heed: an mLSTM runs forward or reversed");
    constexpr const char* axes[] = {"batch", "heads", "tokens"};
    const extents<3> want{as_view(q).shape[0], sums.shape()[1], as_view(q).shape[2]};
    for (std::size_t a = 0; a < 3; ++a) {
        require_shape(log_i.shape[a] == want[a], op, "log_i has ", axes[a], " ", log_i.shape[a], ", expected ",
                      want[a]);
        require_shape(log_f.shape[a] == want[a], op, "log_f has ", axes[a], " ", log_f.shape[a], ", expected ",
                      want[a]);
    }
    require_shape(!overlap(as_view(o), log_i) && !overlap(as_view(o), log_f), op, "o overlaps a gate in memory");
    const T none = 0;
    const auto given = [&](const view<T, 3>& x) {
        return x.data ? view<const T, 3>(x) : view<const T, 3>{&none, want, {}};
    };
    in_shared_scratch(
        op,
        [&](carver& from, const auto&... with) {
            const mlstm_gates<T> gates(from, want);
            if (!from.counts())
                gates.load(log_i, log_f, maxima, [&](index_t s) { return walk_of<Order>(sequences, s, want[2]); });
            const floored_sum_of_keys<T> normaliser{gates.floor, as_view(o).shape[1]};
            recurrence<A>(q, k, v, o, token_decay{given(gates.decay)}, weighted_update{given(gates.weight)}, normaliser,
                          with..., sums);
        },
        policies...);
}

}  // namespace detail

/// From the state s, which is updated. Heads of gates are the heads of the state. Policies: scale{}, recurrent{},
/// chunked{c}, parallel{}, reversed{}, packed{offsets} with as many states, on{...} or scratch_size. Throws shape_error
/// or argument_error before anything is written.
template <class A = default_arch, class T, class Q, class K, class V, class O, class I, class F, class... P>
void mlstm(mlstm_state<T>& s, const Q& q, const K& k, const V& v, O&& o, const view<I, 3>& log_i,
           const view<F, 3>& log_f, const P&... policies) {
    detail::run_mlstm<A>(s.sums, s.m(), q, k, v, o, log_i, log_f, policies...);
}

/// From nothing.
template <class A = default_arch, class Q, class K, class V, class O, class I, class F, class... P>
void mlstm(const Q& q, const K& k, const V& v, O&& o, const view<I, 3>& log_i, const view<F, 3>& log_f,
           const P&... policies) {
    using T = accumulator<typename decltype(as_view(q))::value_type, typename decltype(as_view(k))::value_type,
                          typename decltype(as_view(v))::value_type, typename decltype(as_view(o))::value_type>;
    const auto keys = as_view(k);
    const auto values = as_view(v);
    const index_t B = detail::count_sequences(keys.shape[0], policies...), H = std::max(keys.shape[1], values.shape[1]);
    detail::in_shared_scratch(
        "mlstm",
        [&](carver& from, const auto&... with) {
            state<T> sums(from, B, H, keys.shape[3], values.shape[3]);
            const view<T, 2> maxima{from.take<T>(B * H), {B, H}, {H, 1}};
            if (!from.counts()) std::fill_n(maxima.data, maxima.size(), -std::numeric_limits<T>::infinity());
            detail::run_mlstm<A>(sums, maxima, q, k, v, o, log_i, log_f, with...);
        },
        policies...);
}

/// One token: the operands have N = 1.
template <class A = default_arch, class T, class Q, class K, class V, class O, class I, class F, class... P>
void mlstm_step(mlstm_state<T>& s, const Q& q, const K& k, const V& v, O&& o, const view<I, 3>& log_i,
                const view<F, 3>& log_f, const P&... policies) {
    mlstm<A>(s, q, k, v, o, log_i, log_f, policies..., recurrent{});
}

}  // namespace heed::inline HEED_ABI
