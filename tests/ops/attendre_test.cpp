// Attention that waits [22], against the masks it amounts to.
#include <heed/heed.hpp>

#include "any_mask.hpp"
#include "compare.hpp"
#include "random.hpp"

using namespace test;

namespace {

constexpr index_t B = 2, H = 4, G = 2, D = 16, E = 8, c = 4;
constexpr leaves_first rules[] = {leaves_first::oldest, leaves_first::least_recently_attended,
                                  leaves_first::least_frequently_attended};

struct input {
    index_t N;
    tensor<float> q, k, v;
    explicit input(index_t n)
        : N(n),
          q(normal<float>({B, H, N, D}, 1, 1.5)),
          k(normal<float>({B, G, N, D}, 2)),
          v(normal<float>({B, G, N, E}, 3)) {}

    tensor<float> stream(attendre<float> run, const any_mask& mask = everything{}) const {
        tensor<float> o({B, H, N, E});
        index_t written = 0;
        const auto next = [&](range rows) {
            EXPECT_EQ(rows.first, written);  // every query once, in the order of the input
            written = rows.last;
        };
        for (index_t first = 0; first < N; first += c) {
            const range chunk{first, std::min(first + c, N)};
            next(run.step(slice(q.v(), 2, chunk), slice(k.v(), 2, chunk), slice(v.v(), 2, chunk), o, mask));
            EXPECT_LE(run.memory().keys(1, 1), std::max<index_t>(c, run.memory().capacity()));
        }
        next(run.flush(o, mask));
        EXPECT_EQ(written, N);
        return o;
    }
    attendre<float> make(index_t capacity, index_t delay, leaves_first rule, index_t top = 0) const {
        return attendre<float>({B, G, D, E}, H, capacity, delay, rule, top);
    }
    testing::AssertionResult is(const tensor<float>& o, std::function<bool(index_t, index_t)> visible) const {
        return attends(o, q, k, v, [&](auto real) {
            ref::options<decltype(real)> with;
            with.visible = [&](index_t, index_t, index_t, index_t i, index_t j) { return visible(i, j); };
            return with;
        });
    }
};

TEST(attendre, limits) {
    const input x(23);
    for (leaves_first rule : rules)
        for (index_t top : {0, 3}) {
            EXPECT_TRUE(x.is(x.stream(x.make(24, 23, rule, top)), [](index_t, index_t) { return true; }));
            EXPECT_TRUE(x.is(x.stream(x.make(24, 0, rule, top)), [](index_t i, index_t j) { return j / c <= i / c; }));
            EXPECT_TRUE(
                x.is(x.stream(x.make(24, 0, rule, top), causal{}), [](index_t i, index_t j) { return j <= i; }));
        }
}

TEST(attendre, first_in_first_out_is_a_band_of_chunks) {
    const input x(40);
    for (index_t chunks : {1, 3})
        for (index_t delay : {0, 1, 2, 10})
            EXPECT_TRUE(x.is(x.stream(x.make(chunks * c, delay * c, leaves_first::oldest)),
                             [&](index_t i, index_t j) {
                                 const index_t now = std::min(i / c + delay, x.N / c - 1);
                                 return now - chunks < j / c && j / c <= now;
                             }))
                << chunks << " " << delay;
}

/// A key that every query looks at stays under LRA and LFA, and leaves a FIFO memory.
TEST(attendre, what_is_attended_stays) {
    input x(60);
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h)
            for (index_t i = 0; i < 60; ++i) x.q(b, h, i, 0) = 10;
    for (index_t b = 0; b < B; ++b)
        for (index_t g = 0; g < G; ++g) x.k(b, g, 5, 0) = 10;
    for (leaves_first rule : rules)
        for (index_t top : {0, 1}) {
            auto run = x.make(3 * c, 0, rule, top);
            tensor<float> o({B, H, 60, E});
            for (index_t first = 0; first < 60; first += c) {
                const range chunk{first, first + c};
                run.step(slice(x.q.v(), 2, chunk), slice(x.k.v(), 2, chunk), slice(x.v.v(), 2, chunk), o,
                         any_mask(everything{}));
            }
            const index_t* at = run.memory().positions(1, 1);
            const bool stays = std::find(at, at + run.memory().keys(1, 1), 5) != at + run.memory().keys(1, 1);
            // By weight every key is attended a little, in every chunk: LRA then is FIFO.
            const bool should = rule == leaves_first::least_frequently_attended ||
                                (rule == leaves_first::least_recently_attended && top == 1);
            EXPECT_EQ(stays, should) << static_cast<int>(rule) << " " << top;
        }
}

