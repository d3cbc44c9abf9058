// The recurrence by blocks of tokens, as matrix products:
//
//   o_i = (q_i * f_i) S + sum_{j <= i} (q_i . P_ij k_j) u_j
//   S'  = f_n S + sum_j (P_nj k_j) u_j^T
//   u_i = w_i + (e_i * f_i) S + sum_{j < i} (e_i . P_ij k_j) u_j
// with the products of chunk_products.hpp. S is that before the chunk; a chunk is one block or many, whose later blocks
// meet the earlier ones through their keys, decayed to the end of each block, and the decays of the blocks between.
// Decays of columns act on u in place of the keys: token by token within a block, by products from one to the next.
// Cost: 4 D E + c (D + E) flops an update for chunks of c (those that erase: 6 D E + c (2 D + 2 E)).
// Source: Yang et al., arXiv:2312.06635 (secondary chunks), arXiv:2406.06484 (delta rule).
#pragma once

#include "chunk_products.hpp"

namespace heed::inline HEED_ABI {

template <class A, class T, decay_kind Decay, update_kind Update, read_kind Read>
class chunked_tile : public chunk_products<A, T, Decay, Update, Read> {
    using shared = chunk_products<A, T, Decay, Update, Read>;
    using shared::after, shared::by_row, shared::by_column, shared::complex, shared::paired, shared::delta;
    using shared::erases, shared::low_rank, shared::single;
    using shared::C, shared::L, shared::R, shared::s_;
    using typename shared::block, typename shared::Op, typename shared::P;

public:
    /// Packs of columns a register tile takes.
    static constexpr int packs = 2;

    using shared::shared;

    /// Fills u of the block from pack `first` on and writes o, for `count` packs of values; s is the state before the chunk.
    void read(const token_rows<T>& x, const block& at, index_t first, index_t count, const T* s, index_t stride,
              token_pass pass) const {
        for_packs<packs>(count, [&](auto v, index_t p) HEED_INLINE_LAMBDA {
            if constexpr (by_column)
                fading_columns<v>(x, at, first * L, p * L, s + p * L, stride, pass);
            else
                block_columns<v>(x, at, first * L, p * L, s + p * L, stride, pass);
        });
    }

    /// Adds `updates` of the chunk, from its first on, to the state.
    void write(const token_rows<T>& x, index_t updates, index_t first, index_t count, T* s, index_t stride) const {
        for (index_t b = 0; b * C < updates; ++b) {
            const block_keys<T> keys = s_.block(b);
            const index_t depth = std::min(C, updates - b * C);
            for_packs<packs>(count, [&](auto v, index_t at) HEED_INLINE_LAMBDA {
                const index_t column = (first + at) * L;
                const auto add = [&](auto rows, index_t d, index_t row) HEED_INLINE_LAMBDA {
                    add_rows<rows, v>(x, b, depth, d, column, s + row * stride + at * L, stride);
                };
                constexpr std::integral_constant<int, R> together;
                if constexpr (complex) {
                    turn_state<v>(keys.total, x, s + at * L, stride);
                    for (index_t part = 0; part < 2; ++part) {  // imaginary rows follow at once
                        index_t d = 0;
                        for (; d + R <= x.D; d += R) add(together, part * x.row + d, part * x.D + d);
                        for (; d < x.D; ++d) add(std::integral_constant<int, 1>{}, part * x.row + d, part * x.D + d);
                    }
                } else {
                    for (index_t d = 0; d < x.D; d += R) add(together, d, d);
                }
            });
        }
    }

