// The recurrence by blocks of tokens, as matrix products, for decays that are a number or a number per row of the state:
//
//   o_i = (q_i * f_i) S + sum_{j <= i} (q_i . P_ij k_j) u_j      f_i = a_1 ... a_i,  P_ij = a_{j+1} ... a_i
//   S'  = f_n S + sum_j (P_nj k_j) u_j^T
//   u   = v, or for the delta rule the solution of  u_i = beta_i (v_i - (k_i * f_i) S - sum_{j < i} (k_i . P_ij k_j) u_j)
// S is that before the chunk; a chunk is one block or many, whose later blocks meet the earlier ones through their keys,
// decayed to the end of each block, and the decays of the blocks between. All factors are products of multipliers <= 1: no
// exponent is ever positive and nothing is divided. Only entries of the past are read, so that a NaN of the future stays there.
// Cost: 4 D E + c (D + E) multiply-adds' flops a token for chunks of c (delta: 6 D E + c (2 D + 2 E)).
// Source: Yang et al., arXiv:2312.06635 (secondary chunks), arXiv:2406.06484 (delta rule).
#pragma once

#include "../simd/rows.hpp"
#include "token_rows.hpp"

namespace heed::inline HEED_ABI {

/// What a block leaves for later ones: what its tokens give to the state.
template <class T>
struct block_keys {
    T* panel;  // (row, token_block): keys decayed to the block's end, tokens in the lanes
    T* total;  // the product of its decays: (row), or one number
};

/// Scratch of a chunk: products with its tokens, and the blocks.
template <class T>
struct chunk_scratch {
    index_t tokens = 0;      // of the chunk, a multiple of token_block
    T* q = nullptr;          // (reads, token_block, row): queries decayed from the block's start, then from the chunk's
    T* erased = nullptr;     // delta: (token_block, row): -beta times the keys, decayed alike
    T* from_q = nullptr;     // (reads, token_block, tokens): q_i . P_ij k_j
    T* from_k = nullptr;     // delta: (token_block, tokens)
    T* panels = nullptr;     // (blocks, row, token_block)
    T* totals = nullptr;     // (blocks, row)
    T* u = nullptr;          // (tokens, column)
    index_t column = 0;

    template <class Carver>
    chunk_scratch(Carver& from, index_t chunk, const token_rows<T>& x, index_t columns, bool delta) : tokens(round_up(chunk, token_block)) {
        const index_t blocks = tokens / token_block;
        q = from.template take<T>(x.reads * token_block * x.row);
        from_q = from.template take<T>(x.reads * token_block * tokens);
        erased = from.template take<T>(delta ? token_block * x.row : 0);
        from_k = from.template take<T>(delta ? token_block * tokens : 0);
        panels = from.template take<T>(blocks * x.row * token_block);
        totals = from.template take<T>(blocks * x.row);
        column = columns;
        u = from.template take<T>(tokens * column);
    }
    block_keys<T> block(index_t i, index_t row) const {
        return {panels + i * row * token_block, totals + i * row};
    }
};

template <class A, class T, decay_kind Decay, update_kind Update, read_kind Read>
class chunked_tile {
    static_assert(Decay == decay_kind::none || Decay == decay_kind::scalar || Decay == decay_kind::rows);
    static_assert(Update == update_kind::additive || Update == update_kind::delta);
    using P = pack<T, A>;
    using Op = multiply_add<T, A>;
    static constexpr index_t L = lanes<T, A>;
    static constexpr int R = tile_scalars<A>;
    static constexpr bool delta = Update == update_kind::delta;
    static constexpr bool by_row = Decay == decay_kind::rows;
    static constexpr index_t C = token_block;
    /// Packs across the tokens of a block.
    static constexpr int across = static_cast<int>(C / L);

public:
    /// Packs of columns a register tile takes.
    static constexpr int packs = 2;

    chunked_tile(const chunk_scratch<T>& scratch) : s_(scratch) {}

    /// Products of block `block` of a chunk with its own tokens and those of the blocks before; what it leaves to later ones.
    void prepare(const token_rows<T>& x, index_t block) const {
        const block_keys<T> own = s_.block(block, x.row);
        transpose_keys(x, own.panel);
        if constexpr (by_row)
            decay_by_row(x, block, own);
        else
            decay_alike(x, block, own);
        meet_earlier(x, block);
    }

    /// Fills u of the block from pack `first` on and writes o, for `count` packs of values; s is the state before the chunk.
    void read(const token_rows<T>& x, index_t block, index_t first, index_t count, const T* s, index_t stride,
              token_pass pass) const {
        for_packs<packs>(count, [&](auto v, index_t at) HEED_INLINE_LAMBDA {
            block_columns<v>(x, block, first * L, at * L, s + at * L, stride, pass);
        });
    }

