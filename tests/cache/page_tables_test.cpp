// heed_test: LABELS sanitize
// Tables of pages by hand: who shares which page, who copies when somebody writes, and that refusals change nothing.
// Their random operations are those of paged_cache (paged_test.cpp).
#include <gtest/gtest.h>

#include <heed/cache/page_tables.hpp>

#include "refuses.hpp"

using namespace heed;
using detail::page_tables;
using test::refuses;
using list = std::vector<index_t>;

namespace {

/// Tables of one or two heads over pages of 4 rows, that write down the copies they ask for.
struct book {
    page_tables tables;
    std::vector<list> copies;  // from, to, rows

    book(index_t pages, index_t heads) : tables(4, pages, heads) {}
    auto copy() {
        return [this](index_t from, index_t to, index_t rows) { copies.push_back({from, to, rows}); };
    }
    index_t open(index_t rows) {
        const index_t id = tables.open(tables.empty());
        append({id}, rows);
        return id;
    }
    void append(const list& ids, index_t n) {
        tables.make_room("op", ids, n, copy());
        for (index_t id : ids) tables.name(id, n), tables.grow(id, n);
    }
    index_t fork(index_t id, index_t position) { return tables.open(tables.prefix(id, position)); }
    list pages(index_t id) const { return tables.of(id).pages; }
};

TEST(page_tables, pages_are_taken_in_order_and_given_back_last_first) {
    book b(5, 1);
    EXPECT_EQ(b.open(9), 0);
    EXPECT_EQ(b.pages(0), (list{0, 1, 2}));
    EXPECT_EQ(b.tables.row(0, 6), 6);
    b.tables.cut(0, 4);
    EXPECT_EQ(b.pages(0), list{0});
    EXPECT_EQ(b.open(8), 1);
    EXPECT_EQ(b.pages(1), (list{1, 2}));
    b.tables.close(0);
    EXPECT_EQ(b.open(0), 0);  // the lowest free id
    EXPECT_EQ(b.tables.free_pages(), 3);
    refuses<argument_error>([&] { b.tables.check_open("op", 2); }, "op: no sequence 2 is open");
}

TEST(page_tables, the_last_to_write_stays_in_a_shared_page) {
    book b(8, 1);
    b.open(6);
    EXPECT_EQ(b.fork(0, 6), 1);
    EXPECT_EQ(b.fork(0, 3), 2);
    EXPECT_EQ(b.tables.free_pages(), 6);
    b.append({0, 1}, 1);  // both write into page 1, which nobody else has: one copy
    EXPECT_EQ(b.copies, (std::vector<list>{{1, 2, 2}}));
    EXPECT_EQ(b.pages(0), (list{0, 2}));
    EXPECT_EQ(b.pages(1), (list{0, 1}));
    b.append({2}, 1);  // page 0 has other users
    EXPECT_EQ(b.copies.back(), (list{0, 3, 3}));
    b.append({2}, 1);  // now page 3 is its own
    EXPECT_EQ(b.copies.size(), 2u);
    EXPECT_EQ(b.pages(2), (list{3, 4}));
}

TEST(page_tables, what_finds_no_pages_changes_nothing) {
    book b(3, 1);
    b.open(6);
    b.fork(0, 6);
    refuses<argument_error>([&] { b.append({0, 1}, 3); }, "op: needs 3 pages, 1 are free");  // a copy, a page each
    const list last{1, 2, 3, 4, 5};
    b.open(4);
    const kept_keys both[] = {{0, 0, last}, {1, 0, last}};
    const auto no_move = [](index_t, index_t, index_t, index_t) { ADD_FAILURE() << "moved"; };
    refuses<argument_error>([&] { b.tables.keep("op", both, b.copy(), no_move); }, "op: needs 2 pages, 0 are free");
    EXPECT_EQ(b.pages(0), (list{0, 1}));
    EXPECT_EQ(b.pages(1), (list{0, 1}));
    EXPECT_EQ(b.tables.head(0, 0).count(), 6);
    EXPECT_TRUE(b.copies.empty());
}

TEST(page_tables, heads_that_forget_together_move_within_pages) {
    book b(6, 2);
    b.open(10);
    const list a{0, 1, 5, 6, 7, 8}, c{9};
    const kept_keys all[] = {{0, 0, a}, {0, 1, c}};
    std::vector<list> moves;  // head, to, from, rows
    b.tables.keep("op", all, b.copy(), [&](index_t g, index_t to, index_t from, index_t n) {
        moves.push_back({g, to, from, n});
    });
    EXPECT_EQ(moves, (std::vector<list>{{0, 2, 5, 2}, {0, 4, 7, 1}, {0, 5, 8, 1}, {1, 0, 9, 1}}));
    EXPECT_EQ(b.pages(0), (list{0, 1}));
    EXPECT_EQ(b.tables.head(0, 1).positions(10)[0], 9);
    const list none, wrong{1};
    const kept_keys bad[] = {{0, 0, none}, {0, 1, wrong}};
    refuses<argument_error>([&] { b.tables.keep("op", bad, b.copy(), [](index_t, index_t, index_t, index_t) {}); },
                            "op: key 1 of 1");
    EXPECT_EQ(b.tables.head(0, 0).count(), 6);
}

TEST(page_tables, sequences_become_copies_of_sequences) {
    book b(6, 1);
    b.open(5), b.open(3);
    b.tables.skip(1, 2);
    b.tables.reorder(list{1, 1});
    EXPECT_EQ(b.pages(0), b.pages(1));
    EXPECT_EQ(b.tables.of(0).end, 5);
    EXPECT_EQ(b.tables.head(0, 0).count(), 3);
    EXPECT_EQ(b.tables.free_pages(), 5);
    b.tables.reorder(list{0, 1});
    EXPECT_EQ(b.tables.free_pages(), 5);
    b.tables.close(0), b.tables.close(1);
    EXPECT_EQ(b.tables.free_pages(), 6);
}

}  // namespace
