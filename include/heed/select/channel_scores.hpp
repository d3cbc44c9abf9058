// Scores of the keys of one head by a few channels, and the choice of the best [51]. Rows r are the queries of its group.
//
//   I1 = the channels of the largest sum_r |q_rd|      s_r = softmax_j( scale_r sum_{d in I1} q_rd k_jd )
//   scale_r = scale / sqrt( sum_{I1} |q_rd| / sum_d |q_rd| )    plain scale where I1 is 0 in the row
//   I2 = the keys of the largest sum_r s_rj, the newest always among them      share_r = sum_{I2} s_rj
// Cost: r of D numbers of every key, read once for the group, and an exponential for each row.
#pragma once

#include <span>

#include "../core/context.hpp"
#include "../simd/math.hpp"
#include "../tile/streamed.hpp"
#include "topk.hpp"

namespace heed::inline HEED_ABI::detail {

/// Tokens whose channels lie together.
inline constexpr index_t channel_block = 1024;

/// The keys of one head by channel, in blocks of (D, channel_block): those that lie elsewhere, then those of its own.
template <class S>
struct channel_rows {
    std::span<const S* const> lent;
    const S* own = nullptr;
    index_t D = 0, keys = 0;

    index_t blocks() const { return ceil_div(keys, channel_block); }
    range keys_of(index_t block) const { return {block * channel_block, std::min((block + 1) * channel_block, keys)}; }
    const S* block(index_t b) const {
        const index_t mine = b - static_cast<index_t>(lent.size());
        return mine < 0 ? lent[static_cast<std::size_t>(b)] : own + mine * D * channel_block;
    }
    lone_row<S> of(index_t b, index_t channel) const { return {block(b) + channel * channel_block}; }
};

/// The work on one head, for R rows.
template <class A, class S, class T>
class channel_scores {
public:
    using P = pack<T, A>;
    static constexpr index_t L = lanes<T, A>;

    channel_scores(const channel_rows<S>& keys, index_t R, index_t channels, carver& from)
        : keys_(keys), R_(R), r_(channels), stride_(keys.blocks() * channel_block), width_(round_up(keys.D, L)),
          query_(from.take<T>(R * width_)), by_(from.take<T>(R * channels)), weight_(from.take<T>(R * stride_)),
          sum_(from.take<T>(R * keys.blocks())), factor_(from.take<T>(R * keys.blocks())),
          score_(from.take<T>(stride_)), taken_(from.take<T>(R * L)), channel_(from.take<index_t>(channels)) {}

    /// Where the rows go before anything else: (R, query_stride), unscaled.
    T* queries() const { return query_; }
    index_t query_stride() const { return width_; }

    /// Chooses the channels. scale: of q.k, for powers of 2.
    void choose_channels(T scale) const {
        std::vector<T> size(static_cast<std::size_t>(keys_.D));
        for (index_t r = 0; r < R_; ++r)
            for (index_t d = 0; d < keys_.D; ++d) size[static_cast<std::size_t>(d)] += std::abs(query(r, d));
        index_t* to = channel_;
        each_of_top_k<A>(std::span<const T>(size), r_, [&](index_t d) { *to++ = d; });
        for (index_t r = 0; r < R_; ++r) {
            T chosen = 0, all = 0;
            for (index_t c = 0; c < r_; ++c) chosen += std::abs(query(r, channel_[c]));
            for (index_t d = 0; d < keys_.D; ++d) all += std::abs(query(r, d));
            const T scaled = chosen == T(0) ? scale : scale / std::sqrt(chosen / all);
            for (index_t c = 0; c < r_; ++c) by_[r * r_ + c] = scaled * query(r, channel_[c]);
        }
    }

    /// Tasks of scoring: so many spans of blocks.
    index_t spans() const { return ceil_div(keys_.blocks(), blocks_of_span); }
    void score(index_t span) const {
        const index_t last = std::min((span + 1) * blocks_of_span, keys_.blocks());
        for (index_t block = span * blocks_of_span; block < last; ++block) score_block(block);
    }

    /// After all blocks: `chosen` becomes the k chosen, the last `recent` ones among them, and tells the share of every row.
    void choose(index_t k, index_t recent, std::vector<index_t>& chosen, double* share) const {
        for (index_t r = 0; r < R_; ++r) normalise(r);
        for (index_t block = 0; block < keys_.blocks(); ++block) sum_rows(block);
        recent = std::min(recent, k);
        const index_t older = keys_.keys - recent;
        chosen.resize(static_cast<std::size_t>(k) + 16);  // the room that store_chosen wants
        index_t count = 0, block = 0;
        std::fill_n(share, R_, 0.0);
        std::fill_n(taken_, R_ * L, T(0));  // of the block
        const auto leave_block = [&] {
            for (index_t r = 0; r < R_; ++r) {
                T* const mine = taken_ + r * L;
                share[r] += static_cast<double>(reduce_add(load_aligned<P>(mine))) * static_cast<double>(factor(r, block));
                std::fill_n(mine, L, T(0));
            }
        };
        const auto take = [&](index_t j, std::uint32_t lanes) HEED_INLINE_LAMBDA {
            if (j / channel_block != block) leave_block(), block = j / channel_block;
            const auto mine = mask_of_bits<T, A>(lanes);
            for (index_t r = 0; r < R_; ++r) {
                T* const sum = taken_ + r * L;
                const P w = load_aligned<P>(weight_ + r * stride_ + j);
                store_aligned(sum, load_aligned<P>(sum) + select(mine, w, P(T(0))));
            }
            count += store_chosen<A>(chosen.data() + count, j, lanes);
        };
        each_pack_of_top_k<A>(std::span<const T>(score_, static_cast<std::size_t>(older)), k - recent, take);
        for (index_t j = older; j < keys_.keys;) {
            const index_t first = j / L * L, last = std::min(first + L, keys_.keys);
            take(first, static_cast<std::uint32_t>((std::uint64_t(1) << (last - first)) - (std::uint64_t(1) << (j - first))));
            j = last;
        }
        leave_block();
        chosen.resize(static_cast<std::size_t>(count));
        for (index_t r = 0; r < R_; ++r) share[r] = share[r] > 1 ? 1 : share[r];
    }

private:
    static constexpr index_t blocks_of_span = 16;
    static constexpr int rows_at_once = 4, channels_at_once = vector_registers<A> / 8;

