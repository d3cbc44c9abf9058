// Infini-attention: softmax within a segment, and a compressive memory of all segments before [108].
//
//   o = g phi(q)^T S / phi(q).z + (1 - g) softmax(q.k / sqrt D) v     g = sigmoid(gate_h), phi = 1 + elu; 0 where z is
//   after a segment:  S += sum_t phi(k_t) w_t^T,  z += sum_t phi(k_t)     w = v, or v - phi(k)^T S / phi(k).z (delta)
// with S and z of before the segment. z grows by delta segments too, so keys that come again halve what they recall.
// Cost: N C (D + E) flops of attention, 4 N D E of memory (delta 6). Munkhdalai et al., arXiv:2404.07143.
#pragma once

#include <cmath>
#include <span>

#include "../engine/attention.hpp"
#include "../engine/recurrence.hpp"
#include "../policy/mask_position.hpp"

namespace heed::inline HEED_ABI {

/// Queries and keys of the softmax, where they are others than those of the memory: with positions, by rotary. Shapes
/// as theirs.
template <class Q, class K>
struct local_rows {
    using role = roles::local;
    view<const Q> q;
    view<const K> k;
    local_rows(view<const Q> queries, view<const K> keys) : q(queries), k(keys) {}

    template <class X, class Y, class O>
    void check(const char* op, const view<X>& queries, const view<Y>& keys, const view<O>& o) const {
        constexpr const char* axes[] = {"batch", "heads", "tokens", "width"};
        for (std::size_t a = 0; a < 4; ++a) {
            require_shape(q.shape[a] == queries.shape[a], op, "local q has ", axes[a], " ", q.shape[a], ", q has ",
                          queries.shape[a]);
            require_shape(k.shape[a] == keys.shape[a], op, "local k has ", axes[a], " ", k.shape[a], ", k has ",
                          keys.shape[a]);
        }
        require_shape(!overlap(o, q) && !overlap(o, k), op, "o overlaps local q or k in memory");
    }
};
template <class Q, class K>
local_rows(view<Q>, view<K>) -> local_rows<std::remove_const_t<Q>, std::remove_const_t<K>>;

/// What a segment writes: its values, or what the memory does not yet recall of them.
enum class infini_update { linear, delta };

/// The memory of B sequences, a state of D rows and E columns for each of H heads of keys; T sums, as in state<T>.
template <class T>
class infini_memory {
public:
    infini_memory(index_t B, index_t H, index_t D, index_t E) : state_(B, H, D, E) {}
    /// In scratch that must outlive it.
    infini_memory(carver& from, index_t B, index_t H, index_t D, index_t E) : state_(from, B, H, D, E) {}

    const state<T>& held() const { return state_; }

    /// q phi-read from the memory: q (B, Hq, N, D), o (B, Hq, N, E); 0 as long as nothing was folded in.
    template <class A = default_arch, class Q, class O, class... P>
    void recall(const Q& q, O&& o, const P&... policies) const {
        heed::recall<A>(state_, q, o, elu_plus_one{}, sum_of_keys{}, policies...);
    }
    /// A whole segment goes into the memory: k (B, H, C, D), v (B, H, C, E). Delta takes a copy of v in T.
    template <class A = default_arch, class K, class V, class... P>
    void fold(const K& k, const V& v, infini_update by = infini_update::linear, const P&... policies) {
        const auto keys = as_view(k);
        const auto values = as_view(v);
        if (by == infini_update::linear) {
            absorb<A>(state_, keys, values, elu_plus_one{}, sum_of_keys{}, policies...);
            return;
        }
        detail::in_shared_scratch(
            "infini_memory",
            [&](carver& from, const auto&... with) {
                const view<T> news{from.take<T>(values.size()), values.shape, dense_strides(values.shape)};
                recall<A>(keys, news, with...);
                if (!from.counts()) subtract(values, news);
                absorb<A>(state_, keys, news, elu_plus_one{}, sum_of_keys{}, with...);
            },
            policies...);
    }

private:
    /// recalled becomes what values have more than it.
    template <class V>
    static void subtract(const view<V>& values, const view<T>& recalled) {
        const auto [B, H, C, E] = values.shape;
        for (index_t b = 0; b < B; ++b)
            for (index_t h = 0; h < H; ++h)
                for (index_t n = 0; n < C; ++n)
                    for (index_t e = 0; e < E; ++e)
                        recalled(b, h, n, e) = static_cast<T>(values(b, h, n, e)) - recalled(b, h, n, e);
    }
    state<T> state_;
};

namespace detail {

/// o = g recalled + (1 - g) local, local being o itself or a copy in T.
template <class T, class O, class S>
void gate_memory(const view<T>& recalled, const view<T>& local, const view<O>& o, std::span<const S> gate) {
    const auto [B, H, N, E] = o.shape;
    for (index_t h = 0; h < H; ++h) {
        const T x = static_cast<T>(gate[static_cast<std::size_t>(h)]);
        const T g = x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x));
        const T rest = x < 0 ? 1 / (1 + std::exp(x)) : std::exp(-x) / (1 + std::exp(-x));
        for (index_t b = 0; b < B; ++b)
            for (index_t n = 0; n < N; ++n)
                for (index_t e = 0; e < E; ++e)
                    o(b, h, n, e) = static_cast<O>(g * recalled(b, h, n, e) + rest * local(b, h, n, e));
    }
}

