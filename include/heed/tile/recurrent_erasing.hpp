// The recurrence token by token where what is written depends on what is there, over V packs of columns of the state,
// which stay in the first-level cache:
//
//   for each update:  r = (A S)^T k  (low rank: S^T b)
//                     for each row d:  S[d] = a S[d] + k[d] u (+ x[d] r),  o += q[d] S[d]
// An update takes r from the pass before: a row meets the next key as soon as it is made.
// Cost: three or four multiply-adds an element and token.
#pragma once

#include "recurrent_rows.hpp"

namespace heed::inline HEED_ABI {

template <class A, class T, decay_kind Decay, update_kind Update, read_kind Read>
class erasing_tile {
    using rows = recurrent_rows<A, T, Decay, Read>;
    using P = pack<T, A>;
    static constexpr index_t L = lanes<T, A>;
    static constexpr bool low_rank = Update == update_kind::low_rank, delta = !low_rank;

public:
    /// Most packs of columns at once.
    static constexpr int packs = vector_registers<A> / 8;

    /// Advances `count` packs of columns of the state, in strips that stay in the first-level cache from one reading to
    /// the next, and writes those columns of o.
    static void run_strips(const token_rows<T>& x, index_t count, T* s, index_t stride, token_pass pass) {
        const auto strip = [&](auto v, index_t p) HEED_INLINE_LAMBDA { run<v>(x, p * L, s + p * L, stride, pass); };
        if (x.count * x.steps == 1 && pass != token_pass::read) return run_once(x, count, s, stride, pass);
        if (x.D * packs * static_cast<index_t>(sizeof(P)) > strip_bytes) return for_packs<packs / 2>(count, strip);
        for_packs<packs>(count, strip);
    }
    static void prepare(const token_rows<T>&, token_pass) {}

private:
    static constexpr index_t strip_bytes = 20 << 10;

    /// V packs of columns, from column c on, which stand at s.
    template <int V>
    static HEED_NOINLINE void run(const token_rows<T>& x, index_t c, T* s, index_t stride, token_pass pass) {
        if (pass == token_pass::read) {
            for (index_t t = 0; t < x.count; ++t) rows::template read<V>(x, t, c, s, stride, 0);
            return;
        }
        P r[V];
        meet<V>(x, 0, s, stride, r);
        update_all<V, false>(x, c, s, stride, pass, r);
    }

    /// One update: the state is read once, so strips are narrow, and the next strip is met beside each.
    static HEED_NOINLINE void run_once(const token_rows<T>& x, index_t count, T* s, index_t stride, token_pass pass) {
        constexpr int V = packs / 2;
        index_t p = 0;
        if (count >= V) {
            P r[V];
            meet<V>(x, 0, s, stride, r);
            for (; p + 2 * V <= count; p += V) update_all<V, true>(x, p * L, s + p * L, stride, pass, r);
            update_all<V, false>(x, p * L, s + p * L, stride, pass, r);
            p += V;
        }
        for (; p < count; ++p) run<1>(x, p * L, s + p * L, stride, pass);
    }

    /// Updates of a token: a constant but where there may be several.
    static HEED_INLINE index_t steps(const token_rows<T>& x) {
        return Update == update_kind::householder ? x.steps : 1;
    }

    /// The row by which update i meets the state before it, and the sums of what it meets, r.
    static HEED_INLINE const T* met_by(const token_rows<T>& x, index_t i) {
        if constexpr (low_rank) return x.y + i * x.row;
        if constexpr (Decay == decay_kind::rows)
            if (i % steps(x) == 0) return x.y + i / steps(x) * x.row;
        return x.k[i];
    }
    template <int V>
    static HEED_INLINE void meet(const token_rows<T>& x, index_t i, const T* s, index_t stride, P (&r)[V]) {
        rows::template dot<V, 2>(met_by(x, i), x.D, s, stride, r);
    }

