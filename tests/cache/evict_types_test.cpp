// heed_test: LABELS sanitize
// Eviction by token types [75] against the mask it decodes under, and by the size it promises.
#include <gtest/gtest.h>

#include <heed/cache/evict_types.hpp>

#include "random.hpp"

using namespace test;

namespace {

/// Decodes n tokens of these types; at each step what is held is what the mask shows, and as many as promised.
void decode(const std::vector<token_type>& types, index_t reach) {
    const auto n = static_cast<index_t>(types.size());
    std::vector<index_t> last(types.size());
    token_lifetimes(types, reach, last);
    const lifetime mask{dense(static_cast<const index_t*>(last.data()), {1, 1, n})};
    std::vector<token_type> held_types;
    std::vector<index_t> held;
    for (index_t i = 0; i < n; ++i) {
        held.push_back(i);
        held_types.push_back(types[static_cast<std::size_t>(i)]);
        std::vector<index_t> visible;
        for (index_t j = 0; j < n; ++j)
            if (mask.allows({0, 0, i, i, j})) visible.push_back(j);
        ASSERT_EQ(held, visible) << "at " << i;
        index_t promised = 1, open = 0;  // the newest, and of those before it
        for (index_t j = 0; j < i; ++j) {
            const token_type t = types[static_cast<std::size_t>(j)];
            if (t == token_type::global) open = 0, ++promised;
            if (t == token_type::local) ++open;
            if (t == token_type::window) promised += j >= i - reach;
        }
        ASSERT_EQ(static_cast<index_t>(held.size()), promised + open) << "at " << i;
        const auto kept = keep_living(held_types, held, reach, i + 1);
        keep_entries(held, kept);
        keep_entries(held_types, kept);
    }
}

TEST(keep_living, holds_what_the_mask_shows) {
    const counter_random r(1);
    for (std::uint64_t trial = 0; trial < 60; ++trial) {
        const double global = r.uniform(1000 * trial), local = r.uniform(1000 * trial + 1);
        std::vector<token_type> types;
        for (std::uint64_t j = 0; j < 70; ++j) {
            const double x = r.uniform(1000 * trial + 10 + j);
            types.push_back(x < global / 3 ? token_type::global : x < local ? token_type::local : token_type::window);
        }
        decode(types, r.integer(trial, 0, 12));
    }
}

TEST(keep_living, limits) {
    for (index_t reach : {0, 1, 5, 100})
        for (token_type t : {token_type::global, token_type::local, token_type::window})
            decode(std::vector<token_type>(40, t), reach);
    EXPECT_TRUE(keep_living({}, {}, 3, 7).empty());
    // All global or all local: causal. All window: the sliding window.
    const std::vector<index_t> at{0, 1, 2, 3};
    using kept = std::vector<index_t>;
    EXPECT_EQ(keep_living(std::vector<token_type>(4, token_type::global), at, 1, 4), (kept{0, 1, 2, 3}));
    EXPECT_EQ(keep_living(std::vector<token_type>(4, token_type::local), at, 1, 4), (kept{0, 1, 2, 3}));
    EXPECT_EQ(keep_living(std::vector<token_type>(4, token_type::window), at, 2, 4), (kept{2, 3}));
}

TEST(keep_living, positions_need_not_be_neighbours) {
    const std::vector<token_type> types{token_type::window, token_type::local, token_type::global, token_type::window};
    const std::vector<index_t> at{10, 12, 20, 21};
    using kept = std::vector<index_t>;
    EXPECT_EQ(keep_living(types, at, 11, 20), (kept{0, 1, 2, 3}));  // the global one itself still sees the local one
    EXPECT_EQ(keep_living(types, at, 11, 21), (kept{0, 2, 3}));
    EXPECT_EQ(keep_living(types, at, 11, 22), (kept{2, 3}));
    EXPECT_EQ(keep_living(types, at, 11, 33), (kept{2}));
}

TEST(keep_living, errors) {
    const std::vector<token_type> types(3, token_type::local);
    EXPECT_THROW(keep_living(types, std::vector<index_t>{0, 1}, 1, 2), shape_error);
    EXPECT_THROW(keep_living(types, std::vector<index_t>{0, 1, 2}, -1, 2), argument_error);
}

}  // namespace
