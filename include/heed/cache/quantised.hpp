// quantised_cache: keys and values as 8-bit or 4-bit integers, each in a format of its own (simd/quantised_rows.hpp).
//
// bytes per number: int8_per_token 1 + 4 / width, int8_per_channel 1 + 4 / block, int8_per_group<g> 1 + 4 / g,
// int4_per_group<g> 1/2 + 4 / g. Keys have outliers in fixed channels, values in tokens (KIVI, arXiv:2402.02750).
// hadamard{keys, values} transforms rows before they are quantised, which spreads outliers over a row (QuaRot,
// arXiv:2404.00456): turn_query does the same to queries, so that scores stay, and turn_output undoes it in outputs.
// A prompt fed in pieces gives the rows of the whole; per channel if the pieces are of whole blocks, for what attends
// to a block before it is full sees the factors of the tokens so far.
#pragma once

#include <span>

#include "../simd/hadamard.hpp"
#include "held_rows.hpp"
#include "quantised_store.hpp"

namespace heed::inline HEED_ABI {

/// Signed bytes, one factor a token and head.
struct int8_per_token {
    using store = detail::row_store<int8_rows>;
    store open(index_t width) const { return store(width); }
};

/// The same, of which attention of up to sixteen queries takes products in integers, twice as many an instruction, on
/// processors that have such (AVX-512 VNNI): queries and weights are rounded to 2^-16 of the largest of a row.
struct int8_integer {
    using store = detail::row_store<int8_integer_rows>;
    store open(index_t width) const { return store(width); }
};

/// Signed bytes, a factor for each column of `block` tokens. The floats of up to two blocks are kept.
struct int8_per_channel {
    using store = detail::channel_store;
    index_t block = 64;
    store open(index_t width) const { return store(width, block); }
    void check(const char* op) const {
        constexpr index_t most = index_t{1} << 32;
        require_argument(1 <= block && block <= most, op, "block is ", block, ", must be 1 to ", most);
    }
};

/// Signed bytes, a factor for each Group columns of a token. Group is a multiple of 32.
template <index_t Group>
struct int8_per_group {
    using store = detail::row_store<int8_group_rows<Group>>;
    store open(index_t width) const { return store(width); }
};

/// Four bits, -7 to 7, a factor for each Group columns of a token. Group is a multiple of 32.
template <index_t Group>
struct int4_per_group {
    using store = detail::row_store<int4_group_rows<Group>>;
    store open(index_t width) const { return store(width); }
};

/// Which rows are transformed before they are quantised.
struct hadamard {
    bool keys = false, values = false;
};

/// A cache of B sequences, which may differ in length; a key_value_source. Numbers are rounded to float, then quantised
/// once (per channel: anew until their block is full). What is held depends on the tokens only, not on how they were
/// appended. Every member that throws shape_error or argument_error leaves the cache as it was.
template <class KeyKind, class ValueKind = KeyKind>
class quantised_cache {
    using key_store = typename KeyKind::store;
    using value_store = typename ValueKind::store;
    template <class Store>
    static constexpr bool moves = requires(Store& store, index_t i) { store.move(i, i, i); };
    /// Whether rows have factors of their own, so that others can go.
    static constexpr bool forgets = moves<key_store> && moves<value_store>;

public:
    using key_rows = typename key_store::rows_type;
    using value_rows = typename value_store::rows_type;

    explicit quantised_cache(const cache_shape& shape, const KeyKind& keys = {}, const ValueKind& values = {},
                             hadamard transformed = {})
        : shape_(shape), transformed_(transformed) {
        static constexpr const char* op = "quantised_cache";
        shape.check(op);
        if constexpr (requires { keys.check(op); }) keys.check(op);
        if constexpr (requires { values.check(op); }) values.check(op);
        const sequence empty{0, std::vector<head>(at(shape.G), head{keys.open(shape.D), values.open(shape.E), {}})};
        sequences_.assign(at(shape.B), empty);
    }

    /// Appends k (B, G, n, D) and v (B, G, n, E), of any storage types, to all sequences. inf, NaN and what overflows
    /// float (after the transform) are an argument_error.
    template <class Q, class W>
    void append(const Q& k, const W& v) {
        append_to({0, shape_.B}, as_view(k), as_view(v));
    }
    /// Appends k (1, G, n, D) and v (1, G, n, E) to sequence b.
    template <class Q, class W>
    void append(index_t b, const Q& k, const W& v) {
        detail::check_index("quantised_cache::append", "sequence", b, shape_.B);
        append_to({b, b + 1}, as_view(k), as_view(v));
    }

