// Scores of the spans of one head: of each the best of the keys that tell it [100]. Rows r are pooled queries of its
// group.
//
//   score_r(span) = max over its keys k of q_r . k
// Cost: D numbers of every key that tells a span, read once for all rows.
#pragma once

#include "../tile/streamed.hpp"
#include "log_mass.hpp"
#include "span_head.hpp"

namespace heed::inline HEED_ABI::detail {

/// The work on one head, for R rows.
template <class A, class Source, class T>
class span_scores {
public:
    static constexpr index_t L = lanes<T, A>, tile = streamed_tile;
    using Rows = typename Source::key_rows;
    using products = products_of<lone<Rows>, T, A>;

    span_scores(const Source& source, index_t b, index_t g, const std::vector<indexed_span>& spans,
                const std::vector<index_t>& told, index_t R, carver& from)
        : source_(&source),
          b_(b),
          g_(g),
          spans_of_(&spans),
          told_(&told),
          R_(R),
          width_(round_up(source.key_width(), products::step)),
          stride_(round_up(count(), tile)),
          mass_stride_(round_up(static_cast<index_t>(spans.size()), L)),
          strided_(count() > 0 && !key(0).contiguous()),
          query_(from.take<T>(R * width_)),
          logit_(from.take<T>(R * stride_)),
          mass_(from.take<T>(R * mass_stride_)),
          products_(from.take<T>(this->spans() * R * tile)),
          copied_(from.take<typename Rows::storage>(strided_ ? this->spans() * tile * source.key_width() : 0)) {}

    /// The mean over N of q (B, H, N, D) for every row, or over all query heads of the group where there is one row; in
    /// powers of 2.
    template <class Q>
    void pool(const view<const Q>& q, double scale) const {
        const index_t N = q.shape[2], heads = q.shape[1] / source_->heads(), D = source_->key_width();
        const auto factor =
            static_cast<T>(scale * log2_e<double> * static_cast<double>(R_) / static_cast<double>(N * heads));
        std::vector<T> rows(static_cast<std::size_t>(heads * D));
        std::fill_n(query_, R_ * width_, T(0));
        for (index_t n = 0; n < N; ++n) {
            load_group<A>(slice(q, 2, {n, n + 1}), *source_, b_, g_, factor, rows.data(), D);
            for (index_t h = 0; h < heads; ++h)
                for (index_t d = 0; d < D; ++d)
                    query_[h % R_ * width_ + d] += rows[static_cast<std::size_t>(h * D + d)];
        }
        arrange<products>(query_, R_ * width_);
    }

    /// Tasks of scoring: so many stretches of keys.
    index_t spans() const { return ceil_div(count(), keys_of_task); }
    void score(index_t task) const {
        const index_t last = std::min((task + 1) * keys_of_task, count());
        T* const s = products_ + task * R_ * tile;
        for (index_t x = task * keys_of_task; x < last; x += tile) {
            const index_t n = std::min(tile, last - x);
            named_rows<lone<Rows>> rows, coming;
            alignas(64) T factor[tile];
            for (index_t c = 0; c < tile; ++c) {
                const index_t D = source_->key_width(), of_copy = strided_ ? (task * tile + c) * D : 0;
                const Rows now = key(x + std::min(c, n - 1));
                rows[c] = alone(now, D, copied_ + of_copy);
                factor[c] = static_cast<T>(now.factor(0));
                if (c % streamed_run < coming.ahead) coming[c] = alone(key(std::min(x + tile + c, count() - 1)));
            }
            rows.follow(coming);
            dots<products>(rows, true, std::min(n, streamed_run), source_->key_width(), query_, width_, R_, s);
            for (index_t r = 0; r < R_; ++r)
                for (index_t c = 0; c < n; ++c) logit_[r * stride_ + x + c] = s[r * tile + c] * factor[c];
        }
    }

    /// After all keys: the greatest over the rows. A NaN stays.
    double best(std::size_t span) const {
        T most = best(0, span);
        for (index_t r = 1; r < R_; ++r) most = greater(most, best(r, span));
        return static_cast<double>(most);
    }
    /// The log of the mass that row r gives to the keys of spans in `among` that were not chosen, taken to score as
    /// their best.
    double outside(index_t r, const std::vector<bool>& chosen, range among) const {
        T* const mass = mass_ + r * mass_stride_;
        for (std::size_t s = 0; s < chosen.size(); ++s) {
            const index_t keys = chosen[s] ? 0 : ((*spans_of_)[s].keys & among).size();
            mass[s] = keys == 0 ? -std::numeric_limits<T>::infinity() : best(r, s) + std::log2(static_cast<T>(keys));
        }
        return log_mass<A>(mass, static_cast<index_t>(chosen.size()));
    }

private:
    static constexpr index_t keys_of_task = 16 * tile;

    index_t count() const { return static_cast<index_t>(told_->size()); }
    auto key(index_t x) const { return source_->run(b_, g_, (*told_)[static_cast<std::size_t>(x)]).k; }
    static T greater(T x, T y) { return x != x || x > y ? x : y; }
    T best(index_t r, std::size_t span) const {
        const range told = (*spans_of_)[span].told;
        const T* const logit = logit_ + r * stride_;
        T most = logit[told.first];
        for (index_t x = told.first + 1; x < told.last; ++x) most = greater(most, logit[x]);
        return most;
    }

    const Source* source_;
    index_t b_, g_;
    const std::vector<indexed_span>* spans_of_;
    const std::vector<index_t>* told_;
    index_t R_, width_, stride_, mass_stride_;
    bool strided_;  // the elements of a key are apart
    T* query_;                        // (R, width)
    T* logit_;                        // (R, stride): of keys that tell
    T* mass_;                         // (R, mass_stride): of spans
    T* products_;                     // (tasks, R, tile)
    typename Rows::storage* copied_;  // (tasks, tile, D): keys of which the elements are apart
};

}  // namespace heed::inline HEED_ABI::detail
