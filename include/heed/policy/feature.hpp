// Feature maps: phi applied to the rows of q and k, so that phi(q).phi(k) stands in for a kernel of q and k. A map is a type
//
//   static or not: index_t width(index_t D) const               the width of phi(x), which is the state's number of rows
//   template <class T> void operator()(const T* x, index_t D, T* y, const feature_place& at) const
// With a map the default scale of a recurrence is 1.
#pragma once

#include <cmath>

#include "../core/roles.hpp"
#include "../simd/math.hpp"

namespace heed::inline HEED_ABI {

/// Whose row is mapped: batch entry (or packed sequence), head, token of N, and whether it is a query or a key.
struct feature_place {
    index_t b = 0, h = 0, n = 0, N = 0;
    bool query = false;
};

/// phi(x) = x (the default).
struct identity_features {
    using role = roles::features;
    index_t width(index_t D) const { return D; }
};

/// phi(x) = elu(x) + 1: x + 1 above 0, e^x below (Katharopoulos et al., arXiv:2006.16236).
struct elu_plus_one {
    using role = roles::features;
    index_t width(index_t D) const { return D; }
    template <class T>
    void operator()(const T* x, index_t D, T* y, const feature_place&) const {
        for (index_t d = 0; d < D; ++d) y[d] = x[d] > 0 ? x[d] + 1 : std::exp(x[d]);
    }
};

}  // namespace heed::inline HEED_ABI
