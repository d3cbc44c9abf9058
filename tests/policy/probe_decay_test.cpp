// Key mass with a weight per query, against the definition, and against key_mass where all weights are 1.
#include <heed/engine/attention.hpp>
#include <heed/policy/mask_position.hpp>
#include <heed/policy/probe_decay.hpp>

#include "compare.hpp"
#include "random.hpp"

using namespace test;

namespace {

template <class Real>
tensor<Real> weighted_columns(const tensor<float>& q, const tensor<float>& k, const std::vector<double>& weights) {
    const index_t B = q.shape()[0], H = q.shape()[1], N = q.shape()[2], D = q.shape()[3], M = k.shape()[2];
    tensor<Real> p({B, H, N, M}), o({B, H, N, D}), mass({B, H, M, 1});
    ref::options<Real> with;
    with.visible = [](index_t, index_t, index_t, index_t i, index_t j) { return j <= i; };
    ref::record<Real> to;
    to.probability = p.v();
    ref::naive_attention<Real>(q.v(), k.v(), k.v(), o.v(), with, to);
    mass.each([&](index_t b, index_t h, index_t j, index_t) {
        Real sum = 0;
        for (index_t i = 0; i < N; ++i) sum += static_cast<Real>(weights[static_cast<std::size_t>(i)]) * p(b, h, i, j);
        mass(b, h, j, 0) = sum;
    });
    return mass;
}

TEST(weighted_mass, is_a_weighted_column_sum) {
    for (const auto& [N, M] : {std::pair<index_t, index_t>{1, 1}, {15, 15}, {16, 40}, {17, 17}, {67, 130}}) {
        const auto q = normal<float>({2, 4, N, 16}, 1), k = normal<float>({2, 2, M, 16}, 2);
        tensor<float> o({2, 4, N, 16}), mass({2, 4, M, 1}), plain({2, 4, M, 1});
        std::vector<std::vector<double>> choices{std::vector<double>(static_cast<std::size_t>(N), 1.0),
                                                 last_rows(N, 3),
                                                 last_rows(N, 0),
                                                 forgetting(N, 0),
                                                 forgetting(N, 0.9),
                                                 forgetting(N, 1e-30)};
        for (const auto& weights : choices) {
            attention(q, k, k, o, causal{}, weighted_mass{flat(mass), weights}, key_mass{flat(plain)});
            EXPECT_TRUE((within_rule<float>(mass, weighted_columns<float>(q, k, weights),
                                            weighted_columns<double>(q, k, weights))));
            EXPECT_TRUE(&weights != &choices[0] || same_values(mass, plain));
        }
    }
}

TEST(weighted_mass, errors) {
    tensor<float> q({1, 2, 3, 4}), o = q, mass({1, 2, 3, 1}), plain = mass;
    const std::vector<double> weights(2);
    try {
        attention(q, q, q, o, causal{}, weighted_mass{flat(mass), weights}, key_mass{flat(plain)});
        ADD_FAILURE();
    } catch (const shape_error& e) {
        EXPECT_STREQ(e.what(), "attention: weighted_mass holds 2 weights, q has 3 rows");
    }
    EXPECT_THROW(forgetting(3, -0.5), argument_error);
    EXPECT_THROW(forgetting(3, 1.5), argument_error);
}

TEST(weighted_mass, weights_of_rows) {
    EXPECT_EQ(forgetting(4, 0.5), (std::vector<double>{0.125, 0.25, 0.5, 1}));
    EXPECT_EQ(forgetting(3, 0), (std::vector<double>{0, 0, 1}));
    EXPECT_EQ(forgetting(3, 1), (std::vector<double>{1, 1, 1}));
    EXPECT_TRUE(forgetting(0, 0.5).empty());
    EXPECT_EQ(last_rows(4, 2), (std::vector<double>{0, 0, 1, 1}));
    EXPECT_EQ(last_rows(2, 9), (std::vector<double>{1, 1}));
    EXPECT_EQ(last_rows(2, -1), (std::vector<double>{0, 0}));
}

}  // namespace
