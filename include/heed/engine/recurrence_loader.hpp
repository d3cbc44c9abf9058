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
    static constexpr bool paired = std::is_same_v<Features, complex_rows>;
    static_assert(!paired || Decay::kind == decay_kind::complex,
                  "heed: complex rows of q and k go with a complex decay");
    static constexpr decay_kind decay = paired ? decay_kind::paired : Decay::kind;
    static constexpr update_kind update = Update::kind;
    static constexpr read_kind read = Read::kind;
    static constexpr bool mapped = !std::is_same_v<Features, identity_features>;
    static constexpr bool weighted = requires(const Update& u) { u.template weight<T>(0, 0, 0, 0); };  // rows of k

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
    index_t state_rows() const { return is_complex(decay) ? 2 * x.D : x.D; }
    static constexpr index_t row_of(index_t width) { return round_up(std::max<index_t>(width, 1), std::max<index_t>(L, 8)); }

    /// Memory of the rows of a block, for what cannot be read where it is.
    struct space {
        index_t row, width, column;  // of a key, of what is loaded of it, of a value
        T *q, *k, *v, *o, *decay, *beta, *x, *y, *diagonal, *near, *raw;

        space(const recurrence_loader& l, carver& from, index_t columns)
            : row(row_of(l.x.D)), width(paired ? 2 * row : row), column(round_up(std::max<index_t>(columns, 1), L)) {
            constexpr index_t C = token_block;
            const index_t steps = l.write.steps(), reads = l.reads();
            constexpr bool wide = update == update_kind::low_rank ||
                                  (Decay::kind == decay_kind::rows && update != update_kind::additive);
            q = from.take<T>(reads * C * width);
            k = from.take<T>(C * steps * width);
            v = from.take<T>(C * steps * column);
            o = from.take<T>(reads * C * column);
            decay = from.take<T>(C * l.decay_row(column));
            beta = from.take<T>(C * steps);
            x = from.take<T>(update == update_kind::low_rank ? C * row : 0);
            y = from.take<T>(wide ? C * row : 0);
            diagonal = from.take<T>(read == read_kind::bonus ? reads * C + row : 0);
            near = from.take<T>(decay_kind::scalar == Decay::kind ? near_tokens<T>::all : 0);
            raw = from.take<T>(mapped ? row_of(l.q.shape[3]) : 0);
        }
    };
    index_t decay_row(index_t column) const {
        return decay == decay_kind::columns ? column
               : is_complex(decay)          ? 2 * row_of(x.D)
               : decay == decay_kind::rows  ? row_of(x.D)
                                            : 1;
    }
    /// The extents of a block's rows.
    token_rows<T> shape() const {
        token_rows<T> r;
        r.D = x.D;
        r.row = row_of(x.D);
        r.reads = reads();
        r.steps = write.steps();
        r.scale = scale;
        return r;
    }

    /// Tokens t, t + 1, ... of a walk, at most token_block, for state head h and value columns `values`. Rows are read and
    /// written where they are if `in_place`, and if they are of type T in whole packs; outputs are, if `direct` says so.
    template <class O>
    token_rows<T> rows(const space& s, const token_walk& all, index_t t, index_t h, range values, const view<O>* direct,
                       bool blockwise, token_pass pass) const {
        const token_walk at = all.part(t, std::min(token_block, all.count - t));
        const bool in_place = !blockwise || at.count == token_block;
        token_rows<T> r = shape();
        r.count = at.count;
        r.decay = s.decay;
        r.decay_row = decay_row(s.column);
        r.beta = s.beta;
        r.x = s.x;
        r.y = s.y;
        r.diagonal = s.diagonal;
        r.near = s.near;
        r.o = {s.o, s.column};
        r.o_read = token_block * s.column;
        if (direct && in_place) {
            if constexpr (std::is_same_v<O, T>)
                if (direct->strides[3] == 1 && values.size() > 0 && values.size() % L == 0) {
                    r.o = {&(*direct)(at.b, h * r.reads, at[0], values.first), at.step * direct->strides[2]};
                    r.o_read = direct->strides[1];
                    r.around = outweighs_caches(*direct) && starts_line(r.o.data);
                }
        }
        if (pass == token_pass::write)
            r.reads = 0;
        else
            load_queries(r, s, all, at, h, in_place);
        if (pass == token_pass::read) return r;
        load_keys(r, s, all, at, h, in_place);
        load_values(r, s, at, h, values, in_place);
        load_gates(r, s, at, h, values);
        if constexpr (read == read_kind::bonus) load_diagonal(r, s, h);
        return r;
    }

    /// The rows of the tokens after a block's; outputs too, since a line is read before a part of it is written.
    template <class O>
    lines_ahead after(const token_walk& all, index_t t, index_t h, range values, const view<O>& o,
                      token_pass pass) const {
        const index_t done = std::min(t + token_block, all.count);
        const token_walk next = all.part(done, std::min(token_block, all.count - done));
        lines_ahead lines;
        const auto add = [&](const auto& from, index_t head, index_t steps, range columns) {
            using S = typename std::remove_cvref_t<decltype(from)>::value_type;
            constexpr auto size = static_cast<index_t>(sizeof(S));
            if (from.data && from.strides[3] == 1 && next.count > 0)
                lines.add(&from(next.b, head, std::min(next[0], next[next.count - 1]) * steps, columns.first),
                          from.strides[2] * size, next.count * steps, columns.size() * size);
        };
        const index_t steps = write.steps();
        if (pass != token_pass::read) add(k, serving(h, x.heads, k.shape[1]), steps, {0, k.shape[3]});
        if (pass != token_pass::write && q.shape[1] <= x.heads)
            add(q, serving(h, x.heads, q.shape[1]), 1, {0, q.shape[3]});
        if (pass != token_pass::read) {
            add(v, serving(h, x.heads, v.shape[1]), steps, values);
            if constexpr (decay == decay_kind::rows)
                add(forget.logs, serving(h, x.heads, forget.logs.shape[1]), 1, {0, x.D});
        }
        if (pass != token_pass::write && reads() == 1 && (!std::is_same_v<O, T> || !outweighs_caches(o)))
            add(o, h, 1, values);
        if constexpr (update == update_kind::low_rank)
            if (pass != token_pass::read) {
                add(write.a, serving(h, x.heads, write.a.shape[1]), 1, {0, x.D});
                add(write.b, serving(h, x.heads, write.b.shape[1]), 1, {0, x.D});
            }
        return lines;
    }

