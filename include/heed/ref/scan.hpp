// The definition of a scan, in plain loops over one channel of one sequence at a time. It shares nothing with the
// engine.
//
//   s = s0; for each token t in order: s = step(s, x_t); out_t = s
#pragma once

#include <cmath>
#include <functional>
#include <vector>

#include "../core/view.hpp"

namespace heed::inline HEED_ABI::ref {

/// The tokens of sequence i of a batch, in the order they are met.
struct token_order {
    std::vector<index_t> offsets =
        {};  // packed sequences, in one row of tokens; empty: a sequence for each of the batch
    bool reversed = false;

    index_t count(index_t B) const { return offsets.empty() ? B : static_cast<index_t>(offsets.size()) - 1; }
    /// Calls f(b, n) for each token of sequence i.
    template <class F>
    void each(index_t i, index_t N, const F& f) const {
        const auto at = static_cast<std::size_t>(i);
        const index_t first = offsets.empty() ? 0 : offsets[at], last = offsets.empty() ? N : offsets[at + 1];
        for (index_t n = 0; n < last - first; ++n) f(offsets.empty() ? i : 0, reversed ? last - 1 - n : first + n);
    }
};

/// step(s, b, n, c) moves the state of a channel through a token and may write what it likes; s is that of
/// start(sequence, c), and is given to finish(s, sequence, c) at the end.
template <class Start, class Step, class Finish>
void scan(const extents<3>& shape, const token_order& order, const Start& start, const Step& step,
          const Finish& finish) {
    for (index_t i = 0; i < order.count(shape[0]); ++i)
        for (index_t c = 0; c < shape[2]; ++c) {
            auto s = start(i, c);
            order.each(i, shape[1], [&](index_t b, index_t n) { step(s, b, n, c); });
            finish(s, i, c);
        }
}

}  // namespace heed::inline HEED_ABI::ref
