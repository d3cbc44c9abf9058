// heed_test: LABELS sanitize
// Probes of some rows: the others are not met a second time, and what is recorded is the same to the bit.
#include <gtest/gtest.h>

#include <heed/heed.hpp>

#include "compare.hpp"
#include "operands.hpp"

using namespace test;

namespace {

constexpr index_t queries = 500, keys = 700;

/// Counts the logits it is shown, by packs.
struct counting {
    using role = roles::score;
    index_t* packs;
    template <class X>
    X operator()(const X& x, const where&) const {
        ++*packs;
        return x;
    }
};

struct scene : operands<float> {
    tensor<float> o;
    index_t alone = packs();  // of a call without probes
    explicit scene(index_t n = queries, index_t m = keys) : operands<float>(n, m), o(rows()) {}

    /// The packs of logits that a call with these policies looks at.
    template <class... P>
    index_t packs(const P&... policies) {
        index_t seen = 0;
        attention(q, k, v, o, causal{}, counting{&seen}, policies...);
        return seen;
    }
};

TEST(probes_rows, logits_of_chosen_rows_cost_no_more_than_their_blocks) {
    scene x;
    const std::vector<index_t> rows{queries - 1, 3, queries - 1};
    tensor<float> all({x.B, x.H, queries, keys}), chosen({x.B, x.H, 3, keys});
    const index_t of_all = x.packs(logits{all.v(), stage::scored}) - x.alone;
    const index_t of_chosen = x.packs(logits{chosen.v(), stage::scored, rows}) - x.alone;
    chosen.each([&](index_t b, index_t h, index_t n, index_t j) {
        ASSERT_EQ(chosen(b, h, n, j), all(b, h, rows[static_cast<std::size_t>(n)], j));
    });
    EXPECT_GT(of_chosen, 0);
    EXPECT_LE(of_chosen * 4, of_all);  // two blocks of at least eight
}

TEST(probes_rows, mass_of_the_last_rows_costs_no_more_than_their_blocks) {
    scene x;
    tensor<float> all({x.B, x.H, keys, 1}), last(all);
    const index_t of_all = x.packs(key_mass{flat(all)}) - x.alone;
    const index_t of_last = x.packs(weighted_mass{flat(last), last_rows(queries, 10)}) - x.alone;
    EXPECT_GT(of_last, 0);
    EXPECT_LE(of_last * 4, of_all);
    tensor<float> none(all);
    EXPECT_EQ(x.packs(weighted_mass{flat(none), last_rows(queries, 0)}), x.alone);
    none.each([&](index_t b, index_t h, index_t j, index_t) { ASSERT_EQ(none(b, h, j, 0), 0); });
    // The same from the weights of those rows alone.
    tensor<float> weights({x.B, x.H, queries, keys});
    x.packs(logits{weights.v(), stage::probability});
    last.each([&](index_t b, index_t h, index_t j, index_t) {
        double sum = 0;
        for (index_t n = queries - 10; n < queries; ++n) sum += double(weights(b, h, n, j));
        ASSERT_NEAR(last(b, h, j, 0), sum, 1e-6 * sum + 1e-12);
    });
}

TEST(probes_rows, rows_of_weight_zero_do_not_count_whatever_they_hold) {
    scene x;
    for (index_t n = 0; n + 10 < queries; ++n) x.q(0, 0, n, 0) = std::nanf("");
    for (index_t rows : {1, 10}) {
        tensor<float> mass({x.B, x.H, keys, 1});
        x.packs(weighted_mass{flat(mass), last_rows(queries, rows)});
        double sum = 0;
        for (index_t j = 0; j < keys; ++j) sum += double(mass(0, 0, j, 0));
        EXPECT_NEAR(sum, double(rows), 1e-4);
    }
}

// Whatever the sizes, few rows too; under sanitizers the memory of the records is no larger than they are.
TEST(probes_rows, other_probes_of_the_call_still_meet_all_rows) {
    using sizes = std::pair<index_t, index_t>;
    for (const auto& [n, m] : {sizes{500, 700}, {97, 131}, {49, 49}, {9, 257}, {3, 129}, {1, 7}, {1, 1}}) {
        SCOPED_TRACE(testing::Message() << n << " rows, " << m << " keys");
        scene x(n, m);
        const std::vector<index_t> rows{n / 2};
        tensor<float> chosen({x.B, x.H, 1, m}), top({x.B, x.H, n, 1}), with(top), mass({x.B, x.H, m, 1}), part(mass),
            beside(mass);
        x.packs(row_max{flat(top)}, key_mass{flat(mass)});
        x.packs(logits{chosen.v(), stage::masked, rows}, row_max{flat(with)}, key_mass{flat(beside)},
                weighted_mass{flat(part), last_rows(n, 1)});
        // Few rows keep their logits for probes of visible keys; for those of hidden ones the keys are met again.
        const double by = 4 * n > 3 * lanes<float> ? 0 : 1e-5;
        EXPECT_TRUE(all_near(top, with, by));
        EXPECT_TRUE(all_near(mass, beside, by));
    }
}

}  // namespace