    /// o = q^T S alone, the queries as they are.
    static void project(const token_rows<T>& x, index_t count, const T* s, index_t stride) {
        for_packs<packs>(count, [&](auto v, index_t at) HEED_INLINE_LAMBDA {
            for (index_t read = 0; read < x.reads; ++read)
                for (index_t i = 0; i < x.count; i += R) {
                    register_tile<P, R, v> acc;
                    acc.clear();
                    multiply<Op>(acc, x.query(read, i), x.q.step, static_index<1>{}, s + at * L, stride, x.D);
                    if constexpr (paired)
                        multiply<Op>(acc, x.query(read, i) + x.row, x.q.step, static_index<1>{},
                                     s + x.D * stride + at * L, stride, x.D);
                    put(acc, x, read, i, R, at * L);
                }
        });
    }

private:
    /// Rows and V packs of columns of the state, of rows d of the panel of block b.
    template <int Rows, int V>
    HEED_INLINE void add_rows(const token_rows<T>& x, index_t b, index_t depth, index_t d, index_t column, T* to,
                              index_t stride) const {
        x.ahead->ask();
        const block_keys<T> keys = s_.block(b);
        register_tile<P, Rows, V> acc;
        acc.load_rows(to, stride);
        if constexpr (by_column) fade<V>(acc, s_.columns + b * s_.column + column);
        if constexpr (Decay == decay_kind::scalar || Decay == decay_kind::rows)
            unroll<Rows>([&](auto r) HEED_INLINE_LAMBDA {
                const P by(keys.total[by_row ? d + r : 0]);
                unroll<V>([&](auto c) HEED_INLINE_LAMBDA { acc.at[r][c] *= by; });
            });
        multiply<Op>(acc, keys.panel + d * C, static_index<static_cast<int>(C)>{}, static_index<1>{},
                     s_.u + b * C * s_.column + column, s_.column, depth);
        acc.store_rows(to, stride);
    }

