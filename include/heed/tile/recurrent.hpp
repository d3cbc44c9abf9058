// The recurrence token by token, over V packs of columns of the state, which stay in the first-level cache:
//
//   for each token:  r = (A S)^T k        where the update asks for it
//                    for each row d:  S[d] = a S[d] + k[d] u,  o += q[d] S[d]
// Columns are independent, so lanes run along them. Additive updates take J tokens in a pass over the state. Where the decay is
// a number a token, these meet the state before the J and each other by their products, so that it is decayed once.
// Cost: two to four multiply-adds an element and token.
#pragma once

#include "../simd/math.hpp"
#include "../simd/rows.hpp"
#include "token_rows.hpp"

namespace heed::inline HEED_ABI {

template <class A, class T, decay_kind Decay, update_kind Update, read_kind Read>
class recurrent_tile {
    using P = pack<T, A>;
    static constexpr index_t L = lanes<T, A>;
    static constexpr bool delta = Update == update_kind::delta || Update == update_kind::householder;
    static constexpr bool low_rank = Update == update_kind::low_rank;
    static constexpr bool complex = Decay == decay_kind::complex;

public:
    /// Most packs of columns at once. A state of few columns leaves registers for several tokens instead.
    static constexpr int packs = Update == update_kind::additive ? 2 : vector_registers<A> / 8;
    static constexpr int tokens = Update == update_kind::additive && !complex ? vector_registers<A> / 8 : 1;

    /// Advances the state, whose columns from pack `first` on stand at s, and writes those columns of o.
    template <int V>
    static HEED_NOINLINE void run(const token_rows<T>& x, index_t first, T* s, index_t stride, token_pass pass) {
        const index_t c = first * L;
        if (pass == token_pass::read) {
            for (index_t t = 0; t < x.count; ++t) read<V>(x, t, c, s, stride, 0);
            return;
        }
        const bool fused = pass == token_pass::both && x.reads == 1;
        index_t t = 0;
        if constexpr (tokens > 1)
            for (; t + tokens <= x.count && (fused || pass == token_pass::write); t += tokens)
                advance<V, tokens>(x, t, c, s, stride, fused);
        for (; t < x.count; ++t) {
            if (pass == token_pass::both && !fused && Read != read_kind::after) read<V>(x, t, c, s, stride, 0);
            advance<V, 1>(x, t, c, s, stride, fused);
            if (pass == token_pass::both && !fused && Read == read_kind::after) read<V>(x, t, c, s, stride, 0);
        }
    }

    /// Advances `count` packs of columns of the state, in strips that stay in the first-level cache from one reading to the
    /// next.
    static void run_strips(const token_rows<T>& x, index_t count, T* s, index_t stride, token_pass pass) {
        const auto strip = [&](auto v, index_t p) HEED_INLINE_LAMBDA { run<v>(x, p, s + p * L, stride, pass); };
        const bool narrow = (delta || low_rank) && x.D * packs * static_cast<index_t>(sizeof(P)) > strip_bytes;
        narrow ? for_packs<packs / 2>(count, strip) : for_packs<packs>(count, strip);
    }

    /// What tokens whose decays are numbers are to each other, once for all columns.
    static void prepare(const token_rows<T>& x, token_pass pass) {
        if constexpr (tokens > 1 && Decay == decay_kind::scalar)
            for (index_t t = 0; t + tokens <= x.count; t += tokens)
                relate<tokens>(x, t, near_tokens<T>(x.near, t, tokens), pass == token_pass::both);
    }

private:
    static constexpr index_t strip_bytes = 20 << 10;

    template <int J>
    static HEED_INLINE void relate(const token_rows<T>& x, index_t t, const near_tokens<T>& near, bool reads) {
        constexpr bool after = Read == read_kind::after;
        alignas(64) T products[J * J + L] = {};
        if (reads) multiply_rows<J>(x, t, products);
        T factor[J], all = 1;  // of an earlier token's value; of the state
        const auto see = [&](int j, int tokens_seen) {
            near.met[j] = all;
            for (int i = 0; i < tokens_seen; ++i) near.seen[j * J + i] = factor[i] * products[j * J + i];
        };
        for (int j = 0; j < J; ++j) {
            const T a = x.decay[t + j];
            if constexpr (!after) see(j, j);
            all *= a;
            for (int i = 0; i < j; ++i) factor[i] *= a;
            factor[j] = T(1);
            if constexpr (after) see(j, j + 1);
        }
        std::copy_n(factor, J, near.given);
        near.kept[0] = all;
    }

