// A second copy of the keys, by channel, and the sums of the values: what SparQ (arXiv:2312.04985) and SparF [51] keep beside
// a cache, so that a query is scored by a few channels and reads no other.
//
// A block of tokens holds its channels one after the other: a token is appended within a block, and a channel is read in
// stretches. Sums are taken in order and kept at every block, so that they do not depend on what was truncated meanwhile.
#pragma once

#include "../core/aligned.hpp"
#include "channel_scores.hpp"
#include "../engine/group_rows.hpp"
#include "gathered.hpp"
#include "head_index.hpp"
#include "head_passes.hpp"

namespace heed::inline HEED_ABI {
namespace detail {

template <storage S>
class channel_head {
public:
    void open(index_t D, index_t E) { D_ = D, sum_.resize(static_cast<std::size_t>(E)); }
    index_t size() const { return keys_; }
    void cut(index_t n) {
        keys_ = n;
        if (n >= summed_) return;
        const index_t block = n / channel_block, E = static_cast<index_t>(sum_.size());
        summed_ = block * channel_block;
        std::copy_n(starts_.begin() + block * E, E, sum_.begin());
        starts_.resize(static_cast<std::size_t>(block * E));
    }
    template <class Source>
    void read(const Source& source, index_t b, index_t g) {
        const index_t keys = source.keys(b, g), lent = static_cast<index_t>(lent_.size());
        own_.resize(numbers_of(ceil_div(keys, channel_block) - lent));
        each_row(source, b, g, keys_, [&](index_t j, const auto& run, index_t row) {
            S* to = own_.data() + numbers_of(j / channel_block - lent) + j % channel_block;
            for (index_t d = 0; d < D_; ++d) to[d * channel_block] = static_cast<S>(run.k.number(row, d));
        });
        each_row(source, b, g, summed_, [&](index_t j, const auto& run, index_t row) {
            if (j % channel_block == 0) starts_.insert(starts_.end(), sum_.begin(), sum_.end());
            for (std::size_t e = 0; e < sum_.size(); ++e) sum_[e] += run.v.number(row, static_cast<index_t>(e));
        });
        keys_ = summed_ = keys;
    }
    index_t bytes() const {
        return static_cast<index_t>(own_.size() * sizeof(S) + (starts_.size() + sum_.size()) * sizeof(double));
    }

    channel_rows<S> rows() const { return {lent_, own_.data(), D_, keys_}; }
    /// The sum of the values before a block that is full, or follows a full one, (E).
    const double* sum_before(index_t block) const {
        const auto at = static_cast<std::size_t>(block) * sum_.size();
        return at < starts_.size() ? starts_.data() + at : sum_.data();
    }
    /// The first blocks lie elsewhere from now on: these, no fewer than before and all full. Where the head knows less
    /// than they hold, it knows that; sum(block) points to the sum of the values before one.
    template <class Sum>
    void lend(std::vector<const S*> blocks, const Sum& sum) {
        const auto lent = static_cast<index_t>(blocks.size());
        const std::size_t gone = std::min(own_.size(), numbers_of(lent - static_cast<index_t>(lent_.size())));
        own_ = aligned_vector<S>(own_.begin() + static_cast<std::ptrdiff_t>(gone), own_.end());
        lent_ = std::move(blocks);
        if (keys_ >= lent * channel_block) return;
        keys_ = summed_ = lent * channel_block;
        const auto E = static_cast<index_t>(sum_.size());
        starts_.clear();
        for (index_t block = 0; block < lent; ++block) starts_.insert(starts_.end(), sum(block), sum(block) + E);
        std::copy_n(sum(lent), E, sum_.begin());
    }
    /// Number e of the mean value, 0 of no keys.
    double mean(index_t e) const {
        return sum_[static_cast<std::size_t>(e)] / static_cast<double>(std::max<index_t>(keys_, 1));
    }

    /// Blocks that lie elsewhere do so no longer, but for the first `kept`.
    void take_back(index_t kept) {
        aligned_vector<S> mine;
        const index_t held = std::min(static_cast<index_t>(lent_.size()), ceil_div(keys_, channel_block));
        for (index_t block = kept; block < held; ++block) {
            const S* from = lent_[static_cast<std::size_t>(block)];
            mine.insert(mine.end(), from, from + numbers_of(1));
        }
        own_.insert(own_.begin(), mine.begin(), mine.end());
        lent_.resize(std::min(lent_.size(), static_cast<std::size_t>(kept)));
        own_.resize(numbers_of(ceil_div(keys_, channel_block) - static_cast<index_t>(lent_.size())));
    }

private:
    /// Of so many blocks.
    std::size_t numbers_of(index_t blocks) const { return static_cast<std::size_t>(blocks * D_ * channel_block); }

