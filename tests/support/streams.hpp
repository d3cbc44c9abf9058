// That a layer with a state may be given its sequence in pieces.
#pragma once

#include "compare.hpp"
#include "sequence.hpp"

namespace test {

/// start() makes a state; run(state, piece, y) puts the tokens of a piece through the layer and writes theirs of y. Pieces
/// of several lengths, single tokens among them, are the whole pass to `by`, or to the bit if that is 0.
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

}  // namespace test
