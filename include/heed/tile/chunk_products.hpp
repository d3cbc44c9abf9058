// What the updates of a chunk are to each other, and what they leave for the state, before any value is looked at:
//
//   from_q[i][j] = q_i . P_ij k_j,  from_k[i][j] = e_i . P_ij k_j       P_ij = a_{j+1} ... a_i,  f_i = a_1 ... a_i
//   q_i f_i and e_i f_i, by which the state before the chunk is met; P_nj k_j and f_n, by which it becomes the next
// An update writes k_j u_j^T, u_j = w_j + e_j^T S; e is -beta k for delta steps, and 0 for additive ones. A token has
// one update or several, of which the first decays. S -> A S + a b^T S + k v^T is two: key a, which meets the state
// before the decay by b, then key k. Complex decays have rows of twice the width, queries -Im in their second half;
// those of columns are met by chunked.hpp alone. All factors are products of multipliers <= 1: no exponent is ever
// positive and nothing is divided. Only entries of the past are read, so that a NaN of the future stays there.
#pragma once

#include "../simd/rows.hpp"
#include "token_rows.hpp"

namespace heed::inline HEED_ABI {

/// Updates of a token.
template <class T>
constexpr index_t updates_of_token(update_kind update, const token_rows<T>& x) {
    return update == update_kind::low_rank ? 2 : update == update_kind::householder ? x.steps : 1;
}

/// token_block updates of a chunk, or fewer, and the tokens that are read among them; `first` and `query` count those
/// of the tokens at hand. Single: a token has one update.
template <bool Single>
struct update_block {
    index_t number = 0;  // in the chunk
    index_t each = 1;    // updates of a token
    index_t first = 0, count = 0;
    index_t query = 0, queries = 0;

    /// The token of update i of the block, and whether it is that token's first, or its last.
    index_t token(index_t i) const { return Single ? i : (first + i) / each; }
    bool opens(index_t i) const { return Single || (first + i) % each == 0; }
    bool closes(index_t i) const { return Single || (first + i) % each == each - 1; }
};

/// What a block leaves for later ones: what its updates give to the state.
template <class T>
struct block_keys {
    T* panel;  // (width, token_block): keys decayed to the block's end, updates in the lanes
    T* total;  // the product of its decays: (width), or one number
};

/// Scratch of a chunk: products with its updates, and the blocks.
template <class T>
struct chunk_scratch {
    index_t updates = 0;   // of the chunk, a multiple of token_block
    index_t width = 0;     // of queries and keys: a row, or two where they are complex
    T* q = nullptr;        // (reads, token_block, width): queries decayed from the block's start, then from the chunk's
    T* erased = nullptr;   // updates that erase: (token_block, row): e decayed alike
    T* from_q = nullptr;   // (reads, token_block, updates): q_i . P_ij k_j
    T* from_k = nullptr;   // (token_block, updates)
    T* panels = nullptr;   // (blocks, width, token_block)
    T* totals = nullptr;   // (blocks, width)
    T* u = nullptr;        // (updates, column)
    T* columns = nullptr;  // decays of columns: (blocks, column), the products of each block's
    index_t column = 0;

    template <class Carver>
    chunk_scratch(Carver& from, index_t tokens, const token_rows<T>& x, index_t all_columns, decay_kind decay,
                  update_kind update)
        : updates(round_up(tokens, token_block) * updates_of_token(update, x)),
          width(is_complex(decay) ? 2 * x.row : x.row),
          column(all_columns) {
        const index_t blocks = updates / token_block;
        const bool erases = update != update_kind::additive;
        q = from.template take<T>(x.reads * token_block * width);
        from_q = from.template take<T>(x.reads * token_block * updates);
        erased = from.template take<T>(erases ? token_block * x.row : 0);
        from_k = from.template take<T>(erases ? token_block * updates : 0);
        panels = from.template take<T>(blocks * width * token_block);
        totals = from.template take<T>(blocks * width);
        u = from.template take<T>(updates * column);
        columns = from.template take<T>(decay == decay_kind::columns ? blocks * column : 0);
    }
    block_keys<T> block(index_t i) const { return {panels + i * width * token_block, totals + i * width}; }
};

template <class A, class T, decay_kind Decay, update_kind Update, read_kind Read>
class chunk_products {
protected:
    using P = pack<T, A>;
    using Op = multiply_add<T, A>;
    static constexpr index_t L = lanes<T, A>;
    static constexpr int R = tile_scalars<A>;
    static constexpr index_t C = token_block;
    static constexpr bool low_rank = Update == update_kind::low_rank;
    static constexpr bool delta = Update == update_kind::delta || Update == update_kind::householder;
    static constexpr bool erases = delta || low_rank;
    /// A token has one update.
    static constexpr bool single = Update == update_kind::additive || Update == update_kind::delta;
    static constexpr bool complex = is_complex(Decay), paired = Decay == decay_kind::paired;
    static constexpr bool by_column = Decay == decay_kind::columns;
    static constexpr bool by_row = Decay == decay_kind::rows || complex;
    static constexpr bool alike = Decay == decay_kind::none || by_column;  // keys and queries do not fade
    static constexpr bool after = Read == read_kind::after;
    using block = update_block<single>;
    /// Packs across the updates of a block.
    static constexpr int across = static_cast<int>(C / L);

public:
    chunk_products(const chunk_scratch<T>& scratch) : s_(scratch) {}

