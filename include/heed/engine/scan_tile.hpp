// Tiles of a sequence: some tokens of a block of channels, as rows of the arithmetic's type, whole packs wide.
//
// Rows are read and written where they lie if they are contiguous, of that type and whole packs; else by way of
// scratch, which converts, pads with zeros, and transposes where neighbours in memory are tokens.
#pragma once

#include "../core/view.hpp"
#include "../simd/around_caches.hpp"
#include "../simd/convert.hpp"
#include "../simd/rows.hpp"
#include "sequences.hpp"

namespace heed::inline HEED_ABI::detail {

/// Row t lies at data + t * stride; stride 0: all rows are one.
template <class T>
struct tile_rows {
    T* data = nullptr;
    index_t stride = 0;
    bool around = false;  // is stored around the caches

    T* row(index_t t) const { return data + t * stride; }
    template <class P>
    HEED_INLINE void put(index_t t, index_t c, const P& x) const {
        around ? store_around(row(t) + c, x) : store(row(t) + c, x);
    }
};

HEED_INLINE void prefetch_line([[maybe_unused]] const void* p) {
#if defined(__GNUC__)
    __builtin_prefetch(p);
#endif
}

/// Where the next tile of an operand lies, so that its lines come while this one is worked on: rows of a block lie
/// pages apart, where no hardware prefetcher goes.
struct rows_ahead {
    const std::byte* data = nullptr;
    index_t row = 0, channel = 0;  // strides in bytes

