// Matrix products inside layers: rows of a sequence with a weight matrix, by the engine that multiplies queries and
// keys.
#pragma once

#include "../engine/attention.hpp"
#include "../policy/probe.hpp"

namespace heed::inline HEED_ABI::detail {

/// (b, n, d) as attention takes it, with one head.
template <class T>
view<T, 4> one_head(const view<T, 3>& x) {
    return {x.data, {x.shape[0], 1, x.shape[1], x.shape[2]}, {x.strides[0], 0, x.strides[1], x.strides[2]}};
}

/// y = x w: x (B, N, I), w (I, O), y (B, N, O), rows of y contiguous; `with` is a context.
template <class A, class X, class W, class T, class Context>
void multiply_rows(const view<X, 3>& x, const view<W, 2>& w, const view<T, 3>& y, const Context& with) {
    const auto [B, N, O] = y.shape;
    const index_t I = w.shape[0];
    const view<const W, 4> rows_of_w{w.data, {B, 1, O, I}, {0, 0, w.strides[1], w.strides[0]}};
    const auto no_width = [](const auto& v) { return slice(v, 3, {0, 0}); };
    attention<A>(one_head(x), rows_of_w, no_width(rows_of_w), no_width(one_head(y)), linear{}, scale{1}, with,
                 heed::logits(one_head(y), stage::raw));
}

}  // namespace heed::inline HEED_ABI::detail