    /// The updates of J tokens, with their reads or without.
    template <int V, int J>
    static HEED_INLINE void advance(const token_rows<T>& x, index_t t, index_t c, T* s, index_t stride, bool reads) {
        x.ahead->ask(lines_ahead::asked * J * V);
        if constexpr (J > 1 && Decay == decay_kind::scalar) {
            reads ? group<V, J, true>(x, t, c, s, stride) : group<V, J, false>(x, t, c, s, stride);
        } else if constexpr (Update != update_kind::householder) {
            reads ? step<V, J, Decay, true>(x, t, t, c, s, stride) : step<V, J, Decay, false>(x, t, t, c, s, stride);
        } else {
            const index_t first = t * x.steps, last = first + x.steps - 1;
            if (first == last) {
                reads ? step<V, 1, Decay, true>(x, t, first, c, s, stride)
                      : step<V, 1, Decay, false>(x, t, first, c, s, stride);
                return;
            }
            step<V, 1, Decay, false>(x, t, first, c, s, stride);
            for (index_t i = first + 1; i < last; ++i) step<V, 1, decay_kind::none, false>(x, t, i, c, s, stride);
            reads ? step<V, 1, decay_kind::none, true>(x, t, last, c, s, stride)
                  : step<V, 1, decay_kind::none, false>(x, t, last, c, s, stride);
        }
    }

