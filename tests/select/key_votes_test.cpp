// Votes for keys: against counts, over layers and steps; what all heads then attend to.
#include <heed/cache/contiguous.hpp>
#include <heed/engine/attention.hpp>
#include <heed/policy/masks.hpp>
#include <heed/select/key_votes.hpp>
#include <map>

#include "compare.hpp"
#include "operands.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

using list = std::vector<index_t>;

/// Some of M keys for each head, ascending.
key_lists random_lists(index_t B, index_t G, index_t M, std::uint64_t seed) {
    key_lists out(B, G);
    const counter_random r(seed);
    std::uint64_t draws = 0;
    for (index_t b = 0; b < B; ++b)
        for (index_t g = 0; g < G; ++g)
            for (index_t j = 0; j < M; ++j)
                if (r.uniform(draws++) < 0.3) out(b, g).push_back(j);
    return out;
}

TEST(key_votes, count_the_heads_of_all_layers_and_decay_by_steps) {
    const index_t B = 2, G = 3, M = 70;
    key_votes votes(0.5);
    std::map<index_t, double> count[B];
    for (std::uint64_t step = 0; step < 4; ++step) {
        votes.next();
        for (auto& of : count)
            for (auto& [j, n] : of) n *= 0.5;
        for (std::uint64_t layer = 0; layer < 3; ++layer) {
            const auto chosen = random_lists(B, G, M + static_cast<index_t>(step), 10 * step + layer);
            votes.hear(chosen);
            for (index_t b = 0; b < B; ++b)
                for (index_t g = 0; g < G; ++g)
                    for (index_t j : chosen(b, g)) ++count[b][j];
        }
        for (index_t b = 0; b < B; ++b)
            for (index_t j = 0; j < std::ssize(votes.votes(b)); ++j) ASSERT_EQ(votes.votes(b)[number(j)], count[b][j]);
        for (index_t most : {0, 1, 20, 1000}) {
            const auto elected = votes.elected(most, G);
            for (index_t b = 0; b < B; ++b) {
                list order;
                for (const auto& [j, n] : count[b])
                    if (n > 0) order.push_back(j);
                std::stable_sort(order.begin(), order.end(),
                                 [&](index_t x, index_t y) { return count[b][x] > count[b][y]; });
                order.resize(std::min(order.size(), number(most)));
                std::sort(order.begin(), order.end());
                for (index_t g = 0; g < G; ++g) EXPECT_EQ(elected(b, g), order);
            }
        }
    }
}

/// A key that most heads look for is read by the one that does not; where all choose the same, nothing changes.
TEST(key_votes, what_is_elected_is_attended_to_by_every_head) {
    const operands<float> x(1, 40);
    contiguous_cache<float> cache({x.B, x.G, 6, x.E});
    cache.append(x.k, x.v);
    key_lists chosen(x.B, x.G);
    for (index_t b = 0; b < x.B; ++b) chosen(b, 0) = {0, 1, 9, 10, 39}, chosen(b, 1) = {0, 1, 9, 30, 39};
    key_votes votes;
    votes.hear(chosen);
    EXPECT_EQ(votes.elected(4, 2)(1, 1), (list{0, 1, 9, 39}));
    votes.hear(votes.elected(5, 2));
    const auto common = votes.elected(5, 2);
    EXPECT_EQ(common(0, 0), (list{0, 1, 9, 10, 39}));
    tensor<float> o(x.rows());
    attention(x.q, gathered(cache, common), o, causal{});
    EXPECT_TRUE(attends(o, x.q, x.k, x.v, [&](auto real) {
        ref::options<decltype(real)> with;
        with.visible = [&](index_t b, index_t, index_t, index_t, index_t j) {
            return std::binary_search(common(b, 0).begin(), common(b, 0).end(), j);
        };
        return with;
    }));
}

TEST(key_votes, follow_a_cache_and_name_bad_arguments) {
    key_votes votes(1);
    votes.hear(random_lists(2, 2, 30, 1));
    const list first(votes.votes(0).begin(), votes.votes(0).end());
    votes.reorder(list{0, 0, 1});
    EXPECT_TRUE(std::equal(first.begin(), first.end(), votes.votes(1).begin(), votes.votes(1).end()));
    votes.cut(1, 5);
    EXPECT_EQ(votes.votes(1).size(), 5u);
    votes.cut(1, 50);
    EXPECT_EQ(votes.votes(1).size(), 5u);
    refuses<argument_error>([&] { votes.cut(3, 1); }, "key_votes: sequence 3 of 3");
    refuses<argument_error>([&] { votes.cut(0, -1); }, "key_votes: -1 keys remain, the least is 0");
    refuses<argument_error>([&] { votes.reorder(list{3}); }, "key_votes: sequence 3 of 3");
    refuses<shape_error>([&] { votes.hear(key_lists(2, 2)); }, "the choice has batch 2, those before had 3");
    refuses<argument_error>([&] { static_cast<void>(votes.elected(-1, 2)); }, "-1 keys are elected");
    refuses<argument_error>([] { key_votes bad(1.5); }, "key_votes: decay is 1.5, not in [0, 1]");
}

}  // namespace
