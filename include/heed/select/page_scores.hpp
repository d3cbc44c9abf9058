// Scores of the pages of one head by bounds of their keys, and the choice of the best [65]. Rows r are the queries of its
// group.
//
//   bound_r = sum_d max(q_rd lo_d, q_rd hi_d) = q_r+ . hi + q_r- . lo  >= q_r . k for every key of the page
//   the pages of the largest max_r bound_r are chosen; of the others, keys are taken to score q_r . (lo + hi) / 2
// Cost: 2 D numbers of every page, read once for the group.
#pragma once

#include "../core/context.hpp"
#include "../tile/streamed.hpp"
#include "log_mass.hpp"
#include "topk.hpp"

namespace heed::inline HEED_ABI::detail {

/// The bounds of one head: (pages, 2 D), highest then lowest.
template <class S>
struct page_rows {
    const S* data = nullptr;
    index_t D = 0, page = 1, keys = 0;

    index_t pages() const { return ceil_div(keys, page); }
    range keys_of(index_t p) const { return {p * page, std::min((p + 1) * page, keys)}; }
    lone_row<S> of(index_t p) const { return {data + p * 2 * D}; }
};

/// The work on one head, for R rows.
template <class A, class S, class T>
class page_scores {
public:
    using P = pack<T, A>;
    using products = products_of<lone_row<S>, T, A>;
    static constexpr index_t L = lanes<T, A>, tile = streamed_tile;

    page_scores(const page_rows<S>& pages, index_t R, carver& from)
        : pages_(pages), R_(R), stride_(round_up(pages.pages(), tile)), width_(round_up(2 * pages.D, products::step)),
          query_(from.take<T>(2 * R * width_)), bound_(from.take<T>(stride_)), centre_(from.take<T>(R * stride_)),
          products_(from.take<T>(spans() * 2 * R * tile)) {}

    /// Where the rows go before anything else, (R, query_stride), scaled for powers of 2.
    T* queries() const { return query_; }
    index_t query_stride() const { return width_; }

    /// Row r becomes what meets the bounds: (q+, q-), and row R + r what meets the centre: (q, q) / 2; as the products take
    /// them.
    void part_signs() const {
        for (index_t r = 0; r < R_; ++r) {
            T* const q = query_ + r * width_;
            T* const half = query_ + (R_ + r) * width_;
            std::fill_n(half, width_, T(0));
            for (index_t d = 0; d < pages_.D; ++d) {
                const T x = q[d];
                half[d] = half[pages_.D + d] = x / 2;
                q[d] = x > 0 || x != x ? x : T(0);
                q[pages_.D + d] = x < 0 ? x : T(0);
            }
        }
        arrange<products>(query_, 2 * R_ * width_);
    }

    /// Tasks of scoring: so many spans of pages.
    index_t spans() const { return ceil_div(stride_, pages_of_span); }
    void score(index_t span) const {
        const index_t first = span * pages_of_span, last = std::min(first + pages_of_span, pages_.pages());
        named_rows<lone_row<S>> rows[2];
        name_rows(first, rows[0]);
        for (index_t p = first; p < last; p += tile) {
            auto& now = rows[(p - first) / tile % 2];
            auto& next = rows[(p - first) / tile % 2 ^ 1];
            name_rows(p + tile, next);
            now.follow(next);
            score_tile(p, std::min(tile, last - p), now, products_ + span * 2 * R_ * tile);
        }
    }

    /// After all pages: appends the keys of the k chosen pages, the first and the last ones among them, and tells of every
    /// row the log of the mass that the other keys are taken to have.
    void choose(index_t k, index_t first, index_t recent, std::vector<index_t>& chosen, double* outside) const {
        const index_t pages = pages_.pages();
        recent = std::min(recent, k);
        first = std::min(first, k - recent);
        chosen.reserve(static_cast<std::size_t>(k * pages_.page));
        const auto take = [&](index_t p) {
            for (index_t j = pages_.keys_of(p).first; j < pages_.keys_of(p).last; ++j) chosen.push_back(j);
            for (index_t r = 0; r < R_; ++r) centre_[r * stride_ + p] = -std::numeric_limits<T>::infinity();
        };
        const double cut = static_cast<double>(pages_.keys_of(pages - 1).size()) / static_cast<double>(pages_.page);
        for (index_t r = 0; r < R_; ++r) centre_[r * stride_ + pages - 1] += static_cast<T>(std::log2(cut));
        for (index_t p = 0; p < first; ++p) take(p);
        const std::span<const T> between(bound_ + first, static_cast<std::size_t>(pages - recent - first));
        each_of_top_k<A>(between, k - recent - first, [&](index_t p) { take(first + p); });
        for (index_t p = pages - recent; p < pages; ++p) take(p);
        const double page = std::log(static_cast<double>(pages_.page));
        for (index_t r = 0; r < R_; ++r) outside[r] = log_mass<A>(centre_ + r * stride_, pages) + page;
    }

private:
    static constexpr index_t pages_of_span = 16 * tile;

    /// The bounds of a tile of pages; beyond the last page, its own.
    void name_rows(index_t first, named_rows<lone_row<S>>& to) const {
        for (index_t c = 0; c < tile; ++c) to[c] = pages_.of(std::min(first + c, pages_.pages() - 1));
    }
    void score_tile(index_t first, index_t count, const named_rows<lone_row<S>>& rows, T* s) const {
        dots<products>(rows, true, std::min(count, streamed_run), 2 * pages_.D, query_, width_, 2 * R_, s);
        for (index_t c = 0; c < tile; c += L) {
            P most = load_aligned<P>(s + c);
            for (index_t r = 1; r < R_; ++r) {
                const P x = load_aligned<P>(s + r * tile + c);
                most = select(x > most, x, most) + (x - x);  // a NaN stays
            }
            store_aligned(bound_ + first + c, most);
        }
        for (index_t r = 0; r < R_; ++r) std::copy_n(s + (R_ + r) * tile, tile, centre_ + r * stride_ + first);
    }

    page_rows<S> pages_;
    index_t R_, stride_, width_;
    T* query_;     // (2 R, width)
    T* bound_;     // (stride)
    T* centre_;    // (R, stride)
    T* products_;  // (spans, 2 R, tile)
};

}  // namespace heed::inline HEED_ABI::detail