    template <int V>
    HEED_INLINE void block_columns(const token_rows<T>& x, const block& at, index_t first, index_t c, const T* s,
                                   index_t stride, token_pass pass) const {
        const index_t base = at.number * C;
        // Extents are read where they are: of copies the compiler would keep all multiples, on the stack.
        const chunk_scratch<T>& chunk = s_;
        const index_t from = single ? 0 : at.first, token = single ? 0 : at.query;
        T* const u = chunk.u + first + c;
        for (index_t i = 0; i < at.count; i += R) {
            x.ahead->ask(2);
            register_tile<P, R, V> acc;
            unroll<R>([&](auto r) HEED_INLINE_LAMBDA { load_value<V>(x, from + i + r, c, acc.at[r]); });
            if constexpr (erases) {
                multiply<Op>(acc, chunk.erased + i * x.row, x.row, static_index<1>{}, s, stride, x.D);
                const T* const row = chunk.from_k + i * chunk.updates;
                multiply<Op>(acc, row, chunk.updates, static_index<1>{}, u, chunk.column, base + i);
                unroll<R>([&](auto j) HEED_INLINE_LAMBDA {
                    unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
                        if constexpr (r > j) add_row<V>(acc.at[r], row[r * chunk.updates + base + i + j], acc.at[j]);
                    });
                });
            }
            acc.store_rows(u + (base + i) * chunk.column, chunk.column);
        }
        if (pass == token_pass::write) return;
        constexpr int own = Read == read_kind::before ? 1 : 0;  // the last token a query sees is the one before its own
        for (index_t read = 0; read < x.reads; ++read)
            for (index_t i = 0; i < at.queries; i += R) {
                x.ahead->ask(2);
                const T* const q = this->queries(x, read, i);
                const T* const row = chunk.from_q + (read * C + i) * chunk.updates;
                const index_t step = this->query_step(x), left = at.queries - i;
                const index_t met = base + (single ? i : this->seen(at, i));  // by all of these queries
                register_tile<P, R, V> acc;
                acc.clear();
                multiply<Op>(acc, q, step, static_index<1>{}, s, stride, x.D);
                if constexpr (complex)
                    multiply<Op>(acc, q + x.row, step, static_index<1>{}, s + x.D * stride, stride, x.D);
                multiply<Op>(acc, row, chunk.updates, static_index<1>{}, u, chunk.column, met);
                P key[V];
                const auto load_key = [&](index_t j) HEED_INLINE_LAMBDA {
                    unroll<V>([&](auto v)
                                  HEED_INLINE_LAMBDA { key[v] = load_aligned<P>(u + j * chunk.column + v * L); });
                };
                if constexpr (single)
                    unroll<R - own>([&](auto j) HEED_INLINE_LAMBDA {
                        load_key(met + j);
                        unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
                            if constexpr (r >= j + own) add_row<V>(acc.at[r], row[r * chunk.updates + met + j], key);
                        });
                    });
                else
                    for (index_t j = met; j < base + this->seen(at, i + std::min<index_t>(left, R) - 1); ++j) {
                        load_key(j);
                        unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
                            if (j < base + this->seen(at, i + r))
                                add_row<V>(acc.at[r], row[r * chunk.updates + j], key);
                        });
                    }
                put(acc, x, read, token + i, left, c);
            }
    }

    /// The same for decays of columns.
    template <int V>
    void fading_columns(const token_rows<T>& x, const block& at, index_t first, index_t c, const T* s, index_t stride,
                        token_pass pass) const {
        const index_t base = at.number * C;
        T* const u = s_.u + first + c;
        T* const own = u + base * s_.column;
        // What was there before the block, before it fades.
        const auto meet_past = [&](const T* rows, index_t step, const T* products, register_tile<P, R, V>& acc) {
            acc.clear();
            multiply<Op>(acc, rows, step, static_index<1>{}, s, stride, x.D);
            for (index_t b = 0; b < at.number; ++b) {
                fade<V>(acc, s_.columns + b * s_.column + first + c);
                multiply<Op>(acc, products + b * C, s_.updates, static_index<1>{}, u + b * C * s_.column, s_.column, C);
            }
        };
        for (index_t i = 0; erases && i < at.count; i += R) {
            register_tile<P, R, V> acc;
            meet_past(s_.erased + i * x.row, x.row, s_.from_k + i * s_.updates, acc);
            acc.store_rows(own + i * s_.column, s_.column);
        }
        const index_t reads = pass == token_pass::write ? 0 : x.reads;
        for (index_t read = 0; read < reads; ++read)
            for (index_t i = 0; i < at.queries; i += R) {
                register_tile<P, R, V> acc;
                meet_past(this->queries(x, read, i), this->query_step(x), s_.from_q + (read * C + i) * s_.updates, acc);
                unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
                    T* const to = x.output(read, at.query + i + r) + c;
                    if (i + r < at.queries)
                        unroll<V>([&](auto v) HEED_INLINE_LAMBDA { store(to + v * L, acc.at[r][v]); });
                });
            }
        P faded[V];
        unroll<V>([&](auto v) HEED_INLINE_LAMBDA { faded[v] = P(T(1)); });
        const auto meet_own = [&](const T* products, index_t updates, P (&to)[V]) HEED_INLINE_LAMBDA {
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA { to[v] *= faded[v]; });
            for (index_t j = 0; j < updates; ++j) {
                const P by(products[base + j]);
                const T* const from = own + j * s_.column;
                unroll<V>([&](auto v) HEED_INLINE_LAMBDA { to[v] = fma(by, load_aligned<P>(from + v * L), to[v]); });
            }
        };
        const auto answer = [&](index_t i, const P (&value)[V]) {
            const index_t t = at.token(i);
            for (index_t read = 0; read < reads; ++read) {
                P o[V];
                T* const to = x.output(read, t) + c;
                unroll<V>([&](auto v) HEED_INLINE_LAMBDA { o[v] = load<P>(to + v * L); });
                meet_own(s_.from_q + (read * C + t - at.query) * s_.updates, i + after, o);
                if constexpr (Read == read_kind::bonus) add_row<V>(o, x.diagonal[read * C + t], value);
                unroll<V>([&](auto v) HEED_INLINE_LAMBDA { o[v] *= P(x.scale); });
                x.put(read, t, c, o);
            }
        };
        for (index_t i = 0; i < at.count; ++i) {
            P value[V], met[V];
            T* const to = own + i * s_.column;
            load_value<V>(x, at.first + i, c, value);
            if (!after && at.opens(i)) answer(i, value);
            const auto erase = [&] {
                unroll<V>([&](auto v) HEED_INLINE_LAMBDA { met[v] = load_aligned<P>(to + v * L); });
                meet_own(s_.from_k + i * s_.updates, i, met);
                unroll<V>([&](auto v) HEED_INLINE_LAMBDA { value[v] += met[v]; });
            };
            if constexpr (low_rank) erase();
            if (at.opens(i)) {
                const T* const decay = x.decay + at.token(i) * x.decay_row + c;
                unroll<V>([&](auto v) HEED_INLINE_LAMBDA {
                    const P by = load_aligned<P>(decay + v * L);
                    faded[v] *= by;
                    for (T* past = own + v * L; past < to; past += s_.column)
                        store_aligned(past, by * load_aligned<P>(past));
                });
            }
            if constexpr (delta) erase();
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA { store_aligned(to + v * L, value[v]); });
            if (after && at.closes(i)) answer(i, value);
        }
        T* const all = s_.columns + at.number * s_.column + first + c;
        unroll<V>([&](auto v) HEED_INLINE_LAMBDA { store_aligned(all + v * L, faded[v]); });
    }
    template <int V>
    static HEED_INLINE void fade(register_tile<P, R, V>& acc, const T* columns) {
        unroll<V>([&](auto v) HEED_INLINE_LAMBDA {
            const P by = load_aligned<P>(columns + v * L);
            unroll<R>([&](auto r) HEED_INLINE_LAMBDA { acc.at[r][v] *= by; });
        });
    }
    /// V packs of the columns of a complex state times a row of complex numbers.
    template <int V>
    static void turn_state(const T* by, const token_rows<T>& x, T* s, index_t stride) {
        for (index_t d = 0; d < x.D; ++d) {
            const P cos(by[d]), sin(by[x.row + d]);
            T *const re = s + d * stride, *const im = s + (x.D + d) * stride;
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA {
                const P y = load_aligned<P>(re + v * L), z = load_aligned<P>(im + v * L);
                store_aligned(re + v * L, cos * y - sin * z);
                store_aligned(im + v * L, fma(sin, y, cos * z));
            });
        }
    }

    /// What update i of the tokens writes of its own, w.
    template <int V>
    static HEED_INLINE void load_value(const token_rows<T>& x, index_t i, index_t c, P (&to)[V]) {
        const index_t row = low_rank ? i / 2 : i;
        [[maybe_unused]] const P by(delta ? x.beta[i] : T(1));
        unroll<V>([&](auto v) HEED_INLINE_LAMBDA {
            to[v] = load<P>(x.v[row] + c + v * L);
            if constexpr (low_rank) to[v] = i % 2 == 0 ? P(T(0)) : to[v];
            if constexpr (delta) to[v] *= by;
        });
    }
    /// Stores the rows of the tokens from i on, R, or `left` where a token has several updates.
    template <int V>
    static HEED_INLINE void put(register_tile<P, R, V>& from, const token_rows<T>& x, index_t read, index_t i,
                                [[maybe_unused]] index_t left, index_t c) {
        unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA { from.at[r][v] *= P(x.scale); });
            if (single || r < left) x.put(read, i + r, c, from.at[r]);
        });
    }
    template <int V>
    static HEED_INLINE void add_row(P (&to)[V], T by, const P (&from)[V]) {
        unroll<V>([&](auto v) HEED_INLINE_LAMBDA { to[v] = fma(P(by), from[v], to[v]); });
    }
};

}  // namespace heed::inline HEED_ABI
