// Matrix products inside layers: rows of a sequence with a weight matrix, by the engine that multiplies queries and
// keys.
#pragma once

#include "../engine/attention.hpp"
#include "../policy/probe.hpp"

namespace heed::inline HEED_ABI::detail {

/// y = x w: x (B, N, I), w (I, O), y (B, N, O), rows of y contiguous.
template <class A, class X, class W, class T, class Pool>
void multiply_rows(const view<X, 3>& x, const view<W, 2>& w, const view<T, 3>& y, const Pool& pool) {
    const auto [B, N, O] = y.shape;
    const index_t I = w.shape[0];
    const auto as_heads = [](const auto& v) {
        using S = std::remove_reference_t<decltype(*v.data)>;
        return view<S, 4>{
            v.data, {v.shape[0], 1, v.shape[1], v.shape[2]}, {v.strides[0], 0, v.strides[1], v.strides[2]}};
    };
    const view<const W, 4> rows_of_w{w.data, {B, 1, O, I}, {0, 0, w.strides[1], w.strides[0]}};
    const auto no_width = [](const auto& v) { return slice(v, 3, {0, 0}); };
    attention<A>(as_heads(x), rows_of_w, no_width(rows_of_w), no_width(as_heads(y)), linear{}, scale{1}, pool,
                 heed::logits(as_heads(y), stage::raw));
}

}  // namespace heed::inline HEED_ABI::detail
