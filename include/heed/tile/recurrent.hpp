// The recurrence token by token, over V packs of columns of the state, which stay in the first-level cache:
//
//   for each token:  r = (A S)^T k        where the update asks for it
//                    for each row d:  S[d] = a S[d] + k[d] u,  o += q[d] S[d]
// Columns are independent, so lanes run along them. Additive updates take J tokens in a pass over the state. Where the decay is
// a number a token, these meet the state before the J and each other by their products, so that it is decayed once. Updates
// that ask for r take it from the pass before: a row meets the next key as soon as it is made.
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
    static constexpr bool erases = delta || low_rank;  // what is written depends on what is there
    static constexpr bool complex = is_complex(Decay), paired = Decay == decay_kind::paired;

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
        if constexpr (erases) {
            P r[V];
            meet<V>(x, 0, s, stride, r);
            update_all<V, false>(x, c, s, stride, pass, r);
        } else {
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
    }

    /// Advances `count` packs of columns of the state, in strips that stay in the first-level cache from one reading to the
    /// next.
    static void run_strips(const token_rows<T>& x, index_t count, T* s, index_t stride, token_pass pass) {
        const auto strip = [&](auto v, index_t p) HEED_INLINE_LAMBDA { run<v>(x, p, s + p * L, stride, pass); };
        if constexpr (erases) {
            if (x.count * x.steps == 1 && pass != token_pass::read) return run_once(x, count, s, stride, pass);
            if (x.D * packs * static_cast<index_t>(sizeof(P)) > strip_bytes) return for_packs<packs / 2>(count, strip);
        }
        for_packs<packs>(count, strip);
    }

    /// What tokens whose decays are numbers are to each other, once for all columns.
    static void prepare(const token_rows<T>& x, token_pass pass) {
        if constexpr (tokens > 1 && Decay == decay_kind::scalar)
            for (index_t t = 0; t + tokens <= x.count; t += tokens)
                relate<tokens>(x, t, near_tokens<T>(x.near, t, tokens), pass == token_pass::both);
    }

