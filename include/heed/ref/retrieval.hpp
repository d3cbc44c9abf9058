// The definitions of retrieval while decoding, in double precision and plain loops: SparQ [51], Quest and block choices
// [65], triangles, their spans and the choice of them (Ltri-LLM) [100]. They share nothing with the library's own.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "../core/view.hpp"

namespace heed::inline HEED_ABI::ref {

/// The k greatest, ascending; ties to the lower index.
inline std::vector<index_t> greatest(const std::vector<double>& x, index_t k) {
    std::vector<index_t> order(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) order[i] = static_cast<index_t>(i);
    std::stable_sort(order.begin(), order.end(), [&](index_t i, index_t j) {
        return x[static_cast<std::size_t>(i)] > x[static_cast<std::size_t>(j)];
    });
    order.resize(std::min(order.size(), static_cast<std::size_t>(std::max<index_t>(k, 0))));
    std::sort(order.begin(), order.end());
    return order;
}

/// softmax over j of logits (j).
template <class Real>
std::vector<Real> softmax(std::vector<Real> x) {
    Real top = -std::numeric_limits<Real>::infinity(), sum = 0;
    for (Real y : x) top = std::max(top, y);
    for (Real& y : x) sum += y = std::exp(y - top);
    for (Real& y : x) y /= sum;
    return x;
}

/// What SparQ chooses for one head of keys: R queries q (R, D) over k (M, D).
struct sparq_choice {
    std::vector<index_t> channels, keys;
    std::vector<double> scores;  // (M), summed over the queries
    std::vector<double> shares;  // (R), of the keys chosen
};

template <class Q, class K>
sparq_choice sparq_choose(view<Q, 2> q, view<K, 2> k, index_t channels, index_t keys, index_t recent, double scale) {
    const index_t R = q.shape[0], D = q.shape[1], M = k.shape[0];
    std::vector<double> size(static_cast<std::size_t>(D)), score(static_cast<std::size_t>(M));
    for (index_t r = 0; r < R; ++r)
        for (index_t d = 0; d < D; ++d) size[static_cast<std::size_t>(d)] += std::abs(static_cast<double>(q(r, d)));
    sparq_choice out{greatest(size, channels), {}, score, {}};
    std::vector<std::vector<double>> weights;
    for (index_t r = 0; r < R; ++r) {
        double some = 0, all = 0;
        for (index_t d = 0; d < D; ++d) all += std::abs(static_cast<double>(q(r, d)));
        for (index_t d : out.channels) some += std::abs(static_cast<double>(q(r, d)));
        const double by = some == 0 ? scale : scale / std::sqrt(some / all);
        std::vector<double> logits(static_cast<std::size_t>(M));
        for (index_t j = 0; j < M; ++j)
            for (index_t d : out.channels)
                logits[static_cast<std::size_t>(j)] += by * static_cast<double>(q(r, d)) * static_cast<double>(k(j, d));
        weights.push_back(softmax(logits));
        for (std::size_t j = 0; j < score.size(); ++j) out.scores[j] += weights.back()[j];
    }
    std::vector<double> ranked = out.scores;
    for (index_t j = std::max<index_t>(0, M - std::min(recent, keys)); j < M; ++j)
        ranked[static_cast<std::size_t>(j)] = std::numeric_limits<double>::infinity();
    out.keys = greatest(ranked, keys);
    for (const auto& w : weights) {
        double share = 0;
        for (index_t j : out.keys) share += w[static_cast<std::size_t>(j)];
        out.shares.push_back(share);
    }
    return out;
}

/// share softmax(q k_I) v_I + (1 - share) mean v of one query q (D), in the arithmetic of Real.
template <class Real, class Q, class K, class V>
std::vector<Real> sparq_mix(view<Q, 1> q, view<K, 2> k, view<V, 2> v, const std::vector<index_t>& keys, double share,
                            double scale) {
    const index_t D = q.shape[0], M = v.shape[0], E = v.shape[1];
    std::vector<Real> logits, out;
    for (index_t j : keys) {
        Real dot = 0;
        for (index_t d = 0; d < D; ++d) dot += static_cast<Real>(q(d)) * static_cast<Real>(k(j, d));
        logits.push_back(static_cast<Real>(scale) * dot);
    }
    const auto weights = softmax(logits);
    for (index_t e = 0; e < E; ++e) {
        Real attended = 0, sum = 0;
        for (std::size_t i = 0; i < keys.size(); ++i) attended += weights[i] * static_cast<Real>(v(keys[i], e));
        for (index_t j = 0; j < M; ++j) sum += static_cast<Real>(v(j, e));
        const Real mean = M > 0 ? sum / static_cast<Real>(M) : Real(0);
        out.push_back(static_cast<Real>(share) * attended + (1 - static_cast<Real>(share)) * mean);
    }
    return out;
}

/// Quest's bound of q . k over the keys [first, last) of k (M, D).
template <class Q, class K>
double page_bound(view<Q, 1> q, view<K, 2> k, range keys) {
    double bound = 0;
    for (index_t d = 0; d < q.shape[0]; ++d) {
        double low = std::numeric_limits<double>::infinity(), high = -low;
        for (index_t j = keys.first; j < keys.last; ++j) {
            low = std::min(low, static_cast<double>(k(j, d)));
            high = std::max(high, static_cast<double>(k(j, d)));
        }
        bound += std::max(static_cast<double>(q(d)) * low, static_cast<double>(q(d)) * high);
    }
    return bound;
}

/// The triangle of span [first, last) of a map: sum of A_ij - c over first <= j <= i < last.
template <class T>
double triangle(view<T, 2> map, range span, double c) {
    double sum = 0;
    for (index_t i = span.first; i < span.last; ++i)
        for (index_t j = span.first; j <= i; ++j) sum += static_cast<double>(map(i, j)) - c;
    return sum;
}

/// Spans of at most `longest` tokens with T > 0: the greatest, then the greatest that overlaps none before, and so on,
/// at most so many; ascending. Ties to the earlier, then the shorter.
template <class T>
std::vector<range> triangle_spans(view<T, 2> map, double c, index_t longest, index_t most) {
    std::vector<range> spans;
    while (static_cast<index_t>(spans.size()) < most) {
        range best;
        double greatest = 0;
        for (index_t a = 0; a < map.shape[0]; ++a)
            for (index_t b = a + 1; b <= std::min(map.shape[0], a + longest); ++b) {
                const double score = triangle(map, {a, b}, c);
                bool apart = true;
                for (range span : spans) apart = apart && (span & range{a, b}).empty();
                if (apart && score > greatest) greatest = score, best = {a, b};
            }
        if (best.empty()) break;
        spans.push_back(best);
    }
    std::sort(spans.begin(), spans.end(), [](range x, range y) { return x.first < y.first; });
    return spans;
}

/// The mean over heads of softmax(scale q k^T), causal: q (R, n, D), k (n, D); (n, n).
template <class Q, class K>
std::vector<double> local_map(view<Q, 3> q, view<K, 2> k, double scale) {
    const index_t R = q.shape[0], n = q.shape[1], D = q.shape[2];
    std::vector<double> mean(static_cast<std::size_t>(n * n));
    for (index_t r = 0; r < R; ++r)
        for (index_t i = 0; i < n; ++i) {
            std::vector<double> logits(static_cast<std::size_t>(i + 1));
            for (index_t j = 0; j <= i; ++j)
                for (index_t d = 0; d < D; ++d)
                    logits[static_cast<std::size_t>(j)] +=
                        scale * static_cast<double>(q(r, i, d)) * static_cast<double>(k(j, d));
            const auto weights = softmax(logits);
            for (index_t j = 0; j <= i; ++j)
                mean[static_cast<std::size_t>(i * n + j)] +=
                    weights[static_cast<std::size_t>(j)] / static_cast<double>(R);
        }
    return mean;
}

/// The score of a span for one pooled query q (D): the greatest q . k over the keys of k (M, D) that tell it.
template <class Q, class K>
double span_score(view<Q, 1> q, view<K, 2> k, const std::vector<index_t>& told) {
    double most = -std::numeric_limits<double>::infinity();
    for (index_t j : told) {
        double dot = 0;
        for (index_t d = 0; d < q.shape[0]; ++d) dot += static_cast<double>(q(d)) * static_cast<double>(k(j, d));
        most = std::max(most, dot);
    }
    return most;
}

/// Spans by score, best first, ties to the earlier, until the next would bring the keys they have in `among` beyond
/// `most`: the keys, ascending.
inline std::vector<index_t> span_keys(const std::vector<range>& spans, const std::vector<double>& scores, range among,
                                      index_t most) {
    std::vector<index_t> keys;
    std::vector<bool> taken(spans.size());
    for (std::size_t round = 0; round < spans.size(); ++round) {
        std::size_t best = spans.size();
        for (std::size_t s = 0; s < spans.size(); ++s)
            if (!taken[s] && !(spans[s] & among).empty() && (best == spans.size() || scores[s] > scores[best]))
                best = s;
        if (best == spans.size() || static_cast<index_t>(keys.size()) + (spans[best] & among).size() > most) break;
        taken[best] = true;
        for (index_t j = 0; j < spans[best].last; ++j)
            if ((spans[best] & among).contains(j)) keys.push_back(j);
    }
    std::sort(keys.begin(), keys.end());
    return keys;
}

}  // namespace heed::inline HEED_ABI::ref
