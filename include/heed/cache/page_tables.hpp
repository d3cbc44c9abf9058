// Which pages of a pool hold the rows of which sequence: block tables, reference counts and copy on write.
//
// Row r of every head of a sequence lies in page r / page of its table, so a page is held as long as some head has rows
// there. A page with several users is never written: a sequence that is to write into one takes a copy of its own.
#pragma once

#include <compare>
#include <utility>

#include "held_rows.hpp"

namespace heed::inline HEED_ABI::detail {

/// Sequences of `heads` heads over `pages` pages of `page` rows.
class page_tables {
public:
    struct sequence {
        index_t end = 0;               // one past the position of the newest token
        std::vector<held_rows> heads;  // (heads)
        std::vector<index_t> pages;    // those of the rows in order, then those reserved

        index_t rows() const {
            index_t most = 0;
            for (const held_rows& h : heads) most = std::max(most, h.count());
            return most;
        }
    };

    page_tables(index_t page, index_t pages, index_t heads) : page_(page), heads_(heads), users_(at(pages)) {
        free_.reserve(at(pages));
        for (index_t p = pages; p-- > 0;) free_.push_back(p);
    }

    index_t page() const { return page_; }
    index_t pages() const { return static_cast<index_t>(users_.size()); }
    index_t free_pages() const { return static_cast<index_t>(free_.size()); }
    /// Open sequences, ascending.
    std::span<const index_t> ids() const { return ids_; }
    const sequence& of(index_t id) const { return sequences_[at(id)]; }
    const held_rows& head(index_t id, index_t g) const { return of(id).heads[at(g)]; }
    /// Where in the pool row r of every head lies.
    index_t row(index_t id, index_t r) const { return of(id).pages[at(r / page_)] * page_ + r % page_; }

    void check_open(const char* op, index_t id) const {
        require_argument(std::binary_search(ids_.begin(), ids_.end(), id), op, "no sequence ", id, " is open");
    }

    sequence empty() const { return {0, std::vector<held_rows>(at(heads_)), {}}; }
    /// Opens the lowest free id with these rows, whose pages it shares with others.
    index_t open(sequence opened) {
        index_t id = 0;
        while (at(id) < ids_.size() && ids_[at(id)] == id) ++id;
        if (at(id) == sequences_.size()) sequences_.emplace_back();
        ids_.insert(ids_.begin() + id, id);
        share(opened.pages);
        sequences_[at(id)] = std::move(opened);
        return id;
    }
    void close(index_t id) {
        cut(id, 0);
        ids_.erase(std::lower_bound(ids_.begin(), ids_.end(), id));
    }

    /// The tokens before a position, in the pages where they are.
    sequence prefix(index_t id, index_t position) const {
        sequence s = of(id);
        for (held_rows& h : s.heads) h.cut(position, s.end);
        s.end = position;
        s.pages.resize(at(ceil_div(s.rows(), page_)));
        return s;
    }

    /// Drops the tokens from a position on.
    void cut(index_t id, index_t position) {
        sequence& s = sequences_[at(id)];
        for (held_rows& h : s.heads) h.cut(position, s.end);
        s.end = position;
        release(s);
    }
    /// The next token stands n positions later than it would.
    void skip(index_t id, index_t n) {
        if (n == 0) return;
        sequence& s = sequences_[at(id)];
        for (held_rows& h : s.heads) h.skip(s.end);
        s.end += n;
    }

    /// Only these rows of heads stay; they move to the front, in pages of their own, or it throws and all stay. A head
    /// is named once. move(head, to, from, n) moves rows of the pool, copy(from, to, n) the first rows of a page for all
    /// heads.
    template <class Copy, class Move>
    void keep(const char* op, std::span<const kept_keys> of_heads, const Copy& copy, const Move& move) {
        std::vector<writing> writes;
        for (const auto& [id, g, kept] : of_heads) {
            check_kept(op, kept, head(id, g).count());
            const auto count = static_cast<index_t>(kept.size());
            index_t first = 0;  // row that is another's from now on
            while (first < count && kept[at(first)] == first) ++first;
            note(writes, id, {first, count});
        }
        make_own(op, std::move(writes), 0, copy);
        for (const auto& [id, g, kept] : of_heads) {
            sequence& s = sequences_[at(id)];
            s.heads[at(g)].keep(kept, s.end, [&, id = id, g = g](index_t to, index_t from, index_t n) {
                for (index_t i = 0; i < n;) {
                    const index_t left = std::min(page_ - (to + i) % page_, page_ - (from + i) % page_);
                    const index_t part = std::min(n - i, left);
                    move(g, row(id, to + i), row(id, from + i), part);
                    i += part;
                }
            });
            release(s);
        }
    }

