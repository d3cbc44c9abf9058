// The definition of the short depthwise causal convolution, in double precision and plain loops.
//
//   y[t] = activation(bias + sum over r < K of w[r] x[t - (K - 1) + r]) per channel; before the first token the state
#pragma once

#include "scan.hpp"

namespace heed::inline HEED_ABI::ref {

/// x, y: (B, N, C), w: (C, K), bias: (C) or no data; state (sequences, C, K - 1), oldest first, or no data: zeros.
template <class Real = double>
void causal_conv(view<const Real, 3> x, view<const Real, 2> w, view<Real, 3> y, view<const Real, 1> bias = {},
                 view<Real, 3> state = {}, bool silu = false, const token_order& order = {}) {
    const index_t K = w.shape[1];
    using window = std::vector<Real>;  // the last K - 1 inputs
    const auto start = [&](index_t i, index_t c) {
        window last(static_cast<std::size_t>(K - 1));
        for (index_t r = 0; r < K - 1 && state.data; ++r) last[static_cast<std::size_t>(r)] = state(i, c, r);
        return last;
    };
    const auto step = [&](window& last, index_t b, index_t t, index_t c) {
        last.push_back(x(b, t, c));
        Real sum = bias.data ? bias(c) : Real(0);
        for (index_t r = 0; r < K; ++r) sum += w(c, r) * last[static_cast<std::size_t>(r)];
        y(b, t, c) = silu ? sum / (1 + std::exp(-sum)) : sum;
        last.erase(last.begin());
    };
    const auto finish = [&](const window& last, index_t i, index_t c) {
        for (index_t r = 0; r < K - 1 && state.data; ++r) state(i, c, r) = last[static_cast<std::size_t>(r)];
    };
    scan(x.shape, order, start, step, finish);
}

}  // namespace heed::inline HEED_ABI::ref
