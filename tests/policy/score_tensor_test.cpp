// heed_test: LABELS sanitize
#include <random>

#include <heed/policy/masks.hpp>

#include "score_lanes.hpp"

namespace {

using namespace heed;
using test::agrees;
using test::score_scene;

constexpr score_scene at;

/// Exactly as many numbers as asked for, so that ASan sees one read too many.
std::vector<float> numbers(index_t n) {
    std::mt19937 random(static_cast<unsigned>(n));
    std::vector<float> v(static_cast<std::size_t>(n));
    for (float& x : v) x = static_cast<float>(random() % 1000) * 0.004f - 2;
    v.shrink_to_fit();
    return v;
}

template <class T, std::size_t Rank, class... I>
double read(const view<T, Rank>& v, I... i) {
    const index_t index[] = {i...};
    index_t offset = 0;
    for (std::size_t a = 0; a < Rank; ++a) offset += (v.shape[a] == 1 ? 0 : index[a]) * v.strides[a];
    return static_cast<double>(v.data[offset]);
}

TEST(score_tensor, bias_broadcasts) {
    const auto table = numbers(at.B * at.H * at.N * at.M);
    const float* p = table.data();
    for (const auto& v : {dense(p, {at.B, at.H, at.N, at.M}), dense(p, {1, at.H, at.N, at.M}),
                          dense(p, {at.B, 1, 1, at.M}), dense(p, {1, 1, at.N, 1}), dense(p, {1, 1, 1, 1}),
                          view<const float, 4>{p, {1, at.H, at.N, at.M}, {0, at.N * at.M, 1, at.N}}})
        agrees(bias(v), [&](double x, const where& w) { return x + read(v, w.b, w.h, w.row, w.j); }, "bias");
    std::vector<f16> half;
    for (float x : table) half.push_back(static_cast<f16>(x));
    const auto v = dense(static_cast<const f16*>(half.data()), {at.B, at.H, at.N, at.M});
    agrees(bias(v), [&](double x, const where& w) { return x + read(v, w.b, w.h, w.row, w.j); }, "bias in f16");
    agrees(affinity(bias(v)), [&](double, const where& w) { return read(v, w.b, w.h, w.row, w.j); }, "affinity");
}

TEST(score_tensor, relation_gathers_by_id) {
    constexpr index_t P = 6;
    const auto products = numbers(at.B * at.H * at.N * P);
    std::vector<int> ids(static_cast<std::size_t>(at.B * at.N * at.M));
    for (std::size_t x = 0; x < ids.size(); ++x) ids[x] = static_cast<int>(x * x % P);
    const auto table = dense(products.data(), {at.B, at.H, at.N, P});
    const auto id = dense(ids.data(), {at.B, at.N, at.M}), shared = dense(ids.data(), {1, at.N, at.M});
    for (const auto& i : {id, shared})
        agrees(relation(table, i, 0.125),
               [&](double x, const where& w) {
                   return x + 0.125 * read(table, w.b, w.h, w.row, static_cast<index_t>(read(i, w.b, w.row, w.j)));
               },
               "relation");
    // Ids that only depend on the clipped distance are Shaw's relative positions: here one table for all rows.
    std::vector<int> clipped(static_cast<std::size_t>(at.N * at.M));
    for (index_t n = 0; n < at.N; ++n)
        for (index_t j = 0; j < at.M; ++j)
            clipped[static_cast<std::size_t>(n * at.M + j)] =
                static_cast<int>(std::clamp<index_t>(n + at.shift - j + 2, 0, P - 1));
    const auto by_distance = dense(products.data(), {1, at.H, 1, P});
    const relation relations(by_distance, dense(clipped.data(), {1, at.N, at.M}));
    const relative distances(dense(products.data(), {at.H, P}), 2);
    agrees(relations, [&](double x, const where& w) { return distances(x, w); }, "relations by distance");
    const std::vector<float> zero(products.size());
    agrees(relation(dense(zero.data(), {at.B, at.H, at.N, P}), id), [](double x, const where&) { return x; }, "none");
}

TEST(score_tensor, factors_per_row) {
    const auto table = numbers(at.B * at.H * at.N);
    const float* p = table.data();
    for (const auto& v : {dense(p, {at.B, at.H, at.N}), dense(p, {1, 1, at.N}), dense(p, {at.B, 1, 1}),
                          view<const float, 3>{p, {at.B, at.H, at.N}, {1, at.B, at.B * at.H}}}) {
        agrees(rows_scale(v), [&](double x, const where& w) { return x * read(v, w.b, w.h, w.row); }, "rows_scale");
        test::slope_is_derivative(rows_scale(v) >> softcap{3});
    }
}

TEST(score_tensor, scalable_softmax) {
    const std::vector<float> s{0.5f, 1.0f, 2.0f};
    const std::vector<index_t> packed{0, 5, 9, at.N};
    std::vector<float> factors(static_cast<std::size_t>(3 * at.N));
    const view<float, 3> v = dense(factors.data(), {1, 3, at.N});
    ssmax_factors(document(packed, causal{}), std::span<const float>(s), at.N, 0, v);
    for (index_t h = 0; h < 3; ++h)
        for (index_t n = 0; n < at.N; ++n) {
            const index_t start = n < 5 ? 0 : n < 9 ? 5 : 9;
            EXPECT_FLOAT_EQ(v(0, h, n), s[static_cast<std::size_t>(h)] * std::log(float(n - start + 1)));
        }
    // Factor first or prior first are two orders of one pipe.
    const std::vector<float> zero(3);
    const view<const float, 3> f = v;
    agrees(prior{zero, zero} >> rows_scale(f), [&](double x, const where& w) { return (x - 1) * read(f, 0, w.h, w.row); },
           "prior inside", {at.N, at.M, 0, 1, 3});
    agrees(rows_scale(f) >> prior{zero, zero}, [&](double x, const where& w) { return x * read(f, 0, w.h, w.row) - 1; },
           "prior outside", {at.N, at.M, 0, 1, 3});
}

TEST(score_tensor, gates_forget) {
    std::vector<double> sums(static_cast<std::size_t>(at.B * at.H * at.M));
    double c = -5e5;  // where float has lost the gates
    for (double& x : sums) x = c -= 0.01;
    const auto v = dense(static_cast<const double*>(sums.data()), {at.B, at.H, at.M});
    agrees(forget(v),
           [&](double x, const where& w) {
               return x + read(v, w.b, w.h, std::clamp<index_t>(w.i, 0, at.M - 1)) - read(v, w.b, w.h, w.j);
           },
           "forget");
    const auto rows = numbers(at.H * at.N), keys = numbers(at.H * at.M);
    const auto r = dense(rows.data(), {1, at.H, at.N}), k = dense(keys.data(), {1, at.H, at.M});
    agrees(forget(r, k), [&](double x, const where& w) { return x + read(r, 0, w.h, w.row) - read(k, 0, w.h, w.j); },
           "forget by rows");
}

}  // namespace
