// The sequences of a scan: a batch, or many packed into one row of tokens; each from its first token or from its last.
#pragma once

#include <numeric>

#include "../core/view.hpp"
#include "../policy/roles.hpp"
#include "../policy/sequence.hpp"

namespace heed::inline HEED_ABI::detail {

struct sequences {
    index_t B = 0, N = 0;
    std::span<const index_t> offsets = {};  // of packed ones
    bool packs = false, backwards = false;

    template <class... P>
    static sequences of(const char* op, index_t B, index_t N, const P&... policies) {
        sequences s{B, N};
        const auto pack = pick<roles::packed>(not_packed{}, policies...);
        if constexpr (requires { pack.offsets; }) {
            pack.check(op, B, N);
            s.offsets = pack.offsets;
            s.packs = true;
        }
        s.backwards =
            std::is_same_v<std::remove_const_t<decltype(pick<roles::order>(causal_order{}, policies...))>, reversed>;
        return s;
    }

    index_t count() const { return packs ? static_cast<index_t>(offsets.size()) - 1 : B; }
    index_t batch(index_t i) const { return packs ? 0 : i; }
    range tokens(index_t i) const {
        if (!packs) return {0, N};
        const auto at = static_cast<std::size_t>(i);
        return {offsets[at], offsets[at + 1]};
    }
    index_t longest() const {
        index_t most = 0;
        for (index_t i = 0; i < count(); ++i) most = std::max(most, tokens(i).size());
        return most;
    }

    /// x (B, N, ...) of sequence i alone, (tokens, ...), the token first met first.
    template <class T, std::size_t R>
    view<T, R - 1> of(const view<T, R>& x, index_t i) const {
        const range own = tokens(i);
        const index_t first = backwards ? own.last - 1 : own.first;
        view<T, R - 1> one;
        one.data = x.data + batch(i) * x.strides[0] + (own.empty() ? 0 : first) * x.strides[1];
        std::copy(x.shape.begin() + 1, x.shape.end(), one.shape.begin());
        std::copy(x.strides.begin() + 1, x.strides.end(), one.strides.begin());
        one.shape[0] = own.size();
        if (backwards) one.strides[0] = -one.strides[0];
        return one;
    }
};

/// A range of channels whose rows are whole packs, or the few channels that remain.
struct channel_block {
    index_t first, channels, width;  // width: channels, rounded up to packs
};

/// C channels cut into about so many blocks, none of more than `most` channels. Channels are apart, so the bits do not
/// depend on it.
struct channel_cut {
    index_t C, L, whole, parts;

    channel_cut(index_t channels, index_t lanes, index_t wanted, index_t most) : C(channels), L(lanes) {
        whole = C / L;
        const index_t least = ceil_div(whole * L, most), fine = std::max<index_t>(1, whole / 4);
        parts = whole ? std::max(least, std::min(wanted, fine)) : 0;
    }
    index_t count() const { return parts + (C % L != 0); }
    channel_block operator[](index_t i) const {
        if (i == parts) return {whole * L, C % L, L};
        const index_t first = i * whole / parts * L, last = (i + 1) * whole / parts * L;
        return {first, last - first, last - first};
    }
    index_t widest() const { return parts ? ceil_div(whole, parts) * L : C % L ? L : 0; }
};

/// Rows as long as can be, since a stretch of memory is read faster than its pieces; tasks a multiple of the crew.
template <class E>
channel_cut cut_for(E& pool, index_t count, index_t channels, index_t lanes, index_t most) {
    const auto crew = static_cast<index_t>(pool.width());
    return {channels, lanes, crew / std::gcd(crew, count), most};
}

/// Tokens of a tile that goes by way of scratch, and the numbers it has room for: 32 KiB of floats if rows are not too
/// long. The room of a narrower block is not larger.
inline constexpr index_t tile_numbers = 8192, least_tokens = 16;
inline index_t tile_tokens(index_t width) {
    return std::clamp<index_t>(tile_numbers / std::max<index_t>(width, 1), least_tokens, 512);
}
inline index_t tile_room(index_t width) { return std::max(tile_numbers, least_tokens * width); }

/// The channels of a block, of rows x (tokens, C).
template <class T>
view<T, 2> channels_of(const view<T, 2>& x, const channel_block& at) {
    return slice(x, 1, {at.first, at.first + at.channels});
}
/// (C, n) as n rows.
template <class T>
view<T, 2> by_column(const view<T, 2>& x) {
    return {x.data, {x.shape[1], x.shape[0]}, {x.strides[1], x.strides[0]}};
}
/// (C) as rows that are all one.
template <class T>
view<T, 2> as_row(const view<T, 1>& x) {
    return {x.data, {1, x.shape[0]}, {0, x.strides[0]}};
}

}  // namespace heed::inline HEED_ABI::detail