    rows_ahead() = default;
    template <class S>
    explicit rows_ahead(const view<S, 2>& x) {
        constexpr auto size = static_cast<index_t>(sizeof(S));
        if (x.shape[0] > 0 && x.strides[1] == 1)
            *this = {reinterpret_cast<const std::byte*>(x.data), x.strides[0] * size, size};
    }
    HEED_INLINE void ask_for(index_t t, index_t c) const { prefetch_line(data + t * row + c * channel); }

private:
    rows_ahead(const std::byte* p, index_t r, index_t c) : data(p), row(r), channel(c) {}
};

/// Whether rows of x (tokens, channels) can be used where they lie.
template <class A, class T, class S>
bool lies_ready(const view<S, 2>& x) {
    return std::is_same_v<std::remove_const_t<S>, T> && x.strides[1] == 1 && x.shape[1] % lanes<T, A> == 0;
}

/// An L x L tile whose neighbours in memory are tokens, from (t0, c0) of x to rows `width` apart, or back.
template <class P, class S>
HEED_NOINLINE void load_transposed(const view<const S, 2>& x, index_t t0, index_t c0, typename P::value_type* to,
                                   index_t width) {
    constexpr auto L = static_cast<index_t>(P::size);
    const bool backwards = x.strides[0] < 0;
    P tile[P::size];
    for (index_t c = 0; c < L; ++c)
        tile[c] = widen<P>(x.data + (t0 + (backwards ? L - 1 : 0)) * x.strides[0] + (c0 + c) * x.strides[1]);
    transpose(tile);
    for (index_t t = 0; t < L; ++t) store(to + (t0 + t) * width + c0, tile[backwards ? L - 1 - t : t]);
}
template <class P, class S>
HEED_NOINLINE void store_transposed(const view<S, 2>& x, index_t t0, index_t c0, const typename P::value_type* from,
                                    index_t width) {
    constexpr auto L = static_cast<index_t>(P::size);
    const bool backwards = x.strides[0] < 0;
    P tile[P::size];
    for (index_t t = 0; t < L; ++t) tile[backwards ? L - 1 - t : t] = load<P>(from + (t0 + t) * width + c0);
    transpose(tile);
    for (index_t c = 0; c < L; ++c)
        narrow(x.data + (t0 + (backwards ? L - 1 : 0)) * x.strides[0] + (c0 + c) * x.strides[1], tile[c]);
}

/// How many tokens and channels of x go by transposed L x L tiles; the rest goes row by row.
template <class P, class S>
extents<2> transposable(const view<S, 2>& x) {
    constexpr auto L = static_cast<index_t>(P::size);
    if (x.strides[1] == 1 || x.strides[1] == 0 || std::abs(x.strides[0]) != 1) return {0, 0};
    return {x.shape[0] / L * L, x.shape[1] / L * L};
}

/// Copies x (tokens, channels) to rows `width` apart, whose channels beyond are set to 0.
template <class A, class T, class S>
void fill_rows(const view<const S, 2>& x, T* to, index_t width) {
    using P = pack<T, A>;
    constexpr auto L = static_cast<index_t>(P::size);
    const auto [tokens, channels] = transposable<P>(x);
    for (index_t c = 0; c < channels; c += L)
        for (index_t t = 0; t < tokens; t += L) load_transposed<P>(x, t, c, to, width);
    for (index_t t = 0; t < x.shape[0]; ++t) {
        const index_t done = t < tokens ? channels : 0;
        const S* const from = x.data + t * x.strides[0] + done * x.strides[1];
        T* const row = to + t * width;
        if (x.strides[1] == 0)
            std::fill(row, row + x.shape[1], static_cast<T>(*from));
        else
            widen_row<A>(from, x.strides[1], x.shape[1] - done, row + done);
        std::fill(row + x.shape[1], row + width, T(0));
    }
}

/// What the channels of a block start with, (rows, width): what they carry, (rows, channels), or zeros if that has no
/// data.
template <class A, class T, class S>
void fill_start(const view<S, 2>& carried, T* to, index_t width) {
    if (carried.data)
        fill_rows<A>(view<const S, 2>(carried), to, width);
    else
        std::fill_n(to, carried.shape[0] * width, T(0));
}

/// A constant of a block's channels, x (C), as a row; zeros where x has no data.
template <class A, class T, class S>
void fill_constant(const view<const S, 1>& x, const channel_block& at, T* to) {
    if (x.data)
        fill_rows<A>(channels_of(as_row(x), at), to, at.width);
    else
        std::fill_n(to, at.width, T(0));
}

/// Rows of x (tokens, channels) for reading; scratch holds tokens x width, width a multiple of the lanes.
template <class A, class T, class S>
tile_rows<const T> read_rows(const view<const S, 2>& x, index_t width, T* scratch) {
    if constexpr (std::is_same_v<S, T>)
        if (lies_ready<A, T>(x)) return {x.data, x.strides[0]};
    const bool one = x.strides[0] == 0;
    fill_rows<A>(one ? slice(x, 0, {0, std::min<index_t>(1, x.shape[0])}) : x, scratch, width);
    return {scratch, one ? 0 : width};
}

/// The same for numbers that all channels share: scratch holds tokens x numbers, and rows end with the last number.
template <class A, class T, class S>
tile_rows<const T> read_numbers(const view<const S, 2>& x, T* scratch) {
    if constexpr (std::is_same_v<S, T>)
        if (x.strides[1] == 1) return {x.data, x.strides[0]};
    fill_rows<A>(x, scratch, x.shape[1]);
    return {scratch, x.shape[1]};
}

/// Brings rows from scratch to x (tokens, channels).
template <class A, class T, class S>
void store_rows(const view<S, 2>& x, const T* from, index_t width) {
    using P = pack<T, A>;
    constexpr auto L = static_cast<index_t>(P::size);
    const auto [tokens, channels] = transposable<P>(x);
    for (index_t c = 0; c < channels; c += L)
        for (index_t t = 0; t < tokens; t += L) store_transposed<P>(x, t, c, from, width);
    for (index_t t = 0; t < x.shape[0]; ++t) {
        const index_t done = t < tokens ? channels : 0;
        narrow_row<A>(from + t * width + done, x.shape[1] - done, x.data + t * x.strides[0] + done * x.strides[1],
                      x.strides[1]);
    }
}

/// Rows to write x (tokens, channels) to: where they lie, or scratch; bring_rows brings those there. What adds goes by
/// way of scratch; `around` asks for stores around the caches.
template <class A, class T, class S>
tile_rows<T> write_rows(const view<S, 2>& x, index_t width, T* scratch, bool adds, bool around) {
    constexpr index_t line = 64 / sizeof(T);
    if constexpr (std::is_same_v<S, T>)
        if (!adds && lies_ready<A, T>(x))
            return {x.data, x.strides[0], around && starts_line(x.data) && x.shape[1] % line == 0};
    return {scratch, width};
}
/// Makes x what was written to `from`, or adds it to x; spare holds as much as a tile.
template <class A, class T, class S>
void bring_rows(const view<S, 2>& x, const tile_rows<T>& from, index_t width, T* spare, bool adds) {
    using P = pack<T, A>;
    if (!adds && lies_ready<A, T>(x)) return;
    if (adds) {
        fill_rows<A>(view<const S, 2>(x), spare, width);
        for (index_t i = 0; i < x.shape[0] * width; i += P::size)
            store(from.data + i, load<P>(spare + i) + load<P>(from.data + i));
    }
    store_rows<A>(x, from.data, width);
}

}  // namespace heed::inline HEED_ABI::detail