private:
    /// Whether kernels may read rows of a view where they are.
    template <class S>
    static bool readable(const view<const S>& from, index_t width, index_t multiple) {
        return std::is_same_v<S, T> && from.strides[3] == 1 && width > 0 && width % multiple == 0;
    }
    template <class S>
    static const T* address(const view<const S>& from, index_t b, index_t h, index_t n, index_t d) {
        return reinterpret_cast<const T*>(from.data + b * from.strides[0] + h * from.strides[1] + n * from.strides[2] + d);
    }
    void load_queries(token_rows<T>& r, const space& s, const token_walk& all, const token_walk& at, index_t h,
                      bool in_place) const {
        const index_t first = q.shape[1] >= x.heads ? h * r.reads : serving(h, x.heads, q.shape[1]);
        if (!mapped && in_place && readable(q, x.D, row_of(1))) {
            r.q = {address(q, at.b, first, at[0], 0), at.step * q.strides[2]};
            r.q_read = q.strides[1];
            return;
        }
        r.q = {s.q, s.width};
        r.q_read = token_block * s.width;
        for (index_t g = 0; g < r.reads; ++g)
            for (index_t i = 0; i < at.count; ++i)
                map_row(q, all, at.b, first + g, at[i], at[i], true, s, s.q + (g * token_block + i) * s.width);
    }
    void load_keys(token_rows<T>& r, const space& s, const token_walk& all, const token_walk& at, index_t h,
                   bool in_place) const {
        const index_t head = serving(h, x.heads, k.shape[1]);
        if (!mapped && !weighted && in_place && (r.steps == 1 || at.step == 1) && readable(k, x.D, row_of(1))) {
            r.k = {address(k, at.b, head, at.row(0, 0, r.steps), 0), at.step * k.strides[2]};
            return;
        }
        r.k = {s.k, s.width};
        for (index_t i = 0; i < at.count; ++i)
            for (index_t m = 0; m < r.steps; ++m)
                map_row(k, all, at.b, head, at.row(i, m, r.steps), at[i], false, s, s.k + (i * r.steps + m) * s.width);
        if constexpr (weighted)
            for (index_t i = 0; i < at.count; ++i) {
                const T weight = write.template weight<T>(at.b, h, x.heads, at[i]);
                for (index_t d = 0; d < s.width; ++d) s.k[i * s.width + d] *= weight;
            }
    }
    template <class S>
    void map_row(const view<const S>& from, const token_walk& all, index_t b, index_t head, index_t n, index_t token,
                 bool query, const space& s, T* to) const {
        if constexpr (paired) {  // Re, then Im, -Im of queries
            load_row<A>(from, b, head, n, s.raw);
            const T sign(query ? -1.0f : 1.0f);
            for (index_t d = 0; d < x.D; ++d) to[d] = s.raw[d], to[s.row + d] = sign * s.raw[x.D + d];
            std::fill(to + s.row + x.D, to + 2 * s.row, T(0));
        } else if constexpr (mapped) {
            load_row<A>(from, b, head, n, s.raw);
            const index_t first = std::min(all.first, all[all.count - 1]);
            features(static_cast<const T*>(s.raw), from.shape[3], to, feature_place{b, head, token - first, all.count, query, token});
        } else {
            load_row<A>(from, b, head, n, to);
        }
        std::fill(to + x.D, to + s.row, T(0));
    }
    void load_values(token_rows<T>& r, const space& s, const token_walk& at, index_t h, range values, bool in_place) const {
        const index_t head = serving(h, x.heads, v.shape[1]);
        if (in_place && (r.steps == 1 || at.step == 1) && readable(v, values.size(), L)) {
            r.v = {address(v, at.b, head, at.row(0, 0, r.steps), values.first), at.step * v.strides[2]};
            return;
        }
        r.v = {s.v, s.column};
        const auto columns = slice(v, 3, values);
        for (index_t i = 0; i < at.count; ++i)
            for (index_t m = 0; m < r.steps; ++m) {
                T* const to = s.v + (i * r.steps + m) * s.column;
                load_row<A>(columns, at.b, head, at.row(i, m, r.steps), to);
                std::fill(to + values.size(), to + s.column, T(0));
            }
    }
    void load_gates(const token_rows<T>& r, const space& s, const token_walk& at, index_t h, range values) const {
        if constexpr (decay == decay_kind::columns) {
            forget.template load_columns<A>(at, h, x.heads, s.decay, r.decay_row, values);
        } else {
            forget.template load<A>(at, h, x.heads, s.decay, s.row);
        }
        if constexpr (update == update_kind::delta || update == update_kind::householder) {
            const index_t head = serving(h, x.heads, write.beta.shape[1]);
            for (index_t i = 0; i < at.count; ++i)
                for (index_t m = 0; m < r.steps; ++m)
                    s.beta[i * r.steps + m] = static_cast<T>(write.beta(at.b, head, at.row(i, m, r.steps)));
            if constexpr (decay == decay_kind::rows)
                for (index_t i = 0; i < at.count; ++i)
                    for (index_t d = 0; d < s.row; d += L)
                        store_aligned(s.y + i * s.row + d, load_aligned<P>(s.decay + i * s.row + d) *
                                                               load<P>(r.k[i * r.steps] + d));
        }
        if constexpr (update == update_kind::low_rank) {
            const auto load = [&](const auto& from, T* to) {
                for (index_t i = 0; i < at.count; ++i, to += s.row) {
                    load_row<A>(from, at.b, serving(h, x.heads, from.shape[1]), at[i], to);
                    std::fill(to + x.D, to + s.row, T(0));
                }
            };
            load(write.a, s.x), load(write.b, s.y);
        }
    }
    /// sum_d q u k of each token: what it sees of its own value.
    void load_diagonal(const token_rows<T>& r, const space& s, index_t h) const {
        const index_t head = serving(h, x.heads, observe.u.shape[0]);
        T* const uk = s.diagonal + r.reads * token_block;
        const auto add = [&](index_t i, index_t part) {
            for (index_t d = 0; d < x.D; ++d) uk[d] = static_cast<T>(observe.u(head, d)) * r.k[i][part + d];
            for (index_t g = 0; g < r.reads; ++g) {
                T sum = 0;
                for (index_t d = 0; d < x.D; ++d) sum += r.query(g, i)[part + d] * uk[d];
                s.diagonal[g * token_block + i] = part == 0 ? sum : s.diagonal[g * token_block + i] + sum;
            }
        };
        for (index_t i = 0; i < r.count; ++i) {
            add(i, 0);
            if constexpr (paired) add(i, s.row);
        }
    }

    using P = pack<T, A>;
};

}  // namespace heed::inline HEED_ABI::detail
