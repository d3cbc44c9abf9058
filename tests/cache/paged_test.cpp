// heed_test: LABELS sanitize
// paged_cache against plain vectors of tokens, under random sequences of all its operations, and its count of pages.
#include <heed/cache/paged.hpp>
#include <map>
#include <set>

#include "source_tokens.hpp"

using namespace test;

namespace {

using list = std::vector<index_t>;
/// A sequence as vectors.
struct tokens_of_heads {
    index_t end = 0;
    std::vector<token_list> heads;  // [g]

    index_t rows() const {
        std::size_t most = 0;
        for (const auto& head : heads) most = std::max(most, head.size());
        return static_cast<index_t>(most);
    }
    void cut(index_t position) {
        end = position;
        for (auto& head : heads) std::erase_if(head, [&](const token& t) { return t.position >= position; });
    }
};

/// The cache as vectors, by id.
struct model {
    cache_shape shape;
    std::map<index_t, tokens_of_heads> open;

    tokens_of_heads none() const { return {0, std::vector<token_list>(static_cast<std::size_t>(shape.G))}; }
    list ids() const {
        list all;
        for (const auto& [id, tokens] : open) all.push_back(id);
        return all;
    }
    index_t lowest_free() const {
        index_t id = 0;
        while (open.contains(id)) ++id;
        return id;
    }
    index_t size(index_t id) const { return open.at(id).end; }
    template <class S, class T>
    void append(index_t id, index_t b, const operand<T>& k, const operand<T>& v) {
        auto& [end, heads] = open.at(id);
        for (index_t g = 0; g < shape.G; ++g)
            for (index_t i = 0; i < k.x.shape()[2]; ++i)
                heads[static_cast<std::size_t>(g)].push_back(
                    {end + i, k.template stored<S>(b, g, i), v.template stored<S>(b, g, i)});
        end += k.x.shape()[2];
    }
};

/// A pool, the model of it, and what the model says of pages.
template <class S>
class play {
public:
    play(const cache_shape& shape, index_t page, index_t pages, std::uint64_t seed)
        : page_(page), pages_(pages), cache_(shape, page, pages), model_{shape, {}}, dice_(seed) {
        for (index_t b = 0; b < shape.B; ++b) model_.open[b] = model_.none();
    }

    void step() {
        const auto ids = model_.ids();
        if (ids.empty()) return open();
        const index_t id = any(ids);
        switch (ids.size() > 6 ? 1 : dice_.below(18)) {
            case 0:
                return open();
            case 1:
                cache_.close(id);
                model_.open.erase(id), reserved_.erase(id);
                return;
            case 2: {
                const index_t at = model_.lowest_free();
                EXPECT_EQ(cache_.fork(id), at);
                model_.open[at] = model_.open[id];
                return;
            }
            case 3:
            case 4: {
                const index_t at = model_.lowest_free(), tokens = dice_.below(model_.size(id) + 1);
                EXPECT_EQ(cache_.fork(id, tokens), at);
                model_.open[at] = model_.open[id];
                return model_.open[at].cut(tokens);
            }
            case 5: {
                const index_t n = dice_.below(model_.size(id) + 1);
                cache_.truncate(id, n);
                reserved_.erase(id);
                return model_.open[id].cut(model_.size(id) - n);
            }
            case 6: {
                index_t least = model_.size(id);
                for (index_t i : ids) least = std::min(least, model_.size(i));
                const index_t n = dice_.below(least + 1);
                cache_.truncate(n);
                reserved_.clear();
                for (index_t i : ids) model_.open[i].cut(model_.size(i) - n);
                return;
            }
            case 7: {
                list parents(ids.size());
                for (index_t& p : parents) p = dice_.below(static_cast<index_t>(ids.size()));
                cache_.reorder(parents);
                reserved_.clear();
                const auto before = model_.open;
                for (std::size_t b = 0; b < ids.size(); ++b)
                    model_.open[ids[b]] = before.at(ids[static_cast<std::size_t>(parents[b])]);
                return;
            }
            case 8:
            case 9:
                return append(ids, true);
            case 10:
            case 11:
                return keep(ids);
            case 12: {
                const index_t n = dice_.below(4);
                cache_.skip(id, n);
                model_.open[id].end += n;
                if (n == 0) cache_.skip(1);
                for (index_t i : ids) model_.open[i].end += n == 0;
                return;
            }
            case 13:
                return reserve(id, dice_.below(2 * page_));
            default:
                return append({id}, false);
        }
    }

