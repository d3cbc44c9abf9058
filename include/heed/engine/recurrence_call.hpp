// The tasks of a recurrence: heads of sequences, and stretches of their columns where there are fewer heads than workers.
//
//   for each task (sequence, state head h, columns)                          cut by shape; columns are independent
//     for each block of tokens: load q, k, v and gates as numbers of T       recurrence_loader.hpp
//       for each few packs of columns: update and read the state             tile/recurrent.hpp, tile/chunked.hpp
//       normalise and store o
#pragma once

#include <optional>

#include "../policy/row_norm.hpp"
#include "../policy/sequence.hpp"
#include "../tile/chunked.hpp"
#include "../tile/recurrent.hpp"
#include "recurrence_loader.hpp"

namespace heed::inline HEED_ABI::detail {

/// Tokens the state meets at once, in which form: 0 is token by token. So are sequences of fewer than `least` tokens: a
/// packed sequence has the form it would have alone.
struct form_choice {
    index_t chunk = 0;
    index_t least = 0;
};

/// Blocks: whether some of its sequences are met in chunks.
template <class A, class T, class Loader, class O, class Normaliser, class Order, class Sequences, bool Blocks>
struct recurrence_call {
    static constexpr index_t L = lanes<T, A>;
    static constexpr bool normed = std::is_base_of_v<row_norm, Normaliser>;  // whole rows of outputs
    static constexpr bool normalised = !normed && !std::is_same_v<Normaliser, not_normalised>;
    static constexpr bool reads = !std::is_same_v<Order, only_write>, writes = !std::is_same_v<Order, only_read>;
    static constexpr bool causal = !std::is_same_v<Order, non_causal> && reads && writes;
    using token_tile = recurrent_tile<A, T, Loader::decay, Loader::update, Loader::read>;

    Loader load;
    view<O> o;
    Normaliser normaliser;
    Sequences sequences;
    form_choice form;
    state<T>* carried;  // null: starts at zero, and is forgotten

    index_t units() const { return load.x.B * load.x.heads; }
    index_t all_packs() const { return ceil_div(load.x.E, L); }
    template <executor E>
    index_t parts(E& pool) const {
        const index_t crew = static_cast<index_t>(pool.width());
        if (normed || units() == 0 || units() >= crew) return 1;
        return std::max<index_t>(1, std::min(all_packs(), ceil_div(crew, units())));
    }

    template <executor E>
    std::size_t scratch_bytes(E& pool) const {
        const index_t tasks = units() * parts(pool);
        carver shared, one;
        shared.take<T>(initial_sums());
        space(*this, one, ceil_div(all_packs(), parts(pool)));
        return shared.used() + one.used() * static_cast<std::size_t>(tasks > 0 ? workers(pool, tasks) : 0);
    }

    template <executor E>
    void run(E& pool, std::byte* memory) const {
        const index_t cut = parts(pool), packs = all_packs();
        carver shared(memory), one;
        T* const initial = shared.take<T>(initial_sums());
        memory += shared.used();
        if constexpr (normalised)
            for (index_t i = 0; i < initial_sums(); ++i)
                initial[i] = carried->key_sums()(i / load.x.D / load.x.heads, i / load.x.D % load.x.heads, i % load.x.D);
        space(*this, one, ceil_div(packs, cut));
        for_tasks(pool, units() * cut, [&](index_t task, index_t worker) {
            const index_t unit = task / cut, part = task % cut;
            carver at(memory + static_cast<std::size_t>(worker) * one.used());
            space s(*this, at, ceil_div(packs, cut));
            walk(unit / load.x.heads, unit % load.x.heads, {part * packs / cut, (part + 1) * packs / cut}, initial, s);
            finish_stores();
        });
    }

private:
    /// What a task works in.
    struct space {
        typename Loader::space tokens;
        T *sums, *weights, *ones, *own_state;  // keys' sums, what queries make of them, values of 1
        std::optional<chunk_scratch<T>> chunk;

        space(const recurrence_call& c, carver& from, index_t packs) : tokens(c.load, from, packs * L) {
            const token_rows<T> shape = c.load.shape();
            sums = from.take<T>(normalised ? c.state_rows() * L : 0);
            weights = from.take<T>(normalised ? shape.reads * token_block * L : 0);
            ones = from.take<T>(normalised ? L : 0);
            own_state = from.take<T>(c.carried ? 0 : c.state_rows() * state<T>::stride_of(packs * L));
            if (Blocks && c.form.chunk > 0)
                chunk.emplace(from, c.form.chunk, shape, (packs + normalised) * L, Loader::decay, Loader::update);
        }
    };
    /// Rows of a state in memory.
    index_t state_rows() const { return round_up(load.state_rows(), state_row_block); }
    /// Sums of keys at the start, which one task of a head replaces while others read them.
    index_t initial_sums() const { return normalised && carried ? units() * load.x.D : 0; }