    /// The next token of every sequence, or of sequence b, stands n positions later than it would: so tokens get any
    /// increasing positions.
    void skip(index_t n) { skip_in({0, shape_.B}, n); }
    void skip(index_t b, index_t n) {
        detail::check_index("quantised_cache::skip", "sequence", b, shape_.B);
        skip_in({b, b + 1}, n);
    }

    /// Drops the last n positions of every sequence, or of sequence b, with the tokens that stand there, as if they had
    /// never been appended. Per channel, up to a block of tokens can be dropped anywhere, more only to ends of blocks.
    void truncate(index_t n) { truncate_in({0, shape_.B}, n); }
    void truncate(index_t b, index_t n) {
        detail::check_index("quantised_cache::truncate", "sequence", b, shape_.B);
        truncate_in({b, b + 1}, n);
    }

    /// Keeps only these keys of one head: ascending indices below keys(b, g). Those kept keep their positions, later
    /// tokens stand at end(b) and after it. Not per channel, where the tokens of a block share factors.
    void keep(index_t b, index_t g, std::span<const index_t> kept)
        requires forgets
    {
        static constexpr const char* op = "quantised_cache::keep";
        detail::check_index(op, "sequence", b, shape_.B);
        detail::check_index(op, "head", g, shape_.G);
        head& h = sequences_[at(b)].heads[at(g)];
        detail::check_kept(op, kept, h.rows.count());
        h.rows.keep(kept, size(b), [&](index_t to, index_t from, index_t n) {
            h.k.move(to, from, n);
            h.v.move(to, from, n);
        });
        h.k.cut(h.rows.count()), h.v.cut(h.rows.count());
    }

    /// Makes room for `tokens` tokens in all, a sequence.
    void reserve(index_t tokens) {
        const index_t widest = std::max<index_t>(1, std::max(shape_.D, shape_.E));
        const index_t most = std::numeric_limits<index_t>::max() / 16 / widest;
        require_argument(0 <= tokens && tokens <= most, "quantised_cache::reserve", "tokens is ", tokens,
                         ", must be 0 to ", most);
        for (sequence& s : sequences_)
            for (head& h : s.heads) make_room(h, tokens);
    }

    /// Sequence b becomes a copy of sequence parents[b]; parents.size() is the new B.
    void reorder(std::span<const index_t> parents) {
        for (index_t parent : parents) detail::check_index("quantised_cache::reorder", "sequence", parent, shape_.B);
        std::vector<index_t> heir(
            sequences_.size());  // the child that takes a parent's rows over; the others copy them
        for (std::size_t b = 0; b < parents.size(); ++b) heir[at(parents[b])] = static_cast<index_t>(b);
        const auto inherits = [&](std::size_t b) { return heir[at(parents[b])] == static_cast<index_t>(b); };
        std::vector<sequence> next(parents.size());
        for (std::size_t b = 0; b < parents.size(); ++b)
            if (!inherits(b)) next[b] = sequences_[at(parents[b])];
        for (std::size_t b = 0; b < parents.size(); ++b)
            if (inherits(b)) next[b] = std::move(sequences_[at(parents[b])]);
        sequences_ = std::move(next);
        shape_.B = static_cast<index_t>(parents.size());
    }

    /// Positions of the longest sequence, and of sequence b: its tokens, whether its heads keep them or not, and what
    /// was skipped.
    index_t size() const {
        index_t most = 0;
        for (const sequence& s : sequences_) most = std::max(most, s.size);
        return most;
    }
    index_t size(index_t b) const { return sequences_[at(b)].size; }
    /// Bytes held for keys, values and positions.
    index_t bytes() const {
        index_t sum = 0;
        for (const sequence& s : sequences_)
            for (const head& h : s.heads) sum += h.k.bytes() + h.v.bytes() + h.rows.bytes();
        return sum;
    }

    index_t batch() const { return shape_.B; }
    index_t heads() const { return shape_.G; }
    index_t keys(index_t b, index_t g) const { return sequences_[at(b)].heads[at(g)].rows.count(); }
    /// Keys that a head has let go of so far.
    index_t let_go(index_t b, index_t g) const { return sequences_[at(b)].heads[at(g)].rows.let_go(); }
    index_t key_width() const { return shape_.D; }
    index_t value_width() const { return shape_.E; }
    index_t end(index_t b) const { return size(b); }
    const index_t* positions(index_t b, index_t g) const {
        return sequences_[at(b)].heads[at(g)].rows.positions(size(b));
    }
    source_run<key_rows, value_rows> run(index_t b, index_t g, index_t j) const {
        const head& h = sequences_[at(b)].heads[at(g)];
        return {{j, std::min(h.k.run_end(j), h.v.run_end(j))}, h.k.rows(j), h.v.rows(j)};
    }
    template <class T>
    void turn_query(T* q) const noexcept {
        if (transformed_.keys) hadamard_transform(q, shape_.D);
    }
    template <class T>
    void turn_output(T* o) const noexcept {
        if (transformed_.values) hadamard_transform(o, shape_.E);
    }

private:
    struct head {
        key_store k;
        value_store v;
        detail::held_rows rows;
    };
    struct sequence {
        index_t size = 0;         // one past the position of the newest token
        std::vector<head> heads;  // (G)
    };