    /// The b-th open sequence becomes a copy of the parents[b]-th.
    void reorder(std::span<const index_t> parents) {
        std::vector<sequence> next;
        for (index_t parent : parents) {
            const index_t id = ids_[at(parent)];
            next.push_back(prefix(id, of(id).end));
        }
        for (const sequence& s : next) share(s.pages);
        for (std::size_t b = 0; b < next.size(); ++b) {
            cut(ids_[b], 0);
            sequences_[at(ids_[b])] = std::move(next[b]);
        }
    }

    /// Gives each of these sequences pages of its own for n more rows of every head, or throws; copy as for keep.
    template <class Copy>
    void make_room(const char* op, std::span<const index_t> ids, index_t n, const Copy& copy) {
        if (n <= 0) return;
        index_t fresh = 0;
        std::vector<writing> writes;
        for (index_t id : ids) {
            const sequence& s = of(id);
            fresh += std::max<index_t>(0, pages_of(s, n) - static_cast<index_t>(s.pages.size()));
            for (const held_rows& h : s.heads) note(writes, id, {h.count(), h.count() + n});
        }
        make_own(op, std::move(writes), fresh, copy);
        for (index_t id : ids)
            for (sequence& s = sequences_[at(id)]; static_cast<index_t>(s.pages.size()) < pages_of(s, n);) {
                s.pages.push_back(free_.back());
                take();
            }
    }
    /// Names the n tokens to come: the one step of an append that may throw when there is room.
    void name(index_t id, index_t n) {
        sequence& s = sequences_[at(id)];
        for (held_rows& h : s.heads) h.name(n, s.end);
    }
    /// After make_room, name and the writing of n rows of every head.
    void grow(index_t id, index_t n) {
        sequence& s = sequences_[at(id)];
        for (held_rows& h : s.heads) h.grow(n);
        s.end += n;
    }

private:
    /// A page that a sequence is to write into, and where it stands in its table.
    struct writing {
        index_t page, id, place;
        auto operator<=>(const writing&) const = default;
    };

    static std::size_t at(index_t i) { return static_cast<std::size_t>(i); }
    index_t& users(index_t page) { return users_[at(page)]; }
    /// Pages of its table once every head has n more rows.
    index_t pages_of(const sequence& s, index_t n) const { return s.heads.empty() ? 0 : ceil_div(s.rows() + n, page_); }

    void share(std::span<const index_t> pages) {
        for (index_t p : pages) ++users(p);
    }
    index_t take() {
        const index_t page = free_.back();
        free_.pop_back();
        users(page) = 1;
        return page;
    }
    /// Gives back the pages behind the rows, last to first, so that they will be taken first to last.
    void release(sequence& s) {
        for (const index_t held = ceil_div(s.rows(), page_); static_cast<index_t>(s.pages.size()) > held;
             s.pages.pop_back())
            if (--users(s.pages.back()) == 0) free_.push_back(s.pages.back());
    }

    /// Adds the pages in which these rows of a sequence lie, or will.
    void note(std::vector<writing>& writes, index_t id, range rows) const {
        const auto& pages = of(id).pages;
        const index_t last = std::min(ceil_div(rows.last, page_), static_cast<index_t>(pages.size()));
        for (index_t p = rows.first / page_; p < last && !rows.empty(); ++p) writes.push_back({pages[at(p)], id, p});
    }
    /// Of the sequences that write into a page all leave it, each for a copy; the last one stays where nobody else uses
    /// the page. Throws, and changes nothing, unless the free pages suffice for that and `fresh` more.
    template <class Copy>
    void make_own(const char* op, std::vector<writing> writes, index_t fresh, const Copy& copy) {
        std::sort(writes.begin(), writes.end());
        writes.erase(std::unique(writes.begin(), writes.end()), writes.end());
        std::vector<writing> leave;
        for (auto first = writes.begin(); first != writes.end();) {
            const auto elsewhere = [&](const writing& w) { return w.page != first->page; };
            const auto last = std::find_if(first, writes.end(), elsewhere);
            leave.insert(leave.end(), first, users(first->page) > last - first ? last : last - 1);
            first = last;
        }
        const index_t need = fresh + static_cast<index_t>(leave.size());
        require_argument(need <= free_pages(), op, "needs ", need, " pages, ", free_pages(), " are free");
        for (const auto& [page, id, place] : leave) {
            sequence& s = sequences_[at(id)];
            const index_t own = take();
            copy(page, own, std::min(page_, s.rows() - place * page_));
            --users(std::exchange(s.pages[at(place)], own));
        }
    }

    index_t page_, heads_;
    std::vector<index_t> users_;       // (pages) how many tables hold the page
    std::vector<index_t> free_;        // pages without users, the next to be taken last
    std::vector<sequence> sequences_;  // by id
    std::vector<index_t> ids_;
};

}  // namespace heed::inline HEED_ABI::detail
