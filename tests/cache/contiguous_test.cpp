// heed_test: LABELS sanitize
// contiguous_cache against plain vectors of tokens, under random sequences of all its operations.
#include <heed/cache/contiguous.hpp>
#include <memory>

#include "source_tokens.hpp"

using namespace test;

namespace {

using list = std::vector<index_t>;

/// The cache as vectors: what is held, and where the sequences end.
template <class K, class V>
struct model {
    cache_shape shape;
    std::vector<std::vector<token_list>> held;  // [b][g]
    list ends;

    explicit model(const cache_shape& s)
        : shape(s),
          held(static_cast<std::size_t>(s.B), std::vector<token_list>(static_cast<std::size_t>(s.G))),
          ends(static_cast<std::size_t>(s.B)) {}

    template <class T>
    void append(index_t b, index_t from, const operand<T>& k, const operand<T>& v) {
        const index_t n = k.x.shape()[2];
        for (index_t g = 0; g < shape.G; ++g)
            for (index_t i = 0; i < n; ++i)
                at(b, g).push_back({end(b) + i, k.template stored<K>(from, g, i), v.template stored<V>(from, g, i)});
        end(b) += n;
    }
    void truncate(index_t b, index_t n) {
        end(b) -= n;
        for (index_t g = 0; g < shape.G; ++g)
            std::erase_if(at(b, g), [&](const token& t) { return t.position >= end(b); });
    }
    void skip(index_t b, index_t n) { end(b) += n; }
    void keep(index_t b, index_t g, const list& kept) {
        token_list left;
        for (index_t j : kept) left.push_back(at(b, g)[static_cast<std::size_t>(j)]);
        at(b, g) = left;
    }
    void reorder(const list& parents) {
        auto from = *this;
        held.clear(), ends.clear();
        for (index_t p : parents) {
            held.push_back(from.held[static_cast<std::size_t>(p)]);
            ends.push_back(from.end(p));
        }
        shape.B = static_cast<index_t>(parents.size());
    }

    token_list& at(index_t b, index_t g) { return held[static_cast<std::size_t>(b)][static_cast<std::size_t>(g)]; }
    index_t& end(index_t b) { return ends[static_cast<std::size_t>(b)]; }
};

template <class K, class V>
void expect_same(const contiguous_cache<K, V>& cache, model<K, V>& want) {
    ASSERT_EQ(cache.batch(), want.shape.B);
    ASSERT_EQ(cache.heads(), want.shape.G);
    ASSERT_EQ(cache.size(), want.ends.empty() ? 0 : *std::max_element(want.ends.begin(), want.ends.end()));
    for (index_t b = 0; b < want.shape.B; ++b) {
        ASSERT_EQ(cache.end(b), want.end(b));
        ASSERT_EQ(cache.size(b), want.end(b));
        for (index_t g = 0; g < want.shape.G; ++g) {
            ASSERT_TRUE(tokens_of(cache, b, g) == want.at(b, g)) << "sequence " << b << ", head " << g;
            if (cache.keys(b, g) > 0) ASSERT_EQ(cache.positions(b, g) == nullptr, cache.keys(b, g) == cache.end(b));
        }
    }
}

/// Some of 0, ..., n - 1, ascending; often all or none.
list subset(dice& d, index_t n) {
    const index_t odds = d.below(5);
    list kept;
    for (index_t i = 0; i < n; ++i)
        if (d.below(4) < odds) kept.push_back(i);
    return kept;
}

template <class K, class V>
class play {
public:
    play(const cache_shape& shape, std::uint64_t seed) : cache_(shape, 3), model_(shape), dice_(seed) {}

