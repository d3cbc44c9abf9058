// Which rows of a head stay: the best by some score, as the ascending indices that cache.keep(b, g, kept) takes.
//
// Scores are anything with size() and []; a row with score NaN goes first. Cost: O(rows held).
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "../core/error.hpp"
#include "../core/range.hpp"

namespace heed::inline HEED_ABI {

/// Which of two rows with the same score stays.
enum class ties { lower, higher };

namespace detail {

/// The `count` best of [0, n), ascending; better(i, j) is a strict weak order, indices in doubt are told apart by
/// `equal`.
template <class Better>
std::vector<index_t> best_of(index_t n, index_t count, const Better& better, ties equal = ties::lower) {
    require_argument(count >= 0, "evict", "cannot keep ", count, " rows");
    std::vector<index_t> kept(static_cast<std::size_t>(n));
    std::iota(kept.begin(), kept.end(), index_t(0));
    if (count >= n) return kept;
    const auto before = [&](index_t i, index_t j) {
        if (better(i, j)) return true;
        if (better(j, i)) return false;
        return equal == ties::lower ? i < j : i > j;
    };
    std::nth_element(kept.begin(), kept.begin() + count, kept.end(), before);
    kept.resize(static_cast<std::size_t>(count));
    std::sort(kept.begin(), kept.end());
    return kept;
}

/// a before b where the larger comes first and NaN last.
template <class T>
bool larger(const T& a, const T& b) {
    return a > b || (a == a && b != b);
}

}  // namespace detail

/// `count` rows: the last `recent` ones (at most `count`), and those of the highest scores.
template <class Scores>
std::vector<index_t> keep_highest(const Scores& score, index_t count, index_t recent = 0, ties equal = ties::lower) {
    require_argument(recent >= 0, "evict", "cannot keep the last ", recent, " rows");
    const auto n = static_cast<index_t>(score.size());
    const index_t first_recent = n - std::min(recent, n);
    const auto at = [&](index_t i) { return score[static_cast<std::size_t>(i)]; };
    return detail::best_of(
        n, count,
        [&](index_t i, index_t j) {
            const bool i_recent = i >= first_recent, j_recent = j >= first_recent;
            if (i_recent || j_recent) return i_recent && (!j_recent || i > j);
            return detail::larger(at(i), at(j));
        },
        equal);
}

/// `count` rows: the last `recent` ones (at most `count`), and those of the lowest scores.
template <class Scores>
std::vector<index_t> keep_lowest(const Scores& score, index_t count, index_t recent = 0, ties equal = ties::lower) {
    std::vector<double> negative(score.size());
    for (std::size_t i = 0; i < negative.size(); ++i) negative[i] = -static_cast<double>(score[i]);
    return keep_highest(negative, count, recent, equal);
}

/// The entries of a statistic that go with the rows kept.
template <class T>
void keep_entries(std::vector<T>& statistic, const std::vector<index_t>& kept) {
    for (std::size_t i = 0; i < kept.size(); ++i) statistic[i] = statistic[static_cast<std::size_t>(kept[i])];
    statistic.resize(kept.size());
}

}  // namespace heed::inline HEED_ABI