    /// sum_d y[d] S[d]: in four chains whatever V is, so that few columns do not wait and a column's bits do not depend on V.
    template <int V>
    static HEED_INLINE void dot(const T* y, index_t D, const T* s, index_t stride, P (&r)[V]) {
        constexpr int chains = 4;
        P sum[chains][V];
        unroll<chains>([&](auto c) HEED_INLINE_LAMBDA {
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA { sum[c][v] = P(T(0)); });
        });
        index_t d = 0;
        for (; d + chains <= D; d += chains)
            unroll<chains>([&](auto c) HEED_INLINE_LAMBDA {
                const P by(y[d + c]);
                unroll<V>([&](auto v) HEED_INLINE_LAMBDA { sum[c][v] = fma(by, load_aligned<P>(s + v * L), sum[c][v]); });
                s += stride;
            });
        for (; d < D; ++d, s += stride) {
            const P by(y[d]);
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA { sum[0][v] = fma(by, load_aligned<P>(s + v * L), sum[0][v]); });
        }
        unroll<V>([&](auto v) HEED_INLINE_LAMBDA { r[v] = (sum[0][v] + sum[1][v]) + (sum[2][v] + sum[3][v]); });
    }

    /// Reads of token t on their own, from query `from` on.
    template <int V>
    static HEED_INLINE void read(const token_rows<T>& x, index_t t, index_t c, const T* s, index_t stride, index_t from) {
        for (index_t i = from; i < x.reads; ++i) {
            P o[V];
            start<V>(x, i, t, c, o);
            P sum[V];
            dot<V>(x.query(i, t), x.D, s, stride, sum);
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
        T* at_row = s;
        for (index_t d = 0; d < x.D; ++d, at_row += stride) {
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
        }
        if constexpr (Reads)
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA {
                P value[J];
                unroll<J>([&](auto j) HEED_INLINE_LAMBDA {
                    value[j] = load<P>(x.v[t + j] + c + v * L);
                    P sum = P(near.met[j]) * o[j][v];
                    unroll<J>([&](auto i) HEED_INLINE_LAMBDA {
                        if constexpr (i < j || (after && i == j))
                            sum = fma(P(near.seen[j * J + i]), value[i], sum);
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

    /// One update of each of J tokens, t and row i of k and v being those of the first.
    template <int V, int J, decay_kind Kind, bool Reads>
    static HEED_INLINE void step(const token_rows<T>& x, index_t t, index_t i, index_t c, T* s, index_t stride) {
        P u[J][V], o[J][V], by[J][V], r[V];
        [[maybe_unused]] P alike[J];
        const T *k[J], *q[J], *a[J];
        unroll<J>([&](auto j) HEED_INLINE_LAMBDA {
            k[j] = x.k[i + j];
            q[j] = x.query(0, t + j);
            if constexpr (Kind == decay_kind::scalar) alike[j] = P(x.decay[t + j]);
            if constexpr (Kind == decay_kind::rows) a[j] = x.decay + (t + j) * x.decay_row;
            if constexpr (Kind == decay_kind::complex) a[j] = x.decay + (t + j) * x.decay_row;
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA {
                u[j][v] = load<P>(x.v[i + j] + c + v * L);
                if constexpr (Kind == decay_kind::columns)
                    by[j][v] = load_aligned<P>(x.decay + (t + j) * x.decay_row + c + v * L);
            });
            if constexpr (Reads) start<V>(x, 0, t + j, c, o[j]);
        });
        if constexpr (delta) {
            dot<V>(Kind == decay_kind::rows ? x.y + t * x.row : k[0], x.D, s, stride, r);
            const P beta(x.beta[i]);
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA {
                if constexpr (Kind == decay_kind::scalar) r[v] *= alike[0];
                if constexpr (Kind == decay_kind::columns) r[v] *= by[0][v];
                u[0][v] = beta * (u[0][v] - r[v]);
            });
        }
        if constexpr (low_rank) dot<V>(x.y + t * x.row, x.D, s, stride, r);
        [[maybe_unused]] T* imaginary = s + x.D * stride;
        for (index_t d = 0; d < x.D; ++d, s += stride) {
            P at[V];
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA { at[v] = load_aligned<P>(s + v * L); });
            unroll<J>([&](auto j) HEED_INLINE_LAMBDA {
                if constexpr (Reads && Read != read_kind::after) {
                    const P y(q[j][d]);
                    unroll<V>([&](auto v) HEED_INLINE_LAMBDA { o[j][v] = fma(y, at[v], o[j][v]); });
                }
                if constexpr (Kind == decay_kind::scalar)
                    unroll<V>([&](auto v) HEED_INLINE_LAMBDA { at[v] *= alike[j]; });
                if constexpr (Kind == decay_kind::columns)
                    unroll<V>([&](auto v) HEED_INLINE_LAMBDA { at[v] *= by[j][v]; });
                if constexpr (Kind == decay_kind::rows) {
                    const P y(a[j][d]);
                    unroll<V>([&](auto v) HEED_INLINE_LAMBDA { at[v] *= y; });
                }
                if constexpr (Kind == decay_kind::complex) {
                    const P cos(a[j][d]), sin(a[j][x.row + d]);
                    unroll<V>([&](auto v) HEED_INLINE_LAMBDA {
                        const P im = load_aligned<P>(imaginary + v * L);
                        store_aligned(imaginary + v * L, fma(sin, at[v], cos * im));
                        at[v] = cos * at[v] - sin * im;
                    });
                }
                const P key(k[j][d]);
                unroll<V>([&](auto v) HEED_INLINE_LAMBDA { at[v] = fma(key, u[j][v], at[v]); });
                if constexpr (low_rank) {
                    const P y(x.x[t * x.row + d]);
                    unroll<V>([&](auto v) HEED_INLINE_LAMBDA { at[v] = fma(y, r[v], at[v]); });
                }
                if constexpr (Reads && Read == read_kind::after) {
                    const P y(q[j][d]);
                    unroll<V>([&](auto v) HEED_INLINE_LAMBDA { o[j][v] = fma(y, at[v], o[j][v]); });
                }
            });
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA { store_aligned(s + v * L, at[v]); });
            if constexpr (Kind == decay_kind::complex) imaginary += stride;
        }
        if constexpr (Reads)
            unroll<J>([&](auto j) HEED_INLINE_LAMBDA {
                unroll<V>([&](auto v) HEED_INLINE_LAMBDA { o[j][v] *= P(x.scale); });
                x.put(0, t + j, c, o[j]);
            });
    }
};

}  // namespace heed::inline HEED_ABI
