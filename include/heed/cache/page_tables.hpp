// Which pages of a pool hold the tokens of which sequence: block tables, reference counts and copy on write.
//
// A page with several users is never written: a sequence whose next token would go into one takes a copy of its own.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "shape.hpp"

namespace heed::inline HEED_ABI::detail {

/// Sequences over `pages` pages of `page` tokens.
class page_tables {
public:
    struct sequence {
        std::vector<index_t> pages;  // those of its tokens in order, then those reserved
        index_t size = 0;            // tokens
    };

    page_tables(index_t page, index_t pages) : page_(page), users_(at(pages)) {
        free_.reserve(at(pages));
        for (index_t p = pages; p-- > 0;) free_.push_back(p);
    }

    index_t page() const { return page_; }
    index_t pages() const { return static_cast<index_t>(users_.size()); }
    index_t free_pages() const { return static_cast<index_t>(free_.size()); }
    /// Open sequences, ascending.
    std::span<const index_t> ids() const { return ids_; }
    const sequence& of(index_t id) const { return sequences_[at(id)]; }

    void check_open(const char* op, index_t id) const {
        require_argument(std::binary_search(ids_.begin(), ids_.end(), id), op, "no sequence ", id, " is open");
    }

    /// Opens the lowest free id with the first `tokens` tokens in these pages, which it shares with others.
    index_t open(std::span<const index_t> pages, index_t tokens) {
        sequence opened{{pages.begin(), pages.end()}, tokens};
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

    /// The pages of the first `tokens` tokens.
    std::span<const index_t> prefix(index_t id, index_t tokens) const {
        return std::span(of(id).pages).first(at(ceil_div(tokens, page_)));
    }

    /// Keeps the first `tokens` tokens. Pages are freed last to first, so that they will be taken first to last.
    void cut(index_t id, index_t tokens) {
        sequence& s = sequences_[at(id)];
        s.size = tokens;
        for (; static_cast<index_t>(s.pages.size()) > ceil_div(tokens, page_); s.pages.pop_back())
            if (--users(s.pages.back()) == 0) free_.push_back(s.pages.back());
    }

    /// The b-th open sequence becomes a copy of the parents[b]-th.
    void reorder(std::span<const index_t> parents) {
        std::vector<sequence> next;
        for (index_t parent : parents) {
            const index_t id = ids_[at(parent)], size = of(id).size;
            const auto pages = prefix(id, size);
            next.push_back({{pages.begin(), pages.end()}, size});
        }
        for (const sequence& s : next) share(s.pages);
        for (std::size_t b = 0; b < next.size(); ++b) {
            cut(ids_[b], 0);
            sequences_[at(ids_[b])] = std::move(next[b]);
        }
    }

    /// Gives each of these sequences pages of its own for n more tokens, or throws; copy(from, to, rows) copies the
    /// first rows of a page.
    template <class Copy>
    void make_room(const char* op, std::span<const index_t> ids, index_t n, const Copy& copy) {
        if (n <= 0) return;
        const index_t need = pages_needed(ids, n);
        require_argument(need <= free_pages(), op, "needs ", need, " pages, ", free_pages(), " are free");
        for (index_t id : ids) {
            sequence& s = sequences_[at(id)];
            if (s.size % page_ != 0) {
                index_t& tail = s.pages[at(s.size / page_)];
                if (users(tail) > 1) {
                    const index_t own = take();
                    copy(tail, own, s.size % page_);
                    --users(std::exchange(tail, own));
                }
            }
            while (static_cast<index_t>(s.pages.size()) * page_ < s.size + n) {
                s.pages.push_back(free_.back());
                take();
            }
        }
    }
    /// After make_room and the writing of n rows.
    void grow(index_t id, index_t n) { sequences_[at(id)].size += n; }

private:
    static std::size_t at(index_t i) { return static_cast<std::size_t>(i); }
    index_t& users(index_t page) { return users_[at(page)]; }

    void share(std::span<const index_t> pages) {
        for (index_t p : pages) ++users(p);
    }
    index_t take() {
        const index_t page = free_.back();
        free_.pop_back();
        users(page) = 1;
        return page;
    }

    /// New pages and copies of shared ones. Of sequences that share a partial page, the last of its users keeps it.
    index_t pages_needed(std::span<const index_t> ids, index_t n) {
        index_t need = 0;
        std::vector<index_t> left;
        for (index_t id : ids) {
            const sequence& s = of(id);
            need += std::max<index_t>(0, ceil_div(s.size + n, page_) - static_cast<index_t>(s.pages.size()));
            if (s.size % page_ == 0) continue;
            const index_t tail = s.pages[at(s.size / page_)];
            if (users(tail) - std::count(left.begin(), left.end(), tail) > 1) left.push_back(tail);
        }
        return need + static_cast<index_t>(left.size());
    }

    index_t page_;
    std::vector<index_t> users_;       // (pages) how many tables hold the page
    std::vector<index_t> free_;        // pages without users, the next to be taken last
    std::vector<sequence> sequences_;  // by id
    std::vector<index_t> ids_;
};

}  // namespace heed::inline HEED_ABI::detail
