// paged_cache: a fixed pool of pages, each of `page` tokens; a sequence is a table of pages, and sequences share them.
//
// Layout: keys (G, pages, page, D), then values (G, pages, page, E): the rows of a page and head are one stretch, and
// pages with successive numbers continue each other, so a sequence appended at once streams as from contiguous_cache.
// Heads of a sequence share its pages; one that lets go of keys moves those that stay to the front, so that the pages
// behind the rows of all heads are free again.
// Cost: fork and reorder O(pages and positions of the sequence), no row is copied; append and keep copy the pages they
// write to where these are shared.
// Source: paged attention and its block tables (vLLM, arXiv:2309.06180).
#pragma once

#include "page_tables.hpp"
#include "row_memory.hpp"

namespace heed::inline HEED_ABI {

template <storage K, storage V>
class paged_source;

/// A cache of sequences that come and go, named by ids; a key_value_source of the open ones in the order of their ids.
/// Keys are stored as K, values as V. Every member that throws shape_error or argument_error leaves it as it was.
template <storage K, storage V = K>
class paged_cache {
public:
    using key_rows = plain_rows<K>;
    using value_rows = plain_rows<V>;

    /// `pages` pages of `page` tokens; shape.B sequences are opened, with ids from 0 on.
    paged_cache(const cache_shape& shape, index_t page, index_t pages)
        : shape_(checked(shape, page, pages)),
          memory_("paged_cache", shape.G, page * pages, shape.D, shape.E),
          tables_(page, pages, shape.G) {
        for (index_t b = 0; b < shape.B; ++b) open();
    }

    /// A new sequence without tokens; returns its id, the lowest that is not in use.
    index_t open() { return tables_.open(tables_.empty()); }

    /// Forgets a sequence. Its id may name a later one.
    void close(index_t id) {
        tables_.check_open("paged_cache::close", id);
        tables_.close(id);
    }

    /// A new sequence that begins with all, or the first `tokens`, tokens of another (those that heads let go of count)
    /// and shares their pages; its id.
    index_t fork(index_t id) {
        tables_.check_open("paged_cache::fork", id);
        return fork(id, size(id));
    }
    index_t fork(index_t id, index_t tokens) {
        static constexpr const char* op = "paged_cache::fork";
        tables_.check_open(op, id);
        require_argument(0 <= tokens && tokens <= size(id), op, "a prefix of ", tokens, " tokens of ", size(id));
        return tables_.open(tables_.prefix(id, tokens));
    }

    /// Appends k (B, G, n, D) and v (B, G, n, E), of any storage types, to the open sequences in the order of their
    /// ids; or k (1, G, n, D) and v (1, G, n, E) to one sequence. argument_error where the free pages do not suffice.
    template <class Q, class W>
    void append(const Q& k, const W& v) {
        append_to(tables_.ids(), as_view(k), as_view(v));
    }
    template <class Q, class W>
    void append(index_t id, const Q& k, const W& v) {
        tables_.check_open("paged_cache::append", id);
        append_to({&id, 1}, as_view(k), as_view(v));
    }

    /// The next token of every open sequence, or of one, stands n positions later than it would: so tokens get any
    /// increasing positions.
    void skip(index_t n) {
        detail::check_skip("paged_cache::skip", n);
        for (index_t id : tables_.ids()) tables_.skip(id, n);
    }
    void skip(index_t id, index_t n) {
        tables_.check_open("paged_cache::skip", id);
        detail::check_skip("paged_cache::skip", n);
        tables_.skip(id, n);
    }

    /// Drops the last n positions of every open sequence, or of one, with the tokens that stand there, and gives back
    /// the pages without tokens.
    void truncate(index_t n) {
        for (index_t id : tables_.ids()) detail::check_truncate("paged_cache::truncate", size(id), n);
        for (index_t id : tables_.ids()) tables_.cut(id, size(id) - n);
    }
    void truncate(index_t id, index_t n) {
        tables_.check_open("paged_cache::truncate", id);
        detail::check_truncate("paged_cache::truncate", size(id), n);
        tables_.cut(id, size(id) - n);
    }

