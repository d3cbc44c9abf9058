// Spans of tokens that attend to one another, found in a causal map of weights A (n, n) as triangles on its diagonal:
// Ltri-LLM [100].
//
//   T(a, b) = sum of A_ij - c over a <= j <= i < b      by sums along rows, then along columns: O(1) a span
// Of the spans with T > 0 those stay that overlap no greater one; the tokens between them form spans of their own.
// Cost: O(n^2) sums, O(s log s) for the s <= n longest spans with T > 0. The paper's c is not public.
// Trap: T ends a span where c says so. Where rows sum to 1 inside their spans, the m-th token of a span brings 1 and
// costs c m, so that spans grow to 1 / c tokens. Blocks of any lengths are found where their weights are even and in
// (c, 2 c).
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "../core/view.hpp"

namespace heed::inline HEED_ABI {

/// T of every span. Of the map the lower triangle is read; a NaN is in the spans that hold it, and in no other.
class triangle_sums {
public:
    /// map (n, n). Throws shape_error.
    template <class T>
    triangle_sums(const view<T, 2>& map, double c) : n_(map.shape[0]) {
        require_shape(map.shape[1] == n_, "triangle_sums", "the map is (", n_, ", ", map.shape[1], ")");
        sums_.resize(static_cast<std::size_t>(n_ * (n_ + 1)));
        for (index_t i = 0; i < n_; ++i) {
            double row = 0;
            for (index_t j = i; j >= 0; --j) {
                row += static_cast<double>(map(i, j)) - c;
                sums_[at(j, i + 1)] = sums_[at(j, i)] + row;
            }
        }
    }

    index_t size() const { return n_; }
    /// 0 <= first <= last <= n, first < n.
    double operator()(range span) const { return sums_[at(span.first, span.last)]; }

private:
    std::size_t at(index_t first, index_t last) const { return static_cast<std::size_t>(first * (n_ + 1) + last); }

    index_t n_;
    std::vector<double> sums_;  // (n, n + 1): first, last
};

/// Consecutive tokens, and their T, 0 of those between.
struct token_span {
    range tokens;
    double score = 0;
};

/// How spans are found: the threshold c, how many tokens long, how many of T > 0 at most.
struct span_rule {
    double threshold;
    index_t longest, most;
    constexpr span_rule(double c, index_t longest_span, index_t most_spans)
        : threshold(c), longest(longest_span), most(most_spans) {}
    /// For maps of n rows that sum to 1: c is twice their mean weight, for spans of about n / 4 tokens, n / 2 at most.
    constexpr explicit span_rule(index_t n)
        : span_rule(4 / static_cast<double>(n + 1), std::max<index_t>(1, n / 2), n) {}

    void check(const char* op) const {
        require_argument(std::isfinite(threshold), op, "the threshold is ", threshold, ", not finite");
        require_argument(longest >= 1, op, "spans are ", longest, " tokens long, the least is 1");
        require_argument(most >= 0, op, most, " spans are found, the least is 0");
    }
};

/// Those of the spans that overlap no greater one, at most so many, greatest first; ties to the earlier, then the
/// shorter, whatever order they come in. tokens: of the map.
inline std::vector<token_span> greatest_apart(std::vector<token_span> spans, index_t most, index_t tokens) {
    std::sort(spans.begin(), spans.end(), [](const token_span& x, const token_span& y) {
        if (x.score != y.score) return x.score > y.score;
        if (x.tokens.first != y.tokens.first) return x.tokens.first < y.tokens.first;
        return x.tokens.last < y.tokens.last;
    });
    std::vector<token_span> kept;
    std::vector<bool> taken(static_cast<std::size_t>(tokens));
    for (const token_span& span : spans) {
        if (static_cast<index_t>(kept.size()) == most) break;
        const auto first = taken.begin() + span.tokens.first, last = taken.begin() + span.tokens.last;
        if (std::find(first, last, true) != last) continue;
        std::fill(first, last, true);
        kept.push_back(span);
    }
    return kept;
}

/// All tokens of the map, in order, as spans: the greatest triangles, and what lies between. Throws argument_error.
inline std::vector<token_span> find_spans(const triangle_sums& sums, const span_rule& rule) {
    rule.check("find_spans");
    const index_t n = sums.size();
    std::vector<token_span> all, spans;
    for (index_t a = 0; a < n; ++a)
        for (index_t b = a + 1; b <= std::min(n, a + rule.longest); ++b)
            if (const double score = sums({a, b}); score > 0) all.push_back({{a, b}, score});
    auto kept = greatest_apart(std::move(all), rule.most, n);
    std::sort(kept.begin(), kept.end(),
              [](const token_span& x, const token_span& y) { return x.tokens.first < y.tokens.first; });
    kept.push_back({{n, n}, 0});  // the end
    index_t next = 0;
    for (const token_span& span : kept) {
        for (; next < span.tokens.first; next = spans.back().tokens.last)
            spans.push_back({{next, std::min(next + rule.longest, span.tokens.first)}, 0});
        if (!span.tokens.empty()) spans.push_back(span);
        next = span.tokens.last;
    }
    return spans;
}

}  // namespace heed::inline HEED_ABI