TEST(attendre, errors_change_nothing) {
    const input x(8);
    auto run = x.make(4, 4, leaves_first::oldest);
    tensor<float> o({B, H, 8, E}), short_o({B, H, 3, E});
    const any_mask mask(everything{});
    const auto chunk = [&](const tensor<float>& t, index_t first, index_t last) {
        return slice(t.v(), 2, {first, last});
    };
    const auto step = [&](range q, range k, range v, tensor<float>& to) {
        return run.step(chunk(x.q, q.first, q.last), chunk(x.k, k.first, k.last), chunk(x.v, v.first, v.last), to,
                        mask);
    };
    EXPECT_THROW(step({0, 5}, {0, 5}, {0, 5}, o), argument_error);  // more than the capacity
    EXPECT_THROW(step({0, 3}, {0, 4}, {0, 4}, o), shape_error);
    EXPECT_THROW(step({0, 4}, {0, 4}, {0, 3}, o), shape_error);
    EXPECT_EQ(run.memory().keys(0, 0), 0);
    EXPECT_EQ(step({0, 4}, {0, 4}, {0, 4}, o), (range{0, 0}));
    EXPECT_THROW(step({4, 8}, {4, 8}, {4, 8}, short_o), shape_error);
    EXPECT_EQ(run.memory().end(0), 4);
    EXPECT_EQ(step({4, 8}, {4, 8}, {4, 8}, o), (range{0, 4}));
    EXPECT_THROW(run.flush(short_o, mask), shape_error);
    EXPECT_EQ(run.flush(o, mask), (range{4, 8}));
    EXPECT_EQ(run.flush(o, mask), (range{8, 8}));
    EXPECT_THROW((attendre<float>({B, G, D, E}, H, 4, 4, leaves_first::oldest, -1)), argument_error);
}

/// Guesses that are dropped again leave no trace while nothing is evicted: neither in the memory nor among the queries
/// that wait, nor, where they did not wait, in the outputs.
TEST(attendre, dropped_tokens_have_never_come) {
    const input x(24);
    const any_mask mask(causal{});
    const auto chunk = [&](const tensor<float>& t, range r) { return slice(t.v(), 2, r); };
    for (index_t delay : {0, 3, 8, 30})
        for (index_t top : {0, 2}) {
            auto run = x.make(40, delay, leaves_first::least_frequently_attended, top);
            tensor<float> o({B, H, 32, E});  // guesses are answered too
            for (index_t first = 0; first < 24; first += c) {
                const range guess{20 - first, 24 - first}, next{first, first + c};
                run.step(chunk(x.q, guess), chunk(x.k, guess), chunk(x.v, guess), o, mask);
                run.step(chunk(x.q, guess), chunk(x.k, guess), chunk(x.v, guess), o, mask);
                run.truncate(2 * c);
                run.step(chunk(x.q, next), chunk(x.k, next), chunk(x.v, next), o, mask);
                EXPECT_EQ(run.memory().end(0), first + c);
            }
            // Under the causal mask later tokens do not show, so that outputs are those of no delay.
            EXPECT_EQ(run.flush(o, mask).last, 24);
            EXPECT_TRUE(x.is(copied(slice(o.v(), 2, {0, 24})), [](index_t i, index_t j) { return j <= i; }))
                << delay << " " << top;
        }
}

/// Heads that let go of different keys hold different numbers of them after a drop, and go on.
TEST(attendre, a_drop_after_evictions) {
    const input x(60);
    for (leaves_first rule : rules)
        for (index_t top : {0, 2}) {
            auto run = x.make(3 * c, c, rule, top);
            tensor<float> o({B, H, 60, E});
            const auto step = [&](index_t first) {
                const range chunk{first, first + c};
                run.step(slice(x.q.v(), 2, chunk), slice(x.k.v(), 2, chunk), slice(x.v.v(), 2, chunk), o,
                         any_mask(everything{}));
            };
            for (index_t first = 0; first < 40; first += c) step(first);
            run.truncate(3 * c);
            for (index_t first = 28; first < 60; first += c) step(first);
            EXPECT_EQ(run.flush(o, any_mask(everything{})).last, 60);
            for (index_t b = 0; b < B; ++b)
                for (index_t g = 0; g < G; ++g) EXPECT_EQ(run.memory().keys(b, g), 3 * c);
            EXPECT_THROW(run.truncate(61), argument_error);
            EXPECT_THROW(run.truncate(-1), argument_error);
            EXPECT_EQ(run.memory().end(0), 60);
        }
}

TEST(attendre, reorder_takes_memory_and_waiting_queries_along) {
    const input x(24);
    const std::vector<index_t> parents{1, 0, 1};
    const any_mask mask(everything{});
    for (leaves_first rule : rules) {
        auto run = x.make(2 * c, 6, rule, 2);
        tensor<float> o({B, H, 24, E}), beams({3, H, 24, E});
        const auto step = [&](auto& to, index_t first, const auto& rows) {
            const range chunk{first, first + c};
            run.step(rows(x.q, chunk), rows(x.k, chunk), rows(x.v, chunk), to, mask);
        };
        const auto as_they_are = [](const tensor<float>& t, range r) { return copied(slice(t.v(), 2, r)); };
        const auto by_parent = [&](const tensor<float>& t, range r) {
            tensor<float> y({3, t.shape()[1], r.size(), t.shape()[3]});
            y.each([&](index_t b, index_t h, index_t n, index_t d) {
                y(b, h, n, d) = t(parents[static_cast<std::size_t>(b)], h, r.first + n, d);
            });
            return y;
        };
        for (index_t first = 0; first < 12; first += c) step(o, first, as_they_are);
        EXPECT_THROW(run.reorder(std::vector<index_t>{2}), argument_error);
        run.reorder(parents);
        for (index_t first = 12; first < 24; first += c) step(beams, first, by_parent);
        run.flush(beams, mask);
        const auto whole = x.stream(x.make(2 * c, 6, rule, 2));
        beams.each([&](index_t b, index_t h, index_t n, index_t e) {
            const index_t parent = parents[static_cast<std::size_t>(b)];
            ASSERT_EQ(n < 6 ? o(parent, h, n, e) : beams(b, h, n, e), whole(parent, h, n, e)) << n;
        });
    }
}

}  // namespace