    /// The block of the updates from `first` on, of those of the tokens of x.
    static block block_at(const token_rows<T>& x, index_t number, index_t first) {
        if constexpr (single) return {number, 1, 0, x.count, 0, x.count};
        const index_t each = updates_of_token(Update, x), last = std::min(first + C, x.count * each);
        const auto token = [&](index_t update) { return after ? update / each : ceil_div(update, each); };
        return {number, each, first, last - first, token(first), token(last) - token(first)};
    }

    /// Products of a block of a chunk with its own updates and those of the blocks before; what it leaves to later
    /// ones.
    void prepare(const token_rows<T>& x, const block& at) const {
        const block_keys<T> own = s_.block(at.number);
        transpose_keys(x, at, own.panel);
        if constexpr (by_row)
            decay_by_row(x, at, own);
        else
            decay_alike(x, at, own);
        meet_earlier(x, at);
    }

protected:
    /// Queries as the state before the chunk is to be met by them.
    const T* queries(const token_rows<T>& x, index_t read, index_t i) const {
        return alike && single ? x.query(read, i) : s_.q + (read * C + i) * s_.width;
    }
    index_t query_step(const token_rows<T>& x) const { return alike && single ? x.q.step : s_.width; }
    /// Updates of the block that query i meets.
    static index_t seen(const block& at, index_t i) { return (at.query + i + after) * at.each - at.first; }

    chunk_scratch<T> s_;

private:
    /// The key of update i of the tokens.
    static const T* key(const token_rows<T>& x, index_t i) {
        if constexpr (low_rank) return i % 2 == 0 ? x.x + i / 2 * x.row : x.k[i / 2];
        return x.k[i];
    }
    /// panel[d][j] = k_j[d], 0 where there is no update.
    static void transpose_keys(const token_rows<T>& x, const block& at, T* panel) {
        for (index_t j = 0; j < C; j += L)
            for (index_t d = 0; d < (paired ? 2 : 1) * x.row; d += L) {
                P rows[L];
                for (index_t l = 0; l < L; ++l)
                    rows[l] = j + l < at.count ? load<P>(key(x, at.first + j + l) + d) : P(T(0));
                transpose(rows);
                for (index_t l = 0; l < L; ++l) store_aligned(panel + (d + l) * C + j, rows[l]);
            }
        if constexpr (complex && !paired) std::fill_n(panel + x.row * C, x.row * C, T(0));
    }