template <class T, class Gate, class O>
void check_infini(const char* op, const infini_memory<T>& memory, const Gate& gate, const view<O>& o) {
    require_shape(static_cast<index_t>(gate.size()) == o.shape[1], op, "there are ", gate.size(), " gates, o has ",
                  o.shape[1], " heads");
    require_shape(memory.held().shape()[3] == o.shape[3], op, "the memory has ", memory.held().shape()[3],
                  " columns, o has width ", o.shape[3]);
    const view<const typename Gate::value_type, 1> gates{gate.data(), {static_cast<index_t>(gate.size())}, {1}};
    require_shape(!overlap(o, gates), op, "o overlaps the gates in memory");
}

}  // namespace detail

/// The open segment: q (B, Hq, N, D) are the last N <= M tokens of k (B, H, M, D) and v (B, H, M, E), which are not in
/// the memory yet; o (B, Hq, N, E); gate: a logit for each head of q. A step of decoding has N 1; when M reaches the
/// length of a segment, memory.fold(k, v) closes it. Policies: local_rows{q, k}; on or scratch_size. Scratch beside:
/// two outputs of T. Throws before o is touched.
template <class A = default_arch, class T, class Q, class K, class V, class O, class Gate, class... P>
void infini_segment(const infini_memory<T>& memory, const Q& q, const K& k, const V& v, O&& o, const Gate& gate,
                    const P&... policies) {
    const auto out = as_view(o);
    const std::span<const typename Gate::value_type> gates(gate);
    const auto local = detail::pick<roles::local>(local_rows(as_view(q), as_view(k)), policies...);
    detail::check_infini("infini_segment", memory, gates, out);
    local.check("infini_segment", as_view(q), as_view(k), out);
    const auto run = [&](carver& from, const auto&... with) {
        const auto rows = [&] { return view<T>{from.take<T>(out.size()), out.shape, dense_strides(out.shape)}; };
        const view<T> recalled = rows(), near = rows();
        memory.template recall<A>(q, recalled, with...);
        attention<A>(local.q, local.k, v, near, causal{}, with...);
        if (!from.counts()) detail::gate_memory(recalled, near, out, gates);
    };
    const auto contexts = [&](const auto&... with) { detail::in_shared_scratch("infini_segment", run, with...); };
    std::apply(contexts, detail::leave_out<roles::local>(policies...));
}

/// All tokens of q, k, v (as above, N tokens each) in segments of C, the last perhaps shorter, from the memory, which
/// holds all of them afterwards. Policies as above; packed{offsets}, with a memory of as many sequences, segments
/// beginning anew with each (scratch beside: a memory of one).
template <class A = default_arch, class T, class Q, class K, class V, class O, class Gate, class... P>
void infini_attention(infini_memory<T>& memory, const Q& q, const K& k, const V& v, O&& o, index_t C, const Gate& gate,
                      infini_update by = infini_update::linear, const P&... policies) {
    static constexpr const char* op = "infini_attention";
    const auto queries = as_view(q);
    const auto keys = as_view(k);
    const auto values = as_view(v);
    const auto out = as_view(o);
    require_argument(C >= 1, op, "segments have ", C, " tokens, the least is 1");
    detail::check_infini(op, memory, gate, out);
    require_shape(out.shape[1] == queries.shape[1], op, "o has ", out.shape[1], " heads, q has ", queries.shape[1]);
    const auto sequences = detail::pick<roles::packed>(not_packed{}, policies...);
    detail::with_recurrence<A>(  // checks the shapes
        op, queries, keys, values, out, [](const auto&) {}, sequences);
    const index_t B = detail::count_sequences(queries.shape[0], policies...), H = keys.shape[1];
    detail::check_state(op, &memory.held(), {B, H, 0, 0, values.shape[3]}, keys.shape[3]);
    const auto local = detail::pick<roles::local>(local_rows(queries, keys), policies...);
    local.check(op, queries, keys, out);
    const auto run = [&](infini_memory<T>& held, range all, const auto&... with) {
        for (index_t first = all.first; first < all.last; first += C) {
            const auto segment = [&](const auto& x) { return slice(x, 2, {first, std::min(first + C, all.last)}); };
            infini_segment<A>(held, segment(queries), segment(keys), segment(values), segment(out), gate,
                              local_rows(segment(local.q), segment(local.k)), with...);
            held.template fold<A>(segment(keys), segment(values), by, with...);
        }
    };
    const auto each_sequence = [&](carver& from, const auto& with) {
        if constexpr (std::is_same_v<decltype(sequences), const packed>) {
            infini_memory<T> one(from, 1, H, keys.shape[3], values.shape[3]);
            for (index_t s = 0; s < B; ++s) {
                const auto i = static_cast<std::size_t>(s);
                if (!from.counts()) detail::copy_sequence(memory.held(), s, one.held(), 0);
                run(one, {sequences.offsets[i], sequences.offsets[i + 1]}, with);
                if (!from.counts()) detail::copy_sequence(one.held(), 0, memory.held(), s);
            }
        } else {
            run(memory, {0, queries.shape[2]}, with);
        }
    };
    detail::in_shared_scratch(op, each_sequence, detail::pick<roles::context>(detail::calling_thread{}, policies...));
}

}  // namespace heed::inline HEED_ABI
