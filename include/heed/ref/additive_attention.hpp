// The definition of additive attention, a step of one sequence, in double precision and plain loops.
//
//   e_j = w . tanh(q + k_j + sum_f U_f F_jf),  F_jf = sum_r taps_fr before_(j + r - (R - 1) / 2)
//   a_j = e_j - log(sum of exp(e_j) over earlier steps);  alpha = softmax(a)
#pragma once

#include <cmath>
#include <vector>

#include "../core/range.hpp"

namespace heed::inline HEED_ABI::ref {

template <class Real = double>
struct additive_operands {
    using row = std::vector<Real>;
    row q, w;
    std::vector<row> k;          // (M)(D)
    row before;                  // (M); empty: no location
    std::vector<row> taps, mix;  // (F)(R), (F)(D)
    row history;                 // (M) sums of exp(e) of earlier steps; empty: no penalty
};

/// The weights of the keys; the sums of history hold this step too afterwards.
template <class Real>
std::vector<Real> additive_attention(additive_operands<Real>& x) {
    const auto M = static_cast<index_t>(x.k.size());
    std::vector<Real> p(x.k.size());
    Real total = 0;
    for (index_t j = 0; j < M; ++j) {
        Real e = 0;
        for (std::size_t d = 0; d < x.w.size(); ++d) {
            Real sum = x.q[d] + x.k[static_cast<std::size_t>(j)][d];
            for (std::size_t f = 0; f < x.taps.size() && !x.before.empty(); ++f) {
                const auto R = static_cast<index_t>(x.taps[f].size());
                Real feature = 0;
                for (index_t r = 0; r < R; ++r) {
                    const index_t i = j + r - (R - 1) / 2;
                    if (i >= 0 && i < M)
                        feature += x.taps[f][static_cast<std::size_t>(r)] * x.before[static_cast<std::size_t>(i)];
                }
                sum += feature * x.mix[f][d];
            }
            e += x.w[d] * std::tanh(sum);
        }
        Real& weight = p[static_cast<std::size_t>(j)];
        weight = std::exp(e);
        if (!x.history.empty()) {
            Real& earlier = x.history[static_cast<std::size_t>(j)];
            if (earlier > 0) weight /= earlier;
            earlier += std::exp(e);
        }
        total += weight;
    }
    for (Real& weight : p) weight /= total;
    return p;
}

}  // namespace heed::inline HEED_ABI::ref