    void check() {
        const auto ids = model_.ids();
        ASSERT_EQ(cache_.batch(), static_cast<index_t>(ids.size()));
        for (index_t b = 0; b < cache_.batch(); ++b) {
            const index_t id = ids[static_cast<std::size_t>(b)];
            ASSERT_EQ(cache_.size(id), model_.size(id));
            ASSERT_EQ(cache_.end(b), model_.size(id));
            for (index_t g = 0; g < cache_.heads(); ++g) {
                ASSERT_TRUE(tokens_of(cache_, b, g) == held(id, g)) << "sequence " << id << ", head " << g;
                if (cache_.keys(b, g) > 0)
                    ASSERT_EQ(cache_.positions(b, g) == nullptr, cache_.keys(b, g) == cache_.end(b));
            }
        }
        list some;
        for (index_t n = dice_.below(4); n > 0 && !ids.empty(); --n) some.push_back(any(ids));
        const auto chosen = cache_.of(some);
        ASSERT_EQ(chosen.batch(), static_cast<index_t>(some.size()));
        for (index_t b = 0; b < chosen.batch(); ++b) {
            const index_t g = dice_.below(chosen.heads());
            ASSERT_TRUE(tokens_of(chosen, b, g) == held(some[static_cast<std::size_t>(b)], g));
        }
        std::set<index_t> used;
        for (index_t id : ids)
            for (index_t p : pages_of(id)) used.insert(p);
        index_t reserved = 0;
        for (const auto& [id, pages] : reserved_) reserved += pages;
        ASSERT_EQ(cache_.free_pages(), pages_ - static_cast<index_t>(used.size()) - reserved);
    }

    void close_all() {
        for (index_t id : model_.ids()) cache_.close(id);
        EXPECT_EQ(cache_.batch(), 0);
        EXPECT_EQ(cache_.free_pages(), pages_);
    }
    int refusals() const { return refusals_; }

private:
    index_t any(const list& of) { return of[static_cast<std::size_t>(dice_.below(static_cast<index_t>(of.size())))]; }

    void open() {
        EXPECT_EQ(cache_.open(), model_.lowest_free());
        model_.open[model_.lowest_free()] = model_.none();
    }

    const token_list& held(index_t id, index_t g) { return model_.open[id].heads[static_cast<std::size_t>(g)]; }

    /// The numbers of the pages of a sequence: planes of keys stand first in the memory, a row after the other.
    list pages_of(index_t id) const {
        list pages;
        const auto source = cache_.of({id});
        for (index_t g = 0; g < source.heads(); ++g)
            for (index_t j = static_cast<index_t>(pages.size()) * page_; j < source.keys(0, g); j += page_) {
                const auto first = source.run(0, g, j).k;
                const auto* base = reinterpret_cast<const S*>(source.memory().data());
                pages.push_back((first.data - base) / first.stride % (page_ * pages_) / page_);
            }
        return pages;
    }

    /// Who writes into which page: sequences whose heads get these rows.
    struct writers {
        std::map<index_t, std::set<index_t>> of;  // ids, by page
        void add(index_t id, range rows, const list& pages, index_t page) {
            for (index_t p = rows.first / page; p * page < rows.last && p < std::ssize(pages); ++p)
                of[pages[static_cast<std::size_t>(p)]].insert(id);
        }
    };
    /// How many pages are left for copies: by all that write to them, or by all but one where nobody else uses them.
    index_t copies_for(const writers& all) const {
        std::map<index_t, index_t> users;
        for (const auto& [id, tokens] : model_.open)
            for (index_t p : pages_of(id)) ++users[p];
        index_t copies = 0;
        for (const auto& [page, ids] : all.of) copies += std::min(users[page] - 1, std::ssize(ids));
        return copies;
    }
    /// Of a sequence with n tokens more, beside those with rows.
    index_t more_pages(index_t id, index_t n) const {
        const index_t rows = model_.open.at(id).rows();
        return ceil_div(rows + n, page_) - ceil_div(rows, page_);
    }
    index_t reserved(index_t id) const {
        const auto at = reserved_.find(id);
        return at == reserved_.end() ? 0 : at->second;
    }
    /// Pages that n tokens more in each of these take.
    index_t pages_for(const list& ids, index_t n) const {
        if (n == 0) return 0;
        index_t fresh = 0;
        writers all;
        for (index_t id : ids) {
            const auto& tokens = model_.open.at(id);
            fresh += std::max<index_t>(0, more_pages(id, n) - reserved(id));
            for (const auto& head : tokens.heads)
                all.add(id, {std::ssize(head), std::ssize(head) + n}, pages_of(id), page_);
        }
        return fresh + copies_for(all);
    }

