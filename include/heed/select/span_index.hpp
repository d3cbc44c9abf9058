// An index of spans of tokens [100], each told by a few of its keys: those that received most weight within it, `few` where
// its triangle is no smaller than the mean of its neighbours', else `many`.
//
// Of the keys only their places are kept: they are read where the cache has them. How many tell a span is the caller's; the
// paper's numbers are not public.
#pragma once

#include <span>

#include "topk.hpp"
#include "triangles.hpp"

namespace heed::inline HEED_ABI {

/// How spans are found and told.
struct index_rule {
    span_rule find;
    index_t few = 1, many = 4;

    void check(const char* op) const {
        find.check(op);
        require_argument(1 <= few && few <= many, op, "spans are told by ", few, " to ", many, " keys");
    }
};

namespace detail {

/// The spans of one head.
class head_spans {
public:
    struct indexed_span {
        range keys;
        std::vector<index_t> told_by;  // ascending
        double evidence = 0;
    };
    std::vector<indexed_span> spans;  // in order, without gaps

    index_t size() const { return spans.empty() ? 0 : spans.back().keys.last; }

    /// The next tokens, map (n, n).
    void append(const view<const double, 2>& map, const index_rule& rule) {
        const index_t before = size();
        const auto found = find_spans(triangle_sums(map, rule.find.threshold), rule.find);
        for (std::size_t s = 0; s < found.size(); ++s) {
            const range tokens = found[s].tokens;
            std::vector<double> received(static_cast<std::size_t>(tokens.size()));
            for (index_t i = tokens.first; i < tokens.last; ++i)
                for (index_t j = tokens.first; j <= i; ++j)
                    received[static_cast<std::size_t>(j - tokens.first)] += map(i, j);
            indexed_span& told = spans.emplace_back();
            told.keys = {before + tokens.first, before + tokens.last};
            told.told_by = top_k(std::span<const double>(received), confident(found, s) ? rule.few : rule.many);
            for (index_t& key : told.told_by) key += told.keys.first;
        }
    }

    void cut(index_t n) {
        while (!spans.empty() && spans.back().keys.first >= n) spans.pop_back();
        if (spans.empty() || spans.back().keys.last <= n) return;
        indexed_span& last = spans.back();
        last.keys.last = n;
        while (!last.told_by.empty() && last.told_by.back() >= n) last.told_by.pop_back();
        if (last.told_by.empty()) last.told_by = {last.keys.first};
    }

private:
    static bool confident(const std::vector<token_span>& found, std::size_t s) {
        double sum = 0, count = 0;
        if (s > 0) sum += found[s - 1].score, ++count;
        if (s + 1 < found.size()) sum += found[s + 1].score, ++count;
        return found[s].score > 0 && found[s].score * count >= sum;
    }
};

}  // namespace detail

class span_index {
public:
    span_index(index_t B, index_t G, const index_rule& rule)
        : rule_(rule), B_(B), G_(G), heads_(static_cast<std::size_t>(B * G)) {
        rule.check(op);
    }

    /// The next n tokens of every head, map (B, G, n, n): their causal weights among one another.
    template <class T>
    void append(const view<T>& map) {
        const extents<4> want{B_, G_, map.shape[2], map.shape[2]};
        for (std::size_t a = 0; a < 4; ++a)
            require_shape(map.shape[a] == want[a], op, "the map has extent ", map.shape[a], " on axis ", a,
                          ", expected ", want[a]);
        const index_t n = map.shape[2];
        std::vector<double> one(static_cast<std::size_t>(n * n));
        const view<const double, 2> of_head = dense(one.data(), {n, n});
        for (index_t t = 0; t < B_ * G_; ++t) {
            for (index_t i = 0; i < n * n; ++i)
                one[static_cast<std::size_t>(i)] = static_cast<double>(map(t / G_, t % G_, i / n, i % n));
            heads_[static_cast<std::size_t>(t)].append(of_head, rule_);
        }
    }

    /// Keeps the first n tokens at most.
    void cut(index_t n) {
        require_argument(n >= 0, op, "cannot keep ", n, " tokens");
        for (auto& head : heads_) head.cut(n);
    }
    /// Sequence b becomes a copy of sequence parents[b]; parents.size() is the new batch.
    void reorder(std::span<const index_t> parents) {
        std::vector<detail::head_spans> next;
        for (index_t parent : parents) {
            require_argument(0 <= parent && parent < B_, op, "sequence ", parent, " of ", B_);
            for (index_t g = 0; g < G_; ++g) next.push_back(of(parent, g));
        }
        heads_ = std::move(next);
        B_ = static_cast<index_t>(parents.size());
    }

    /// Tokens known.
    index_t size() const { return heads_.empty() ? 0 : heads_[0].size(); }
    const detail::head_spans& of(index_t b, index_t g) const { return heads_[static_cast<std::size_t>(b * G_ + g)]; }
    detail::head_spans& of(index_t b, index_t g) { return heads_[static_cast<std::size_t>(b * G_ + g)]; }
    index_t batch() const { return B_; }
    index_t heads() const { return G_; }

private:
    static constexpr const char* op = "span_index";

    index_rule rule_;
    index_t B_, G_;
    std::vector<detail::head_spans> heads_;
};

}  // namespace heed::inline HEED_ABI