    /// Adds blocks [0, blocks) to the state.
    void write(const token_rows<T>& x, index_t blocks, index_t tokens, index_t first, index_t count, T* s,
               index_t stride) const {
        for (index_t b = 0; b < blocks; ++b) {
            const block_keys<T> keys = s_.block(b, x.row);
            const index_t depth = std::min(C, tokens - b * C);
            for_packs<packs>(count, [&](auto v, index_t at) HEED_INLINE_LAMBDA {
                const T* u = s_.u + b * C * s_.column + (first + at) * L;
                for (index_t d = 0; d < x.D; d += R) {
                    x.ahead->ask(4);
                    T* const to = s + d * stride + at * L;
                    register_tile<P, R, v> acc;
                    acc.load_rows(to, stride);
                    if constexpr (Decay != decay_kind::none)
                        unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
                            const P by(keys.total[by_row ? d + r : 0]);
                            unroll<v>([&](auto c) HEED_INLINE_LAMBDA { acc.at[r][c] *= by; });
                        });
                    multiply<Op>(acc, keys.panel + d * C, static_index<static_cast<int>(C)>{}, static_index<1>{}, u,
                                 s_.column, depth);
                    acc.store_rows(to, stride);
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
                    put(acc, x, read, i, at * L);
                }
        });
    }

private:
    /// panel[d][j] = k_j[d], 0 where there is no token.
    static void transpose_keys(const token_rows<T>& x, T* panel) {
        for (index_t j = 0; j < C; j += L)
            for (index_t d = 0; d < x.row; d += L) {
                P rows[L];
                for (index_t l = 0; l < L; ++l)
                    rows[l] = j + l < x.count ? load<P>(x.k[j + l] + d) : P(T(0));
                transpose(rows);
                for (index_t l = 0; l < L; ++l) store_aligned(panel + (d + l) * C + j, rows[l]);
            }
    }

    /// to (rows, tokens) columns [0, C) = rows of a times a panel.
    static HEED_INLINE void meet(const T* a, index_t row, index_t count, const T* panel, index_t D, T* to, index_t to_stride) {
        for (index_t i = 0; i < count; i += R)
            for_packs<2>(across, [&](auto v, index_t at) HEED_INLINE_LAMBDA {
                register_tile<P, R, v> acc;
                acc.clear();
                multiply<Op>(acc, a + i * row, row, static_index<1>{}, panel + at * L, C, D);
                acc.store_rows(to + i * to_stride + at * L, to_stride);
            });
    }

    static HEED_INLINE void scaled_row(const T* from, T by, T* to, index_t row) {
        for (index_t d = 0; d < row; d += L) store_aligned(to + d, P(by) * load<P>(from + d));
    }

    /// A number per token: products first, then the factors P_ij.
    void decay_alike(const token_rows<T>& x, index_t block, const block_keys<T>& own) const {
        T* const near = s_.from_q + block * C;
        for (index_t r = 0; r < x.reads; ++r)
            meet(x.query(r, 0), x.q.step, x.count, own.panel, x.D, near + r * C * s_.tokens, s_.tokens);
        if constexpr (delta) meet(x.k[0], x.k.step, x.count, own.panel, x.D, s_.from_k + block * C, s_.tokens);
        alignas(64) T factor[C] = {};  // P_ij for the present i
        T all = 1;                     // f_i
        for (index_t i = 0; i < x.count; ++i) {
            const T before = all;
            const T a = Decay == decay_kind::scalar ? x.decay[i] : T(1);
            if constexpr (Read != read_kind::after) finish_queries(x, block, i, factor, before);
            all *= a;
            for (index_t j = 0; j < i; ++j) factor[j] *= a;
            factor[i] = T(1);
            if constexpr (Read == read_kind::after) finish_queries(x, block, i, factor, all);
            if constexpr (delta) {
                weigh(s_.from_k + i * s_.tokens + block * C, factor, -x.beta[i]);
                scaled_row(x.k[i], -x.beta[i] * all, s_.erased + i * x.row, x.row);
            }
        }
        own.total[0] = all;
        if constexpr (Decay == decay_kind::scalar)
            for (index_t d = 0; d < x.row; ++d)
                for (index_t j = 0; j < C; j += L)
                    store_aligned(own.panel + d * C + j, load_aligned<P>(factor + j) * load_aligned<P>(own.panel + d * C + j));
    }
    void finish_queries(const token_rows<T>& x, index_t block, index_t i, const T* factor, T all) const {
        for (index_t r = 0; r < x.reads; ++r) {
            T* const row = s_.from_q + (r * C + i) * s_.tokens + block * C;
            weigh(row, factor, T(1));
            own_key(x, r, i, row);
            if constexpr (Decay != decay_kind::none) scaled_row(x.query(r, i), all, s_.q + (r * C + i) * x.row, x.row);
        }
    }
    static HEED_INLINE void weigh(T* row, const T* factor, T by) {
        if constexpr (Decay == decay_kind::none && !delta) return;
        for (index_t j = 0; j < C; j += L)
            store_aligned(row + j, P(by) * load_aligned<P>(factor + j) * load_aligned<P>(row + j));
    }
    /// What a query makes of its own token's value.
    static HEED_INLINE void own_key(const token_rows<T>& x, index_t read, index_t i, T* row) {
        if constexpr (Read == read_kind::bonus) row[i] = x.diagonal[read * C + i];
        if constexpr (Read == read_kind::before) row[i] = T(0);
    }

