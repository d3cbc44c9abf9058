// The mass of logits in powers of 2.
#pragma once

#include "../simd/math.hpp"

namespace heed::inline HEED_ABI::detail {

/// log(sum of 2^x) of n aligned numbers, natural; -inf of none.
template <class A, class T>
double log_mass(const T* x, index_t n) {
    using P = pack<T, A>;
    constexpr auto L = static_cast<index_t>(P::size);
    const T top = n > 0 ? *std::max_element(x, x + n) : -std::numeric_limits<T>::infinity();
    if (top == -std::numeric_limits<T>::infinity()) return static_cast<double>(top);
    P sum(T(0));
    index_t j = 0;
    for (; j + L <= n; j += L) sum += exp2_nonpositive(load_aligned<P>(x + j) - P(top));
    double all = static_cast<double>(reduce_add(sum));
    for (; j < n; ++j) all += std::exp2(static_cast<double>(x[j] - top));
    return (static_cast<double>(top) + std::log2(all)) * ln_2<double>;
}

}  // namespace heed::inline HEED_ABI::detail