    void step() {
        const index_t B = model_.shape.B, b = B ? dice_.below(B) : 0;
        switch (dice_.below(B ? 13 : 2)) {
            case 0:
                return append({0, B}, true);
            case 1:
                return reorder();
            case 2:
            case 3:
            case 4:
                return append({b, b + 1}, false);
            case 5: {
                index_t n = model_.end(0);
                for (index_t end : model_.ends) n = std::min(n, end);
                n = dice_.below(n + 1);
                cache_.truncate(n);
                for (index_t i = 0; i < B; ++i) model_.truncate(i, n);
                return;
            }
            case 6: {
                const index_t n = dice_.below(model_.end(b) + 1);
                cache_.truncate(b, n);
                return model_.truncate(b, n);
            }
            case 7:
            case 8: {
                const index_t g = dice_.below(model_.shape.G);
                const auto kept = subset(dice_, cache_.keys(b, g));
                cache_.keep(b, g, kept);
                return model_.keep(b, g, kept);
            }
            case 9:
                return dice_.below(2) ? cache_.reserve(dice_.below(40)) : cache_.shrink_to_fit();
            case 10: {
                const index_t n = dice_.below(4);
                cache_.skip(b, n);
                return model_.skip(b, n);
            }
            case 11: {
                const index_t n = dice_.below(2);
                cache_.skip(n);
                for (index_t i = 0; i < B; ++i) model_.skip(i, n);
                return;
            }
            default:
                return copy();
        }
    }
    void check() { expect_same(cache_, model_); }

private:
    void append(range sequences, bool all) {
        const auto& s = model_.shape;
        const index_t n = dice_.below(6);
        with_any_storage(dice_, [&]<class T>(T) {
            const operand<T> k({sequences.size(), s.G, n, s.D}, dice_), v({sequences.size(), s.G, n, s.E}, dice_);
            if (all)
                cache_.append(k.x, v.x);
            else
                cache_.append(sequences.first, k.x.v(), v.x.v());
            for (index_t b = sequences.first; b < sequences.last; ++b) model_.append(b, b - sequences.first, k, v);
        });
    }
    void reorder() {
        if (model_.shape.B == 0) {  // nothing to descend from: a new cache
            *this = play({3, model_.shape.G, model_.shape.D, model_.shape.E}, dice_.seed());
            return;
        }
        list parents(static_cast<std::size_t>(dice_.below(5)));
        for (index_t& p : parents) p = dice_.below(model_.shape.B);
        cache_.reorder(parents);
        model_.reorder(parents);
    }
    /// The copy lives on; what happens to the original must not reach it.
    void copy() {
        auto copied = std::make_unique<contiguous_cache<K, V>>(cache_);
        cache_.truncate(0, model_.end(0));
        cache_.append(0, constant<float>({1, model_.shape.G, 9, model_.shape.D}, 7),
                      constant<float>({1, model_.shape.G, 9, model_.shape.E}, 7));
        if (dice_.below(2))
            cache_ = *copied;
        else
            cache_ = std::move(*copied);
    }