    /// Keeps only these keys of one head of a sequence: ascending indices below the number it holds. Those kept keep
    /// their positions, later tokens stand at size(id) and after it; pages without keys of any head are given back.
    /// argument_error where the free pages do not suffice for copies of shared ones in which keys move.
    void keep(index_t id, index_t g, std::span<const index_t> kept) {
        const kept_keys one{id, g, kept};
        keep({&one, 1});
    }
    /// The same of several heads, each named once: all of them, or an error and none.
    void keep(std::span<const kept_keys> of_heads) {
        static constexpr const char* op = "paged_cache::keep";
        std::vector<std::pair<index_t, index_t>> named;
        for (const auto& [id, g, kept] : of_heads) {
            tables_.check_open(op, id);
            detail::check_index(op, "head", g, shape_.G);
            named.emplace_back(id, g);
        }
        std::sort(named.begin(), named.end());
        for (std::size_t i = 1; i < named.size(); ++i)
            require_argument(named[i - 1] != named[i], op, "head ", named[i].second, " of sequence ", named[i].first,
                             " is named twice");
        tables_.keep(op, of_heads, copy_page(), [&](index_t g, index_t to, index_t from, index_t n) {
            memory_.copy(g, to, memory_, g, from, n);
        });
    }

    /// Takes the pages that `tokens` tokens in all will need; they are the sequence's until it is truncated, reordered
    /// or lets go of keys.
    void reserve(index_t id, index_t tokens) {
        static constexpr const char* op = "paged_cache::reserve";
        const index_t most = tables_.page() * tables_.pages();
        tables_.check_open(op, id);
        require_argument(0 <= tokens && tokens - size(id) <= most - tables_.of(id).rows(), op, tokens,
                         " tokens, the pages hold ", most);
        tables_.make_room(op, {&id, 1}, tokens - size(id), copy_page());
    }

    /// The b-th open sequence becomes a copy of the parents[b]-th, sharing its pages; there are as many parents as
    /// sequences.
    void reorder(std::span<const index_t> parents) {
        static constexpr const char* op = "paged_cache::reorder";
        const auto count = static_cast<index_t>(parents.size());
        require_argument(count == batch(), op, count, " parents of ", batch(), " sequences");
        for (index_t parent : parents) detail::check_index(op, "sequence", parent, batch());
        tables_.reorder(parents);
    }

    /// The sequences of these ids, in this order, as a source; the cache must outlive it, and they must stay open.
    paged_source<K, V> of(std::vector<index_t> ids) const {
        for (index_t id : ids) tables_.check_open("paged_cache::of", id);
        return {*this, std::move(ids)};
    }

    /// Positions of a sequence: its tokens, whether its heads keep them or not, and what was skipped.
    index_t size(index_t id) const { return tables_.of(id).end; }
    /// The open sequences, ascending: the b-th of the source is ids()[b].
    std::span<const index_t> ids() const { return tables_.ids(); }
    index_t free_pages() const { return tables_.free_pages(); }
    /// Bytes of the pool.
    index_t bytes() const { return memory_.bytes(); }

    index_t batch() const { return static_cast<index_t>(tables_.ids().size()); }
    index_t heads() const { return shape_.G; }
    index_t keys(index_t b, index_t g) const { return tables_.head(id_of(b), g).count(); }
    /// Keys that a head has let go of so far.
    index_t let_go(index_t b, index_t g) const { return tables_.head(id_of(b), g).let_go(); }
    index_t key_width() const { return shape_.D; }
    index_t value_width() const { return shape_.E; }
    index_t end(index_t b) const { return size(id_of(b)); }
    const index_t* positions(index_t b, index_t g) const { return positions_of(id_of(b), g); }
    source_run<key_rows, value_rows> run(index_t b, index_t g, index_t j) const { return run_of(id_of(b), g, j); }
    std::span<const std::byte> memory() const { return memory_.memory(); }

private:
    friend class paged_source<K, V>;

    static const cache_shape& checked(const cache_shape& shape, index_t page, index_t pages) {
        static constexpr const char* op = "paged_cache";
        shape.check(op);
        require_argument(page >= 1, op, "page is ", page, ", the least is 1");
        require_argument(pages >= 0, op, "pages is ", pages);
        require_argument(pages <= std::numeric_limits<index_t>::max() / page, op, pages, " pages of ", page,
                         " tokens are too many");
        return shape;
    }

