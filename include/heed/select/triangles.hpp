// Spans of tokens that attend to one another, found in a causal map of weights A (n, n) as triangles on its diagonal [100].
//
//   T(a, b) = sum of A_ij - c over a <= j <= i < b      in O(1) by sums over prefixes; c rejects noise
// Of all spans with T > 0 the greatest stay that overlap no greater one; the tokens between them form spans of their own.
// Cost: O(n longest) sums and their sorting. The paper's c and its mean over heads are not public: both are the caller's.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "../core/half.hpp"
#include "../core/view.hpp"

namespace heed::inline HEED_ABI {

/// T of every span. Of the map the lower triangle is read.
class triangle_sums {
public:
    template <class T>
    triangle_sums(const view<T, 2>& map, double c) : n_(map.shape[0]) {
        require_shape(map.shape[1] == n_, "triangle_sums", "the map is (", n_, ", ", map.shape[1], ")");
        sums_.resize(static_cast<std::size_t>((n_ + 1) * (n_ + 1)));
        for (index_t i = 0; i < n_; ++i) {
            double row = 0;
            for (index_t j = 0; j < n_; ++j) {
                if (j <= i) row += static_cast<double>(map(i, j)) - c;
                sums_[at(i + 1, j + 1)] = sums_[at(i, j + 1)] + row;
            }
        }
    }

    index_t size() const { return n_; }
    double operator()(range span) const {
        return sums_[at(span.last, span.last)] - sums_[at(span.last, span.first)];
    }

private:
    std::size_t at(index_t rows, index_t columns) const { return static_cast<std::size_t>(rows * (n_ + 1) + columns); }

    index_t n_;
    std::vector<double> sums_;  // (n + 1, n + 1): over rows and columns before
};

/// Consecutive tokens, and their T, 0 of those between.
struct token_span {
    range tokens;
    double score = 0;
};

/// How spans are found: the threshold c, how many of T > 0 at most, how long.
struct span_rule {
    double threshold;
    index_t most, longest;
    constexpr span_rule(double c, index_t most_spans, index_t longest_span)
        : threshold(c), most(most_spans), longest(longest_span) {}

    void check(const char* op) const {
        require_argument(std::isfinite(threshold), op, "the threshold is ", threshold);
        require_argument(most >= 0, op, most, " spans are found, the least is 0");
        require_argument(longest >= 1, op, "spans are ", longest, " tokens long, the least is 1");
    }
};

/// The spans with T > 0 that overlap no greater one, at most rule.most, greatest first; ties to the earlier, then the
/// shorter.
inline std::vector<token_span> greatest_triangles(const triangle_sums& sums, const span_rule& rule) {
    std::vector<token_span> all, kept;
    for (index_t a = 0; a < sums.size(); ++a)
        for (index_t b = a + 1; b <= std::min(sums.size(), a + rule.longest); ++b)
            if (const double score = sums({a, b}); score > 0) all.push_back({{a, b}, score});
    std::stable_sort(all.begin(), all.end(), [](const token_span& x, const token_span& y) { return x.score > y.score; });
    std::vector<bool> taken(static_cast<std::size_t>(sums.size()));
    for (const token_span& span : all) {
        if (static_cast<index_t>(kept.size()) == rule.most) break;
        const auto first = taken.begin() + span.tokens.first, last = taken.begin() + span.tokens.last;
        if (std::find(first, last, true) != last) continue;
        std::fill(first, last, true);
        kept.push_back(span);
    }
    return kept;
}

/// All tokens of the map, in order, as spans: the greatest triangles, and what lies between.
inline std::vector<token_span> find_spans(const triangle_sums& sums, const span_rule& rule) {
    rule.check("find_spans");
    auto kept = greatest_triangles(sums, rule);
    std::sort(kept.begin(), kept.end(),
              [](const token_span& x, const token_span& y) { return x.tokens.first < y.tokens.first; });
    std::vector<token_span> spans;
    const auto fill = [&](index_t end) {
        index_t first = spans.empty() ? 0 : spans.back().tokens.last;
        for (; first < end; first += rule.longest) spans.push_back({{first, std::min(first + rule.longest, end)}, 0});
    };
    for (const token_span& span : kept) {
        fill(span.tokens.first);
        spans.push_back(span);
    }
    fill(sums.size());
    return spans;
}

}  // namespace heed::inline HEED_ABI
