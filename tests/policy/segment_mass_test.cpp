// heed_test: LABELS sanitize
// The probe segment_mass: weights by segment of the keys, of many rows and of few, against their definition.
#include <heed/cache/paged.hpp>
#include <heed/core/threads.hpp>
#include <heed/engine/attention.hpp>
#include <heed/policy/masks.hpp>
#include <heed/policy/segment_mass.hpp>

#include "any_mask.hpp"
#include "compare.hpp"
#include "operands.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

using list = std::vector<index_t>;

/// Sums of the dense weights of some rows over each segment, in the arithmetic of R.
template <class R>
tensor<R> dense_masses(const operands<float>& x, const list& cuts, const list& rows, const any_mask& mask,
                       const std::vector<float>& sinks) {
    tensor<R> o(x.rows()), p({x.B, x.H, x.N(), x.M()}),
        mass({x.B, x.H, static_cast<index_t>(rows.size()), static_cast<index_t>(cuts.size()) - 1});
    ref::options<R> with;
    with.visible = [&](index_t b, index_t h, index_t row, index_t i, index_t j) {
        return mask.allows({b, h, row, i, j});
    };
    with.sink.assign(sinks.begin(), sinks.end());
    ref::record<R> to;
    to.probability = p;
    ref::naive_attention<R>(x.q.v(), x.k.v(), x.v.v(), o.v(), with, to);
    mass.each([&](index_t b, index_t h, index_t n, index_t s) {
        R sum = 0;
        const range keys = range{cuts[number(s)], cuts[number(s + 1)]} & range{0, x.M()};
        for (index_t j = keys.first; j < keys.last; ++j) sum += p(b, h, rows[number(n)], j);
        mass(b, h, n, s) = sum;
    });
    return mass;
}

list numbers(index_t n) {
    list all;
    for (index_t i = 0; i < n; ++i) all.push_back(i);
    return all;
}

TEST(segment_mass, is_the_weights_by_segment) {
    const std::vector<float> sinks{0.5f, -1, 2, 0};
    const any_mask masks[] = {everything{}, (causal{} & window{30}) | first{2}, nothing{}};
    for (auto [N, M] : {std::array<index_t, 2>{1, 1300}, {3, 141}, {53, 141}, {9, 5}}) {
        const operands<float> x(N, M);
        const list last{N - 1, 0, N - 1}, every = numbers(N);
        for (const list& cuts : {list{0, M}, list{0, 0, M / 3, M / 3, M - 1, M, M + 7}, list{M / 4, M / 2}, list{2},
                                 numbers(M + 1)})
            for (const any_mask& mask : masks) {
                const auto S = static_cast<index_t>(cuts.size()) - 1;
                tensor<float> o(x.rows()), plain(x.rows()), all({x.B, x.H, N, S}), some({x.B, x.H, 3, S});
                attention(x.q, x.k, x.v, o, mask, sink{sinks}, segment_mass(all.v(), cuts),
                          segment_mass(some.v(), cuts, last));
                EXPECT_TRUE(within_rule<float>(all, dense_masses<float>(x, cuts, every, mask, sinks),
                                               dense_masses<double>(x, cuts, every, mask, sinks)));
                some.each([&](index_t b, index_t h, index_t n, index_t s) {
                    ASSERT_EQ(some(b, h, n, s), all(b, h, last[number(n)], s));
                });
                attention(x.q, x.k, x.v, plain, mask, sink{sinks});
                EXPECT_TRUE(same_values(o, plain));
            }
    }
}

/// Long enough that keys are split over tasks; pages and the number of threads leave every bit.
TEST(segment_mass, of_a_cache_is_the_same_on_any_number_of_threads) {
    const index_t M = 3000;
    const operands<float> x(1, M);
    const list cuts{0, 100, 1111, 2048, M};
    paged_cache<float> pages({x.B, x.G, 6, x.E}, 16, 400);
    pages.append(x.k, x.v);
    tensor<float> o(x.rows()), want({x.B, x.H, 1, 4}), got(want);
    attention(x.q, x.k, x.v, o, segment_mass(want.v(), cuts));
    want.each([&](index_t b, index_t h, index_t, index_t s) {
        if (s == 3)
            EXPECT_NEAR(want(b, h, 0, 0) + want(b, h, 0, 1) + want(b, h, 0, 2) + want(b, h, 0, 3), 1, 1e-6);
    });
    for (index_t crew : {1, 2, 5}) {
        threads pool(crew);
        got.fill([](index_t) { return 7; });
        attention(x.q, pages, o, segment_mass(got.v(), cuts), on{pool});
        EXPECT_TRUE(same_values(got, want)) << crew << " threads";
    }
}

/// What a row does not see adds nothing to it, whatever that is; what it sees does.
TEST(segment_mass, knows_visible_nan_from_hidden) {
    for (index_t N : {1, 40}) {
        operands<float> x(N, 50);
        x.k.each([&](index_t b, index_t g, index_t j, index_t d) {
            if (j >= 45) x.k(b, g, j, d) = std::nanf("");
        });
        const list cuts{0, 20, 50};
        tensor<float> o(x.rows()), mass({x.B, x.H, N, 2});
        attention(x.q, x.k, x.v, o, first{30}, segment_mass(mass.v(), cuts));
        for (index_t n = 0; n < N; ++n) EXPECT_NEAR(mass(1, 2, n, 0) + mass(1, 2, n, 1), 1, 1e-6);
        attention(x.q, x.k, x.v, o, between{10, 50}, segment_mass(mass.v(), cuts));
        EXPECT_TRUE(std::isnan(mass(1, 2, N - 1, 1)));
    }
}

TEST(segment_mass, errors) {
    const operands<float> x(2, 9);
    tensor<float> o(x.rows()), mass({x.B, x.H, 2, 2});
    const auto fails = [&](const list& cuts, const list& rows, const std::string& sentence) {
        refuses<std::invalid_argument>([&] { attention(x.q, x.k, x.v, o, segment_mass(mass.v(), cuts, rows)); },
                                       "attention: segment_mass" + sentence);
        for (auto* t : {&o, &mass})
            for (float y : t->memory()) EXPECT_TRUE(std::isnan(y));  // untouched
    };
    fails({}, {}, " has no cuts");
    fails({-1, 2, 9}, {}, ": the first cut is -1, the least is 0");
    fails({0, 5, 4}, {}, ": cut 4 stands after 5");
    fails({0, 9}, {}, " has shape (2, 4, 2, 2), expected (2, 4, 2, 1)");
    fails({0, 4, 9}, {1}, " has shape (2, 4, 2, 2), expected (2, 4, 1, 2)");
    fails({0, 4, 9}, {1, 2}, ": row 2 is not below 2");
}

}  // namespace
