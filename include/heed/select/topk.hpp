// top_k(scores, k): the k greatest, as ascending indices; ties to the lower index, so that the answer is one.
//
// NaN is greater than every number (what is wrong is chosen, and shows); -0 equals 0. O(n): the k-th greatest is found by
// its bits, 11 at a time from the highest, each time among those that agree so far. Of many scores, only those between
// two guesses, taken from every 32nd, are looked at so; packs count the rest. One more pass collects.
#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <vector>

#include "../simd/stored_rows.hpp"

namespace heed::inline HEED_ABI {
namespace detail {

/// Numbers as integers in the same order.
template <class T>
using rank_of = bits_of_lane<T>;

template <class T>
HEED_INLINE rank_of<T> rank(T x) {
    using bits = rank_of<T>;
    constexpr int last = 8 * sizeof(T) - 1;
    const bits u = std::bit_cast<bits>(x + T(0));
    const bits flipped = u ^ ((bits(0) - (u >> last)) | bits(1) << last);
    return x != x ? ~bits(0) : flipped;
}
template <class T>
T number_of(rank_of<T> rank) {
    using bits = rank_of<T>;
    constexpr bits sign = bits(1) << (8 * sizeof(T) - 1);
    return std::bit_cast<T>(rank & sign ? rank ^ sign : ~rank);
}

/// The k-th greatest rank, and how many of the k have it.
template <class T>
struct rank_cut {
    rank_of<T> rank = 0;
    index_t ties = 0;
};

/// 1 <= k <= ranks.size(). Leaves nothing in `ranks`.
template <class T>
rank_cut<T> cut_ranks(std::vector<rank_of<T>>& ranks, index_t k) {
    constexpr int digit = 11;
    constexpr std::size_t digits = 1 << digit;
    rank_cut<T> cut{0, k};
    for (int low = 8 * sizeof(T); low > 0;) {
        low = std::max(0, low - digit);
        std::uint32_t counts[digits] = {};
        const auto digit_of = [low](rank_of<T> r) { return static_cast<std::size_t>(r >> low) % digits; };
        for (rank_of<T> r : ranks) ++counts[digit_of(r)];
        std::size_t at = digits - 1;
        for (; cut.ties > index_t(counts[at]); --at) cut.ties -= counts[at];
        cut.rank |= rank_of<T>(at) << low;
        std::size_t kept = 0;
        for (rank_of<T> r : ranks) {
            ranks[kept] = r;
            kept += digit_of(r) == at;
        }
        ranks.resize(kept);
    }
    return cut;
}

/// Scores by packs: f(first index, pack, bits of the lanes inside).
template <class A, class T, class F>
HEED_INLINE void each_score_pack(std::span<const T> scores, const F& f) {
    using P = pack<T, A>;
    constexpr auto L = static_cast<index_t>(P::size);
    const auto n = static_cast<index_t>(scores.size());
    index_t j = 0;
    for (; j + L <= n; j += L) f(j, load<P>(scores.data() + j), (std::uint32_t(2) << (L - 1)) - 1);
    if (j < n) f(j, plain_rows<T>{scores.data()}.template load<P>(0, j, n - j), (std::uint32_t(1) << (n - j)) - 1);
}

/// Greater than `least`, as ranks are.
template <class P>
HEED_INLINE auto above(const P& x, typename P::value_type least) {
    return least != least ? P(least) == P(least) : !(x <= P(least));  // nothing is above NaN, NaN above all else
}
template <class P>
HEED_INLINE auto equal(const P& x, typename P::value_type y) {
    return y != y ? x != x : x == P(y);
}

/// The cut of all scores, 1 <= k <= their number.
template <class A, class T>
rank_cut<T> cut_scores(std::span<const T> scores, index_t k) {
    constexpr index_t few = 4096, apart = 32;
    const auto n = static_cast<index_t>(scores.size());
    std::vector<rank_of<T>> ranks;
    const auto all = [&](index_t step) {
        ranks.clear();
        for (index_t j = 0; j < n; j += step) ranks.push_back(rank(scores[static_cast<std::size_t>(j)]));
    };
    if (n > few) {
        // The guesses are wrong by a few times the deviation of a quantile of the sample, rarely.
        const index_t sample = ceil_div(n, apart);
        const auto share = static_cast<double>(k) / static_cast<double>(n);
        const auto off = static_cast<index_t>(4 * std::sqrt(share * (1 - share) * static_cast<double>(sample))) + 2;
        const auto guess = [&](index_t at) {
            all(apart);
            return number_of<T>(cut_ranks<T>(ranks, std::clamp<index_t>(at, 1, sample)).rank);
        };
        const T high = guess(k / apart - off), low = guess(k / apart + off);
        index_t higher = 0;
        constexpr std::size_t L = pack<T, A>::size;
        std::vector<T> between(static_cast<std::size_t>(4 * off * apart) + L);
        std::size_t count = 0;
        each_score_pack<A>(scores, [&](index_t, const auto& x, std::uint32_t inside) HEED_INLINE_LAMBDA {
            const std::uint32_t over = bits_of_mask(above(x, high)) & inside;
            higher += std::popcount(over);
            if (between.size() < count + L) between.resize(2 * between.size());
            const std::uint32_t those = (bits_of_mask(above(x, low) | equal(x, low)) & inside) ^ over;
            count += static_cast<std::size_t>(store_chosen(between.data() + count, x, those));
        });
        ranks.clear();
        for (std::size_t i = 0; i < count; ++i) ranks.push_back(rank(between[i]));
        if (higher < k && k <= higher + static_cast<index_t>(ranks.size())) return cut_ranks<T>(ranks, k - higher);
    }
    all(1);
    return cut_ranks<T>(ranks, k);
}

}  // namespace detail

/// Calls f(j, bits) for packs of scores with some of the k greatest among them, ascending: bit l stands for index j + l.
template <class A = default_arch, class T, class F>
void each_pack_of_top_k(std::span<const T> scores, index_t k, const F& f) {
    const auto n = static_cast<index_t>(scores.size());
    if (k <= 0 || n == 0) return;
    const detail::rank_cut<T> cut = k < n ? detail::cut_scores<A>(scores, k) : detail::rank_cut<T>{0, n};
    const T least = detail::number_of<T>(cut.rank);
    index_t ties = cut.ties;
    detail::each_score_pack<A>(scores, [&](index_t j, const auto& x, std::uint32_t inside) HEED_INLINE_LAMBDA {
        if (k >= n) return f(j, inside);
        std::uint32_t same = bits_of_mask(detail::equal(x, least)) & inside;
        const std::uint32_t greater = bits_of_mask(detail::above(x, least)) & inside & ~same;
        while (std::popcount(same) > ties) same ^= std::bit_floor(same);
        ties -= std::popcount(same);
        if (greater | same) f(j, greater | same);
    });
}

/// Calls f(j) for each of them.
template <class A = default_arch, class T, class F>
void each_of_top_k(std::span<const T> scores, index_t k, const F& f) {
    each_pack_of_top_k<A>(scores, k, [&](index_t first, std::uint32_t chosen) HEED_INLINE_LAMBDA {
        for (; chosen; chosen &= chosen - 1) f(first + std::countr_zero(chosen));
    });
}

/// The k greatest of the scores, float or double, as ascending indices.
template <class A = default_arch, class T>
std::vector<index_t> top_k(std::span<const T> scores, index_t k) {
    std::vector<index_t> chosen;
    chosen.reserve(static_cast<std::size_t>(std::clamp<index_t>(k, 0, static_cast<index_t>(scores.size()))));
    each_of_top_k<A>(scores, k, [&](index_t j) { chosen.push_back(j); });
    return chosen;
}

}  // namespace heed::inline HEED_ABI