    T query(index_t r, index_t d) const { return query_[r * width_ + d]; }
    T& factor(index_t r, index_t block) const { return factor_[r * keys_.blocks() + block]; }

    /// Weights of the keys of a block against the block's own largest logit.
    void score_block(index_t block) const {
        const index_t first = block * channel_block, count = keys_.keys_of(block).size();
        for (index_t r = 0; r < R_; ++r) std::fill_n(weight_ + r * stride_ + first, round_up(count, L), T(0));
        constexpr int K = channels_at_once;
        index_t c = 0;
        for (; c + K <= r_; c += K) add_channels<K>(block, c);
        for (; c < r_; ++c) add_channels<1>(block, c);
        for (index_t r = 0; r < R_; ++r) weigh(r, block, count);
    }

    /// Adds K channels to the logits of a block.
    template <int K>
    void add_channels(index_t block, index_t c) const {
        constexpr index_t ahead = named_rows<lone_row<S>>::ahead;
        static_assert(K <= ahead);
        lone_row<S> row[ahead + K];
        const lone_row<S>* rows[K];
        const index_t width = round_up(keys_.keys_of(block).size(), L);
        // The next channels, or the first ones of the next block; beyond the last block, what does no harm.
        const index_t next = c + 2 * K <= r_ ? c + K : 0;
        const index_t its = next > 0 ? block : std::min(block + 1, keys_.blocks() - 1);
        for (int x = 0; x < K; ++x) {
            row[x] = keys_.of(block, channel_[c + x]);
            rows[x] = row + x;
            row[ahead + x] = keys_.of(its, channel_[next + x]);
        }
        asking<lone_row<S>> asks{true};
        const auto add = [&]<int R>(std::integral_constant<int, R>, index_t r) {
            P by[R * K];
            for (int x = 0; x < R * K; ++x) by[x] = P(by_[(r + x / K) * r_ + c + x % K]);
            T* const to = weight_ + r * stride_ + block * channel_block;
            accumulate_values<number_products<T, A>, R>(rows, asks, width, by, to, stride_);
            asks = {false};  // once is enough
        };
        index_t r = 0;
        for (; r + rows_at_once <= R_; r += rows_at_once) add(std::integral_constant<int, rows_at_once>{}, r);
        for (; r < R_; ++r) add(std::integral_constant<int, 1>{}, r);
    }

    void weigh(index_t r, index_t block, index_t count) const {
        T* const x = weight_ + r * stride_ + block * channel_block;
        const P hidden(-std::numeric_limits<T>::infinity());
        const auto inside = mask_of_bits<T, A>((std::uint32_t(1) << count % L) - 1);  // of the last, broken pack
        const index_t whole = count / L * L;
        P top = hidden, sum(T(0));
        for (index_t j = 0; j < whole; j += L) top = max(top, load_aligned<P>(x + j));
        if (whole < count) top = max(top, select(inside, load_aligned<P>(x + whole), hidden));
        alignas(64) T each[P::size];
        store_aligned(each, top);
        const T most = factor(r, block) = *std::max_element(each, each + P::size);
        const auto weight = [&](index_t j) HEED_INLINE_LAMBDA { return exp2_nonpositive(load_aligned<P>(x + j) - P(most)); };
        const auto keep = [&](index_t j, const P& w) HEED_INLINE_LAMBDA {
            sum += w;
            store_aligned(x + j, w);
        };
        for (index_t j = 0; j < whole; j += L) keep(j, weight(j));
        if (whole < count) keep(whole, select(inside, weight(whole), P(T(0))));
        sum_[r * keys_.blocks() + block] = reduce_add(sum);
    }

    /// factor_ turns from a block's largest logit into what makes its weights probabilities.
    void normalise(index_t r) const {
        T* const x = &factor(r, 0);
        const index_t n = keys_.blocks();
        const T most = *std::max_element(x, x + n);
        double sum = 0;
        for (index_t t = 0; t < n; ++t) sum += static_cast<double>(sum_[r * n + t]) * std::exp2(static_cast<double>(x[t] - most));
        for (index_t t = 0; t < n; ++t) x[t] = static_cast<T>(std::exp2(static_cast<double>(x[t] - most)) / sum);
    }

    void sum_rows(index_t block) const {
        const index_t first = block * channel_block, last = first + round_up(keys_.keys_of(block).size(), L);
        for (index_t j = first; j < last; j += L) {
            P sum(T(0));
            for (index_t r = 0; r < R_; ++r) sum = fma(load_aligned<P>(weight_ + r * stride_ + j), P(factor(r, block)), sum);
            store_aligned(score_ + j, sum);
        }
    }

    channel_rows<S> keys_;
    index_t R_, r_, stride_, width_;
    T* query_;          // (R, width)
    T* by_;             // (R, channels): what the channels are multiplied by
    T* weight_;         // (R, stride): logits, then weights
    T* sum_;            // (R, blocks): of a block's weights
    T* factor_;         // (R, blocks)
    T* score_;          // (stride)
    T* taken_;          // (R, L): sums of weights
    index_t* channel_;  // (channels)
};

}  // namespace heed::inline HEED_ABI::detail
