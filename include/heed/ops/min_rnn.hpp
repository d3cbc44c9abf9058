// minGRU and minLSTM ("Were RNNs all we needed?", arXiv:2410.01201): gates that do not read the state, so a scan.
//
//   minGRU:  h_t = (1 - sigmoid(z_t)) h_{t-1} + sigmoid(z_t) x_t
//   minLSTM: h_t = f'_t h_{t-1} + i'_t x_t,  f' = sigmoid(f) / (sigmoid(f) + sigmoid(i)),  i' = 1 - f'
// Logits z, f, i, candidates x, h: (B, N, C). f' is sigmoid of a difference of logs, right where both gates vanish.
#pragma once

#include "../engine/scan.hpp"

namespace heed::inline HEED_ABI {
namespace detail {
struct min_gru_cell : affine_cell<2> {
    template <class X>
    HEED_INLINE numbers<X, 2> leaf(const numbers<X, 2>& x, const numbers<X, 0>&) const {
        const auto [taken, kept] = sigmoid_both_signs(x[0]);
        return {kept, taken * x[1]};
    }
};
struct min_lstm_cell : affine_cell<3> {
    template <class X>
    HEED_INLINE numbers<X, 2> leaf(const numbers<X, 3>& x, const numbers<X, 0>&) const {
        const auto [kept, taken] = sigmoid_both_signs(log_sigmoid(x[0]) - log_sigmoid(x[1]));
        return {kept, taken * x[2]};
    }
};
}  // namespace detail

/// Policies as in scan; carry is (B, C).
template <class A = default_arch, class Z, class X, class H, class... P>
void min_gru(const Z& z, const X& x, H&& h, const P&... policies) {
    detail::run_scan<A>("min_gru", detail::min_gru_cell{}, std::tuple(detail::reads("z", z), detail::reads("x", x)),
                        std::tuple<>{}, std::tuple(detail::writes("h", h)), policies...);
}
template <class A = default_arch, class F, class I, class X, class H, class... P>
void min_lstm(const F& f, const I& i, const X& x, H&& h, const P&... policies) {
    detail::run_scan<A>("min_lstm", detail::min_lstm_cell{},
                        std::tuple(detail::reads("f", f), detail::reads("i", i), detail::reads("x", x)), std::tuple<>{},
                        std::tuple(detail::writes("h", h)), policies...);
}

}  // namespace heed::inline HEED_ABI
