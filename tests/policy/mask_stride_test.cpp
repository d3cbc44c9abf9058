// heed_test: BUSY LABELS sanitize
#include <heed/policy/masks.hpp>

#include "mask_laws.hpp"

namespace {

using namespace heed;
using test::exactness;
using test::obeys_laws;
using test::same_set;

using matrix = std::vector<std::vector<bool>>;

/// Who is reached in two layers: `later` first looks, then what it saw has looked with `earlier`.
matrix product(const matrix& later, const matrix& earlier) {
    const std::size_t n = later.size();
    matrix out(n, std::vector<bool>(n));
    for (std::size_t i = 0; i < n; ++i)
        for (std::size_t k = 0; k < n; ++k)
            if (later[i][k])
                for (std::size_t j = 0; j < n; ++j) out[i][j] = out[i][j] || earlier[k][j];
    return out;
}
matrix with_residual(matrix a) {
    for (std::size_t i = 0; i < a.size(); ++i) a[i][i] = true;
    return a;
}

TEST(mask_stride, laws) {
    for (index_t delta : {1, 2, 3, 16, 20})
        for (index_t reach : {-1, 0, 1, 4, 50})
            obeys_laws(dilated{reach, delta}, exactness::exact_next, "dilated");
    for (index_t l : {1, 2, 7, 16, 60}) {
        obeys_laws(every{l}, exactness::exact_next, "every");
        obeys_laws(strided{l}, exactness::exact_next, "strided");
    }
    for (auto [l, c] : {std::pair<index_t, index_t>{1, 1}, {8, 1}, {8, 3}, {16, 16}, {40, 8}, {8, 0}}) {
        obeys_laws(summary{l, c}, exactness::exact_next, "summary");
        obeys_laws(fixed{l, c}, exactness::right, "fixed");
    }
}

TEST(mask_stride, per_head) {
    const std::vector<index_t> deltas{1, 2, 5};
    obeys_laws(dilated{3, deltas}, {60, 60, 0, 2, 3}, exactness::exact_next, "dilated per head");
    for (index_t h = 0; h < 3; ++h)
        EXPECT_EQ(draw(dilated{3, deltas}, 40, 40, 0, 0, h), draw(dilated{3, deltas[static_cast<std::size_t>(h)]}, 40, 40));
    obeys_laws(summary{12, 3, 4}, {60, 60, 0, 1, 6}, exactness::exact_next, "summary in turns");
    // Head 1 takes the cells before those of head 0; head 4 those of head 0 again.
    EXPECT_TRUE((summary{12, 3, 4}.allows({0, 0, 20, 20, 11})));
    EXPECT_FALSE((summary{12, 3, 4}.allows({0, 1, 20, 20, 11})));
    EXPECT_TRUE((summary{12, 3, 4}.allows({0, 1, 20, 20, 8})));
    EXPECT_TRUE((summary{12, 3, 4}.allows({0, 4, 20, 20, 11})));
}

TEST(mask_stride, sparse_transformer_by_definition) {
    for (index_t l : {3, 8, 64}) {
        const index_t c = std::min<index_t>(2, l);
        for (const auto& [n, m] : {std::pair<index_t, index_t>{50, 50}, {20, 50}}) {
            same_set(strided{l},
                     [l](const where& w) { return w.j <= w.i && (w.i - w.j < l || (w.i - w.j) % l == 0); }, n, m, "");
            same_set(fixed{l, c},
                     [=](const where& w) { return w.j <= w.i && (w.j / l == w.i / l || w.j % l >= l - c); }, n, m, "");
        }
    }
    same_set(recent{50}, causal{}, 50, 50, "a stride beyond the sequence");
    same_set(strided{1}, causal{}, 50, 50, "stride 1");
    same_set(fixed{50, 1}, causal{}, 50, 50, "one block");
}

TEST(mask_stride, two_layers_reach_everything) {
    const index_t n = 36, l = 6;
    const matrix triangle = draw(causal{}, n, n);
    const matrix a1 = draw(recent{l}, n, n), a2 = draw(every{l}, n, n);
    EXPECT_EQ(product(a2, a1), triangle);
    EXPECT_EQ(product(a1, a2), triangle);
    const matrix f1 = with_residual(draw(causal{} & chunk{l}, n, n)), f2 = with_residual(draw(summary{l, 1}, n, n));
    EXPECT_EQ(product(f2, f1), triangle);
    EXPECT_NE(product(f1, f2), triangle);
}

TEST(mask_stride, residues_of_strided_are_dense_causal) {
    const index_t l = 5, n = 40;
    const matrix a2 = draw(every{l}, n, n), dense = draw(causal{}, n / l, n / l);
    for (index_t residue = 0; residue < l; ++residue)
        for (index_t x = 0; x < n / l; ++x)
            for (index_t y = 0; y < n / l; ++y)
                EXPECT_EQ(a2[static_cast<std::size_t>(residue + x * l)][static_cast<std::size_t>(residue + y * l)],
                          dense[static_cast<std::size_t>(x)][static_cast<std::size_t>(y)]);
}

TEST(mask_stride, pair_counts) {
    const index_t n = 8192, l = 128;
    // A1: l keys a row, fewer at the start. A2 beyond A1: one key every l.
    index_t pairs = 0;
    for (index_t i = 0; i < n; ++i) pairs += std::min(i + 1, l) + i / l;
    EXPECT_EQ(area(strided{l}, 1, 1, n, n), pairs);
    EXPECT_EQ(area(dilated(256, index_t(1)), 1, 1, n, n), n * 513 - 256 * 257);
    EXPECT_EQ(area(summary{l, 8}, 1, 1, n, n), [&] {
        index_t sum = 0;
        for (index_t i = 0; i < n; ++i) sum += (i + 1) / l * 8 + std::max<index_t>(0, (i + 1) % l - (l - 8));
        return sum;
    }());
}

}  // namespace
