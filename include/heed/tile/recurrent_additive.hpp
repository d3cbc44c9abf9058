// The recurrence token by token where updates do not look at the state, over V packs of its columns, which stay in the
// first-level cache:
//
//   for each J tokens:  for each row d:  S[d] = a S[d] + k[d] u,  o += q[d] S[d]
// J tokens are taken in a pass over the state. Where the decay is a number a token, these meet the state before the J
// and each other by their products, so that it is decayed once. Cost: two multiply-adds an element and token, four
// where the state is complex.
#pragma once

#include <bit>

#include "recurrent_rows.hpp"

namespace heed::inline HEED_ABI {

template <class A, class T, decay_kind Decay, read_kind Read>
class additive_tile {
    using rows = recurrent_rows<A, T, Decay, Read>;
    using P = pack<T, A>;
    static constexpr index_t L = lanes<T, A>;
    static constexpr bool complex = is_complex(Decay), paired = rows::paired;

public:
    /// Most packs of columns at once; few, which leaves registers for several tokens.
    static constexpr int packs = 2;
    static constexpr int tokens = complex ? 1 : vector_registers<A> / 8;
    /// Most queries of one token that read the state while it is updated.
    static constexpr int queries = vector_registers<A> / 8;

    /// Advances `count` packs of columns of the state, a few at a time, and writes those columns of o.
    static void run_strips(const token_rows<T>& x, index_t count, T* s, index_t stride, token_pass pass) {
        for_packs<packs>(count,
                         [&](auto v, index_t p) HEED_INLINE_LAMBDA { run<v>(x, p * L, s + p * L, stride, pass); });
    }

    /// What tokens whose decays are numbers are to each other, once for all columns.
    static void prepare(const token_rows<T>& x, token_pass pass) {
        if constexpr (tokens > 1 && Decay == decay_kind::scalar)
            for (index_t t = 0; t + tokens <= x.count; t += tokens)
                relate<tokens>(x, t, near_tokens<T>(x.near, t, tokens), pass == token_pass::both);
    }

private:
    /// V packs of columns, from column c on, which stand at s.
    template <int V>
    static HEED_NOINLINE void run(const token_rows<T>& x, index_t c, T* s, index_t stride, token_pass pass) {
        if (pass == token_pass::read) {
            for (index_t t = 0; t < x.count; ++t) rows::template read<V>(x, t, c, s, stride, 0);
            return;
        }
        const index_t reads = pass == token_pass::both ? x.reads : 0;
        index_t t = 0;
        if constexpr (tokens > 1)
            for (; t + tokens <= x.count && reads <= 1; t += tokens)
                advance<V, tokens>(x, t, c, s, stride, reads == 1);
        for (; t < x.count; ++t) {
            const auto most = static_cast<std::size_t>(std::min<index_t>(reads, queries));
            const auto with = static_cast<index_t>(std::bit_floor(most));
            if (Read != read_kind::after) rest<V>(x, t, c, s, stride, with, reads);
            update<V, queries>(x, t, c, s, stride, with);
            if (Read == read_kind::after) rest<V>(x, t, c, s, stride, with, reads);
        }
    }
    /// Reads of token t on their own, from query `from` on, if there are any.
    template <int V>
    static HEED_INLINE void rest(const token_rows<T>& x, index_t t, index_t c, const T* s, index_t stride, index_t from,
                                 index_t reads) {
        if (from < reads) rows::template read<V>(x, t, c, s, stride, from);
    }
    /// The update of token t, which so many queries read: Q, or half of it, and so on.
    template <int V, int Q>
    static HEED_INLINE void update(const token_rows<T>& x, index_t t, index_t c, T* s, index_t stride, index_t reads) {
        if (Q == 0 || reads == Q) return step<V, 1, Q>(x, t, c, s, stride);
        if constexpr (Q > 0) update<V, Q / 2>(x, t, c, s, stride, reads);
    }

