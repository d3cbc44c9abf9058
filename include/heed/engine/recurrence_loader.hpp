// Tokens of a recurrence's operands, as the rows its kernels read: numbers of T, scaled, mapped to features, gates
// exponentiated.
#pragma once

#include "../policy/decay.hpp"
#include "../policy/feature.hpp"
#include "../policy/update.hpp"
#include "state.hpp"

namespace heed::inline HEED_ABI::detail {

template <class A, class T, class Q, class K, class V, class Decay, class Update, class Read, class Features>
struct recurrence_loader {
    static constexpr index_t L = lanes<T, A>;
    static constexpr decay_kind decay = Decay::kind;
    static constexpr update_kind update = Update::kind;
    static constexpr read_kind read = Read::kind;
    static constexpr bool mapped = !std::is_same_v<Features, identity_features>;

    view<const Q> q;
    view<const K> k;
    view<const V> v;
    Decay forget;
    Update write;
    Read observe;
    Features features;
    T scale;
    recurrence_extents x;  // D: rows of a state, so the width of features

    index_t reads() const { return x.heads > 0 ? std::max<index_t>(1, q.shape[1] / x.heads) : 1; }
    /// Rows of a state, real and imaginary.
    index_t state_rows() const { return decay == decay_kind::complex ? 2 * x.D : x.D; }
    static constexpr index_t row_of(index_t width) { return round_up(std::max<index_t>(width, 1), std::max<index_t>(L, 8)); }

    /// Memory of the rows of a block.
    struct space {
        index_t D, row, column, reads, steps;
        T *q, *k, *v, *decay, *beta, *x, *y, *diagonal, *raw;

        space(const recurrence_loader& l, carver& from, index_t columns)
            : D(l.x.D), row(row_of(l.x.D)), column(columns), reads(l.reads()), steps(l.write.steps()) {
            constexpr index_t C = token_block;
            const bool wide = update == update_kind::low_rank ||
                              (Decay::kind == decay_kind::rows && update != update_kind::additive);
            q = from.take<T>(reads * C * row);
            k = from.take<T>(C * steps * row);
            v = from.take<T>(round_up(C * steps, C) * column);
            decay = from.take<T>(C * (Decay::kind == decay_kind::columns   ? column
                                      : Decay::kind == decay_kind::complex ? 2 * row
                                      : Decay::kind == decay_kind::rows    ? row
                                                                           : 1));
            beta = from.take<T>(C * steps);
            x = from.take<T>(update == update_kind::low_rank ? C * row : 0);
            y = from.take<T>(wide ? C * row : 0);
            diagonal = from.take<T>(read == read_kind::bonus ? reads * C + row : 0);
            raw = from.take<T>(mapped ? row_of(l.q.shape[3]) : 0);
        }
        token_rows<T> rows() const {
            token_rows<T> r;
            r.D = D;
            r.row = row;
            r.column = column;
            r.reads = reads;
            r.steps = steps;
            r.q = q;
            r.k = k;
            r.v = v;
            r.decay = decay;
            r.beta = beta;
            r.x = x;
            r.y = y;
            r.diagonal = diagonal;
            return r;
        }
    };