    /// One head of one sequence, value columns of some packs.
    void walk(index_t b, index_t h, range packs, const T* initial, space& s) const {
        T* at = s.own_state;
        index_t stride = state<T>::stride_of(packs.size() * L);
        if (carried) {
            stride = carried->stride();
            at = &carried->values()(b, h, 0, 0) + packs.first * L;
        } else {
            std::fill_n(at, state_rows() * stride, T(0));
        }
        if constexpr (normalised) {
            std::fill_n(s.sums, state_rows() * L, T(0));
            std::fill_n(s.ones, L, T(1));
            for (index_t d = 0; carried && d < load.x.D; ++d)
                s.sums[d * L] = initial[(b * load.x.heads + h) * load.x.D + d];
        }
        const columns to{at, stride, packs};
        if constexpr (causal) {
            pass_over(tokens(b, load.x.N), h, to, s, token_pass::both);
        } else {
            if constexpr (writes) pass_over(tokens(b, load.x.N), h, to, s, token_pass::write);
            if constexpr (reads) pass_over(tokens(b, o.shape[2]), h, to, s, token_pass::read);
        }
        if constexpr (normalised && writes)
            for (index_t d = 0; carried && packs.first == 0 && d < load.x.D; ++d)
                carried->key_sums()(b, h, d) = s.sums[d * L];
    }
    token_walk tokens(index_t b, index_t N) const { return walk_of<Order>(sequences, b, N); }

    /// Columns of a head's state.
    struct columns {
        T* state;
        index_t stride;
        range packs;
    };

    void pass_over(const token_walk& all, index_t h, const columns& to, space& s, token_pass pass) const {
        const range values{to.packs.first * L, std::min(to.packs.last * L, load.x.E)};
        const view<O>* const direct = normalised || normed || !reads ? nullptr : &o;
        const bool blockwise = s.chunk && all.count >= form.least;
        for (index_t t = 0, block = 0; t < all.count; t += token_block) {
            token_rows<T> x = load.rows(s.tokens, all, t, h, values, direct, blockwise, pass);
            lines_ahead ahead = load.after(all, t, h, values, o, pass);
            ahead.within(lines_ahead::asks * to.packs.size());
            x.ahead = &ahead;
            token_rows<T> z = x;  // the same over values of 1
            if constexpr (normalised) {
                z.v = {s.ones, 0};
                z.o = {s.weights, L};
                z.o_read = token_block * L;
            }
            const auto each = [&](const auto& f) {
                f(x, index_t(0), to.packs.size(), to.state, to.stride);
                if constexpr (normalised) f(z, to.packs.size(), index_t(1), s.sums, L);
            };
            if (blockwise)
                advance_chunk(x, each, s, block, t + token_block >= all.count, pass);
            else {
                if (pass != token_pass::read) token_tile::prepare(x, pass);
                each([&](const token_rows<T>& rows, index_t, index_t packs, T* at, index_t stride) {
                    token_tile::run_strips(rows, packs, at, stride, pass);
                });
            }
            if (pass != token_pass::write) deliver(x, z, all, t, h, values, s.tokens.o);
        }
    }

    template <class Each>
    void advance_chunk(const token_rows<T>& x, const Each& each, space& s, index_t& block, bool last, token_pass pass) const {
        if constexpr (Blocks) {
            const chunked_tile<A, T, Loader::decay, Loader::update, Loader::read> tile(*s.chunk);
            if (pass == token_pass::read) {
                each([&](const token_rows<T>& rows, index_t, index_t packs, T* at, index_t stride) {
                    tile.project(rows, packs, at, stride);
                });
                return;
            }
            const index_t updates = x.count * updates_of_token(Loader::update, x);
            for (index_t first = 0; first < updates; first += token_block, ++block) {
                const auto own = tile.block_at(x, block, first);
                tile.prepare(x, own);
                each([&](const token_rows<T>& rows, index_t column, index_t packs, T* at, index_t stride) {
                    tile.read(rows, own, column, packs, at, stride, pass);
                });
            }
            if (block < s.chunk->updates / token_block && !last) return;
            const index_t all = block * token_block - (round_up(updates, token_block) - updates);
            each([&](const token_rows<T>& rows, index_t column, index_t packs, T* at, index_t stride) {
                tile.write(rows, all, column, packs, at, stride);
            });
            block = 0;
        }
    }

    /// Normalises the outputs of a block and stores them, where kernels have not.
    void deliver(const token_rows<T>& x, const token_rows<T>& z, const token_walk& all, index_t t, index_t h, range values,
                 const T* scratch) const {
        if (x.o.data != scratch || values.size() == 0) return;
        for (index_t r = 0; r < x.reads; ++r)
            for (index_t i = 0; i < x.count; ++i) {
                T* const row = x.output(r, i);
                const index_t n = all[t + i], head = h * x.reads + r;
                if constexpr (normalised) {
                    const P by(normaliser.template factor<T>(z.output(r, i)[0], all.b, head, n));
                    for (index_t e = 0; e < values.size(); e += L) store_aligned(row + e, by * load_aligned<P>(row + e));
                }
                if constexpr (normed)
                    normalise_row<T>(normaliser, load.x.E,
                                     [&](auto, const auto& f) { f(row, load.x.E, head * load.x.E); });
                O* const to = o.data + all.b * o.strides[0] + head * o.strides[1] + n * o.strides[2];
                narrow_row<A>(row, values.size(), to + values.first * o.strides[3], o.strides[3]);
            }
    }
    using P = pack<T, A>;
};

}  // namespace heed::inline HEED_ABI::detail
