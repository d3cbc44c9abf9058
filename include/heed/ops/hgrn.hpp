// HGRN (arXiv:2311.04823), the recurrence: h_t = exp(g_t) h_{t-1} + x_t per channel, g <= 0 the log of the forget gate.
// Any real diagonal decay given as its log. x, g, o: (B, N, C). Cost: the bytes of x, g and o.
#pragma once

#include "../engine/scan.hpp"

namespace heed::inline HEED_ABI {
namespace detail {
struct hgrn_cell : affine_cell<2> {
    template <class X>
    HEED_INLINE numbers<X, 2> leaf(const numbers<X, 2>& x, const numbers<X, 0>&) const {
        return {exp(x[1]), x[0]};
    }
};
}  // namespace detail

/// Policies as in scan; carry is (B, C). g = -inf forgets; above 0 the state grows.
template <class A = default_arch, class X, class G, class O, class... P>
void hgrn(const X& x, const G& g, O&& o, const P&... policies) {
    detail::run_scan<A>("hgrn", detail::hgrn_cell{}, std::tuple(detail::reads("x", x), detail::reads("g", g)),
                        std::tuple<>{}, std::tuple(detail::writes("o", o)), policies...);
}

}  // namespace heed::inline HEED_ABI
