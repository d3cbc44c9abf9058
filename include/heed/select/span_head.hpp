// The spans of one head of keys: tokens wait with their queries until a block is full, whose map then cuts it into
// spans; each span is told by the keys of it that receive the most weight [100].
#pragma once

#include "../engine/attention.hpp"
#include "../engine/group_rows.hpp"
#include "../policy/mask_position.hpp"
#include "topk.hpp"
#include "triangles.hpp"

namespace heed::inline HEED_ABI {

/// How blocks of tokens become spans: by which triangles, and told by how many keys: `few` where T is no less than the
/// mean of its neighbours', `many` elsewhere.
struct span_blocks {
    index_t block;
    span_rule find;
    index_t few = 1, many = 4;
    constexpr explicit span_blocks(index_t tokens = 128) : span_blocks(tokens, span_rule(tokens)) {}
    constexpr span_blocks(index_t tokens, const span_rule& rule, index_t least_keys = 1, index_t most_keys = 4)
        : block(tokens), find(rule), few(least_keys), many(most_keys) {}

    void check(const char* op) const {
        require_argument(block >= 1, op, "a block has ", block, " tokens, the least is 1");
        find.check(op);
        require_argument(1 <= few && few <= many, op, "spans are told by ", few, " to ", many, " keys");
    }
};

/// A span of a head; `told` are places in the head's list of keys that tell spans.
struct indexed_span {
    range keys, told;
    double evidence = 0;
};

namespace detail {

template <storage S>
class span_head {
public:
    explicit span_head(const span_blocks& rule) : rule_(rule) {}

    void open(index_t D, index_t) { D_ = D; }
    index_t size() const { return spanned() + waiting_; }
    /// A span cut short is told by the keys that remain, or by its first.
    void cut(index_t n) {
        waiting_ = std::max<index_t>(0, n - spanned());
        queries_.resize(static_cast<std::size_t>(waiting_ * rows_ * D_));
        while (n < spanned()) {
            indexed_span& last = spans_.back();
            const auto kept = std::lower_bound(told_.begin() + last.told.first, told_.end(), n);
            told_.erase(kept, told_.end());
            if (last.keys.first >= n) {
                spans_.pop_back();
                continue;
            }
            if (static_cast<index_t>(told_.size()) == last.told.first) told_.push_back(last.keys.first);
            last.told.last = static_cast<index_t>(told_.size());
            last.keys.last = n;
        }
        heard_ = std::min(heard_, spans_.size());
    }
    index_t bytes() const {
        return static_cast<index_t>(spans_.size() * sizeof(indexed_span) + told_.size() * sizeof(index_t) +
                                    queries_.size() * sizeof(S));
    }

    /// The next tokens, with the rows of q (B, H, N, D) that read this head.
    template <class A, class Q, class Source>
    void append(const view<const Q>& q, const Source& source, index_t b, index_t g, double scale) {
        rows_ = q.shape[1] / source.heads();
        for (index_t n = 0; n < q.shape[2]; ++n) {
            const std::size_t before = queries_.size();
            queries_.resize(before + static_cast<std::size_t>(rows_ * D_));
            load_group<A>(slice(q, 2, {n, n + 1}), source, b, g, S(1), queries_.data() + before, D_);
            if (++waiting_ == rule_.block) index_block<A>(source, b, g, scale);
        }
    }

    /// In order, without gaps.
    const std::vector<indexed_span>& spans() const { return spans_; }
    /// Keys that tell spans, ascending.
    const std::vector<index_t>& told() const { return told_; }
    /// Keys in spans: the first ones.
    index_t spanned() const { return spans_.empty() ? 0 : spans_.back().keys.last; }
    /// Query rows of a token that waits, 0 before the first.
    index_t rows() const { return rows_; }

