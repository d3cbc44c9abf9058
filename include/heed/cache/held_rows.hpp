// Which positions of a sequence the rows of one head have: all of them, until some are let go of or left out.
#pragma once

#include <algorithm>
#include <numeric>
#include <span>
#include <vector>

#include "shape.hpp"

namespace heed::inline HEED_ABI::detail {

/// Rows of a head of a sequence whose next token is number `end`; they lie in the order of their tokens.
class held_rows {
public:
    index_t count() const { return count_; }
    /// Rows that keep() has let go of so far.
    index_t let_go() const { return let_go_; }
    /// Position of each row; nullptr where row j stands at j.
    const index_t* positions(index_t end) const { return count_ == end ? nullptr : positions_.data(); }
    index_t bytes() const { return static_cast<index_t>(positions_.capacity() * sizeof(index_t)); }

    /// Names the n tokens to come, if need be: the one member of append that may throw.
    void name(index_t n, index_t end) {
        if (count_ == end) return;
        positions_.resize(at(count_ + n));
        for (index_t i = 0; i < n; ++i) positions_[at(count_ + i)] = end + i;
    }
    void grow(index_t n) { count_ += n; }
    /// The next token will not be number `end`: what is held needs names from now on.
    void skip(index_t end) {
        if (count_ != end) return;
        positions_.resize(at(count_));
        std::iota(positions_.begin(), positions_.end(), index_t(0));
    }

    /// Only these rows stay. Calls move(to, from, n) for every stretch of rows that is not where it belongs, in order.
    template <class Move>
    void keep(std::span<const index_t> kept, index_t end, const Move& move) {
        if (count_ == end)
            positions_.assign(kept.begin(), kept.end());
        else
            for (std::size_t i = 0; i < kept.size(); ++i) positions_[i] = positions_[at(kept[i])];
        let_go_ += count_ - static_cast<index_t>(kept.size());
        count_ = static_cast<index_t>(kept.size());
        for (index_t i = 0; i < count_;) {
            const index_t from = kept[at(i)];
            index_t n = 1;
            while (i + n < count_ && kept[at(i + n)] == from + n) ++n;
            if (from != i) move(i, from, n);
            i += n;
        }
    }

    /// How many rows are of tokens before `position`.
    index_t before(index_t position, index_t end) const {
        const auto first = positions_.begin();
        return count_ == end ? position : std::lower_bound(first, first + count_, position) - first;
    }
    /// Drops the rows of tokens from `position` on, which is the next one then.
    void cut(index_t position, index_t end) { count_ = before(position, end); }

private:
    static std::size_t at(index_t i) { return static_cast<std::size_t>(i); }

    index_t count_ = 0;               // rows held; all tokens of the sequence, or
    std::vector<index_t> positions_;  // fewer, which are the first `count_` of these
    index_t let_go_ = 0;
};

}  // namespace heed::inline HEED_ABI::detail