    contiguous_cache<K, V> cache_;
    model<K, V> model_;
    dice dice_;
};

template <class K, class V>
void play_for(int steps, const cache_shape& shape, std::uint64_t seed) {
    play<K, V> game(shape, seed);
    for (int i = 0; i < steps; ++i) {
        game.step();
        game.check();
        if (testing::Test::HasFatalFailure()) FAIL() << "step " << i;
    }
}

TEST(contiguous_cache, holds_what_vectors_hold) {
    play_for<float, float>(3000, {3, 2, 3, 5}, 1);
    play_for<bf16, f16>(2000, {2, 3, 16, 1}, 2);
    play_for<double, float>(1000, {1, 1, 17, 31}, 3);
    play_for<f16, f16>(500, {2, 2, 0, 4}, 4);
}

/// Every call that must be refused, and the argument or shape it names.
TEST(contiguous_cache, errors_name_both_numbers_and_change_nothing) {
    const cache_shape shape{2, 2, 3, 4};
    contiguous_cache<float> cache(shape, 4);
    model<float, float> same(shape);
    dice d(5);
    const operand<float> k({2, 2, 5, 3}, d), v({2, 2, 5, 4}, d);
    cache.append(k.x, v.x);
    for (index_t b = 0; b < 2; ++b) same.append(b, b, k, v);
    cache.keep(1, 0, list{0, 3});
    same.keep(1, 0, {0, 3});

    const auto says = [&](const char* want, const auto& call) {
        try {
            call();
            ADD_FAILURE() << "no error, not " << want;
        } catch (const std::invalid_argument& e) {
            EXPECT_STREQ(e.what(), want);
        }
        expect_same(cache, same);
    };
    const auto x = [](index_t B, index_t G, index_t n, index_t width) { return constant<float>({B, G, n, width}, 1); };
    says("contiguous_cache::append: k has batch 1, the cache has 2",
         [&] { cache.append(x(1, 2, 1, 3), x(2, 2, 1, 4)); });
    says("contiguous_cache::append: k has heads 4, the cache has 2",
         [&] { cache.append(x(2, 4, 1, 3), x(2, 2, 1, 4)); });
    says("contiguous_cache::append: v has width 3, the cache has 4",
         [&] { cache.append(x(2, 2, 1, 3), x(2, 2, 1, 3)); });
    says("contiguous_cache::append: v has 2 tokens, k has 1", [&] { cache.append(x(2, 2, 1, 3), x(2, 2, 2, 4)); });
    says("contiguous_cache::append: k has batch 2, the cache has 1",
         [&] { cache.append(0, x(2, 2, 1, 3), x(1, 2, 1, 4)); });
    says("contiguous_cache::append: sequence 2 of 2", [&] { cache.append(2, x(1, 2, 1, 3), x(1, 2, 1, 4)); });
    says("contiguous_cache::append: k overlaps the cache in memory", [&] {
        const auto run = cache.run(0, 1, 1);
        cache.append(0, view<const float>{run.k.data, {1, 2, 1, 3}, {0, 0, 0, 1}}, x(1, 2, 1, 4));
    });
    says("contiguous_cache::truncate: cannot drop 6 tokens of 5", [&] { cache.truncate(6); });
    says("contiguous_cache::truncate: cannot drop -1 tokens of 5", [&] { cache.truncate(1, -1); });
    says("contiguous_cache::truncate: sequence -1 of 2", [&] { cache.truncate(-1, 0); });
    says("contiguous_cache::skip: cannot skip -1 positions", [&] { cache.skip(-1); });
    says("contiguous_cache::skip: sequence 2 of 2", [&] { cache.skip(2, 1); });
    says("contiguous_cache::keep: key 2 of 2", [&] { cache.keep(1, 0, list{1, 2}); });
    says("contiguous_cache::keep: key 3 follows key 3", [&] { cache.keep(1, 1, list{3, 3}); });
    says("contiguous_cache::keep: key -1 of 5", [&] { cache.keep(0, 1, list{-1, 3}); });
    says("contiguous_cache::keep: head 2 of 2", [&] { cache.keep(0, 2, list{}); });
    says("contiguous_cache::reorder: sequence 2 of 2", [&] { cache.reorder(list{0, 2}); });
    says("contiguous_cache::reserve: tokens is -1", [&] { cache.reserve(-1); });
    EXPECT_THROW(cache.reserve(std::numeric_limits<index_t>::max()), argument_error);
    expect_same(cache, same);
    EXPECT_THROW(contiguous_cache<float>({-1, 1, 1, 1}), argument_error);
    EXPECT_THROW(contiguous_cache<float>(shape, -1), argument_error);
}

TEST(contiguous_cache, bytes_are_those_of_its_rows) {
    contiguous_cache<float, bf16> cache({2, 3, 16, 32}, 10);
    EXPECT_EQ(cache.bytes(), 2 * 3 * 10 * (16 * 4 + 32 * 2));
    cache.append(constant<float>({2, 3, 10, 16}, 1), constant<float>({2, 3, 10, 32}, 1));
    EXPECT_EQ(cache.bytes(), 2 * 3 * 10 * (16 * 4 + 32 * 2));
    cache.reserve(1000);
    EXPECT_EQ(cache.bytes(), 2 * 3 * 1000 * (16 * 4 + 32 * 2));
    cache.shrink_to_fit();
    EXPECT_EQ(cache.bytes(), 2 * 3 * 10 * (16 * 4 + 32 * 2));
    EXPECT_EQ(contiguous_cache<float>({2, 3, 16, 32}).bytes(), 0);
}

TEST(contiguous_cache, appending_one_by_one_seldom_moves_the_rows) {
    contiguous_cache<float> cache({1, 1, 16, 16});
    const auto x = constant<float>({1, 1, 1, 16}, 1);
    int moves = 0;
    for (index_t i = 0; i < 1000; ++i) {
        const index_t before = cache.capacity();
        cache.append(x, x);
        moves += cache.capacity() != before;
        EXPECT_LE(cache.capacity(), 2 * cache.size());
    }
    EXPECT_LE(moves, 11);
}

TEST(contiguous_cache, an_evicted_head_stays_in_the_room_it_has) {
    contiguous_cache<float> cache({1, 2, 16, 16}, 8);
    const auto x = constant<float>({1, 2, 1, 16}, 1);
    for (index_t i = 0; i < 100; ++i) {
        cache.append(x, x);
        for (index_t g = 0; g < 2; ++g)
            if (cache.keys(0, g) == 8) cache.keep(0, g, list{0, 1, 6, 7});
    }
    EXPECT_EQ(cache.capacity(), 8);
    EXPECT_EQ(cache.size(), 100);
    EXPECT_EQ(cache.positions(0, 1)[0], 0);
    EXPECT_EQ(cache.positions(0, 1)[cache.keys(0, 1) - 1], 99);
}

/// Rows begin on cache lines where that costs an eighth at most.
TEST(contiguous_cache, rows_are_aligned_where_it_is_cheap) {
    const auto stride = [](index_t D) { return contiguous_cache<bf16>({1, 1, D, 1}, 2).run(0, 0, 0).k.stride; };
    EXPECT_EQ(stride(128), 128);
    EXPECT_EQ(stride(120), 128);
    EXPECT_EQ(stride(80), 80);
    EXPECT_EQ(stride(1), 1);
    EXPECT_EQ(stride(0), 0);
    contiguous_cache<bf16> cache({2, 3, 120, 128}, 5);
    for (index_t b = 0; b < 2; ++b)
        for (index_t g = 0; g < 3; ++g)
            for (index_t j = 0; j < 5; ++j) {
                EXPECT_EQ(reinterpret_cast<std::uintptr_t>(cache.run(b, g, j).k.data) % 64, 0u);
                EXPECT_EQ(reinterpret_cast<std::uintptr_t>(cache.run(b, g, j).v.data) % 64, 0u);
            }
}

}  // namespace