    index_t id_of(index_t b) const { return tables_.ids()[static_cast<std::size_t>(b)]; }
    const index_t* positions_of(index_t id, index_t g) const { return tables_.head(id, g).positions(size(id)); }

    /// Copies the first rows of a page, of all heads, to another.
    auto copy_page() {
        return [this, page = tables_.page()](index_t from, index_t to, index_t rows) {
            for (index_t g = 0; g < shape_.G; ++g) memory_.copy(g, to * page, memory_, g, from * page, rows);
        };
    }

    template <class Q, class W>
    void append_to(std::span<const index_t> ids, const view<Q>& k, const view<W>& v) {
        static constexpr const char* op = "paged_cache::append";
        const auto count = static_cast<index_t>(ids.size());
        const index_t n = detail::check_append(op, shape_, count, k, v);
        detail::check_apart(op, memory(), k, "k");
        detail::check_apart(op, memory(), v, "v");
        tables_.make_room(op, ids, n, copy_page());
        for (index_t id : ids) tables_.name(id, n);
        for (index_t b = 0; b < count; ++b) {
            const index_t id = ids[static_cast<std::size_t>(b)];
            for (index_t g = 0; g < shape_.G; ++g) write(id, g, detail::head_of(k, b, g), detail::head_of(v, b, g));
            tables_.grow(id, n);
        }
    }

    /// Writes k (n, D) and v (n, E) after the rows of head g, page by page.
    template <class Q, class W>
    void write(index_t id, index_t g, const view<const Q, 2>& k, const view<const W, 2>& v) {
        const index_t page = tables_.page(), held = tables_.head(id, g).count(), n = k.shape[0];
        for (index_t i = 0; i < n;) {
            const range part{i, std::min(n, i + page - (held + i) % page)};
            memory_.write(g, tables_.row(id, held + i), slice(k, 0, part), slice(v, 0, part));
            i = part.last;
        }
    }

    source_run<key_rows, value_rows> run_of(index_t id, index_t g, index_t j) const {
        constexpr index_t enough = 256;  // keys; no kernel takes more at once
        const auto& [end, heads, pages] = tables_.of(id);
        const index_t page = tables_.page(), first = j / page;
        const index_t row = pages[static_cast<std::size_t>(first)] * page + j % page;
        const index_t keys = heads[static_cast<std::size_t>(g)].count(), most = std::min(keys, j + enough);
        index_t last = (first + 1) * page;
        for (auto at = pages.begin() + first; last < most && at[1] == at[0] + 1; ++at) last += page;
        return {{j, std::min(keys, last)}, memory_.keys(g, row), memory_.values(g, row)};
    }

    cache_shape shape_;
    detail::row_memory<K, V> memory_;  // a plane for each head: its rows of all pages, by number
    detail::page_tables tables_;
};

/// Chosen sequences of a paged_cache, see paged_cache::of.
template <storage K, storage V>
class paged_source {
public:
    using key_rows = plain_rows<K>;
    using value_rows = plain_rows<V>;

    paged_source(const paged_cache<K, V>& cache, std::vector<index_t> ids) : cache_(&cache), ids_(std::move(ids)) {}

    index_t batch() const { return static_cast<index_t>(ids_.size()); }
    index_t heads() const { return cache_->heads(); }
    index_t keys(index_t b, index_t g) const { return cache_->tables_.head(id_of(b), g).count(); }
    index_t let_go(index_t b, index_t g) const { return cache_->tables_.head(id_of(b), g).let_go(); }
    index_t key_width() const { return cache_->key_width(); }
    index_t value_width() const { return cache_->value_width(); }
    index_t end(index_t b) const { return cache_->size(id_of(b)); }
    const index_t* positions(index_t b, index_t g) const { return cache_->positions_of(id_of(b), g); }
    source_run<key_rows, value_rows> run(index_t b, index_t g, index_t j) const {
        return cache_->run_of(id_of(b), g, j);
    }
    std::span<const std::byte> memory() const { return cache_->memory(); }

private:
    index_t id_of(index_t b) const { return ids_[static_cast<std::size_t>(b)]; }

    const paged_cache<K, V>* cache_;
    std::vector<index_t> ids_;
};

}  // namespace heed::inline HEED_ABI