private:
    static constexpr index_t strip_bytes = 20 << 10;

    /// Calls some(first, last) for the rows of the state, a few at a time, with J tokens in V packs of columns; lines of what
    /// comes next are asked for between: some processors drop what is asked for beyond the two dozen they may wait for.
    template <int V, int J, class Some>
    static HEED_INLINE void pass_over_rows(const token_rows<T>& x, const Some& some) {
        constexpr index_t few = 16;
        const index_t share = ceil_div(lines_ahead::asked * J * V, ceil_div(std::max<index_t>(x.D, 1), few));
        for (index_t d = 0; d < x.D; d += few) {
            x.ahead->ask(share);
            some(d, std::min(d + few, x.D));
        }
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
            reads ? step<V, J, true>(x, t, c, s, stride) : step<V, J, false>(x, t, c, s, stride);
        }
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
        for (; p < count; ++p) run<1>(x, p, s + p * L, stride, pass);
    }

    /// Updates of a token: a constant but where there may be several.
    static HEED_INLINE index_t steps(const token_rows<T>& x) { return Update == update_kind::householder ? x.steps : 1; }

    /// The row by which update i meets the state before it, and the sums of what it meets, r.
    static HEED_INLINE const T* met_by(const token_rows<T>& x, index_t i) {
        if constexpr (low_rank) return x.y + i * x.row;
        if constexpr (Decay == decay_kind::rows)
            if (i % steps(x) == 0) return x.y + i / steps(x) * x.row;
        return x.k[i];
    }
    template <int V>
    static HEED_INLINE void meet(const token_rows<T>& x, index_t i, const T* s, index_t stride, P (&r)[V]) {
        dot<V, 2>(met_by(x, i), x.D, s, stride, r);
    }

    /// The updates of all tokens and their reads. r is what the first meets; what follows is met on the way: the next update
    /// in the same columns, or, if Beside, this one in the V packs of columns beside, left in r.
    template <int V, bool Beside>
    static HEED_INLINE void update_all(const token_rows<T>& x, index_t c, T* s, index_t stride, token_pass pass, P (&r)[V]) {
        const bool fused = pass == token_pass::both && x.reads == 1, apart = pass == token_pass::both && !fused;
        const index_t each = steps(x), updates = x.count * each;
        for (index_t i = 0; i < updates; ++i) {
            const index_t t = i / each;
            const bool first = i % each == 0, last = i % each == each - 1;
            if (first && apart && Read != read_kind::after) read<V>(x, t, c, s, stride, 0);
            const T* const next = met_by(x, Beside || i + 1 == updates ? i : i + 1);
            const auto one = [&](auto kind) HEED_INLINE_LAMBDA {
                last && fused ? update<V, kind, true, Beside>(x, t, i, c, s, stride, next, r)
                              : update<V, kind, false, Beside>(x, t, i, c, s, stride, next, r);
            };
            if (first)
                one(std::integral_constant<decay_kind, Decay>{});
            else if constexpr (Update == update_kind::householder)
                one(std::integral_constant<decay_kind, decay_kind::none>{});
            if (last && apart && Read == read_kind::after) read<V>(x, t, c, s, stride, 0);
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
        if constexpr (Reads) start<V>(x, 0, t, c, o);
        const auto row = [&](index_t d, auto chain) HEED_INLINE_LAMBDA {
            P at[V];
            T* const place = s + d * stride;
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA { at[v] = load_aligned<P>(place + v * L); });
            if constexpr (Reads && Read != read_kind::after) add_row<V>(P(q[d]), at, o);
            if constexpr (Kind == decay_kind::scalar) unroll<V>([&](auto v) HEED_INLINE_LAMBDA { at[v] *= alike; });
            if constexpr (Kind == decay_kind::columns) unroll<V>([&](auto v) HEED_INLINE_LAMBDA { at[v] *= by[v]; });
            if constexpr (Kind == decay_kind::rows) {
                const P y(a[d]);
                unroll<V>([&](auto v) HEED_INLINE_LAMBDA { at[v] *= y; });
            }
            add_row<V>(P(k[d]), u, at);
            if constexpr (low_rank) add_row<V>(P(x.x[t * x.row + d]), r, at);
            if constexpr (Reads && Read == read_kind::after) add_row<V>(P(q[d]), at, o);
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA { store_aligned(place + v * L, at[v]); });
            if constexpr (Beside) unroll<V>([&](auto v) HEED_INLINE_LAMBDA { at[v] = load_aligned<P>(place + (V + v) * L); });
            add_row<V>(P(next[d]), at, sum[chain]);
        };
        pass_over_rows<V, 1>(x, [&](index_t d, index_t last) HEED_INLINE_LAMBDA {
            for (; d + 2 <= last; d += 2) unroll<2>([&](auto chain) HEED_INLINE_LAMBDA { row(d + chain, chain); });
            if (d < last) row(d, std::integral_constant<int, 0>{});
        });
        unroll<V>([&](auto v) HEED_INLINE_LAMBDA { r[v] = sum[0][v] + sum[1][v]; });
        if constexpr (Reads) {
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA { o[v] *= P(x.scale); });
            x.put(0, t, c, o);
        }
    }
    /// to += y from
    template <int V>
    static HEED_INLINE void add_row(const P& y, const P (&from)[V], P (&to)[V]) {
        unroll<V>([&](auto v) HEED_INLINE_LAMBDA { to[v] = fma(y, from[v], to[v]); });
    }

    /// sum_d y[d] S[d], in so many chains whatever V is, so that few columns do not wait and a column's bits do not depend on V.
    template <int V, int chains>
    static HEED_INLINE void dot(const T* y, index_t D, const T* s, index_t stride, P (&r)[V]) {
        P sum[chains][V];
        unroll<chains>([&](auto c) HEED_INLINE_LAMBDA {
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA { sum[c][v] = P(T(0)); });
        });
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
    static HEED_INLINE void read(const token_rows<T>& x, index_t t, index_t c, const T* s, index_t stride, index_t from) {
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
        pass_over_rows<V, J>(x, [&](index_t d, index_t last) HEED_INLINE_LAMBDA {
            for (; d < last; ++d) row(d);
        });
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

    /// One additive update of each of J tokens from t on.
    template <int V, int J, bool Reads>
    static HEED_INLINE void step(const token_rows<T>& x, index_t t, index_t c, T* s, index_t stride) {
        P u[J][V], o[J][V], by[J][V];
        [[maybe_unused]] P alike[J];
        const T *k[J], *q[J], *a[J];
        unroll<J>([&](auto j) HEED_INLINE_LAMBDA {
            k[j] = x.k[t + j];
            q[j] = x.query(0, t + j);
            if constexpr (Decay == decay_kind::scalar) alike[j] = P(x.decay[t + j]);
            if constexpr (Decay == decay_kind::rows || complex) a[j] = x.decay + (t + j) * x.decay_row;
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA {
                u[j][v] = load<P>(x.v[t + j] + c + v * L);
                if constexpr (Decay == decay_kind::columns)
                    by[j][v] = load_aligned<P>(x.decay + (t + j) * x.decay_row + c + v * L);
            });
            if constexpr (Reads) start<V>(x, 0, t + j, c, o[j]);
        });
        const auto row = [&](index_t d) HEED_INLINE_LAMBDA {
            T* const place = s + d * stride;
            [[maybe_unused]] T* const imaginary = place + x.D * stride;
            P at[V];
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA { at[v] = load_aligned<P>(place + v * L); });
            unroll<J>([&](auto j) HEED_INLINE_LAMBDA {
                if constexpr (Reads && Read != read_kind::after) {
                    const P y(q[j][d]);
                    unroll<V>([&](auto v) HEED_INLINE_LAMBDA { o[j][v] = fma(y, at[v], o[j][v]); });
                }
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
                    [[maybe_unused]] const P key(paired ? k[j][x.row + d] : T(0)), y(paired && Reads ? q[j][x.row + d] : T(0));
                    unroll<V>([&](auto v) HEED_INLINE_LAMBDA {
                        const P im = load_aligned<P>(imaginary + v * L);
                        P turned = fma(sin, at[v], cos * im);
                        if constexpr (paired) turned = fma(key, u[j][v], turned);
                        if constexpr (paired && Reads) o[j][v] = fma(y, Read == read_kind::after ? turned : im, o[j][v]);
                        store_aligned(imaginary + v * L, turned);
                        at[v] = cos * at[v] - sin * im;
                    });
                }
                const P key(k[j][d]);
                unroll<V>([&](auto v) HEED_INLINE_LAMBDA { at[v] = fma(key, u[j][v], at[v]); });
                if constexpr (Reads && Read == read_kind::after) {
                    const P y(q[j][d]);
                    unroll<V>([&](auto v) HEED_INLINE_LAMBDA { o[j][v] = fma(y, at[v], o[j][v]); });
                }
            });
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA { store_aligned(place + v * L, at[v]); });
        };
        pass_over_rows<V, J>(x, [&](index_t d, index_t last) HEED_INLINE_LAMBDA {
            for (; d < last; ++d) row(d);
        });
        if constexpr (Reads)
            unroll<J>([&](auto j) HEED_INLINE_LAMBDA {
                unroll<V>([&](auto v) HEED_INLINE_LAMBDA { o[j][v] *= P(x.scale); });
                x.put(0, t + j, c, o[j]);
            });
    }
};

}  // namespace heed::inline HEED_ABI
