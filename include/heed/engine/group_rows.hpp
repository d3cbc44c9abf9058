// The query rows that read one head of keys, side by side, in the space its keys are stored in.
#pragma once

#include "../core/view.hpp"
#include "../simd/convert.hpp"

namespace heed::inline HEED_ABI::detail {

/// Row r = (head within the group) * N + row of q (B, H, N, D), times factor, to to + r * stride, zero up to `stride`.
template <class A, class Q, class Source, class T>
void load_group(const view<const Q>& q, const Source& source, index_t b, index_t g, T factor, T* to, index_t stride) {
    const index_t group = q.shape[1] / source.heads(), N = q.shape[2], D = q.shape[3];
    for (index_t r = 0; r < group * N; ++r, to += stride) {
        const Q* from = q.data + b * q.strides[0] + (g * group + r / N) * q.strides[1] + r % N * q.strides[2];
        widen_row<A>(from, q.strides[3], D, to);
        std::fill(to + D, to + stride, T(0));
        if constexpr (requires { source.turn_query(to); }) source.turn_query(to);
        for (index_t d = 0; d < D; ++d) to[d] *= factor;
    }
}

}  // namespace heed::inline HEED_ABI::detail
