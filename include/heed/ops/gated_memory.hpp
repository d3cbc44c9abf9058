// Gated associative memory (GAM) [47]: a bank of slots that every token reads, beside a short causal convolution.
//
//   local = causal convolution of x; glob = softmax(x Mem^T) Mem over slots, without scale;
//   out = sigmoid(g1) local + sigmoid(g2) glob
// x, g1, g2, out: (B, N, C), Mem: (M, C), taps (C, K). g1 and g2 are products of x and a matrix of the caller.
// Cost: O(N (M + K) C); decoding keeps the last K - 1 tokens. Memory beside: local and glob.
#pragma once

#include "causal_conv.hpp"
#include "products.hpp"

namespace heed::inline HEED_ABI {

/// Policies: conv_bias{b}, carry{state} of the convolution, on{pool, arena}. out may be x, g1 or g2 itself. Throws
/// shape_error or argument_error before anything is written.
template <class A = default_arch, class X, class M, class W, class G1, class G2, class O, class... P>
void gated_memory(const view<X, 3>& x, const view<M, 2>& memory, const view<W, 2>& taps, const view<G1, 3>& g1,
                  const view<G2, 3>& g2, const view<O, 3>& out, const P&... policies) {
    using namespace detail;
    static constexpr const char* op = "gated_memory";
    static_assert((has_one_of<P, roles::bias, roles::state, roles::context> && ...),
                  "heed: an argument is not a policy of gated_memory");
    const auto to = writes("out", out);
    const auto [B, N, C] = out.shape;
    check_written(op, to);
    check_shape(op, reads("the memory", memory), {memory.shape[0], C}, "out");
    check_apart(op, to, reads("the memory", memory));
    check_apart(op, to, reads("w", taps));
    each_operand(std::tuple(reads("x", x), reads("g1", g1), reads("g2", g2)), [&](const auto& in) {
        check_shape(op, in, to.v.shape, "out");
        check_same_or_apart(op, to, in);
        each_operand(carried_state(policies...), [&](const auto& s) { check_apart(op, s, in); });
    });
    each_operand(carried_state(policies...), [&](const auto& s) { check_apart(op, to, s); });
    each_operand(optional_operand<roles::bias>("the bias", policies...),
                 [&](const auto& b) { check_apart(op, to, b); });
    using T = accumulator<std::remove_const_t<X>, std::remove_const_t<M>, std::remove_const_t<W>, O,
                          std::remove_const_t<G1>, std::remove_const_t<G2>>;
    const auto run = [&, B = B, N = N, C = C](carver& from, const auto&... with) {
        const auto local = dense(from.take<T>(B * N * C), {B, N, C}), glob = dense(from.take<T>(B * N * C), {B, N, C});
        causal_conv<A>(x, taps, local, with...);
        const view<const M, 4> slots{
            memory.data, {B, 1, memory.shape[0], C}, {0, 0, memory.strides[0], memory.strides[1]}};
        attention<A>(one_head(x), slots, slots, one_head(glob), scale{1},
                     pick<roles::context>(calling_thread{}, with...));
        const auto gated = [](const auto& first, const auto& second, const auto& near, const auto& all) {
            const auto [a, b] = sigmoids(first, second);
            return fma(a, near, b * all);
        };
        map_rows<A, T>(pick<roles::context>(calling_thread{}, with...), out, gated, g1, g2, local, glob);
    };
    in_shared_scratch(op, run, policies...);
}

}  // namespace heed::inline HEED_ABI
