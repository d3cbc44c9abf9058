// Rows over their length, times a factor of their head: what cosine attention, delta rules and TaylorShift want.
//
//   o = f_h x / |x|,   0 where x is 0     x, o (B, H, N, D), any strides; o may be x
#pragma once

#include "row_norm.hpp"

namespace heed::inline HEED_ABI {

/// f of H numbers, or none for 1.
template <class A = default_arch, class X, class O>
void unit_rows(const X& x, O&& o, std::span<const float> f = {}) {
    const auto in = as_view(x);
    const auto out = as_view(o);
    using T = accumulator<typename decltype(in)::value_type, typename decltype(out)::value_type>;
    detail::check_row_operand("unit_rows", "x", in, out);
    require_shape(f.empty() || static_cast<index_t>(f.size()) == out.shape[1], "unit_rows", "there are ", f.size(),
                  " factors, x has ", out.shape[1], " heads");
    for (index_t b = 0; b < out.shape[0]; ++b)
        for (index_t h = 0; h < out.shape[1]; ++h)
            for (index_t n = 0; n < out.shape[2]; ++n) {
                T sum = 0;
                detail::each_piece<A, T>(in, b, h, n, [&](const T* y, range d) {
                    sum += detail::sum_channels(y, d.size(), [](const auto& p) { return p * p; });
                });
                const T factor = f.empty() ? T(1) : static_cast<T>(f[static_cast<std::size_t>(h)]);
                const T by = sum == 0 ? T(0) : factor / std::sqrt(sum);
                detail::each_piece<A, T>(in, b, h, n, [&](T* y, range d) {
                    detail::map_channels(y, d.size(), y, [by](const auto& p) { return p * by; });
                    narrow_row<A>(y, d.size(), &out(b, h, n, d.first), out.strides[3]);
                });
            }
}

}  // namespace heed::inline HEED_ABI
