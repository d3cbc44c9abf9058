// Attention by segments: the output is attention's, the masses are sums of the dense weights; star attention's phases.
#include <heed/ops/segments.hpp>
#include <heed/ops/star.hpp>

#include "any_mask.hpp"
#include "compare.hpp"
#include "operands.hpp"
#include "refuses.hpp"
#include "scattered.hpp"

namespace {

using namespace heed;
using test::any_mask;
using test::operands;
using test::refuses;
using test::tensor;

template <class Real>
ref::options<Real> seen_by(const any_mask& mask) {
    ref::options<Real> with;
    with.visible = [=](index_t b, index_t h, index_t row, index_t i, index_t j) {
        return mask.allows({b, h, row, i, j});
    };
    return with;
}

/// Sums of the dense weights over each segment.
template <class Real, class S>
tensor<Real> dense_masses(const operands<S>& x, const std::vector<index_t>& cuts, const any_mask& mask) {
    tensor<Real> o(x.rows()), p({2, 4, x.N(), x.M()}), mass({2, 4, x.N(), static_cast<index_t>(cuts.size()) - 1});
    ref::record<Real> to;
    to.probability = p;
    ref::naive_attention<Real>(x.q.v(), x.k.v(), x.v.v(), o.v(), seen_by<Real>(mask), to);
    mass.each([&](index_t b, index_t h, index_t n, index_t s) {
        Real sum = 0;
        const auto at = static_cast<std::size_t>(s);
        for (index_t j = cuts[at]; j < cuts[at + 1]; ++j) sum += p(b, h, n, j);
        mass(b, h, n, s) = sum;
    });
    return mass;
}

const std::vector<std::vector<index_t>> ways_to_cut(index_t M) {
    std::vector<index_t> each;
    for (index_t j = 0; j <= M; ++j) each.push_back(j);
    return {{0, M}, {0, M / 3, M}, {0, 0, M / 2, M / 2, M, M}, each};
}

TEST(segments, output_and_masses_are_those_of_dense_attention) {
    const std::vector<any_mask> masks{everything{}, causal{}, causal{} & window{9}, nothing{}, causal{} & first{3}};
    for (auto [N, M] : std::vector<std::array<index_t, 2>>{{1, 1}, {1, 37}, {7, 50}, {20, 20}, {9, 5}})
        for (const auto& cuts : ways_to_cut(M))
            for (const auto& mask : masks) {
                const operands<float> x(N, M);
                tensor<float> o(x.rows()), mass({2, 4, N, static_cast<index_t>(cuts.size()) - 1});
                segment_attention(x.q, x.k, x.v, o, cuts, mass, mask);
                EXPECT_TRUE(test::attends(o, x.q, x.k, x.v, [&](auto real) { return seen_by<decltype(real)>(mask); }));
                EXPECT_TRUE(test::within_rule<float>(mass, dense_masses<float>(x, cuts, mask),
                                                     dense_masses<double>(x, cuts, mask)));
            }
}

TEST(segments, the_masses_of_a_row_sum_to_one_or_to_nothing) {
    const operands<double> x(9, 5);  // the first four rows of a causal mask stand before the keys
    const std::vector<index_t> cuts{0, 2, 3, 5};
    tensor<double> o(x.rows()), mass({2, 4, 9, 3});
    segment_attention(x.q, x.k, x.v, o, cuts, mass, causal{});
    for (index_t n = 0; n < 9; ++n) {
        const double sum = mass(1, 3, n, 0) + mass(1, 3, n, 1) + mass(1, 3, n, 2);
        EXPECT_NEAR(sum, n < 4 ? 0 : 1, 1e-14) << n;
    }
}

TEST(segments, equal_logits_give_mass_by_the_keys_seen) {
    operands<double> x(10, 10);
    x.q = test::constant<double>(x.q.shape(), 0);
    const std::vector<index_t> cuts{0, 1, 4, 10};
    tensor<double> o(x.rows()), mass({2, 4, 10, 3});
    segment_attention(x.q, x.k, x.v, o, cuts, mass, causal{});
    mass.each([&](index_t b, index_t h, index_t n, index_t s) {
        const auto at = static_cast<std::size_t>(s);
        const range seen = range{cuts[at], cuts[at + 1]} & range{0, n + 1};
        EXPECT_NEAR(mass(b, h, n, s), static_cast<double>(seen.size()) / static_cast<double>(n + 1), 1e-15);
    });
}

TEST(segments, sequences_of_a_source_end_where_they_end) {
    const operands<double> x(2, 30);
    const std::vector<index_t> cuts{0, 8, 100};
    tensor<double> o(x.rows()), mass({2, 4, 2, 2});
    segment_attention(x.q, test::scattered<double>(x.k, x.v, {6, 6, 30, 30}, 5), o, cuts, mass, causal{});
    mass.each([&](index_t b, index_t h, index_t n, index_t s) {
        if (b == 0)
            EXPECT_EQ(mass(b, h, n, s), s == 0 ? 1 : 0);
        else
            EXPECT_NEAR(mass(b, h, n, 0) + mass(b, h, n, 1), 1, 1e-15);
    });
    tensor<double> short_mass({2, 4, 2, 1});
    refuses<shape_error>(
        [&] {
            segment_attention(x.q, test::scattered<double>(x.k, x.v, {6, 6, 30, 30}, 5), o, std::span(cuts).first(2),
                              short_mass);
        },
        "segment_attention: the cuts span [0, 8), the keys [0, 30)");
}

TEST(segments, scores_positions_and_lse_are_those_of_one_call) {
    const operands<double> x(6, 40);
    const std::vector<index_t> cuts{0, 13, 14, 40};
    const std::vector<double> slopes{0.1, 0.2, 0.3, 0.4};
    tensor<double> o(x.rows()), want(x.rows()), mass({2, 4, 6, 3});
    std::vector<double> sums(2 * 4 * 6), wanted(sums);
    // A score that looks at positions themselves: they stay those of the whole.
    const auto score = [](auto y, const where& w) { return y + 0.05f * w.key(y) - 0.01f * w.query(y); };
    segment_attention(x.q, x.k, x.v, o, cuts, mass, lse{dense(sums.data(), {2, 4, 6})}, score, causal{}, offset{20});
    attention(x.q, x.k, x.v, want, lse{dense(wanted.data(), {2, 4, 6})}, score, causal{}, offset{20});
    EXPECT_TRUE(test::all_near(o, want, 1e-13));
    for (std::size_t r = 0; r < sums.size(); ++r) EXPECT_NEAR(sums[r], wanted[r], 1e-13);
}

TEST(segments, means_over_rows_heads_and_layers) {
    auto a = tensor<float>({1, 2, 3, 2}).fill([](index_t i) { return i; });  // columns: even numbers, odd numbers
    auto c = tensor<double>({2, 1, 1, 2}).fill([](index_t i) { return 100 + i; });
    mean_mass means(2), lengths(2);
    EXPECT_EQ(means.mean(), (std::vector<double>{0, 0}));
    means.add(a.v());
    EXPECT_EQ(means.mean(), (std::vector<double>{5, 6}));
    means.add(c.v());
    EXPECT_EQ(means.mean(), (std::vector<double>{(30 + 202) / 8.0, (36 + 204) / 8.0}));
    const std::vector<index_t> keys{5, 2}, none{5, 0};
    lengths.add(a.v(), keys);
    EXPECT_EQ(lengths.mean(), (std::vector<double>{1, 3}));
    refuses<shape_error>([&] { mean_mass(3).add(a.v()); }, "mean_mass: the masses are of 2 segments, expected 3");
    refuses<shape_error>([&] { means.add(a.v(), std::span(keys).first(1)); }, "there are 1 lengths and 2 segments");
    refuses<argument_error>([&] { means.add(a.v(), none); }, "a segment has 0 keys, the least is 1");
    EXPECT_EQ(means.mean()[0], (30 + 202) / 8.0);
}

TEST(segments, bad_arguments_are_named_before_anything_is_written) {
    const operands<float> x(3, 10);
    auto o = test::constant<float>(x.rows(), 7), mass = test::constant<float>({2, 4, 3, 2}, 7);
    const auto with = [&](std::vector<index_t> cuts) {
        return [&, cuts] { segment_attention(x.q, x.k, x.v, o, cuts, mass, causal{}); };
    };
    refuses<argument_error>(with({}), "segment_attention: there are 0 cuts");
    refuses<argument_error>(with({0, 7, 3, 10}), "segment_attention: cut 3 stands after 7");
    refuses<shape_error>(with({0, 4, 9}), "segment_attention: the cuts span [0, 9), the keys [0, 10)");
    refuses<shape_error>(with({1, 4, 10}), "the cuts span [1, 10)");
    refuses<shape_error>(with({0, 4, 5, 10}), "the masses have shape (2, 4, 3, 2), expected (2, 4, 3, 3)");
    const std::vector<index_t> cuts{0, 4, 10};
    refuses<shape_error>(
        [&] {
            segment_attention(x.q, x.k, x.v, o, cuts, slice(o.v(), 3, {0, 2}));
        },
        "the masses overlap o in memory");
    refuses<shape_error>([&] { star_query(x.q, x.k, x.v, o, std::span(cuts).first(2)); },
                         "star_query: the cuts span [0, 4)");
    for (float y : o.memory()) EXPECT_EQ(y, 7);
    for (float y : mass.memory()) EXPECT_EQ(y, 7);
}

TEST(star, any_split_over_hosts_is_one_call) {
    for (index_t N : {1, 8}) {
        const operands<double> x(N, 40);
        tensor<double> o(x.rows()), want(x.rows());
        attention(x.q, x.k, x.v, want, causal{});
        for (const auto& cuts : ways_to_cut(40)) {
            star_query(x.q, x.k, x.v, o, cuts);
            EXPECT_TRUE(test::all_near(o, want, 1e-13)) << cuts.size() << " cuts";
        }
    }
}

TEST(star, one_and_two_blocks_are_causal_attention) {
    const operands<float> x(30, 30);
    tensor<float> o(x.rows()), want(x.rows());
    attention(x.q, x.k, x.v, want, causal{});
    for (index_t block : {15, 20, 30, 100}) {
        star_context(x.q, x.k, x.v, o, block);
        EXPECT_TRUE(test::same_values(o, want)) << block;
    }
    star_context(x.q, x.k, x.v, o, 14);
    EXPECT_FALSE(test::same_values(o, want));
}

TEST(star, a_block_is_encoded_as_a_host_encodes_it_behind_the_anchor) {
    constexpr index_t b = 7, n = 4;
    const operands<float> x(b * n, b * n);
    tensor<float> o(x.rows());
    star_context(x.q, x.k, x.v, o, b);
    for (index_t host = 1; host < n; ++host) {
        tensor<float> k({2, 2, 2 * b, 6}), v({2, 2, 2 * b, 5}), own({2, 4, b, 5});
        const auto from = [&](index_t j) { return j < b ? j : host * b + j - b; };
        k.each([&](index_t s, index_t g, index_t j, index_t d) { k(s, g, j, d) = x.k(s, g, from(j), d); });
        v.each([&](index_t s, index_t g, index_t j, index_t e) { v(s, g, j, e) = x.v(s, g, from(j), e); });
        attention(slice(x.q.v(), 2, {host * b, (host + 1) * b}), k, v, own, causal{});
        own.each([&](index_t s, index_t h, index_t i, index_t e) {
            EXPECT_NEAR(own(s, h, i, e), o(s, h, host * b + i, e), 2e-6f) << host;
        });
    }
}

}  // namespace