    /// Tokens t, t + 1, ... of a walk, at most token_block, for state head h and value columns `values`.
    token_rows<T> rows(const space& s, const token_walk& all, index_t t, index_t h, range values, bool with_ones,
                       token_pass pass) const {
        const token_walk at = all.part(t, std::min(token_block, all.count - t));
        token_rows<T> r = s.rows();
        r.count = at.count;
        if (pass != token_pass::write) load_queries(s, all, at, h);
        if (pass == token_pass::read) return r;
        load_keys(s, all, at, h);
        load_values(s, at, h, values, with_ones);
        load_gates(s, at, h, values);
        if constexpr (read == read_kind::bonus) load_diagonal(s, at, h);
        return r;
    }

private:
    void load_queries(const space& s, const token_walk& all, const token_walk& at, index_t h) const {
        for (index_t r = 0; r < s.reads; ++r) {
            const index_t head = q.shape[1] >= x.heads ? h * s.reads + r : serving(h, x.heads, q.shape[1]);
            for (index_t i = 0; i < at.count; ++i) {
                T* const to = s.q + (r * token_block + i) * s.row;
                map_row(q, all, at.b, head, at[i], at[i], true, s, to);
                for (index_t d = 0; d < s.row; d += L) store_aligned(to + d, P(scale) * load_aligned<P>(to + d));
            }
        }
    }
    void load_keys(const space& s, const token_walk& all, const token_walk& at, index_t h) const {
        const index_t head = serving(h, x.heads, k.shape[1]);
        for (index_t i = 0; i < at.count; ++i)
            for (index_t m = 0; m < s.steps; ++m)
                map_row(k, all, at.b, head, at.row(i, m, s.steps), at[i], false, s, s.k + (i * s.steps + m) * s.row);
    }
    template <class S>
    void map_row(const view<const S>& from, const token_walk& all, index_t b, index_t head, index_t n, index_t token,
                 bool query, const space& s, T* to) const {
        if constexpr (mapped) {
            load_row<A>(from, b, head, n, s.raw);
            const index_t first = std::min(all.first, all[all.count - 1]);
            features(static_cast<const T*>(s.raw), from.shape[3], to, feature_place{b, head, token - first, all.count, query});
        } else {
            load_row<A>(from, b, head, n, to);
        }
        std::fill(to + s.D, to + s.row, T(0));
    }
    void load_values(const space& s, const token_walk& at, index_t h, range values, bool with_ones) const {
        const index_t head = serving(h, x.heads, v.shape[1]), ones = round_up(std::max<index_t>(values.size(), 1), L);
        const auto columns = slice(v, 3, values);
        for (index_t i = 0; i < at.count; ++i)
            for (index_t m = 0; m < s.steps; ++m) {
                T* const to = s.v + (i * s.steps + m) * s.column;
                load_row<A>(columns, at.b, head, at.row(i, m, s.steps), to);
                std::fill(to + values.size(), to + s.column, T(0));
                if (with_ones) to[ones] = T(1);
            }
    }
    void load_gates(const space& s, const token_walk& at, index_t h, range values) const {
        if constexpr (decay == decay_kind::columns) {
            forget.template load_columns<A>(at, h, x.heads, s.decay, s.column, values);
        } else {
            forget.template load<A>(at, h, x.heads, s.decay, s.row);
        }
        if constexpr (update == update_kind::delta || update == update_kind::householder) {
            const index_t head = serving(h, x.heads, write.beta.shape[1]);
            for (index_t i = 0; i < at.count; ++i)
                for (index_t m = 0; m < s.steps; ++m)
                    s.beta[i * s.steps + m] = static_cast<T>(write.beta(at.b, head, at.row(i, m, s.steps)));
            if constexpr (decay == decay_kind::rows)
                for (index_t i = 0; i < at.count; ++i)
                    for (index_t d = 0; d < s.row; d += L)
                        store_aligned(s.y + i * s.row + d, load_aligned<P>(s.decay + i * s.row + d) *
                                                               load_aligned<P>(s.k + i * s.steps * s.row + d));
        }
        if constexpr (update == update_kind::low_rank)
            for (index_t i = 0; i < at.count; ++i) {
                load_row<A>(write.a, at.b, serving(h, x.heads, write.a.shape[1]), at[i], s.x + i * s.row);
                load_row<A>(write.b, at.b, serving(h, x.heads, write.b.shape[1]), at[i], s.y + i * s.row);
            }
    }
    /// sum_d q u k of each token: what it sees of its own value.
    void load_diagonal(const space& s, const token_walk& at, index_t h) const {
        const index_t head = serving(h, x.heads, observe.u.shape[0]);
        T* const weighted = s.diagonal + s.reads * token_block;
        for (index_t i = 0; i < at.count; ++i) {
            const T* const key = s.k + i * s.row;
            for (index_t d = 0; d < s.D; ++d) weighted[d] = static_cast<T>(observe.u(head, d)) * key[d];
            for (index_t r = 0; r < s.reads; ++r) {
                const T* const query = s.q + (r * token_block + i) * s.row;
                T sum = 0;
                for (index_t d = 0; d < s.D; ++d) sum += query[d] * weighted[d];
                s.diagonal[r * token_block + i] = sum;
            }
        }
    }

    using P = pack<T, A>;
};

}  // namespace heed::inline HEED_ABI::detail
