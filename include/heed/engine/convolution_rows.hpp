// Rows of a convolution: stretches of channels as contiguous numbers of the arithmetic's type, one channel after
// another, whatever the strides and types of the views they come from and go to.
#pragma once

#include "../core/view.hpp"
#include "../simd/convert.hpp"
#include "../simd/rows.hpp"

namespace heed::inline HEED_ABI::detail {

/// L tokens of L channels, those in a row in x, one after another in rows; or the rows multiplied by them.
template <class A, bool Multiplies, class T, class S>
HEED_INLINE void tile_from_tokens(const S* x, index_t token_stride, T* rows, index_t stride) {
    using P = pack<T, A>;
    constexpr int L = lanes<T, A>;
    P tile[L];
    for (int n = 0; n < L; ++n) tile[n] = widen<P>(x + n * token_stride);
    transpose(tile);
    for (int c = 0; c < L; ++c) {
        T* const row = rows + c * stride;
        store(row, Multiplies ? tile[c] * load<P>(row) : tile[c]);
    }
}

/// rows (channels, tokens), `stride` apart = those channels and tokens of sequence b of x (b, n, c); or times them.
template <class A, bool Multiplies, class T, class S>
void rows_from(const view<const S, 3>& x, index_t b, range channels, range tokens, T* rows, index_t stride) {
    constexpr index_t L = lanes<T, A>;
    const auto [batch, along, across] = x.strides;
    const S* const from = x.data + b * batch + tokens.first * along + channels.first * across;
    const index_t N = tokens.size(), C = channels.size();
    index_t done = 0;  // tokens
    if (across == 1 && C == L)
        for (; done + L <= N; done += L)
            tile_from_tokens<A, Multiplies>(from + done * along, along, rows + done, stride);
    for (index_t c = 0; c < C; ++c) {
        const S* const source = from + c * across + done * along;
        T* const row = rows + c * stride + done;
        if constexpr (Multiplies)
            for (index_t n = 0; n < N - done; ++n) row[n] *= static_cast<T>(source[n * along]);
        else
            widen_row<A>(source, along, N - done, row);
    }
}

/// And back.
template <class A, class T, class S>
void rows_to(const T* rows, index_t stride, const view<S, 3>& y, index_t b, range channels, range tokens) {
    using P = pack<T, A>;
    constexpr int L = lanes<T, A>;
    const auto [batch, along, across] = y.strides;
    S* const to = y.data + b * batch + tokens.first * along + channels.first * across;
    const index_t N = tokens.size(), C = channels.size();
    index_t done = 0;
    if (across == 1 && C == L)
        for (; done + L <= N; done += L) {
            P tile[L];
            for (int c = 0; c < L; ++c) tile[c] = load<P>(rows + c * stride + done);
            transpose(tile);
            for (int n = 0; n < L; ++n) narrow(to + (done + n) * along, tile[n]);
        }
    for (index_t c = 0; c < C; ++c)
        narrow_row<A>(rows + c * stride + done, N - done, to + c * across + done * along, along);
}

}  // namespace heed::inline HEED_ABI::detail
