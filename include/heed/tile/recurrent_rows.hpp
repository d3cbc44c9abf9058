// What recurrences of all kinds do with the rows of a state, in V packs of its columns: they pass over it, and read it.
#pragma once

#include "../simd/math.hpp"
#include "../simd/rows.hpp"
#include "token_rows.hpp"

namespace heed::inline HEED_ABI {

template <class A, class T, decay_kind Decay, read_kind Read>
struct recurrent_rows {
    using P = pack<T, A>;
    static constexpr index_t L = lanes<T, A>;
    static constexpr bool paired = Decay == decay_kind::paired;

    /// Calls some(first, last) for the rows of the state, a few at a time, with J tokens in V packs of columns; lines
    /// of what comes next are asked for between.
    template <int V, int J, class Some>
    static HEED_INLINE void pass_over_rows(const token_rows<T>& x, const Some& some) {
        const index_t few = std::max<index_t>(x.D * (token_block / lines_ahead::asks) / (J * V), 1);
        for (index_t d = 0; d < x.D; d += few) {
            x.ahead->ask();
            some(d, std::min(d + few, x.D));
        }
    }

    /// to += y from
    template <int V>
    static HEED_INLINE void add_row(const P& y, const P (&from)[V], P (&to)[V]) {
        unroll<V>([&](auto v) HEED_INLINE_LAMBDA { to[v] = fma(y, from[v], to[v]); });
    }

    /// sum_d y[d] S[d], in so many chains whatever V is, so that few columns do not wait and a column's bits do not
    /// depend on V.
    template <int V, int chains>
    static HEED_INLINE void dot(const T* y, index_t D, const T* s, index_t stride, P (&r)[V]) {
        P sum[chains][V];
        unroll<chains>([&](auto c)
                           HEED_INLINE_LAMBDA { unroll<V>([&](auto v) HEED_INLINE_LAMBDA { sum[c][v] = P(T(0)); }); });
        const auto row = [&](index_t d, auto chain) HEED_INLINE_LAMBDA {
            const P by(y[d]);
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA {
                sum[chain][v] = fma(by, load_aligned<P>(s + d * stride + v * L), sum[chain][v]);
            });
        };
        index_t d = 0;
        for (; d + chains <= D; d += chains) unroll<chains>([&](auto c) HEED_INLINE_LAMBDA { row(d + c, c); });
        for (; d < D; ++d) row(d, std::integral_constant<int, 0>{});
        unroll<V>([&](auto v) HEED_INLINE_LAMBDA {
            r[v] = sum[0][v] + sum[1][v];
            if constexpr (chains == 4) r[v] += sum[2][v] + sum[3][v];
        });
    }

    /// Reads of token t on their own, from query `from` on.
    template <int V>
    static HEED_INLINE void read(const token_rows<T>& x, index_t t, index_t c, const T* s, index_t stride,
                                 index_t from) {
        for (index_t i = from; i < x.reads; ++i) {
            P o[V];
            start<V>(x, i, t, c, o);
            P sum[V];
            dot<V, 4>(x.query(i, t), x.D, s, stride, sum);
            if constexpr (paired) {
                unroll<V>([&](auto v) HEED_INLINE_LAMBDA { o[v] += sum[v]; });
                dot<V, 4>(x.query(i, t) + x.row, x.D, s + x.D * stride, stride, sum);
            }
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA { o[v] = P(x.scale) * (o[v] + sum[v]); });
            x.put(i, t, c, o);
        }
    }
    /// What an output starts from: the token's own value where the read has a bonus.
    template <int V>
    static HEED_INLINE void start(const token_rows<T>& x, index_t read, index_t t, index_t c, P (&o)[V]) {
        unroll<V>([&](auto v) HEED_INLINE_LAMBDA {
            if constexpr (Read == read_kind::bonus)
                o[v] = P(x.diagonal[read * token_block + t]) * load<P>(x.v[t] + c + v * L);
            else
                o[v] = P(T(0));
        });
    }
};

}  // namespace heed::inline HEED_ABI
