// Hyena [55], of any order p >= 2: gates and long convolutions in turn, instead of attention.
//
//   v <- h_o conv (x_(p-1-o) v) for o = 0 ... p - 2;  y = x_0 v
// u (b, n, (p + 1) C) holds x_0, ..., x_(p-1), v, each C channels, after projection and a short convolution; h_o are
// causal filters of C channels, with beta_o as their skip. Cost O(p C N log N), all gates fused into the convolutions.
// The order of gate and convolution is that of the released code; the paper counts them the other way about.
#pragma once

#include <span>

#include "../engine/convolution.hpp"

namespace heed::inline HEED_ABI {

/// u (b, n, (p + 1) C), p - 1 filters, y (b, n, c). Policies: on{pool, arena}, the arena
/// for one convolution.
template <class U, class T, class A, class Y, class... Policies>
void hyena(const U& u, std::span<const convolution_filter<T, A>> filters, Y&& y, const Policies&... policies) {
    constexpr const char* op = "hyena";
    const auto in = as_view(u);
    const auto out = as_view(y);
    const auto p = static_cast<index_t>(filters.size()) + 1;
    const index_t B = out.shape[0], N = out.shape[1], C = out.shape[2];
    require_argument(p >= 2, op, "there is no filter, the least order is 2");
    require_shape(in.shape[0] == B && in.shape[1] == N && in.shape[2] == (p + 1) * C, op, "u is (", in.shape[0], ", ",
                  in.shape[1], ", ", in.shape[2], "), order ", p, " and y ask for (", B, ", ", N, ", ", (p + 1) * C,
                  ")");
    for (const auto& filter : filters) {
        require_shape(filter.channels() == C, op, "a filter has ", filter.channels(), " channels, y has ", C);
        require_argument(filter.ahead() == 0, op, "a filter looks ", filter.ahead(), " tokens ahead");
        require_argument(filter.longest() == 0 || N <= filter.longest(), op, "u has ", N,
                         " tokens, a filter is for at most ", filter.longest());
    }
    require_shape(!overlap(in, out), op, "y overlaps u");
    const auto stream = [&](index_t s) { return slice(in, 2, range{s * C, (s + 1) * C}); };
    // v on its way, one array or two, channel by channel, which is what transforms read fastest.
    const index_t between = std::min<index_t>(p - 2, 2);
    const arena memory(static_cast<std::size_t>(between * out.size()) * sizeof(T));
    const auto held = [&](index_t o) {
        return channels(reinterpret_cast<T*>(memory.data()) + o % 2 * out.size(), {B, C, N});
    };
    for (index_t o = 0; o < p - 1; ++o) {
        const auto& filter = filters[static_cast<std::size_t>(o)];
        const input_gate gate(stream(p - 1 - o));
        const auto convolve = [&](const auto& v) {
            if (o == p - 2)
                convolution(v, filter, out, gate, output_gate(stream(0)), policies...);
            else
                convolution(v, filter, held(o), gate, policies...);
        };
        if (o == 0)
            convolve(stream(p));
        else
            convolve(held(o - 1));
    }
}
/// Order 2: y = x_0 (h conv (x_1 v)).
template <class U, class T, class A, class Y, class... Policies>
void hyena(const U& u, const convolution_filter<T, A>& filter, Y&& y, const Policies&... policies) {
    hyena(u, std::span<const convolution_filter<T, A>>(&filter, 1), y, policies...);
}

}  // namespace heed::inline HEED_ABI