    /// The evidence of every span s becomes decay evidence + (1 - decay) score(s), or score(s) where there was none.
    template <class F>
    void hear(double decay, const F& score) {
        for (std::size_t s = 0; s < spans_.size(); ++s) {
            double& evidence = spans_[s].evidence;
            evidence = s < heard_ && decay > 0 ? decay * evidence + (1 - decay) * score(s) : score(s);
        }
        heard_ = spans_.size();
    }
    /// Which spans have the greatest evidence, until the next would bring the keys they have in `among` beyond `most`;
    /// ties to the earlier. NaN is the greatest: what is wrong is chosen, and shows.
    std::vector<bool> greatest(range among, index_t most) const {
        std::vector<std::pair<rank_of<double>, index_t>> order;  // the span counted from behind
        const auto count = static_cast<index_t>(spans_.size());
        for (index_t s = 0; s < count; ++s)
            if (const auto& span = spans_[static_cast<std::size_t>(s)]; !(span.keys & among).empty())
                order.emplace_back(rank(span.evidence), count - 1 - s);
        std::make_heap(order.begin(), order.end());
        std::vector<bool> chosen(spans_.size());
        for (auto end = order.end(); end != order.begin(); --end) {
            std::pop_heap(order.begin(), end);
            const auto s = static_cast<std::size_t>(count - 1 - (end - 1)->second);
            most -= (spans_[s].keys & among).size();
            if (most < 0) break;
            chosen[s] = true;
        }
        return chosen;
    }

private:
    /// The block that waits becomes spans.
    template <class A, class Source>
    void index_block(const Source& source, index_t b, index_t g, double scale) {
        const index_t before = spanned(), n = rule_.block;
        const std::vector<double> memory = local_map<A>(source, b, g, scale);
        const view<const double, 2> map = dense(memory.data(), {n, n});
        const auto found = find_spans(triangle_sums(map, rule_.find.threshold), rule_.find);
        for (std::size_t s = 0; s < found.size(); ++s) {
            const range tokens = found[s].tokens;
            std::vector<double> received(static_cast<std::size_t>(tokens.size()));
            for (index_t i = tokens.first; i < tokens.last; ++i)
                for (index_t j = tokens.first; j <= i; ++j)
                    received[static_cast<std::size_t>(j - tokens.first)] += map(i, j);
            const auto first = static_cast<index_t>(told_.size());
            for (index_t j : top_k(std::span<const double>(received), confident(found, s) ? rule_.few : rule_.many))
                told_.push_back(before + tokens.first + j);
            spans_.push_back(
                {{before + tokens.first, before + tokens.last}, {first, static_cast<index_t>(told_.size())}});
        }
        waiting_ = 0;
        queries_.clear();
    }

    /// softmax(scale q k^T), causal, of the block's queries over its keys: the mean over the heads of the group.
    template <class A, class Source>
    std::vector<double> local_map(const Source& source, index_t b, index_t g, double scale) const {
        const index_t n = rule_.block, first = spanned();
        std::vector<S> keys(static_cast<std::size_t>(n * std::max<index_t>(D_, 1)));  // not null, even without width
        std::vector<S> weights(static_cast<std::size_t>(rows_ * n * n));
        for (index_t j = 0; j < n; ++j) widen_row<A>(source.run(b, g, first + j).k, 0, D_, keys.data() + j * D_);
        const view<const S> q{queries_.data(), {1, rows_, n, D_}, {rows_ * n * D_, D_, rows_ * D_, 1}};
        const view<const S> k = heads(keys.data(), {1, 1, n, D_}), none = heads(keys.data(), {1, 1, n, 0});
        const view<S> p = heads(weights.data(), {1, rows_, n, n});
        attention<A>(q, k, none, heads(weights.data(), {1, rows_, n, 0}), causal{}, heed::scale{scale},
                     heed::logits{p, stage::probability});
        std::vector<double> mean(static_cast<std::size_t>(n * n));
        for (index_t r = 0; r < rows_; ++r)
            for (index_t i = 0; i < n; ++i)
                for (index_t j = 0; j <= i; ++j)
                    mean[static_cast<std::size_t>(i * n + j)] +=
                        static_cast<double>(p(0, r, i, j)) / static_cast<double>(rows_);
        return mean;
    }

    static bool confident(const std::vector<token_span>& found, std::size_t s) {
        double sum = 0, count = 0;
        if (s > 0) sum += found[s - 1].score, ++count;
        if (s + 1 < found.size()) sum += found[s + 1].score, ++count;
        return found[s].score > 0 && found[s].score * count >= sum;
    }

    span_blocks rule_;
    index_t D_ = 0, rows_ = 0, waiting_ = 0;
    std::vector<S> queries_;  // (waiting, rows, D)
    std::vector<indexed_span> spans_;
    std::vector<index_t> told_;
    std::size_t heard_ = 0;  // spans with evidence, the first ones
};

}  // namespace detail
}  // namespace heed::inline HEED_ABI
