// Tensors that are added to logits, in every storage type and layout: each lane has the element of its own pair, and
// nothing is read outside.
// heed_test: LABELS sanitize
#include <gtest/gtest.h>

#include <heed/policy/scores.hpp>

#include "random.hpp"

using namespace test;

namespace {

constexpr index_t rows_held = 37, keys_held = 29;  // no multiple of any lane count

/// x + table, for packs of T that reach past the last row and key, as the engine's do.
template <class S, class T>
void check_lanes(const layout& l) {
    using P = pack<T>;
    constexpr int K = 8;
    constexpr auto L = static_cast<index_t>(P::size);
    auto table = normal<S>({1, 2, rows_held, keys_held}, 4, 2, l);
    // Exactly as much memory as the elements need, so that ASan sees one read too many.
    const view<S> made = table.v();
    const auto reach = footprint(made);
    const std::vector<S> memory(reinterpret_cast<const S*>(reach[0]), reinterpret_cast<const S*>(reach[1]));
    const view<const S> held{memory.data(), made.shape, made.strides};
    const bias score(held);
    const auto check = [&](const where& w) {
        P x[K];
        for (int c = 0; c < K; ++c) x[c] = P(T(0.5));
        score.along_keys(x, w);
        for (int c = 0; c < K; ++c)
            for (index_t lane = 0; lane < L; ++lane) {
                const where one = w.lane(lane);
                if (one.row >= rows_held || one.j + c >= keys_held) continue;
                T at[P::size];
                store(at, x[c]);
                ASSERT_EQ(at[lane], T(0.5) + static_cast<T>(held(0, one.h, one.row, one.j + c)))
                    << one.row << ", " << one.j + c;
            }
    };
    for (index_t h = 0; h < 2; ++h)
        for (index_t n = 0; n < rows_held; ++n)
            for (index_t j = 0; j < keys_held; ++j) {
                if (n % L == 0) check({0, h, n, n, j});
                check({0, h, n, n, j, lane_axis::keys});
            }
}

/// Keys neighbours in memory, keys some elements apart, rows neighbours.
template <class S, class T>
void check_layouts() {
    for (const layout& l : {layout::heads(), layout::padded(), layout::strided(), layout::channels_first()})
        check_lanes<S, T>(l);
}

TEST(score_storage, lanes_of_float) { check_layouts<float, float>(); }
TEST(score_storage, lanes_of_bf16) { check_layouts<bf16, float>(); }
TEST(score_storage, lanes_of_f16) { check_layouts<f16, float>(); }
TEST(score_storage, lanes_of_float_as_double) { check_layouts<float, double>(); }

}  // namespace
