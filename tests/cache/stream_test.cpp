// heed_test: LABELS sanitize
// stream_cache: what is held is a function of the tokens seen, whatever the history; sinks turn without drift.
#include <heed/cache/stream.hpp>
#include <heed/ref/rotary.hpp>

#include "refuses.hpp"
#include "source_tokens.hpp"

using namespace test;

namespace {

constexpr index_t far = index_t{1} << 61;

residency any_residency(dice& d) { return {d.below(5), 1 + d.below(6), d.below(4)}; }

TEST(residency, holds_the_first_and_the_last_tokens_in_slots_of_their_own) {
    for (index_t s : {0, 1, 4})
        for (index_t w : {1, 2, 7})
            for (index_t slack : {0, 1, 5})
                for (index_t base : {index_t{0}, far, 2 * far - 60})
                    for (index_t seen = base; seen < base + 60; ++seen) {
                        const residency r{s, w, slack};
                        std::vector<index_t> tokens, slots;
                        for (index_t t = 0; t < std::min(s, seen); ++t) tokens.push_back(t);
                        for (index_t t = std::max(s, seen - w); t < seen; ++t) tokens.push_back(t);
                        ASSERT_EQ(r.keys(seen), static_cast<index_t>(tokens.size()));
                        ASSERT_EQ(r.forgotten(seen), seen - r.keys(seen));
                        for (index_t j = 0; j < r.keys(seen); ++j) {
                            ASSERT_EQ(r.token(j, seen), tokens[number(j)]);
                            slots.push_back(r.slot(tokens[number(j)]));
                            ASSERT_TRUE(0 <= slots.back() && slots.back() < r.slots());
                        }
                        index_t runs = 0;
                        for (index_t j = 0; j < r.keys(seen); ++runs) {
                            const index_t first = j, end = r.run_end(j, seen);
                            ASSERT_GT(end, j);
                            ASSERT_LE(end, r.keys(seen));
                            for (; j < end; ++j) ASSERT_EQ(slots[number(j)], slots[number(first)] + j - first);
                        }
                        ASSERT_LE(runs, seen <= s + w ? 1 : s > 0 ? 3 : 2);
                        std::sort(slots.begin(), slots.end());
                        ASSERT_TRUE(std::adjacent_find(slots.begin(), slots.end()) == slots.end());
                    }
}

/// The stream as vectors of all the tokens it has seen.
template <class K, class V>
struct model {
    cache_shape shape;
    residency where;
    std::vector<std::vector<token_list>> seen;  // [b][g]
    index_t reached = 0;                        // the largest size; what is below its slack may be gone

    model(const cache_shape& s, const residency& r)
        : shape(s), where(r), seen(number(s.B), std::vector<token_list>(number(s.G))) {}
    index_t size() const { return shape.B * shape.G > 0 ? static_cast<index_t>(seen[0][0].size()) : 0; }

