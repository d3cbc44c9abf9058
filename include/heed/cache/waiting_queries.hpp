// Queries that wait before they attend, so that they see keys which come after them (Attendre [22]).
//
// A first-in, first-out memory of rows q (B, H, n, D): what is beyond its capacity is due. At the end of the input all
// that still wait are due: flush.
#pragma once

#include <span>
#include <vector>

#include "../core/half.hpp"
#include "../core/view.hpp"

namespace heed::inline HEED_ABI {

template <storage S>
class waiting_queries {
public:
    /// Lets `capacity` tokens wait.
    waiting_queries(index_t B, index_t H, index_t D, index_t capacity) : shape_{B, H, 0, D}, capacity_(capacity) {
        require_argument(B >= 0 && H >= 0 && D >= 0, op, "extents are (", B, ", ", H, ", n, ", D, ")");
        require_argument(capacity >= 0, op, "capacity is ", capacity);
    }

    /// Queues q (B, H, n, D).
    template <class Q>
    void push(const Q& queries) {
        const auto q = as_view(queries);
        const auto [B, H, n, D] = q.shape;
        require_shape(B == shape_[0] && H == shape_[1] && D == shape_[3], op, "q is (", B, ", ", H, ", n, ", D,
                      "), those waiting are (", shape_[0], ", ", shape_[1], ", n, ", shape_[3], ")");
        if (served_ > waiting()) drop_served();
        for (index_t i = 0; i < n; ++i)
            for (index_t b = 0; b < B; ++b)
                for (index_t h = 0; h < H; ++h)
                    for (index_t d = 0; d < D; ++d) rows_.push_back(static_cast<S>(q(b, h, i, d)));
        end_ += n;
    }

    index_t waiting() const { return end_ - first_; }
    /// How many are due, or would be with some more.
    index_t due(index_t more = 0) const { return std::max<index_t>(0, waiting() + more - capacity_); }
    /// Position of the first that waits, counted from the first ever pushed.
    index_t first() const { return first_; }
    /// The first n that wait, (B, H, n, D); good until the next push.
    view<const S> front(index_t n) const {
        check(n);
        return {rows_.data() + served_ * token(),
                {shape_[0], shape_[1], n, shape_[3]},
                {shape_[1] * shape_[3], shape_[3], token(), 1}};
    }
    /// The first n have attended.
    void pop(index_t n) {
        check(n);
        first_ += n;
        served_ += n;
    }

    /// The last n tokens have never come, those among them that have attended as well.
    void drop_last(index_t n) {
        require_argument(0 <= n && n <= end_, op, "cannot drop ", n, " queries of ", end_);
        rows_.resize(rows_.size() - static_cast<std::size_t>(std::min(n, waiting()) * token()));
        end_ -= n;
        first_ = std::min(first_, end_);
    }

    /// Sequence b becomes a copy of sequence parents[b]; parents.size() is the new B.
    void reorder(std::span<const index_t> parents) {
        for (index_t parent : parents)
            require_argument(0 <= parent && parent < shape_[0], op, "sequence ", parent, " of ", shape_[0]);
        drop_served();
        const index_t one = shape_[1] * shape_[3], n = waiting();
        std::vector<S> next;
        next.reserve(static_cast<std::size_t>(n * one) * parents.size());
        for (index_t i = 0; i < n; ++i)
            for (index_t parent : parents) {
                const auto from = rows_.begin() + i * token() + parent * one;
                next.insert(next.end(), from, from + one);
            }
        rows_ = std::move(next);
        shape_[0] = static_cast<index_t>(parents.size());
    }

private:
    static constexpr const char* op = "waiting_queries";
    void check(index_t n) const { require_argument(0 <= n && n <= waiting(), op, n, " queries of ", waiting()); }
    /// Elements of a token.
    index_t token() const { return shape_[0] * shape_[1] * shape_[3]; }
    void drop_served() {
        rows_.erase(rows_.begin(), rows_.begin() + served_ * token());
        served_ = 0;
    }

    extents<4> shape_;
    index_t capacity_;
    std::vector<S> rows_;  // (n, B, H, D), those served first
    index_t served_ = 0, first_ = 0, end_ = 0;
};

}  // namespace heed::inline HEED_ABI