    /// to (rows, updates) columns [0, C) = rows of a times a panel.
    static HEED_INLINE void meet(const T* a, index_t row, index_t count, const T* panel, index_t D, T* to,
                                 index_t to_stride) {
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

    /// Rows by which updates meet what is there, evenly apart.
    strided_rows<const T> erasing(const token_rows<T>& x, const block& at) const {
        if constexpr (delta) return {x.k[at.first], x.k.step};
        for (index_t i = 0; i < at.count; ++i)
            scaled_row(x.y + at.token(i) * x.row, at.opens(i) ? T(1) : T(0), s_.erased + i * x.row, x.row);
        return {s_.erased, x.row};
    }
    static T erasing_weight(const token_rows<T>& x, const block& at, index_t i) {
        if constexpr (delta) return -x.beta[at.first + i];
        return at.opens(i) ? T(1) : T(0);
    }

    /// A number per token: products first, then the factors P_ij.
    void decay_alike(const token_rows<T>& x, const block& at, const block_keys<T>& own) const {
        T* const near = s_.from_q + at.number * C;
        for (index_t r = 0; r < x.reads; ++r) {
            if constexpr (!single)
                for (index_t i = 0; i < at.queries; ++i)
                    scaled_row(x.query(r, at.query + i), T(1), s_.q + (r * C + i) * s_.width, x.row);
            meet(single ? x.query(r, 0) : s_.q + r * C * s_.width, single ? x.q.step : s_.width, at.queries, own.panel,
                 x.D, near + r * C * s_.updates, s_.updates);
        }
        [[maybe_unused]] strided_rows<const T> by;
        if constexpr (erases) {
            by = erasing(x, at);
            meet(by[0], by.step, at.count, own.panel, x.D, s_.from_k + at.number * C, s_.updates);
        }
        alignas(64) T factor[C] = {};  // P_ij for the present i
        T all = 1;                     // f_i
        const auto finish_update = [&](index_t i) {
            const T weight = erasing_weight(x, at, i);
            weigh(s_.from_k + i * s_.updates + at.number * C, factor, weight);
            scaled_row(by[i], weight * all, s_.erased + i * x.row, x.row);
        };
        for (index_t i = 0; i < at.count; ++i) {
            const T a = Decay == decay_kind::scalar && at.opens(i) ? x.decay[at.token(i)] : T(1);
            if (!after && at.opens(i)) finish_queries(x, at, i, factor, all);
            if constexpr (low_rank) finish_update(i);
            all *= a;
            for (index_t j = 0; j < i; ++j) factor[j] *= a;
            factor[i] = T(1);
            if (after && at.closes(i)) finish_queries(x, at, i, factor, all);
            if constexpr (delta) finish_update(i);
        }
        own.total[0] = all;
        if constexpr (Decay == decay_kind::scalar)
            for (index_t d = 0; d < x.row; ++d)
                for (index_t j = 0; j < C; j += L)
                    store_aligned(own.panel + d * C + j,
                                  load_aligned<P>(factor + j) * load_aligned<P>(own.panel + d * C + j));
    }
    /// The queries of the token of update i.
    void finish_queries(const token_rows<T>& x, const block& at, index_t i, const T* factor, T all) const {
        const index_t t = at.token(i), query = t - at.query;
        for (index_t r = 0; r < x.reads; ++r) {
            T* const row = s_.from_q + (r * C + query) * s_.updates + at.number * C;
            weigh(row, factor, T(1));
            own_key(x, r, t, i, row);
            if constexpr (!alike) scaled_row(x.query(r, t), all, s_.q + (r * C + query) * s_.width, x.row);
        }
    }
    static HEED_INLINE void weigh(T* row, const T* factor, T by) {
        if constexpr (alike && !erases) return;
        for (index_t j = 0; j < C; j += L)
            store_aligned(row + j, P(by) * load_aligned<P>(factor + j) * load_aligned<P>(row + j));
    }
    /// What a query makes of its own token's value.
    static HEED_INLINE void own_key(const token_rows<T>& x, index_t read, index_t t, index_t i, T* row) {
        if constexpr (Read == read_kind::bonus) row[i] = x.diagonal[read * C + t];
        if constexpr (Read == read_kind::before) row[i] = T(0);
    }

    /// A number per row: the panel is decayed token by token, and each update's row met on the way.
    void decay_by_row(const token_rows<T>& x, const block& at, const block_keys<T>& own) const {
        T* const all = own.total;
        std::fill_n(all, x.row, T(1));
        std::fill_n(all + x.row, s_.width - x.row, T(0));
        const auto finish_update = [&](index_t i) {
            T* const row = s_.from_k + i * s_.updates + at.number * C;
            const T* const e = low_rank ? x.y + at.token(i) * x.row : x.k[at.first + i];
            const T weight = erasing_weight(x, at, i);
            dot_panel(e, own.panel, x.row, weight, row);
            for (index_t d = 0; d < x.row; d += L)
                store_aligned(s_.erased + i * x.row + d, P(weight) * load_aligned<P>(all + d) * load<P>(e + d));
        };
        for (index_t i = 0; i < at.count; ++i) {
            if (!after && at.opens(i)) meet_queries(x, at, i, own.panel, all);
            if constexpr (low_rank) finish_update(i);
            if (at.opens(i)) decay_all(x, x.decay + at.token(i) * x.decay_row, i, own);
            if (after && at.closes(i)) meet_queries(x, at, i, own.panel, all);
            if constexpr (delta) finish_update(i);
        }
    }
    void meet_queries(const token_rows<T>& x, const block& at, index_t i, const T* panel, const T* all) const {
        const index_t t = at.token(i), query = t - at.query;
        for (index_t r = 0; r < x.reads; ++r) {
            T* const row = s_.from_q + (r * C + query) * s_.updates + at.number * C;
            const T* const q = x.query(r, t);
            T* const met = s_.q + (r * C + query) * s_.width;
            dot_panel(q, panel, paired ? s_.width : x.row, T(1), row);
            own_key(x, r, t, i, row);
            if constexpr (complex) {
                std::copy_n(q, paired ? s_.width : x.row, met);
                if constexpr (!paired) std::fill_n(met + x.row, x.row, T(0));
                turn<true>(all, met, x.row);
            } else {
                for (index_t d = 0; d < x.row; d += L)
                    store_aligned(met + d, load_aligned<P>(all + d) * load<P>(q + d));
            }
        }
    }
    /// What is there before update i, and its keys, forget by the row a.
    void decay_all(const token_rows<T>& x, const T* a, index_t i, const block_keys<T>& own) const {
        if constexpr (complex) {
            turn<false>(a, own.total, x.row);
            for (index_t d = 0; d < x.row; ++d)
                for (index_t j = 0; j < i; j += L) {
                    const P cos(a[d]), sin(a[x.row + d]);
                    T *const re = own.panel + d * C + j, *const im = re + x.row * C;
                    const P x0 = load_aligned<P>(re), y0 = load_aligned<P>(im);
                    const auto past = iota<P>() < P(static_cast<T>(i - j));
                    store_aligned(re, select(past, cos * x0 - sin * y0, x0));
                    store_aligned(im, select(past, fma(sin, x0, cos * y0), y0));
                }
        } else {
            for (index_t d = 0; d < x.row; d += L)
                store_aligned(own.total + d, load_aligned<P>(own.total + d) * load_aligned<P>(a + d));
            decay_lanes(own.panel, a, x.row, i);
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
    /// The complex row z = (Re, Im) times the row a, or times its conjugate.
    template <bool Conjugate>
    static HEED_INLINE void turn(const T* a, T* z, index_t row) {
        for (index_t d = 0; d < row; d += L) {
            const P cos = load_aligned<P>(a + d), im = load_aligned<P>(a + row + d), sin = Conjugate ? -im : im;
            const P x = load_aligned<P>(z + d), y = load_aligned<P>(z + row + d);
            store_aligned(z + d, cos * x - sin * y);
            store_aligned(z + row + d, fma(sin, x, cos * y));
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
    void meet_earlier(const token_rows<T>& x, const block& at) const {
        const index_t depth = complex ? s_.width : x.D;
        for (index_t b = at.number; b-- > 0;) {
            const block_keys<T> keys = s_.block(b);
            for (index_t r = 0; r < x.reads; ++r)
                meet(queries(x, r, 0), query_step(x), at.queries, keys.panel, depth,
                     s_.from_q + r * C * s_.updates + b * C, s_.updates);
            if constexpr (erases) meet(s_.erased, x.row, at.count, keys.panel, x.D, s_.from_k + b * C, s_.updates);
            if constexpr (alike) continue;
            for (index_t i = 0; i < x.reads * C; ++i)
                if (i % C < at.queries) pass_over(keys, s_.q + i * s_.width, x.row);
            if constexpr (erases)
                for (index_t i = 0; i < at.count; ++i) pass_over(keys, s_.erased + i * x.row, x.row);
        }
    }
    static HEED_INLINE void pass_over(const block_keys<T>& block, T* to, index_t row) {
        if constexpr (complex) return turn<true>(block.total, to, row);
        for (index_t d = 0; d < row; d += L) {
            const P by = by_row ? load_aligned<P>(block.total + d) : P(block.total[0]);
            store_aligned(to + d, by * load_aligned<P>(to + d));
        }
    }
};

}  // namespace heed::inline HEED_ABI