    /// A number per row: the panel is decayed token by token, and each token's row met on the way.
    void decay_by_row(const token_rows<T>& x, index_t block, const block_keys<T>& own) const {
        T* const all = own.total;
        std::fill_n(all, x.row, T(1));
        for (index_t i = 0; i < x.count; ++i) {
            const T* const a = x.decay + i * x.decay_row;
            if constexpr (Read != read_kind::after) meet_queries(x, block, i, own.panel, all);
            for (index_t d = 0; d < x.row; d += L) store_aligned(all + d, load_aligned<P>(all + d) * load_aligned<P>(a + d));
            decay_lanes(own.panel, a, x.row, i);
            if constexpr (Read == read_kind::after) meet_queries(x, block, i, own.panel, all);
            if constexpr (delta) {
                T* const row = s_.from_k + i * s_.tokens + block * C;
                dot_panel(x.k[i], own.panel, x.row, -x.beta[i], row);
                const P by(-x.beta[i]);
                for (index_t d = 0; d < x.row; d += L)
                    store_aligned(s_.erased + i * x.row + d,
                                  by * load_aligned<P>(all + d) * load<P>(x.k[i] + d));
            }
        }
    }
    void meet_queries(const token_rows<T>& x, index_t block, index_t i, const T* panel, const T* all) const {
        for (index_t r = 0; r < x.reads; ++r) {
            T* const row = s_.from_q + (r * C + i) * s_.tokens + block * C;
            const T* const q = x.query(r, i);
            dot_panel(q, panel, x.row, T(1), row);
            own_key(x, r, i, row);
            for (index_t d = 0; d < x.row; d += L)
                store_aligned(s_.q + (r * C + i) * x.row + d, load_aligned<P>(all + d) * load<P>(q + d));
        }
    }
    /// Tokens before i forget by a[d].
    static HEED_INLINE void decay_lanes(T* panel, const T* a, index_t row, index_t i) {
        for (index_t j = 0; j < i; j += L) {
            const auto past = iota<P>() < P(static_cast<T>(i - j));
            const P one(T(1));
            for (index_t d = 0; d < row; ++d) {
                T* const at = panel + d * C + j;
                store_aligned(at, load_aligned<P>(at) * select(past, P(a[d]), one));
            }
        }
    }
    /// to[j] = by * sum_d x[d] panel[d][j], in four chains.
    static HEED_INLINE void dot_panel(const T* x, const T* panel, index_t row, T by, T* to) {
        constexpr int chains = 4;
        for (index_t j = 0; j < C; j += L) {
            P sum[chains];
            unroll<chains>([&](auto c) HEED_INLINE_LAMBDA { sum[c] = P(T(0)); });
            for (index_t d = 0; d < row; d += chains)
                unroll<chains>([&](auto c) HEED_INLINE_LAMBDA {
                    sum[c] = fma(P(x[d + c]), load_aligned<P>(panel + (d + c) * C + j), sum[c]);
                });
            store_aligned(to + j, P(by) * ((sum[0] + sum[1]) + (sum[2] + sum[3])));
        }
    }