    /// Bit n: whether Within names (l, first + n).
    template <class Within>
    static constexpr std::uint32_t lanes_within(int l, int first) {
        std::uint32_t bits = 0;
        for (int n = 0; n < static_cast<int>(L); ++n) bits |= static_cast<std::uint32_t>(Within{}(l, first + n)) << n;
        return bits;
    }
    /// to[n] is the product of those of a[0], ..., a[J - 1] that Within names as (l, n), for n < count in whole packs.
    template <int J, int count, class Within>
    static HEED_INLINE void products_of(const T* a, const Within&, T* to) {
        unroll<(count + static_cast<int>(L) - 1) / static_cast<int>(L)>([&](auto batch) HEED_INLINE_LAMBDA {
            constexpr int first = decltype(batch)::value * static_cast<int>(L);
            P product(T(1));
            unroll<J>([&](auto l) HEED_INLINE_LAMBDA {
                constexpr std::uint32_t bits = lanes_within<Within>(decltype(l)::value, first);
                product = select(mask_of_bits<T, A>(bits), product * P(a[l]), product);
            });
            store_aligned(to + first, product);
        });
    }
    template <int J>
    static HEED_INLINE void relate(const token_rows<T>& x, index_t t, const near_tokens<T>& near, bool reads) {
        constexpr bool after = Read == read_kind::after;
        // What token j sees of token i's value has met the decays between, that of j too if it reads after them.
        const auto seen = [](int l, int n) { return n % J < l && (after ? l <= n / J : l < n / J); };
        products_of<J, J * J>(x.decay + t, seen, near.seen);
        // met, given, kept one after the other.
        const auto state = [](int l, int n) {
            return n < J ? (after ? l <= n : l < n) : n < 2 * J ? n - J < l : n == 2 * J;
        };
        products_of<J, 2 * J + 1>(x.decay + t, state, near.met);
        if (!reads) return;
        alignas(64) T products[J * J + L];
        multiply_rows<J>(x, t, products);
        for (int n = 0; n < J * J; n += static_cast<int>(L))
            store_aligned(near.seen + n, load_aligned<P>(near.seen + n) * load_aligned<P>(products + n));
    }

    /// The updates of J tokens, with their reads or without.
    template <int V, int J>
    static HEED_INLINE void advance(const token_rows<T>& x, index_t t, index_t c, T* s, index_t stride, bool reads) {
        if constexpr (J > 1 && Decay == decay_kind::scalar) {
            reads ? group<V, J, true>(x, t, c, s, stride) : group<V, J, false>(x, t, c, s, stride);
        } else {
            reads ? step<V, J, 1>(x, t, c, s, stride) : step<V, J, 0>(x, t, c, s, stride);
        }
    }