    static std::size_t at(index_t i) { return static_cast<std::size_t>(i); }
    static void make_room(head& h, index_t rows) { h.k.make_room(rows), h.v.make_room(rows); }

    /// Row n of an operand as it is to be quantised.
    template <class X>
    static const float* read(const view<X>& x, index_t b, index_t g, index_t n, bool transformed,
                             std::vector<float>& row) {
        row.resize(at(x.shape[3]));
        widen_row<default_arch>(x.data + b * x.strides[0] + g * x.strides[1] + n * x.strides[2], x.strides[3],
                                x.shape[3], row.data());
        if (transformed) hadamard_transform(row.data(), x.shape[3]);
        return row.data();
    }
    template <class X>
    static void check_finite(const char* op, const char* name, const view<X>& x, bool transformed,
                             std::vector<float>& row) {
        static_assert(storage<std::remove_const_t<X>>, "heed: elements are float, double, bf16 or f16");
        for (index_t b = 0; b < x.shape[0]; ++b)
            for (index_t g = 0; g < x.shape[1]; ++g)
                for (index_t n = 0; n < x.shape[2]; ++n) {
                    const float* numbers = read(x, b, g, n, transformed, row);
                    require_argument(all_finite<default_arch, float>(numbers, 1, x.shape[3]), op, name,
                                     " is inf or NaN in sequence ", b, ", head ", g, ", token ", n);
                }
    }

    template <class Q, class W>
    void append_to(range sequences, const view<Q>& k, const view<W>& v) {
        static constexpr const char* op = "quantised_cache::append";
        const index_t n = detail::check_append(op, shape_, sequences.size(), k, v);
        std::vector<float> row;
        row.reserve(at(std::max(shape_.D, shape_.E)));
        check_finite(op, "k", k, transformed_.keys, row);
        check_finite(op, "v", v, transformed_.values, row);
        for (index_t b = sequences.first; b < sequences.last; ++b)
            for (head& h : sequences_[at(b)].heads) {
                make_room(h, h.rows.count() + n);
                h.rows.name(n, size(b));
            }
        for (index_t b = sequences.first; b < sequences.last; ++b) {
            sequence& s = sequences_[at(b)];
            for (index_t g = 0; g < shape_.G; ++g) {
                write(k, b - sequences.first, g, transformed_.keys, row, s.heads[at(g)].k);
                write(v, b - sequences.first, g, transformed_.values, row, s.heads[at(g)].v);
                s.heads[at(g)].rows.grow(n);
            }
            s.size += n;
        }
    }
    template <class X, class Store>
    static void write(const view<X>& x, index_t b, index_t g, bool transformed, std::vector<float>& row, Store& to) {
        for (index_t n = 0; n < x.shape[2]; ++n) to.append(read(x, b, g, n, transformed, row));
        to.settle();
    }

    void skip_in(range sequences, index_t n) {
        detail::check_skip("quantised_cache::skip", n);
        for (index_t b = sequences.first; b < sequences.last && n > 0; ++b) {
            sequence& s = sequences_[at(b)];
            for (head& h : s.heads) h.rows.skip(s.size);
            s.size += n;
        }
    }
    void truncate_in(range sequences, index_t n) {
        static constexpr const char* op = "quantised_cache::truncate";
        for (index_t b = sequences.first; b < sequences.last; ++b) {
            detail::check_truncate(op, size(b), n);
            for (const head& h : sequences_[at(b)].heads) {
                const index_t left = h.rows.before(size(b) - n, size(b));
                h.k.check_cut(op, left);
                h.v.check_cut(op, left);
            }
        }
        for (index_t b = sequences.first; b < sequences.last; ++b) {
            sequence& s = sequences_[at(b)];
            for (head& h : s.heads) {
                h.rows.cut(s.size - n, s.size);
                h.k.cut(h.rows.count()), h.v.cut(h.rows.count());
            }
            s.size -= n;
        }
    }

    cache_shape shape_;
    hadamard transformed_;
    std::vector<sequence> sequences_;  // (B)
};

}  // namespace heed::inline HEED_ABI
