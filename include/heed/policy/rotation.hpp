// Rotations: how rotary position embedding pairs channels, and by which angles the pairs turn.
//
//   angle = position * frequency(pair)        theta{base}, frequencies{per_pair}, rope_scaling.hpp
//   cos, sin from a table                     rotary_cache{cos, sin}
// The position of token n is n + offset (position.hpp), or positions{ids}, or positions_by{f}. Angles with a member
// magnitude(position, pair, width) also stretch the pair (xpos.hpp).
#pragma once

#include <cmath>
#include <span>

#include "../core/half.hpp"
#include "../core/view.hpp"
#include "../simd/convert.hpp"
#include "position.hpp"

namespace heed::inline HEED_ABI {

namespace roles {
struct pairing {};
struct width {};
struct angles {};
struct positions {};
}  // namespace roles

/// Pair p is channels (p, p + width / 2): Llama, NeoX. The default.
struct half_split {
    using role = roles::pairing;
};
/// Pair p is channels (2p, 2p + 1): GPT-J, the paper.
struct interleaved {
    using role = roles::pairing;
};

/// Only the first channels turn, the rest is copied. The default is all of them.
struct rotated {
    using role = roles::width;
    index_t channels;
    constexpr explicit rotated(index_t first_channels) : channels(first_channels) {}
};

/// frequency(pair) = base^(-2 pair / width). The default, with base 10000.
struct theta {
    using role = roles::angles;
    double base;
    constexpr explicit theta(double b) : base(b) {}
    double frequency(index_t pair, index_t width) const {
        return std::pow(base, -2.0 * static_cast<double>(pair) / static_cast<double>(width));
    }
    void check(const char* op, index_t) const {
        require_argument(base > 0, op, "theta is ", base, ", must be above 0");
    }
};

/// frequency(pair) = per_pair[pair]: any other schedule.
struct frequencies {
    using role = roles::angles;
    std::span<const double> per_pair;  // width / 2
    explicit frequencies(std::span<const double> f) : per_pair(f) {}
    double frequency(index_t pair, index_t) const { return per_pair[static_cast<std::size_t>(pair)]; }
    void check(const char* op, index_t pairs) const {
        require_shape(static_cast<index_t>(per_pair.size()) == pairs, op, "frequencies holds ", per_pair.size(),
                      " values, ", pairs, " pairs turn");
    }
};

/// Cosines and sines by position, (P, width / 2), or by token, (B, N, width / 2).
template <class T, std::size_t Rank>
struct rotary_cache {
    static_assert(Rank == 2 || Rank == 3, "heed: a rotary_cache is (P, width / 2) or (B, N, width / 2)");
    using role = roles::angles;
    static constexpr bool by_token = Rank == 3;
    view<const T, Rank> cos, sin;
    rotary_cache(view<const T, Rank> c, view<const T, Rank> s) : cos(c), sin(s) {}
    void check(const char* op, index_t pairs) const {
        require_shape(cos.shape == sin.shape, op, "the cosines and sines of the cache differ in shape");
        require_shape(cos.shape[Rank - 1] == pairs, op, "the cache holds ", cos.shape[Rank - 1], " pairs, ", pairs,
                      " turn");
    }
};
template <class T, class U, std::size_t Rank>
rotary_cache(view<T, Rank>, view<U, Rank>) -> rotary_cache<std::remove_const_t<T>, Rank>;

/// Positions by token, (b, n).
template <class I>
struct positions {
    using role = roles::positions;
    static constexpr bool same_in_batch = false;
    view<const I, 2> ids;
    explicit positions(view<const I, 2> v) : ids(v) {}
    index_t operator()(index_t b, index_t n) const { return static_cast<index_t>(ids(b, n)); }
};
template <class I>
positions(view<I, 2>) -> positions<std::remove_const_t<I>>;

/// Token n of every sequence stands at position at(n).
template <class F>
struct positions_by {
    using role = roles::positions;
    static constexpr bool same_in_batch = true;
    F at;
    explicit positions_by(const F& f) : at(f) {}
    index_t operator()(index_t, index_t n) const { return at(n); }
};

namespace detail {

// Cosines and sines of so many tokens and pairs are held at once, on the stack and in L1: heads are far apart in
// memory, so a head's rows are visited in runs.
inline constexpr index_t pairs_at_once = 128;
inline constexpr index_t tokens_at_once = 8;

/// Token n stands at position n + first.
struct positions_in_order {
    using role = roles::positions;
    static constexpr bool same_in_batch = true;
    index_t first = 0;
    index_t operator()(index_t, index_t n) const { return first + n; }
};

/// The cosines and sines of at most pairs_at_once pairs, for tokens_at_once tokens.
template <class A, class T, class Angles>
class turns {
public:
    static constexpr bool by_token = false;
    T cos[tokens_at_once][pairs_at_once], sin[tokens_at_once][pairs_at_once];

    turns(const Angles& angles, range pairs, index_t width) noexcept : angles_(angles), pairs_(pairs), width_(width) {
        for (index_t p = 0; p < pairs.size(); ++p) frequency_[p] = angles.frequency(pairs.first + p, width);
    }
    void fill(index_t place, index_t, index_t, index_t position) noexcept {
        for (index_t p = 0; p < pairs_.size(); ++p) {
            const double angle = static_cast<double>(position) * frequency_[p], size = magnitude(position, p);
            cos[place][p] = static_cast<T>(size * std::cos(angle));
            sin[place][p] = static_cast<T>(size * std::sin(angle));
        }
    }

private:
    double magnitude([[maybe_unused]] index_t position, [[maybe_unused]] index_t p) const noexcept {
        if constexpr (requires { angles_.magnitude(position, p, width_); })
            return angles_.magnitude(position, pairs_.first + p, width_);
        else
            return 1;
    }
    const Angles& angles_;
    range pairs_;
    index_t width_;
    double frequency_[pairs_at_once];
};

template <class A, class T, class S, std::size_t Rank>
class turns<A, T, rotary_cache<S, Rank>> {
public:
    static constexpr bool by_token = Rank == 3;
    T cos[tokens_at_once][pairs_at_once], sin[tokens_at_once][pairs_at_once];

    turns(const rotary_cache<S, Rank>& cache, range pairs, index_t) noexcept : cache_(cache), pairs_(pairs) {}
    void fill(index_t place, index_t b, index_t n, index_t position) noexcept {
        read(cache_.cos, b, n, position, cos[place]);
        read(cache_.sin, b, n, position, sin[place]);
    }

private:
    void read(const view<const S, Rank>& table, index_t b, index_t n, index_t position, T* to) const noexcept {
        const S* row;
        if constexpr (by_token)
            row = &table(b, n, pairs_.first);
        else
            row = &table(position, pairs_.first);
        widen_row<A>(row, table.strides[Rank - 1], pairs_.size(), to);
    }
    const rotary_cache<S, Rank>& cache_;
    range pairs_;
};

}  // namespace detail
}  // namespace heed::inline HEED_ABI
