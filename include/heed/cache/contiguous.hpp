// contiguous_cache: the keys and values of each head one after the other in memory, which grows as they are appended.
//
// Layout: keys (B, G, capacity, D), then values (B, G, capacity, E). Cost: append copies the new rows; growth, at least
// twofold, copies all, so a token is copied O(1) times; reorder copies all (paged_cache shares instead).
// Trap: the rows of an eviction make room for later tokens; shrink_to_fit() gives the memory back.
#pragma once

#include <vector>

#include "held_rows.hpp"
#include "row_memory.hpp"

namespace heed::inline HEED_ABI {

/// A cache of B sequences, which may differ in length; a key_value_source. Keys are stored as K, values as V.
/// Every member that throws shape_error or argument_error leaves the cache as it was. Copies are deep.
template <storage K, storage V = K>
class contiguous_cache {
public:
    using key_rows = plain_rows<K>;
    using value_rows = plain_rows<V>;

    /// Room for `capacity` tokens a sequence, to begin with.
    explicit contiguous_cache(const cache_shape& shape, index_t capacity = 0) : shape_(shape), capacity_(capacity) {
        static constexpr const char* op = "contiguous_cache";
        shape.check(op);
        require_argument(capacity >= 0, op, "capacity is ", capacity);
        memory_ = memory_type(op, shape.B * shape.G, capacity, shape.D, shape.E);
        ends_.resize(static_cast<std::size_t>(shape.B));
        heads_.resize(static_cast<std::size_t>(shape.B * shape.G));
    }
    contiguous_cache(const contiguous_cache& other) : contiguous_cache(other, other.shape_.B, same, other.capacity_) {}
    contiguous_cache(contiguous_cache&&) noexcept = default;
    contiguous_cache& operator=(const contiguous_cache& other) { return *this = contiguous_cache(other); }
    contiguous_cache& operator=(contiguous_cache&&) noexcept = default;

    /// Appends k (B, G, n, D) and v (B, G, n, E), of any storage types, to all sequences.
    template <class Q, class W>
    void append(const Q& k, const W& v) {
        append_to({0, shape_.B}, as_view(k), as_view(v));
    }
    /// Appends k (1, G, n, D) and v (1, G, n, E) to sequence b.
    template <class Q, class W>
    void append(index_t b, const Q& k, const W& v) {
        detail::check_index("contiguous_cache::append", "sequence", b, shape_.B);
        append_to({b, b + 1}, as_view(k), as_view(v));
    }

    /// The next token of every sequence, or of sequence b, stands n positions later than it would: so tokens get any
    /// increasing positions.
    void skip(index_t n) {
        detail::check_skip("contiguous_cache::skip", n);
        for (index_t b = 0; b < shape_.B; ++b) leave_out(b, n);
    }
    void skip(index_t b, index_t n) {
        detail::check_index("contiguous_cache::skip", "sequence", b, shape_.B);
        detail::check_skip("contiguous_cache::skip", n);
        leave_out(b, n);
    }

    /// Drops the last n positions of every sequence, or of sequence b, with the tokens that stand there.
    void truncate(index_t n) {
        for (index_t b = 0; b < shape_.B; ++b) detail::check_truncate("contiguous_cache::truncate", end(b), n);
        for (index_t b = 0; b < shape_.B; ++b) cut(b, end(b) - n);
    }
    void truncate(index_t b, index_t n) {
        detail::check_index("contiguous_cache::truncate", "sequence", b, shape_.B);
        detail::check_truncate("contiguous_cache::truncate", end(b), n);
        cut(b, end(b) - n);
    }

    /// Keeps only these keys of one head: ascending indices below keys(b, g). Those kept keep their positions, later
    /// tokens stand at end(b) and after it.
    void keep(index_t b, index_t g, std::span<const index_t> kept) {
        static constexpr const char* op = "contiguous_cache::keep";
        detail::check_index(op, "sequence", b, shape_.B);
        detail::check_index(op, "head", g, shape_.G);
        const index_t plane = b * shape_.G + g;
        detail::check_kept(op, kept, keys(b, g));
        heads_[at(plane)].keep(kept, end(b), [&](index_t to, index_t from, index_t n) {
            memory_.copy(plane, to, memory_, plane, from, n);
        });
    }

    /// Sequence b becomes a copy of sequence parents[b]; parents.size() is the new B.
    void reorder(std::span<const index_t> parents) {
        for (index_t parent : parents) detail::check_index("contiguous_cache::reorder", "sequence", parent, shape_.B);
        const auto parent = [&](index_t b) { return parents[at(b)]; };
        *this = contiguous_cache(*this, static_cast<index_t>(parents.size()), parent, capacity_);
    }

