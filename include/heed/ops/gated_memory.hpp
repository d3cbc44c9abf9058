// Gated associative memory (GAM) [47]: a bank of slots that every token reads, beside a short causal convolution.
//
//   local = causal convolution of x; glob = softmax(x Mem^T) Mem over slots, without scale;
//   out = sigmoid(g1) local + sigmoid(g2) glob
// x, g1, g2, out: (B, N, C), Mem: (M, C), taps (C, K). g1 and g2 are products of x and a matrix of the caller.
// Cost: O(N (M + K) C); decoding keeps the last K - 1 tokens. Memory beside: local and glob.
#pragma once

#include <vector>

#include "../engine/attention.hpp"
#include "causal_conv.hpp"

namespace heed::inline HEED_ABI {

/// Policies: conv_bias{b}, carry{state} of the convolution, on{pool}. out may be x, g1 or g2 itself.
template <class A = default_arch, class X, class M, class W, class G1, class G2, class O, class... P>
void gated_memory(const view<X, 3>& x, const view<M, 2>& memory, const view<W, 2>& taps, const view<G1, 3>& g1,
                  const view<G2, 3>& g2, const view<O, 3>& out, const P&... policies) {
    using namespace detail;
    static constexpr const char* op = "gated_memory";
    const auto to = writes("out", out);
    const auto [B, N, C] = out.shape;
    check_written(op, to);
    check_shape(op, reads("x", x), out.shape, "out");
    check_shape(op, reads("g1", g1), out.shape, "out");
    check_shape(op, reads("g2", g2), out.shape, "out");
    check_shape(op, reads("the memory", memory), {memory.shape[0], C}, "out");
    using T = accumulator<std::remove_const_t<X>, std::remove_const_t<M>, std::remove_const_t<W>, O>;
    std::vector<T> local(static_cast<std::size_t>(B * N * C)), glob(local.size());
    const auto locals = dense(local.data(), {B, N, C});
    causal_conv<A>(x, taps, locals, policies...);
    const auto one_head = [](const auto& v) {
        using S = std::remove_reference_t<decltype(*v.data)>;
        return view<S, 4>{
            v.data, {v.shape[0], 1, v.shape[1], v.shape[2]}, {v.strides[0], 0, v.strides[1], v.strides[2]}};
    };
    const view<const M, 4> slots{memory.data, {B, 1, memory.shape[0], C}, {0, 0, memory.strides[0], memory.strides[1]}};
    const on pool(*pick<roles::context>(calling_thread{}, policies...).pool);
    attention<A>(one_head(x), slots, slots, heads(glob.data(), {B, 1, N, C}), scale{1}, pool);
    for (index_t b = 0; b < B; ++b)
        for (index_t n = 0; n < N; ++n)
            for (index_t c = 0; c < C; ++c) {
                const auto at = static_cast<std::size_t>((b * N + n) * C + c);
                out(b, n, c) = static_cast<O>(sigmoid(static_cast<T>(g1(b, n, c))) * local[at] +
                                              sigmoid(static_cast<T>(g2(b, n, c))) * glob[at]);
            }
}

}  // namespace heed::inline HEED_ABI