    /// One head forgets, or several at once.
    void keep(const list& ids) {
        std::map<std::pair<index_t, index_t>, list> kept;  // by sequence and head
        writers all;
        for (index_t n = dice_.below(2) == 0 ? 1 : 1 + dice_.below(4); n > 0; --n) {
            const index_t id = any(ids), g = dice_.below(model_.shape.G), odds = dice_.below(5);
            const auto [head, is_new] = kept.try_emplace({id, g});
            if (!is_new) continue;
            index_t moved = 0;
            for (index_t j = 0; j < std::ssize(held(id, g)); ++j)
                if (dice_.below(4) < odds) {
                    if (std::ssize(head->second) == j) ++moved;
                    head->second.push_back(j);
                }
            const index_t count = std::ssize(head->second);
            if (moved < count) all.add(id, {moved, count}, pages_of(id), page_);
        }
        std::vector<kept_keys> heads;
        for (const auto& [head, keys] : kept) heads.push_back({head.first, head.second, keys});
        const index_t need = copies_for(all), free = cache_.free_pages();
        const auto call = [&] {
            heads.size() == 1 ? cache_.keep(heads[0].sequence, heads[0].head, heads[0].keys) : cache_.keep(heads);
        };
        if (need > free) return refused("keep", need, free, call);
        call();
        for (const auto& [id, g, keys] : heads) {
            reserved_.erase(id);
            token_list left;
            for (index_t j : keys) left.push_back(held(id, g)[static_cast<std::size_t>(j)]);
            model_.open[id].heads[static_cast<std::size_t>(g)] = left;
        }
    }
    void reserve(index_t id, index_t n) {
        const index_t need = pages_for({id}, n), free = cache_.free_pages();
        if (model_.open[id].rows() + n > page_ * pages_) return;
        const auto call = [&] { cache_.reserve(id, model_.size(id) + n); };
        if (need > free) return refused("reserve", need, free, call);
        call();
        reserved_[id] = std::max(reserved(id), more_pages(id, n));
    }
    template <class Call>
    void refused(const std::string& what, index_t need, index_t free, const Call& call) {
        ++refusals_;
        try {
            call();
            ADD_FAILURE() << "took " << need << " pages of " << free;
        } catch (const argument_error& e) {
            EXPECT_EQ(e.what(), "paged_cache::" + what + ": needs " + std::to_string(need) + " pages, " +
                                    std::to_string(free) + " are free");
        }
    }

    void append(const list& ids, bool all) {
        const auto& s = model_.shape;
        const auto count = static_cast<index_t>(ids.size());
        const index_t n = dice_.below(2 * page_ + 2), need = pages_for(ids, n), free = cache_.free_pages();
        with_any_storage(dice_, [&]<class T>(T) {
            const operand<T> k({count, s.G, n, s.D}, dice_), v({count, s.G, n, s.E}, dice_);
            const auto call = [&] { all ? cache_.append(k.x, v.x) : cache_.append(ids[0], k.x, v.x); };
            if (need > free) return refused("append", need, free, call);
            call();
            for (index_t id : ids) reserved_[id] = std::max<index_t>(0, reserved(id) - more_pages(id, n));
            for (index_t b = 0; b < count; ++b) model_.template append<S>(ids[static_cast<std::size_t>(b)], b, k, v);
        });
        ASSERT_EQ(cache_.free_pages(), need > free ? free : free - need);
    }