    /// Products with the blocks before, nearest first; then the queries are those of the chunk's start.
    void meet_earlier(const token_rows<T>& x, index_t block) const {
        for (index_t b = block; b-- > 0;) {
            const block_keys<T> keys = s_.block(b, x.row);
            for (index_t r = 0; r < x.reads; ++r)
                meet(queries(x, r, 0), query_step(x), x.count, keys.panel, x.D, s_.from_q + r * C * s_.tokens + b * C, s_.tokens);
            if constexpr (delta) meet(s_.erased, x.row, x.count, keys.panel, x.D, s_.from_k + b * C, s_.tokens);
            if constexpr (Decay == decay_kind::none) continue;
            for (index_t i = 0; i < x.reads * C; ++i)
                if (i % C < x.count) pass_over(keys, s_.q + i * x.row, x.row);
            if constexpr (delta)
                for (index_t i = 0; i < x.count; ++i) pass_over(keys, s_.erased + i * x.row, x.row);
        }
    }
    static HEED_INLINE void pass_over(const block_keys<T>& block, T* to, index_t row) {
        for (index_t d = 0; d < row; d += L) {
            const P by = by_row ? load_aligned<P>(block.total + d) : P(block.total[0]);
            store_aligned(to + d, by * load_aligned<P>(to + d));
        }
    }

    template <int V>
    HEED_INLINE void block_columns(const token_rows<T>& x, index_t block, index_t first, index_t c, const T* s,
                                   index_t stride, token_pass pass) const {
        const index_t base = block * C;
        T* const u = s_.u + first + c;
        for (index_t i = 0; i < x.count; i += R) {
            x.ahead->ask(8);
            register_tile<P, R, V> acc;
            load_values(acc, x, i, c);
            if constexpr (delta) {
                unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
                    const P by(x.beta[i + r]);
                    unroll<V>([&](auto v) HEED_INLINE_LAMBDA { acc.at[r][v] *= by; });
                });
                multiply<Op>(acc, s_.erased + i * x.row, x.row, static_index<1>{}, s, stride, x.D);
                const T* const row = s_.from_k + i * s_.tokens;
                multiply<Op>(acc, row, s_.tokens, static_index<1>{}, u, s_.column, base + i);
                unroll<R>([&](auto j) HEED_INLINE_LAMBDA {
                    unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
                        if constexpr (r > j) add_row<V>(acc.at[r], row[r * s_.tokens + base + i + j], acc.at[j]);
                    });
                });
            }
            acc.store_rows(u + (base + i) * s_.column, s_.column);
        }
        if (pass == token_pass::write) return;
        constexpr int own = Read == read_kind::before ? 1 : 0;  // the last token a query sees is the one before its own
        for (index_t read = 0; read < x.reads; ++read)
            for (index_t i = 0; i < x.count; i += R) {
                x.ahead->ask(8);
                register_tile<P, R, V> acc;
                acc.clear();
                multiply<Op>(acc, queries(x, read, i), query_step(x), static_index<1>{}, s, stride, x.D);
                const T* const row = s_.from_q + (read * C + i) * s_.tokens;
                multiply<Op>(acc, row, s_.tokens, static_index<1>{}, u, s_.column, base + i);
                unroll<R - own>([&](auto j) HEED_INLINE_LAMBDA {
                    P key[V];
                    unroll<V>([&](auto v) HEED_INLINE_LAMBDA {
                        key[v] = load_aligned<P>(u + (base + i + j) * s_.column + v * L);
                    });
                    unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
                        if constexpr (r >= j + own) add_row<V>(acc.at[r], row[r * s_.tokens + base + i + j], key);
                    });
                });
                put(acc, x, read, i, c);
            }
    }
    /// Queries as the state before the chunk is to be met by them.
    const T* queries(const token_rows<T>& x, index_t read, index_t i) const {
        return Decay == decay_kind::none ? x.query(read, i) : s_.q + (read * C + i) * x.row;
    }
    static index_t query_step(const token_rows<T>& x) { return Decay == decay_kind::none ? x.q.step : x.row; }
    template <int V>
    static HEED_INLINE void load_values(register_tile<P, R, V>& to, const token_rows<T>& x, index_t i, index_t c) {
        unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA { to.at[r][v] = load<P>(x.v[i + r] + c + v * L); });
        });
    }
    template <int V>
    static HEED_INLINE void put(register_tile<P, R, V>& from, const token_rows<T>& x, index_t read, index_t i, index_t c) {
        unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
            unroll<V>([&](auto v) HEED_INLINE_LAMBDA { from.at[r][v] *= P(x.scale); });
            x.put(read, i + r, c, from.at[r]);
        });
    }
    template <int V>
    static HEED_INLINE void add_row(P (&to)[V], T by, const P (&from)[V]) {
        unroll<V>([&](auto v) HEED_INLINE_LAMBDA { to[v] = fma(P(by), from[v], to[v]); });
    }

    chunk_scratch<T> s_;
};

}  // namespace heed::inline HEED_ABI
