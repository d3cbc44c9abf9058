// heed_test: LABELS sanitize
// paged_cache against plain vectors of tokens, under random sequences of all its operations, and its count of pages.
#include <heed/cache/paged.hpp>
#include <map>
#include <set>

#include "source_tokens.hpp"

using namespace test;

namespace {

using list = std::vector<index_t>;
using heads_of_tokens = std::vector<token_list>;  // [g]

/// The cache as vectors, by id.
struct model {
    cache_shape shape;
    std::map<index_t, heads_of_tokens> open;

    heads_of_tokens none() const { return heads_of_tokens(static_cast<std::size_t>(shape.G)); }
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
    index_t size(index_t id) const { return static_cast<index_t>(open.at(id)[0].size()); }
    void cut(index_t id, index_t tokens) {
        for (auto& head : open.at(id)) head.resize(static_cast<std::size_t>(tokens));
    }
    template <class S, class T>
    void append(index_t id, index_t b, const operand<T>& k, const operand<T>& v) {
        for (index_t g = 0; g < shape.G; ++g)
            for (index_t i = 0; i < k.x.shape()[2]; ++i) {
                auto& head = open.at(id)[static_cast<std::size_t>(g)];
                head.push_back(
                    {static_cast<index_t>(head.size()), k.template stored<S>(b, g, i), v.template stored<S>(b, g, i)});
            }
    }
};

/// A pool, the model of it, and what the model says of pages: the addresses of first rows tell pages apart.
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
        switch (ids.size() > 6 ? 1 : dice_.below(14)) {
            case 0:
                return open();
            case 1:
                cache_.close(id);
                model_.open.erase(id);
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
                return model_.cut(at, tokens);
            }
            case 5: {
                const index_t n = dice_.below(model_.size(id) + 1);
                cache_.truncate(id, n);
                return model_.cut(id, model_.size(id) - n);
            }
            case 6: {
                index_t least = model_.size(id);
                for (index_t i : ids) least = std::min(least, model_.size(i));
                const index_t n = dice_.below(least + 1);
                cache_.truncate(n);
                for (index_t i : ids) model_.cut(i, model_.size(i) - n);
                return;
            }
            case 7: {
                list parents(ids.size());
                for (index_t& p : parents) p = dice_.below(static_cast<index_t>(ids.size()));
                cache_.reorder(parents);
                const auto before = model_.open;
                for (std::size_t b = 0; b < ids.size(); ++b)
                    model_.open[ids[b]] = before.at(ids[static_cast<std::size_t>(parents[b])]);
                return;
            }
            case 8:
            case 9:
                return append(ids, true);
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
            for (index_t g = 0; g < cache_.heads(); ++g)
                ASSERT_TRUE(tokens_of(cache_, b, g) == model_.open[id][static_cast<std::size_t>(g)])
                    << "sequence " << id << ", head " << g;
        }
        list some;
        for (index_t n = dice_.below(4); n > 0 && !ids.empty(); --n) some.push_back(any(ids));
        const auto chosen = cache_.of(some);
        ASSERT_EQ(chosen.batch(), static_cast<index_t>(some.size()));
        for (index_t b = 0; b < chosen.batch(); ++b) {
            const index_t g = dice_.below(chosen.heads());
            ASSERT_TRUE(tokens_of(chosen, b, g) ==
                        model_.open[some[static_cast<std::size_t>(b)]][static_cast<std::size_t>(g)]);
        }
        std::set<const void*> used;
        for (index_t id : ids)
            for (const void* p : pages_of(id)) used.insert(p);
        ASSERT_EQ(cache_.free_pages(), pages_ - static_cast<index_t>(used.size()));
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

    std::vector<const void*> pages_of(index_t id) const {
        std::vector<const void*> pages;
        for (index_t j = 0; j < cache_.size(id); j += page_) pages.push_back(cache_.of({id}).run(0, 0, j).k.data);
        return pages;
    }

    /// Pages that n tokens more in each of these take. A partial page is left by those that append to it; the last one
    /// stays if nobody else uses the page.
    index_t pages_for(const list& ids, index_t n) const {
        if (n == 0) return 0;
        index_t need = 0;
        std::map<const void*, index_t> users, tails;
        for (const auto& [id, tokens] : model_.open)
            for (const void* p : pages_of(id)) ++users[p];
        for (index_t id : ids) {
            const index_t size = model_.size(id);
            need += ceil_div(size + n, page_) - ceil_div(size, page_);
            if (size % page_) ++tails[pages_of(id).back()];
        }
        for (const auto& [page, writers] : tails) need += users[page] > writers ? writers : writers - 1;
        return need;
    }

    void append(const list& ids, bool all) {
        const auto& s = model_.shape;
        const auto count = static_cast<index_t>(ids.size());
        const index_t n = dice_.below(2 * page_ + 2), need = pages_for(ids, n), free = cache_.free_pages();
        with_any_storage(dice_, [&]<class T>(T) {
            const operand<T> k({count, s.G, n, s.D}, dice_), v({count, s.G, n, s.E}, dice_);
            const auto call = [&] { all ? cache_.append(k.x, v.x) : cache_.append(ids[0], k.x, v.x); };
            if (need > free) {
                ++refusals_;
                try {
                    call();
                    ADD_FAILURE() << "took " << need << " pages of " << free;
                } catch (const argument_error& e) {
                    EXPECT_EQ(e.what(), "paged_cache::append: needs " + std::to_string(need) + " pages, " +
                                            std::to_string(free) + " are free");
                }
                return;
            }
            call();
            for (index_t b = 0; b < count; ++b) model_.template append<S>(ids[static_cast<std::size_t>(b)], b, k, v);
        });
        ASSERT_EQ(cache_.free_pages(), need > free ? free : free - need);
    }

    index_t page_, pages_;
    paged_cache<S> cache_;
    model model_;
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