    template <class T>
    void append(const operand<T>& k, const operand<T>& v) {
        for (index_t b = 0; b < shape.B; ++b)
            for (index_t g = 0; g < shape.G; ++g)
                for (index_t i = 0; i < k.x.shape()[2]; ++i)
                    seen[number(b)][number(g)].push_back(
                        {0, k.template stored<K>(b, g, i), v.template stored<V>(b, g, i)});
        reached = std::max(reached, size());
    }
    void truncate(index_t n) {
        for (auto& heads : seen)
            for (auto& tokens : heads) tokens.resize(tokens.size() - number(n));
    }
    void reorder(const std::vector<index_t>& parents) {
        std::vector<std::vector<token_list>> next;
        for (index_t p : parents) next.push_back(seen[number(p)]);
        seen = next;
        shape.B = static_cast<index_t>(parents.size());
    }
    token_list held(index_t b, index_t g) const {
        token_list tokens;
        for (index_t j = 0; j < where.keys(size()); ++j) {
            tokens.push_back(seen[number(b)][number(g)][number(where.token(j, size()))]);
            tokens.back().position = j;
        }
        return tokens;
    }
};

template <class K, class V>
void expect_same(const stream_cache<K, V>& cache, const model<K, V>& want) {
    ASSERT_EQ(cache.batch(), want.shape.B);
    ASSERT_EQ(cache.size(), want.size());
    for (index_t b = 0; b < want.shape.B; ++b)
        for (index_t g = 0; g < want.shape.G; ++g)
            ASSERT_TRUE(tokens_of(cache, b, g) == want.held(b, g)) << "sequence " << b << ", head " << g;
}

template <class K, class V>
void random_history(std::uint64_t seed) {
    dice d(seed);
    const residency where = any_residency(d);
    const cache_shape shape{1 + d.below(2), 1 + d.below(2), 1 + d.below(20), 1 + d.below(20)};
    stream_cache<K, V> cache(shape, where);
    model<K, V> want(shape, where);
    for (int step = 0; step < 60; ++step) {
        switch (d.below(8)) {
            case 0: {
                std::vector<index_t> parents(number(1 + d.below(3)));
                for (index_t& p : parents) p = d.below(cache.batch());
                cache.reorder(parents);
                want.reorder(parents);
                break;
            }
            case 1:
            case 2: {
                const index_t n = d.below(5) == 0 ? cache.size() : d.below(std::min<index_t>(cache.size(), 5) + 1);
                try {
                    cache.truncate(n);
                    want.truncate(n);
                } catch (const argument_error&) {
                    ASSERT_LT(cache.size() - n, want.reached - where.slack) << "refused what is promised";
                }
                break;
            }
            default: {
                const index_t n = d.below(4) == 0 ? d.below(30) : d.below(3);
                with_any_storage(d, [&]<class T>(T) {
                    const operand<T> k({want.shape.B, shape.G, n, shape.D}, d),
                        v({want.shape.B, shape.G, n, shape.E}, d);
                    cache.append(k.x, v.x);
                    want.append(k, v);
                });
            }
        }
        expect_same(cache, want);
        if (testing::Test::HasFatalFailure()) FAIL() << "seed " << seed << ", step " << step;
    }
    const stream_cache<K, V> fresh({cache.batch(), shape.G, shape.D, shape.E}, where);
    EXPECT_EQ(cache.bytes(), fresh.bytes());
    stream_cache<K, V> copy = cache;
    cache.truncate(0);
    expect_same(copy, want);
}

TEST(stream_cache, any_history_holds_what_its_tokens_say) {
    for (std::uint64_t seed = 0; seed < 60; ++seed) {
        random_history<float, float>(seed);
        random_history<bf16, double>(1000 + seed);
    }
}

/// Tokens t = first, ..., as a model would give them: rotated by t. (1, 1, n, D)
template <class T>
tensor<T> rotated_tokens(const tensor<T>& raw, index_t first, index_t channels, bool interleave) {
    tensor<T> x(raw.shape());
    ref::rotary(raw.v(), x.v(), channels, interleave, [&](index_t, index_t n, index_t pair) {
        return ref::rotary_turn(static_cast<double>(first + n), pair, channels);
    });
    return x;
}

/// After `between` tokens that nobody will see, the keys held are those of row [13] in double: R(c) k at place c,
/// turned on by what was forgotten, as queries are.
template <class T, class... P>
void expect_positions_in_the_cache(index_t between, index_t channels, bool interleave, const P&... rotation) {
    SCOPED_TRACE(between);
    const index_t s = 3, w = 5, D = 12;
    stream_cache<T> cache({1, 1, D, 2}, {s, w, 2}, rotation...);
    const auto sinks = normal<T>({1, 1, s, D}, 1), last = normal<T>({1, 1, w, D}, 2);
    const tensor<T> filler({1, 1, 1, D}), filler_v = normal<T>({1, 1, 1, 2}, 3);
    const auto repeated = [](const tensor<T>& x, index_t n) {
        return view<const T>{x.v().data, {1, 1, n, x.shape()[3]}, {0, 0, 0, 1}};
    };
    const auto append = [&](const tensor<T>& raw) {
        const index_t n = raw.shape()[2];
        cache.append(rotated_tokens(raw, cache.size(), channels, interleave), repeated(filler_v, n));
    };
    append(sinks);
    cache.append(repeated(constant<T>({1, 1, 1, D}, 7), between), repeated(filler_v, between));
    append(last);
    const index_t e = cache.forgotten(), L = cache.keys(0, 0);
    ASSERT_EQ(L, std::min(s + between + w, s + w));
    ASSERT_EQ(e, s + between + w - L);
    tensor<T> raw({1, 1, L, D});
    raw.each([&](index_t, index_t, index_t c, index_t d) {
        raw(0, 0, c, d) = c < s ? sinks(0, 0, c, d) : last(0, 0, c - s, d);
    });
    tensor<double> exact({1, 1, L, D});
    ref::rotary(raw.v(), exact.v(), channels, interleave, [&](index_t, index_t c, index_t pair) {
        return ref::rotary_turn(static_cast<double>(c + e), pair, channels);
    });
    const auto held = tokens_of(cache, 0, 0);
    // Three roundings (as given, of the turn, as stored), and what a double knows of the angle.
    const double bound = 4 * (3 * epsilon<T> + static_cast<double>(e + L) * epsilon<double>);
    for (index_t c = 0; c < L; ++c)
        for (index_t d = 0; d < D; ++d)
            ASSERT_NEAR(held[number(c)].k[number(d)], exact(0, 0, c, d), bound) << c << ", " << d;
}

TEST(stream_cache, sinks_turn_with_the_window_and_do_not_drift) {
    for (index_t between : {0, 1, 2, 100, 4000000}) {
        expect_positions_in_the_cache<float>(between, 12, false, theta{10000});
        expect_positions_in_the_cache<float>(between, 12, true, interleaved{});
        expect_positions_in_the_cache<float>(between, 8, false, rotated{8});
        expect_positions_in_the_cache<double>(between, 8, true, interleaved{}, rotated{8}, theta{10000});
        expect_positions_in_the_cache<bf16>(between, 12, false, half_split{});
    }
}

/// Appended one by one, or in any pieces, with drops in between: the same bits, turned sinks included.
TEST(stream_cache, the_pieces_of_a_stream_change_no_bit) {
    const index_t n = 60, D = 10, E = 3;
    const auto k = normal<float>({2, 2, n, D}, 1), v = normal<float>({2, 2, n, E}, 2);
    const auto part = [](const tensor<float>& x, index_t first, index_t last) {
        return slice(x.v(), 2, {first, last});
    };
    dice d(3);
    for (int round = 0; round < 40; ++round) {
        const residency where{d.below(5), 1 + d.below(20), 3};
        stream_cache<bf16> pieces({2, 2, D, E}, where, theta{100});
        for (index_t t = 0; t < n;) {
            const index_t more = std::min(n, t + d.below(9));
            pieces.append(part(k, t, more), part(v, t, more));
            t = more;
            const index_t drop = std::min(t, d.below(4));
            if (t == n || t + 3 > n) continue;
            pieces.append(part(k, n - drop, n), part(v, n - drop, n));  // guesses, refused
            pieces.truncate(drop);
        }
        stream_cache<bf16> whole({2, 2, D, E}, where, theta{100});
        whole.append(k, v);
        for (index_t b = 0; b < 2; ++b)
            for (index_t g = 0; g < 2; ++g) ASSERT_TRUE(tokens_of(pieces, b, g) == tokens_of(whole, b, g)) << round;
    }
}

TEST(stream_cache, sinks_turn_back_to_the_bits_they_were_given_as) {
    auto k = normal<float>({1, 1, 6, 4}, 1);
    k(0, 0, 1, 3) = INFINITY;
    stream_cache<float> cache({1, 1, 4, 4}, {2, 3, 2}, theta{10000});
    cache.append(k, k);
    stream_cache<float> copy = cache;
    copy.truncate(1);  // nothing is forgotten
    const auto turned = tokens_of(cache, 0, 0), held = tokens_of(copy, 0, 0);
    ASSERT_EQ(held.size(), 5u);
    EXPECT_NE(turned[0].k, held[0].k);
    for (index_t c = 0; c < 5; ++c)
        for (index_t d = 0; d < 4; ++d) EXPECT_EQ(held[number(c)].k[number(d)], k(0, 0, c, d));
}

TEST(stream_cache, keys_without_a_rotation_are_never_turned) {
    stream_cache<float> cache({1, 1, 4, 4}, {2, 3});
    const auto k = normal<float>({1, 1, 50, 4}, 1);
    cache.append(k, k);
    const auto held = tokens_of(cache, 0, 0);
    for (index_t c = 0; c < 5; ++c)
        for (index_t d = 0; d < 4; ++d) EXPECT_EQ(held[number(c)].k[number(d)], k(0, 0, c < 2 ? c : c + 45, d));
}

TEST(stream_cache, counts_to_the_end_and_no_further) {
    stream_cache<float> cache({1, 1, 4, 4}, {2, 3, 1}, theta{10000});
    const auto k = normal<float>({1, 1, 3, 4}, 1);
    const auto many = [&](index_t n) { return view<const float>{k.v().data, {1, 1, n, 4}, {0, 0, 0, 1}}; };
    cache.append(many(far), many(far));
    cache.append(many(far - 3), many(far - 3));
    cache.append(k, k);
    EXPECT_EQ(cache.size(), 2 * far);
    const auto held = tokens_of(cache, 0, 0);
    ASSERT_EQ(held.size(), 5u);
    for (index_t c = 2; c < 5; ++c)
        for (index_t d = 0; d < 4; ++d) EXPECT_EQ(held[number(c)].k[number(d)], k(0, 0, c - 2, d));
    refuses<argument_error>([&] { cache.append(many(1), many(1)); }, "stream_cache::append: 1 tokens after");
    EXPECT_TRUE(tokens_of(cache, 0, 0) == held);
}

TEST(stream_cache, errors_leave_it_as_it_was) {
    stream_cache<float> cache({1, 2, 4, 3}, {1, 4, 2}, theta{10000});
    const auto k = normal<float>({1, 2, 20, 4}, 1), v = normal<float>({1, 2, 20, 3}, 2);
    cache.append(k, v);
    const auto before = tokens_of(cache, 0, 1);
    refuses<shape_error>([&] { cache.append(v, v); }, "stream_cache::append: k has width 3, the cache has 4");
    refuses<argument_error>([&] { cache.truncate(21); }, "cannot drop 21 tokens of 20");
    refuses<argument_error>([&] { cache.truncate(3); },
                            "cannot drop 3 tokens of 20: the window then begins with token 13, the ring with token 14");
    refuses<argument_error>([&] { cache.truncate(18); }, "cannot drop 18 tokens of 20");
    const index_t parents[] = {1};
    refuses<argument_error>([&] { cache.reorder(parents); }, "sequence 1 of 1");
    const auto own = cache.run(0, 0, 0).k;
    const view<const float> inside{own.data, {1, 2, 1, 4}, {0, 0, 0, 1}};
    refuses<shape_error>([&] { cache.append(inside, slice(v.v(), 2, {0, 1})); }, "k overlaps the cache");
    EXPECT_TRUE(tokens_of(cache, 0, 1) == before);
    EXPECT_EQ(cache.size(), 20);
    cache.truncate(2);
    cache.truncate(17);  // the sink remains
    EXPECT_EQ(tokens_of(cache, 0, 0)[0].k[2], k(0, 0, 0, 2));
    using made = stream_cache<float>;
    refuses<argument_error>([] { made({1, 1, 4, 4}, {-1, 4}); }, "stream_cache: sinks is -1");
    refuses<argument_error>([] { made({1, 1, 4, 4}, {1, 0}); }, "stream_cache: window is 0, must be 1");
    refuses<argument_error>([] { made({1, 1, 4, 4}, {1, 2, -1}); }, "stream_cache: slack is -1");
    refuses<argument_error>([] { made({1, 1, 4, 4}, {1, 2}, rotated{3}); }, "stream_cache: width 3 is odd");
    refuses<argument_error>([] { made({1, 1, 4, 4}, {1, 2}, rotated{6}); }, "width is 6, keys have 4 channels");
    refuses<argument_error>([] { made({1, 1, 4, 4}, {1, 2}, theta{-1}); }, "stream_cache: theta is -1");
}

TEST(stream_cache, empty_extents) {
    for (cache_shape shape : {cache_shape{0, 2, 4, 4}, cache_shape{2, 0, 4, 4}, cache_shape{1, 1, 0, 0}}) {
        stream_cache<float> cache(shape, {2, 3}, theta{10000});
        const auto k = normal<float>({shape.B, shape.G, 9, shape.D}, 1),
                   v = normal<float>({shape.B, shape.G, 9, shape.E}, 2);
        cache.append(k, v);
        EXPECT_EQ(cache.size(), 9);
        EXPECT_EQ(cache.keys(0, 0), 5);
        cache.reorder({});
        EXPECT_EQ(cache.batch(), 0);
    }
}

}  // namespace