    /// Makes room for `tokens` tokens in all, a sequence.
    void reserve(index_t tokens) {
        require_argument(tokens >= 0, "contiguous_cache::reserve", "tokens is ", tokens);
        if (tokens > capacity_) relocate(tokens);
    }
    /// Gives back the room beyond the rows held.
    void shrink_to_fit() { relocate(most_keys({0, shape_.B})); }

    index_t capacity() const { return capacity_; }
    /// Positions of the longest sequence, and of sequence b: its tokens, whether its heads keep them or not, and what
    /// was skipped.
    index_t size() const { return ends_.empty() ? 0 : *std::max_element(ends_.begin(), ends_.end()); }
    index_t size(index_t b) const { return end(b); }
    /// Bytes held for keys, values and positions.
    index_t bytes() const {
        index_t sum = memory_.bytes();
        for (const auto& rows : heads_) sum += rows.bytes();
        return sum;
    }

    index_t batch() const { return shape_.B; }
    index_t heads() const { return shape_.G; }
    index_t keys(index_t b, index_t g) const { return heads_[at(b * shape_.G + g)].count(); }
    /// Keys that a head has let go of so far.
    index_t let_go(index_t b, index_t g) const { return heads_[at(b * shape_.G + g)].let_go(); }
    index_t key_width() const { return shape_.D; }
    index_t value_width() const { return shape_.E; }
    index_t end(index_t b) const { return ends_[at(b)]; }
    const index_t* positions(index_t b, index_t g) const { return heads_[at(b * shape_.G + g)].positions(end(b)); }
    source_run<key_rows, value_rows> run(index_t b, index_t g, index_t j) const {
        const index_t plane = b * shape_.G + g;
        return {{j, heads_[at(plane)].count()}, memory_.keys(plane, j), memory_.values(plane, j)};
    }
    std::span<const std::byte> memory() const { return memory_.memory(); }

private:
    using memory_type = detail::row_memory<K, V>;

    static constexpr auto same = [](index_t b) { return b; };
    static std::size_t at(index_t i) { return static_cast<std::size_t>(i); }

    /// B sequences, sequence b a copy of sequence parent(b) of `from`.
    template <class Parent>
    contiguous_cache(const contiguous_cache& from, index_t B, const Parent& parent, index_t capacity)
        : contiguous_cache({B, from.shape_.G, from.shape_.D, from.shape_.E}, capacity) {
        const index_t G = shape_.G;
        for (index_t b = 0; b < B; ++b) {
            ends_[at(b)] = from.end(parent(b));
            for (index_t g = 0; g < G; ++g) {
                const index_t plane = b * G + g, source = parent(b) * G + g;
                heads_[at(plane)] = from.heads_[at(source)];
                memory_.copy(plane, 0, from.memory_, source, 0, heads_[at(plane)].count());
            }
        }
    }

    void relocate(index_t capacity) { *this = contiguous_cache(*this, shape_.B, same, capacity); }

    index_t most_keys(range sequences) const {
        index_t most = 0;
        for (index_t i = sequences.first * shape_.G; i < sequences.last * shape_.G; ++i)
            most = std::max(most, heads_[at(i)].count());
        return most;
    }

    template <class Q, class W>
    void append_to(range sequences, const view<Q>& k, const view<W>& v) {
        static constexpr const char* op = "contiguous_cache::append";
        const index_t n = detail::check_append(op, shape_, sequences.size(), k, v);
        detail::check_apart(op, memory(), k, "k");
        detail::check_apart(op, memory(), v, "v");
        const index_t need = most_keys(sequences) + n;
        if (need > capacity_) relocate(std::max(need, 2 * capacity_));
        for (index_t b = sequences.first; b < sequences.last; ++b)
            for (index_t g = 0; g < shape_.G; ++g) heads_[at(b * shape_.G + g)].name(n, end(b));
        for (index_t b = sequences.first; b < sequences.last; ++b) {
            for (index_t g = 0; g < shape_.G; ++g) {
                const index_t plane = b * shape_.G + g, from = b - sequences.first;
                auto& rows = heads_[at(plane)];
                memory_.write(plane, rows.count(), detail::head_of(k, from, g), detail::head_of(v, from, g));
                rows.grow(n);
            }
            ends_[at(b)] += n;
        }
    }

    void leave_out(index_t b, index_t n) {
        if (n == 0) return;
        for (index_t g = 0; g < shape_.G; ++g) heads_[at(b * shape_.G + g)].skip(end(b));
        ends_[at(b)] += n;
    }
    /// Drops the tokens of sequence b from `position` on.
    void cut(index_t b, index_t position) {
        for (index_t g = 0; g < shape_.G; ++g) heads_[at(b * shape_.G + g)].cut(position, end(b));
        ends_[at(b)] = position;
    }

    cache_shape shape_;
    index_t capacity_;
    memory_type memory_;
    std::vector<index_t> ends_;             // (B)
    std::vector<detail::held_rows> heads_;  // (B, G)
};

}  // namespace heed::inline HEED_ABI
