// That a layer with a state may be given its sequence in pieces, and many sequences side by side.
#pragma once

#include <heed/policy/sequence.hpp>

#include "compare.hpp"
#include "sequence.hpp"

namespace test {

/// start() makes a state; run(state, piece, y) puts the tokens of a piece through the layer and writes theirs of y.
/// Pieces of several lengths, single tokens among them, are the whole pass to `by`, or to the bit if that is 0.
template <class Start, class Run>
void pieces_are(const tensor<float>& whole, double by, const Start& start, const Run& run) {
    const index_t N = whole.shape()[2];
    for (index_t length : {index_t(1), index_t(2), index_t(3), index_t(8), index_t(17), N}) {
        tensor<float> y(whole.shape());
        auto s = start();
        for (index_t n = 0; n < N; n += length) run(s, range{n, std::min(N, n + length)}, y);
        EXPECT_TRUE(by > 0 ? all_near(y, whole, by) : same_values(y, whole)) << "pieces of " << length;
    }
}

/// run(piece, y, policies...) puts a piece of one row of N tokens through the layer: sequences that are packed in it are
/// each what they are alone, to rounding: a layer may compute few rows another way than many.
template <class Run>
void packed_are_apart(index_t N, index_t C, const Run& run) {
    const std::vector<index_t> offsets{0, 5, 5, 6, N};
    tensor<float> y({1, 1, N, C}), alone(y.shape());
    run(range{0, N}, y, packed{offsets});
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i) run(range{offsets[i], offsets[i + 1]}, alone);
    EXPECT_TRUE(all_near(y, alone, 2e-6));
}

}  // namespace test