    /// J tokens whose decays are numbers: o_j = F_j q_j^T S + sum_i (q_j . k_i) (a_{i+1} ... a_j) v_i, i <= j, with the
    /// factors and products that prepare has left.
    template <int V, int J, bool Reads>
    static HEED_INLINE void group(const token_rows<T>& x, index_t t, index_t c, T* s, index_t stride) {
        constexpr bool after = Read == read_kind::after;
        const near_tokens<T> near(x.near, t, J);
        P u[J][V], o[J][V];
        const T *k[J], *q[J];
        unroll<J>([&](auto j) HEED_INLINE_LAMBDA {
            k[j] = x.k[t + j];
            q[j] = x.query(0, t + j);
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA {
                u[j][v] = P(near.given[j]) * load<P>(x.v[t + j] + c + v * L);
                o[j][v] = P(T(0));
            });
        });
        const P decay(near.kept[0]);
        const auto row = [&](index_t d) HEED_INLINE_LAMBDA {
            T* const at_row = s + d * stride;
            P at[V];
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA { at[v] = load_aligned<P>(at_row + v * L); });
            if constexpr (Reads)
                unroll<J>([&](auto j) HEED_INLINE_LAMBDA {
                    const P y(q[j][d]);
                    unroll<V>([&](auto v) HEED_INLINE_LAMBDA { o[j][v] = fma(y, at[v], o[j][v]); });
                });
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA { at[v] *= decay; });
            unroll<J>([&](auto j) HEED_INLINE_LAMBDA {
                const P key(k[j][d]);
                unroll<V>([&](auto v) HEED_INLINE_LAMBDA { at[v] = fma(key, u[j][v], at[v]); });
            });
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA { store_aligned(at_row + v * L, at[v]); });
        };
        rows::template pass_over_rows<V, J>(x, [&](index_t d, index_t last) HEED_INLINE_LAMBDA {
            for (; d < last; ++d) row(d);
        });
        if constexpr (Reads)
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA {
                P value[J];
                unroll<J>([&](auto j) HEED_INLINE_LAMBDA {
                    value[j] = load<P>(x.v[t + j] + c + v * L);
                    P sum = P(near.met[j]) * o[j][v];
                    unroll<J>([&](auto i) HEED_INLINE_LAMBDA {
                        if constexpr (i < j || (after && i == j)) sum = fma(P(near.seen[j * J + i]), value[i], sum);
                    });
                    if constexpr (Read == read_kind::bonus) sum = fma(P(x.diagonal[t + j]), value[j], sum);
                    o[j][v] = P(x.scale) * sum;
                });
            });
        if constexpr (Reads) unroll<J>([&](auto j) HEED_INLINE_LAMBDA { x.put(0, t + j, c, o[j]); });
    }
    /// to[j * J + i] = q_j . k_i for i <= j of J tokens, lanes along the width.
    template <int J>
    static HEED_INLINE void multiply_rows(const token_rows<T>& x, index_t t, T* to) {
        constexpr int batches = (J * J + static_cast<int>(L) - 1) / static_cast<int>(L);
        P sum[batches][L];
        for (auto& batch : sum)
            for (P& s : batch) s = P(T(0));
        for (index_t d = 0; d < x.row; d += L) {
            P k[J];
            unroll<J>([&](auto i) HEED_INLINE_LAMBDA { k[i] = load<P>(x.k[t + i] + d); });
            unroll<J>([&](auto j) HEED_INLINE_LAMBDA {
                const P q = load<P>(x.query(0, t + j) + d);
                unroll<j + 1>([&](auto i) HEED_INLINE_LAMBDA {
                    constexpr int at = j * J + i;
                    P& s = sum[at / L][at % L];
                    s = fma(q, k[i], s);
                });
            });
        }
        unroll<batches>([&](auto b) HEED_INLINE_LAMBDA { store_aligned(to + b * L, lane_sums(sum[b])); });
    }

    /// One additive update of each of J tokens from t on, with the reads of their first Q queries.
    template <int V, int J, int Q>
    static HEED_INLINE void step(const token_rows<T>& x, index_t t, index_t c, T* s, index_t stride) {
        constexpr bool Reads = Q > 0;
        constexpr int some = Reads ? Q : 1;
        P u[J][V], by[J][V];
        [[maybe_unused]] P o[J][some][V], alike[J];
        const T *k[J], *a[J];
        [[maybe_unused]] const T* q[J][some];
        unroll<J>([&](auto j) HEED_INLINE_LAMBDA {
            k[j] = x.k[t + j];
            unroll<Q>([&](auto r) HEED_INLINE_LAMBDA {
                q[j][r] = x.query(r, t + j);
                rows::template start<V>(x, r, t + j, c, o[j][r]);
            });
            if constexpr (Decay == decay_kind::scalar) alike[j] = P(x.decay[t + j]);
            if constexpr (Decay == decay_kind::rows || complex) a[j] = x.decay + (t + j) * x.decay_row;
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA {
                u[j][v] = load<P>(x.v[t + j] + c + v * L);
                if constexpr (Decay == decay_kind::columns)
                    by[j][v] = load_aligned<P>(x.decay + (t + j) * x.decay_row + c + v * L);
            });
        });
        const auto read = [&](auto j, index_t d, const P(&at)[V]) HEED_INLINE_LAMBDA {
            unroll<Q>([&](auto r) HEED_INLINE_LAMBDA { rows::template add_row<V>(P(q[j][r][d]), at, o[j][r]); });
        };
        const auto row = [&](index_t d) HEED_INLINE_LAMBDA {
            T* const place = s + d * stride;
            [[maybe_unused]] T* const imaginary = place + x.D * stride;
            P at[V];
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA { at[v] = load_aligned<P>(place + v * L); });
            unroll<J>([&](auto j) HEED_INLINE_LAMBDA {
                if constexpr (Reads && Read != read_kind::after) read(j, d, at);
                if constexpr (Decay == decay_kind::scalar)
                    unroll<V>([&](auto v) HEED_INLINE_LAMBDA { at[v] *= alike[j]; });
                if constexpr (Decay == decay_kind::columns)
                    unroll<V>([&](auto v) HEED_INLINE_LAMBDA { at[v] *= by[j][v]; });
                if constexpr (Decay == decay_kind::rows) {
                    const P y(a[j][d]);
                    unroll<V>([&](auto v) HEED_INLINE_LAMBDA { at[v] *= y; });
                }
                if constexpr (complex) {
                    const P cos(a[j][d]), sin(a[j][x.row + d]);
                    [[maybe_unused]] const P key(paired ? k[j][x.row + d] : T(0));
                    P im[V], turned[V];
                    unroll<V>([&](auto v) HEED_INLINE_LAMBDA {
                        im[v] = load_aligned<P>(imaginary + v * L);
                        turned[v] = fma(sin, at[v], cos * im[v]);
                        if constexpr (paired) turned[v] = fma(key, u[j][v], turned[v]);
                        store_aligned(imaginary + v * L, turned[v]);
                        at[v] = cos * at[v] - sin * im[v];
                    });
                    if constexpr (paired) read(j, x.row + d, Read == read_kind::after ? turned : im);
                }
                const P key(k[j][d]);
                unroll<V>([&](auto v) HEED_INLINE_LAMBDA { at[v] = fma(key, u[j][v], at[v]); });
                if constexpr (Reads && Read == read_kind::after) read(j, d, at);
            });
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA { store_aligned(place + v * L, at[v]); });
        };
        rows::template pass_over_rows<V, J>(x, [&](index_t d, index_t last) HEED_INLINE_LAMBDA {
            for (; d < last; ++d) row(d);
        });
        unroll<J>([&](auto j) HEED_INLINE_LAMBDA {
            unroll<Q>([&](auto r) HEED_INLINE_LAMBDA {
                unroll<V>([&](auto v) HEED_INLINE_LAMBDA { o[j][r][v] *= P(x.scale); });
                x.put(r, t + j, c, o[j][r]);
            });
        });
    }
};

}  // namespace heed::inline HEED_ABI