    index_t page_, pages_;
    paged_cache<S> cache_;
    model model_;
    std::map<index_t, index_t> reserved_;  // pages without rows, by id
    dice dice_;
    int refusals_ = 0;
};

template <class S>
void play_for(int steps, const cache_shape& shape, index_t page, index_t pages, std::uint64_t seed) {
    play<S> game(shape, page, pages, seed);
    for (int i = 0; i < steps; ++i) {
        game.step();
        game.check();
        if (testing::Test::HasFatalFailure()) FAIL() << "step " << i;
    }
    EXPECT_GT(game.refusals(), 0);
    EXPECT_LT(game.refusals(), steps / 4);
    game.close_all();
}

TEST(paged_cache, holds_what_vectors_hold) {
    play_for<float>(2500, {2, 2, 3, 5}, 4, 20, 1);
    play_for<bf16>(1500, {0, 3, 16, 1}, 3, 17, 2);
    play_for<double>(1000, {1, 1, 2, 2}, 1, 40, 3);
    play_for<f16>(1000, {3, 2, 5, 4}, 16, 9, 4);
}

/// Rows of a sequence that forgets move into pages of its own; what is behind the rows of all heads is free again.
TEST(paged_cache, pages_without_keys_are_free_and_shared_ones_stay_as_they_are) {
    paged_cache<float> cache({0, 2, 1, 1}, 4, 12);
    const index_t prompt = cache.open();
    const auto x = tensor<float>({1, 2, 20, 1}).fill([](index_t i) { return i; });
    cache.append(prompt, x, x);
    EXPECT_EQ(cache.free_pages(), 7);
    const index_t fork = cache.fork(prompt);
    cache.keep(fork, 0, list{0, 1, 2, 3, 10, 11});  // the first page is not written, the second is
    EXPECT_EQ(cache.free_pages(), 6);
    EXPECT_EQ(cache.of({fork}).run(0, 1, 0).k.data, cache.of({prompt}).run(0, 1, 0).k.data);
    cache.keep(fork, 1, list{18, 19});  // now it is; the fork lets go of the three it still shares
    EXPECT_EQ(cache.free_pages(), 5);
    EXPECT_EQ(tokens_of(cache.of({fork}), 0, 1), (token_list{{18, {38}, {38}}, {19, {39}, {39}}}));
    for (index_t j = 0; j < 20; ++j) EXPECT_EQ(cache.of({prompt}).run(0, 1, j).k.number(0, 0), 20 + j);
    cache.close(prompt);
    EXPECT_EQ(cache.free_pages(), 10);
    cache.keep(fork, 0, list{});
    EXPECT_EQ(cache.free_pages(), 11);
    EXPECT_EQ(cache.size(fork), 20);
    EXPECT_EQ(cache.fork(fork, 19), 0);  // a prefix is by positions
    EXPECT_EQ(cache.keys(0, 1), 1);
}

template <class T = float>
tensor<T> ramp(index_t B, index_t G, index_t n, index_t width) {
    return tensor<T>({B, G, n, width}).fill([](index_t i) { return i % 251; });
}

TEST(paged_cache, forks_share_whole_pages_and_copy_the_partial_one_they_write) {
    paged_cache<float> cache({0, 2, 4, 4}, 8, 10);
    const index_t prompt = cache.open();
    cache.append(prompt, ramp(1, 2, 20, 4), ramp(1, 2, 20, 4));
    EXPECT_EQ(cache.free_pages(), 7);
    const index_t a = cache.fork(prompt), b = cache.fork(prompt, 16);
    EXPECT_EQ(cache.free_pages(), 7);
    cache.append(b, ramp(1, 2, 1, 4), ramp(1, 2, 1, 4));  // begins a page
    EXPECT_EQ(cache.free_pages(), 6);
    cache.append(a, ramp(1, 2, 1, 4), ramp(1, 2, 1, 4));  // copies the third
    EXPECT_EQ(cache.free_pages(), 5);
    cache.append(prompt, ramp(1, 2, 1, 4), ramp(1, 2, 1, 4));  // which is the prompt's alone now
    EXPECT_EQ(cache.free_pages(), 5);
    for (index_t id : {prompt, a, b}) EXPECT_EQ(cache.of({id}).run(0, 1, 8).k.data, cache.of({a}).run(0, 1, 8).k.data);
    for (index_t id : {prompt, a, b}) cache.close(id);
    EXPECT_EQ(cache.free_pages(), 10);
}

TEST(paged_cache, a_sequence_alone_lies_in_one_stretch) {
    paged_cache<float> cache({1, 2, 16, 16}, 16, 8);
    cache.append(ramp(1, 2, 100, 16), ramp(1, 2, 100, 16));
    for (index_t g = 0; g < 2; ++g) EXPECT_EQ(cache.run(0, g, 3).keys, (range{3, 100}));
    cache.truncate(100);
    cache.append(ramp(1, 2, 100, 16), ramp(1, 2, 100, 16));
    EXPECT_EQ(cache.run(0, 1, 0).keys, (range{0, 100}));
}

TEST(paged_cache, reserved_pages_are_kept_for_their_sequence) {
    paged_cache<float> cache({2, 1, 2, 2}, 4, 6);
    const auto x = [](index_t n) { return ramp(1, 1, n, 2); };
    cache.append(0, x(3), x(3));
    cache.reserve(0, 17);  // five pages
    EXPECT_EQ(cache.free_pages(), 1);
    EXPECT_EQ(cache.size(0), 3);
    EXPECT_THROW(cache.append(1, x(5), x(5)), argument_error);
    cache.append(1, x(4), x(4));
    cache.reserve(0, 5);  // less than it has
    cache.append(0, x(17), x(17));
    EXPECT_EQ(cache.size(0), 20);
    EXPECT_EQ(cache.free_pages(), 0);
    cache.truncate(0, 18);
    EXPECT_EQ(cache.free_pages(), 4);
    cache.reserve(0, 18);
    const index_t fork = cache.fork(0);  // shares its tokens, not what is reserved
    EXPECT_EQ(cache.free_pages(), 0);
    EXPECT_THROW(cache.append(fork, x(1), x(1)), argument_error);
    cache.close(0);
    EXPECT_EQ(cache.free_pages(), 4);
    cache.append(fork, x(1), x(1));
    EXPECT_EQ(cache.free_pages(), 4);
}

/// A reservation takes its own copy of a shared partial page too.
TEST(paged_cache, reserved_room_is_enough_after_a_fork) {
    paged_cache<float> cache({1, 1, 2, 2}, 4, 3);
    cache.append(ramp(1, 1, 2, 2), ramp(1, 1, 2, 2));
    const index_t fork = cache.fork(0);
    cache.reserve(fork, 4);
    EXPECT_EQ(cache.free_pages(), 1);
    cache.append(0, ramp(1, 1, 6, 2), ramp(1, 1, 6, 2));
    EXPECT_EQ(cache.free_pages(), 0);
    cache.append(fork, ramp(1, 1, 2, 2), ramp(1, 1, 2, 2));
    EXPECT_EQ(cache.size(fork), 4);
}

TEST(paged_cache, errors_name_both_numbers_and_change_nothing) {
    paged_cache<float> cache({3, 2, 3, 4}, 4, 6);
    const auto k = [](index_t B, index_t n) { return ramp(B, 2, n, 3); };
    const auto v = [](index_t B, index_t n) { return ramp(B, 2, n, 4); };
    cache.append(k(3, 5), v(3, 5));
    cache.close(1);
    std::vector<token_list> before;
    for (index_t b = 0; b < 2; ++b)
        for (index_t g = 0; g < 2; ++g) before.push_back(tokens_of(cache, b, g));

    const auto says = [&](const std::string& want, const auto& call) {
        try {
            call();
            ADD_FAILURE() << "no error, not " << want;
        } catch (const std::invalid_argument& e) {
            EXPECT_EQ("paged_cache::" + want, e.what());
        }
        EXPECT_EQ(cache.batch(), 2);
        EXPECT_EQ(cache.free_pages(), 2);
        for (std::size_t i = 0; i < 4; ++i)
            EXPECT_TRUE(tokens_of(cache, static_cast<index_t>(i / 2), static_cast<index_t>(i % 2)) == before[i]);
    };
    says("append: needs 3 pages, 2 are free", [&] { cache.append(0, k(1, 12), v(1, 12)); });
    says("append: needs 4 pages, 2 are free", [&] { cache.append(k(2, 9), v(2, 9)); });
    says("append: k has batch 3, the cache has 2", [&] { cache.append(k(3, 1), v(3, 1)); });
    says("append: k has batch 2, the cache has 1", [&] { cache.append(2, k(2, 1), v(2, 1)); });
    says("append: v has heads 1, the cache has 2", [&] { cache.append(0, k(1, 1), ramp(1, 1, 1, 4)); });
    says("append: k has width 4, the cache has 3", [&] { cache.append(0, v(1, 1), v(1, 1)); });
    says("append: no sequence 1 is open", [&] { cache.append(1, k(1, 1), v(1, 1)); });
    says("append: v overlaps the cache in memory", [&] {
        cache.append(0, k(1, 1), view<const float>{cache.run(0, 0, 0).v.data, {1, 2, 1, 4}, {0, 0, 0, 1}});
    });
    says("keep: no sequence 1 is open", [&] { cache.keep(1, 0, list{}); });
    says("keep: head 2 of 2", [&] { cache.keep(0, 2, list{}); });
    says("keep: key 5 of 5", [&] { cache.keep(0, 0, list{1, 5}); });
    says("keep: key 2 follows key 2", [&] { cache.keep(2, 1, list{2, 2}); });
    const list one{1};
    const auto both = [&](const kept_keys& x, const kept_keys& y) { cache.keep(std::vector<kept_keys>{x, y}); };
    says("keep: head 1 of sequence 0 is named twice", [&] { both({0, 1, one}, {0, 1, one}); });
    says("keep: key 9 of 5", [&] { both({0, 1, one}, {2, 1, list{9}}); });
    says("skip: no sequence 1 is open", [&] { cache.skip(1, 1); });
    says("skip: cannot skip -1 positions", [&] { cache.skip(-1); });
    says("close: no sequence 1 is open", [&] { cache.close(1); });
    says("close: no sequence -1 is open", [&] { cache.close(-1); });
    says("fork: no sequence 7 is open", [&] { cache.fork(7); });
    says("fork: a prefix of 6 tokens of 5", [&] { cache.fork(2, 6); });
    says("fork: a prefix of -1 tokens of 5", [&] { cache.fork(2, -1); });
    says("truncate: cannot drop 6 tokens of 5", [&] { cache.truncate(0, 6); });
    says("truncate: cannot drop 6 tokens of 5", [&] { cache.truncate(6); });
    says("truncate: no sequence 3 is open", [&] { cache.truncate(3, 1); });
    says("reorder: 3 parents of 2 sequences", [&] { cache.reorder(list{0, 0, 0}); });
    says("reorder: sequence 2 of 2", [&] { cache.reorder(list{0, 2}); });
    says("reserve: needs 3 pages, 2 are free", [&] { cache.reserve(0, 17); });
    says("reserve: 25 tokens, the pages hold 24", [&] { cache.reserve(0, 25); });
    says("reserve: no sequence 1 is open", [&] { cache.reserve(1, 1); });
    says("of: no sequence 1 is open", [&] { cache.of({0, 1}); });

    EXPECT_THROW(paged_cache<float>({1, 1, 1, 1}, 0, 4), argument_error);
    EXPECT_THROW(paged_cache<float>({1, 1, 1, 1}, 4, -1), argument_error);
    EXPECT_THROW(paged_cache<float>({1, 1, 1, 1}, 4, std::numeric_limits<index_t>::max()), argument_error);
    EXPECT_THROW(paged_cache<float>({1, 1, 1, 1}, 4, std::numeric_limits<index_t>::max() / 8), argument_error);
}

TEST(paged_cache, bytes_are_those_of_the_pool) {
    const paged_cache<bf16, float> cache({2, 3, 32, 16}, 64, 5);
    EXPECT_EQ(cache.bytes(), 3 * 64 * 5 * (32 * 2 + 16 * 4));
}

}  // namespace
