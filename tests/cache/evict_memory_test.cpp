// heed_test: LABELS sanitize
// Memories of fixed size and waiting queries (Attendre [22]), against the masks they amount to.
#include <gtest/gtest.h>

#include <heed/cache/evict_memory.hpp>
#include <heed/cache/waiting_queries.hpp>

#include "defined.hpp"
#include "random.hpp"

using namespace test;

namespace {

using kept = std::vector<index_t>;

struct input {
    tensor<double> q, k, v;
    explicit input(index_t N, std::uint64_t seed = 1)
        : q(normal<double>({1, 1, N, 8}, seed, 1.5)),
          k(normal<double>({1, 1, N, 8}, seed + 1)),
          v(normal<double>({1, 1, N, 4}, seed + 2)) {}
};

kept numbered(index_t first, index_t last) {
    kept out;
    for (index_t i = first; i < last; ++i) out.push_back(i);
    return out;
}

/// The loop of [22] in chunks of c tokens; what every query saw is kept beside its output.
struct streamed {
    tensor<double> o;
    std::vector<kept> seen;
    std::vector<int> answered;

    streamed(const input& x, index_t c, index_t key_capacity, index_t query_capacity, leaves_first rule)
        : o({1, 1, x.q.shape()[2], 4}), seen(static_cast<std::size_t>(x.q.shape()[2])), answered(seen.size()) {
        const index_t N = x.q.shape()[2];
        attended_keys keys(key_capacity, rule);
        waiting_queries<double> waiting(1, 1, 8, query_capacity);
        kept held;
        const auto attend = [&](index_t n) {
            if (n == 0) return;
            tensor<double> q({1, 1, n, 8});
            q.each([&](index_t b, index_t h, index_t i, index_t d) { q(b, h, i, d) = waiting.front(n)(b, h, i, d); });
            const defined run(q, rows_at(x.k, held), rows_at(x.v, held));
            std::vector<double> mass(held.size());
            for (index_t i = 0; i < n; ++i) {
                const index_t at = waiting.first() + i;
                seen[static_cast<std::size_t>(at)] = held;
                ++answered[static_cast<std::size_t>(at)];
                for (index_t e = 0; e < 4; ++e) o(0, 0, at, e) = run.o(0, 0, i, e);
                for (std::size_t j = 0; j < held.size(); ++j) mass[j] += run.p(0, 0, i, static_cast<index_t>(j));
            }
            keys.attend_mass(std::span<const double>(mass));
            waiting.pop(n);
        };
        for (index_t first = 0; first < N; first += c) {
            const auto chunk = numbered(first, std::min(first + c, N));
            held.insert(held.end(), chunk.begin(), chunk.end());
            keep_entries(held, keys.insert(static_cast<index_t>(chunk.size())));
            waiting.push(rows_at(x.q, chunk));
            attend(waiting.due());
        }
        attend(waiting.waiting());
    }
};

constexpr leaves_first rules[] = {leaves_first::oldest, leaves_first::least_recently_attended,
                                  leaves_first::least_frequently_attended};

TEST(attendre, room_for_all_and_waiting_to_the_end_is_bidirectional) {
    const input x(23);
    for (leaves_first rule : rules) {
        const streamed run(x, 4, 23, 23, rule);
        EXPECT_EQ(distance(run.o, defined(x.q, x.k, x.v).o), 0);
    }
}

TEST(attendre, no_waiting_is_causal_by_chunks) {
    const input x(23);
    const defined want(x.q, x.k, x.v, seeing([](index_t i, index_t j) { return j / 4 <= i / 4; }));
    for (leaves_first rule : rules) EXPECT_LT(distance(streamed(x, 4, 23, 0, rule).o, want.o), 1e-14);
}

TEST(attendre, first_in_first_out_is_a_band_of_chunks) {
    const index_t c = 4, N = 40;
    const input x(N);
    for (index_t chunks : {1, 2, 5, 10})
        for (index_t delay : {0, 1, 3, 10}) {
            const streamed run(x, c, chunks * c, delay * c, leaves_first::oldest);
            const defined want(x.q, x.k, x.v, seeing([&](index_t i, index_t j) {
                                   const index_t now = std::min(i / c + delay, N / c - 1);
                                   return now - chunks < j / c && j / c <= now;
                               }));
            EXPECT_LT(distance(run.o, want.o), 1e-14) << chunks << " " << delay;
        }
}

TEST(attendre, every_query_is_answered_once) {
    for (index_t N : {0, 1, 5, 24, 25})
        for (index_t query_capacity : {0, 1, 4, 7, 100})
            for (leaves_first rule : rules) {
                const streamed run(input(N), 5, 10, query_capacity, rule);
                for (int times : run.answered) ASSERT_EQ(times, 1);
                for (const kept& keys : run.seen) ASSERT_LE(keys.size(), 10u);
            }
}

TEST(attended_keys, least_frequently_attended) {
    attended_keys keys(4, leaves_first::least_frequently_attended);
    EXPECT_EQ(keys.insert(4), (kept{0, 1, 2, 3}));
    keys.attend(kept{2, 2, 0, -1});
    EXPECT_EQ(keys.insert(1), (kept{0, 2, 3, 4}));  // counts 1 0 2 0: of the two unattended the oldest
    EXPECT_EQ(keys.insert(2), (kept{0, 1, 4, 5}));  // counts 1 2 0 0: both go, the new ones are no candidates
    keys.attend(kept{3, 3, 3});
    EXPECT_EQ(keys.insert(1), (kept{0, 1, 3, 4}));  // counts 1 2 0 3
    EXPECT_EQ(std::vector<double>(keys.counts().begin(), keys.counts().end()), (std::vector<double>{1, 2, 3, 0}));
}

/// Whatever happens, the one key that is attended the most stays as long as a chunk leaves room.
TEST(attended_keys, the_most_frequent_stays) {
    const counter_random r(3);
    attended_keys keys(9, leaves_first::least_frequently_attended);
    keys.insert(5);
    keys.attend(kept{1});
    std::uint64_t draws = 0;
    for (int i = 0; i < 500; ++i) {
        const std::vector<double> before(keys.counts().begin(), keys.counts().end());
        const auto top = std::max_element(before.begin(), before.end());
        const bool unique = std::count(before.begin(), before.end(), *top) == 1;
        const auto stay = keys.insert(r.integer(draws++, 0, 9));
        ASSERT_TRUE(!unique || std::binary_search(stay.begin(), stay.end(), top - before.begin()));
        if (keys.size() > 0) keys.attend(kept{r.integer(draws++, 0, keys.size()), r.integer(draws++, -1, keys.size())});
    }
}

TEST(attended_keys, least_recently_attended) {
    attended_keys keys(4, leaves_first::least_recently_attended);
    keys.insert(2);
    keys.insert(2);
    keys.attend(kept{0});
    EXPECT_EQ(keys.insert(1), (kept{0, 2, 3, 4}));  // key 1 came first and was never attended
    keys.attend_mass(std::span<const double>(std::vector<double>{0, 0.5, 0.1, 0.4}), 0.1);
    EXPECT_EQ(keys.insert(2), (kept{1, 3, 4, 5}));  // at most the threshold is not attended
}

TEST(attended_keys, errors) {
    EXPECT_THROW(attended_keys(-1, leaves_first::oldest), argument_error);
    attended_keys keys(3, leaves_first::oldest);
    EXPECT_THROW(keys.insert(4), argument_error);
    EXPECT_THROW(keys.insert(-1), argument_error);
    EXPECT_EQ(keys.size(), 0);
    keys.insert(3);
    EXPECT_THROW(keys.attend(kept{3}), argument_error);
    EXPECT_THROW(keys.attend(kept{-2}), argument_error);
    EXPECT_THROW(keys.attend_mass(std::span<const double>(std::vector<double>(2))), shape_error);
}

TEST(waiting_queries, first_in_first_out) {
    const counter_random r(4);
    waiting_queries<bf16> waiting(2, 3, 5, 6);
    const auto all = normal<bf16>({2, 3, 400, 5}, 5, 1, layout::tokens());
    index_t pushed = 0, popped = 0;
    for (std::uint64_t i = 0; pushed < 400; ++i) {
        const index_t n = std::min<index_t>(400 - pushed, r.integer(2 * i, 0, 9));
        waiting.push(slice(all.v(), 2, {pushed, pushed + n}));
        pushed += n;
        ASSERT_EQ(waiting.waiting(), pushed - popped);
        ASSERT_EQ(waiting.due(), std::max<index_t>(0, pushed - popped - 6));
        ASSERT_EQ(waiting.first(), popped);
        const auto front = waiting.front(waiting.waiting());
        for (index_t b = 0; b < 2; ++b)
            for (index_t h = 0; h < 3; ++h)
                for (index_t m = 0; m < front.shape[2]; ++m)
                    for (index_t d = 0; d < 5; ++d)
                        ASSERT_EQ(static_cast<float>(front(b, h, m, d)), static_cast<float>(all(b, h, popped + m, d)));
        const index_t served = r.integer(2 * i + 1, 0, waiting.waiting() + 1);
        waiting.pop(served);
        popped += served;
    }
}

TEST(waiting_queries, errors) {
    waiting_queries<float> waiting(1, 2, 3, 4);
    EXPECT_THROW(waiting.push(tensor<float>({1, 2, 1, 4})), shape_error);
    EXPECT_THROW(waiting.push(tensor<float>({2, 2, 1, 3})), shape_error);
    EXPECT_THROW(waiting.pop(1), argument_error);
    EXPECT_THROW(waiting.front(1), argument_error);
    EXPECT_THROW((waiting_queries<float>(1, 2, 3, -1)), argument_error);
    EXPECT_EQ(waiting.waiting(), 0);
}

}  // namespace