    /// The updates of all tokens and their reads. r is what the first meets; what follows is met on the way: the next
    /// update in the same columns, or, if Beside, this one in the V packs of columns beside, left in r.
    template <int V, bool Beside>
    static HEED_INLINE void update_all(const token_rows<T>& x, index_t c, T* s, index_t stride, token_pass pass,
                                       P (&r)[V]) {
        const bool fused = pass == token_pass::both && x.reads == 1, apart = pass == token_pass::both && !fused;
        const index_t each = steps(x), updates = x.count * each;
        for (index_t i = 0; i < updates; ++i) {
            const index_t t = i / each;
            const bool first = i % each == 0, last = i % each == each - 1;
            const bool reading = Read == read_kind::after ? last : first;
            if (reading && apart && Read != read_kind::after) rows::template read<V>(x, t, c, s, stride, 0);
            const T* const next = met_by(x, Beside || i + 1 == updates ? i : i + 1);
            const auto one = [&](auto kind) HEED_INLINE_LAMBDA {
                if (reading && fused)
                    update<V, kind, true, Beside>(x, t, i, c, s, stride, next, r);
                else
                    update<V, kind, false, Beside>(x, t, i, c, s, stride, next, r);
            };
            if (first)
                one(std::integral_constant<decay_kind, Decay>{});
            else if constexpr (Update == update_kind::householder)
                one(std::integral_constant<decay_kind, decay_kind::none>{});
            if (reading && apart && Read == read_kind::after) rows::template read<V>(x, t, c, s, stride, 0);
        }
    }

    /// Update i, of token t; r becomes what `next` meets.
    template <int V, decay_kind Kind, bool Reads, bool Beside>
    static HEED_INLINE void update(const token_rows<T>& x, index_t t, index_t i, index_t c, T* s, index_t stride,
                                   const T* next, P (&r)[V]) {
        P u[V], o[V], sum[2][V];
        [[maybe_unused]] P by[V];
        const T* const k = x.k[i];
        const T* const q = x.query(0, t);
        [[maybe_unused]] const T* const a = x.decay + t * x.decay_row;
        [[maybe_unused]] const P alike(Kind == decay_kind::scalar ? x.decay[t] : T(1));
        unroll<V>([&](auto v) HEED_INLINE_LAMBDA {
            u[v] = load<P>(x.v[i] + c + v * L);
            if constexpr (Kind == decay_kind::columns) by[v] = load_aligned<P>(a + c + v * L);
            if constexpr (delta) {
                if constexpr (Kind == decay_kind::scalar) r[v] *= alike;
                if constexpr (Kind == decay_kind::columns) r[v] *= by[v];
                u[v] = P(x.beta[i]) * (u[v] - r[v]);
            }
            sum[0][v] = sum[1][v] = P(T(0));
        });
        if constexpr (Reads) rows::template start<V>(x, 0, t, c, o);
        const auto row = [&](index_t d, auto chain) HEED_INLINE_LAMBDA {
            P at[V];
            T* const place = s + d * stride;
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA { at[v] = load_aligned<P>(place + v * L); });
            if constexpr (Reads && Read != read_kind::after) rows::template add_row<V>(P(q[d]), at, o);
            if constexpr (Kind == decay_kind::scalar) unroll<V>([&](auto v) HEED_INLINE_LAMBDA { at[v] *= alike; });
            if constexpr (Kind == decay_kind::columns) unroll<V>([&](auto v) HEED_INLINE_LAMBDA { at[v] *= by[v]; });
            if constexpr (Kind == decay_kind::rows) {
                const P y(a[d]);
                unroll<V>([&](auto v) HEED_INLINE_LAMBDA { at[v] *= y; });
            }
            rows::template add_row<V>(P(k[d]), u, at);
            if constexpr (low_rank) rows::template add_row<V>(P(x.x[t * x.row + d]), r, at);
            if constexpr (Reads && Read == read_kind::after) rows::template add_row<V>(P(q[d]), at, o);
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA { store_aligned(place + v * L, at[v]); });
            if constexpr (Beside)
                unroll<V>([&](auto v) HEED_INLINE_LAMBDA { at[v] = load_aligned<P>(place + (V + v) * L); });
            rows::template add_row<V>(P(next[d]), at, sum[chain]);
        };
        rows::template pass_over_rows<V, 1>(x, [&](index_t d, index_t last) HEED_INLINE_LAMBDA {
            for (; d + 2 <= last; d += 2) unroll<2>([&](auto chain) HEED_INLINE_LAMBDA { row(d + chain, chain); });
            if (d < last) row(d, std::integral_constant<int, 0>{});
        });
        unroll<V>([&](auto v) HEED_INLINE_LAMBDA { r[v] = sum[0][v] + sum[1][v]; });
        if constexpr (Reads) {
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA { o[v] *= P(x.scale); });
            x.put(0, t, c, o);
        }
    }
};

}  // namespace heed::inline HEED_ABI