    /// Calls f(j, run, row of the run) for the keys from `first` on.
    template <class Source, class F>
    static void each_row(const Source& source, index_t b, index_t g, index_t first, const F& f) {
        for (index_t j = first, keys = source.keys(b, g); j < keys;) {
            const auto run = source.run(b, g, j);
            for (; j < run.keys.last; ++j) f(j, run, j - run.keys.first);
        }
    }

    index_t D_ = 0, keys_ = 0, summed_ = 0;
    std::vector<const S*> lent_;  // blocks (D, channel_block) that lie elsewhere,
    aligned_vector<S> own_;       // and those after them
    std::vector<double> starts_;  // (blocks, E), the sum before each
    std::vector<double> sum_;     // (E), of `summed_` values
};

}  // namespace detail

/// How SparQ chooses: by `channels` channels, `keys` keys in all, the last `recent` always among them.
struct sparq {
    index_t channels, keys, recent;
    constexpr sparq(index_t by_channels, index_t k, index_t last_keys = 0)
        : channels(by_channels), keys(k), recent(last_keys) {}

    void check(const char* op, index_t D) const {
        require_argument(1 <= channels || D == 0, op, "keys are scored by ", channels, " channels, the least is 1");
        require_argument(keys >= 0, op, keys, " keys are chosen, the least is 0");
        require_argument(recent >= 0, op, recent, " recent keys are chosen, the least is 0");
    }
};

/// What is chosen, and the share of weight that the approximate scores give to it, (b, h, n).
struct channel_choice {
    key_lists keys;
    std::vector<double> shares;
    index_t numbers = 0;  // of keys that were read
};

/// By channel, in storage S: that of the keys, or a narrower one, which is read faster.
template <storage S = float>
class channel_keys : public head_index<detail::channel_head<S>> {
public:
    channel_keys() : head_index<detail::channel_head<S>>({}) {}

    /// Follows the source and chooses for q (B, H, 1, D), scores being scale q.k. Policy: on.
    template <class A = default_arch, class Q, key_value_source Source, class... P>
    channel_choice choose(const view<Q>& q, const Source& source, const sparq& rule, double scale, const P&... policies) {
        using T = accumulator<std::remove_const_t<Q>, S>;
        using pass = detail::channel_scores<A, S, T>;
        this->follow(source, policies...);
        const index_t B = source.batch(), G = source.heads(), H = q.shape[1], D = q.shape[3];
        const index_t rows = G > 0 ? H / G : 0, channels = std::min(rule.channels, D);
        channel_choice out{key_lists(B, G), std::vector<double>(static_cast<std::size_t>(B * H), 1.0), 0};
        std::vector<index_t> heads;  // where there is something to choose
        std::size_t bytes = 0;
        for (index_t t = 0; t < B * G; ++t) {
            const auto keys = this->of(t / G, t % G).rows();
            if (keys.keys <= rule.keys) {
                out.keys.add(t / G, t % G, {0, keys.keys});
                continue;
            }
            heads.push_back(t);
            out.numbers += keys.keys * channels;
            carver one;
            pass(keys, rows, channels, one);
            bytes = std::max(bytes, one.used());
        }
        const auto context = detail::pick<roles::context>(detail::calling_thread{}, policies...);
        detail::run_passes(
            *context.pool, heads, bytes,
            [&](index_t t, carver& from) {
                const pass over(this->of(t / G, t % G).rows(), rows, channels, from);
                detail::load_group<A>(view<const std::remove_const_t<Q>>(q), source, t / G, t % G, T(1), over.queries(),
                                      over.query_stride());
                over.choose_channels(static_cast<T>(scale * log2_e<double>));
                return over;
            },
            [&](index_t t, const pass& over) {
                over.choose(rule.keys, rule.recent, out.keys(t / G, t % G), out.shares.data() + t * rows);
            });
        return out;
    }
};

}  // namespace heed::inline HEED_ABI
