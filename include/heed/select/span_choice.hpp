// Retrieval of the spans that new queries look for [100].
//
//   score(span) = max over the keys that tell it of scale q.k, q the mean of the new queries of a head
//   evidence = decay evidence + sum over heads of softmax_spans(score); the spans of most evidence are retrieved
// Chosen are the first keys, the retrieved spans, and the last keys, those in no span yet among them. How queries are pooled
// and heads vote is a choice of this library. Cost: D numbers for each key that tells a span.
#pragma once

#include "../core/aligned.hpp"
#include "../engine/attention.hpp"
#include "../engine/group_rows.hpp"
#include "gathered.hpp"
#include "span_index.hpp"

namespace heed::inline HEED_ABI {

/// So many first keys, spans, and last keys for each query.
struct retrieval {
    index_t first, spans, local;
    double decay;   // of evidence, from one choice to the next
    bool together;  // all heads of keys vote, on spans that they have in common
    constexpr retrieval(index_t sinks, index_t most_spans, index_t last_keys, double evidence_decay = 0,
                        bool all_heads = false)
        : first(sinks), spans(most_spans), local(last_keys), decay(evidence_decay), together(all_heads) {}

    void check(const char* op) const {
        require_argument(first >= 0, op, first, " first keys are attended to, the least is 0");
        require_argument(spans >= 0, op, spans, " spans are retrieved, the least is 0");
        require_argument(local >= 1, op, local, " last keys are attended to, the least is 1");
        require_argument(0 <= decay && decay < 1, op, "decay is ", decay, ", not in [0, 1)");
    }
};

/// What is chosen, and the log of the mass that the other keys are taken to have, (b, h).
struct span_choice {
    key_lists keys;
    std::vector<double> outside;
    index_t numbers = 0;  // of keys that were read
};

namespace detail {

/// out (R, keys): the products of R rows q, zero-padded to whole packs, with these keys of a head.
template <class A, class T, class Source>
void score_keys(const Source& source, index_t b, index_t g, std::span<const index_t> keys, const T* q, index_t stride,
                index_t R, T* out) {
    constexpr index_t tile = streamed_tile;
    const index_t D = source.key_width(), count = static_cast<index_t>(keys.size());
    aligned_vector<T> memory(static_cast<std::size_t>(tile * stride + R * tile));
    T* const products = memory.data() + tile * stride;
    plain_rows<T> rows[tile];
    for (index_t c = 0; c < tile; ++c) rows[c] = {memory.data() + c * stride, stride};
    for (index_t first = 0; first < count; first += tile) {
        const index_t n = std::min(tile, count - first);
        for (index_t c = 0; c < n; ++c)
            widen_row<A>(source.run(b, g, keys[static_cast<std::size_t>(first + c)]).k, 0, D, memory.data() + c * stride);
        dots<A>(rows, nullptr, n, D, q, stride, R, products);
        for (index_t r = 0; r < R; ++r) std::copy_n(products + r * tile, n, out + r * count + first);
    }
}

/// x becomes 2^(x - top); returns top, its greatest.
template <class A, class T>
T powers(T* x, index_t n) {
    using P = pack<T, A>;
    constexpr auto L = static_cast<index_t>(P::size);
    const T top = n > 0 ? *std::max_element(x, x + n) : T(0);
    index_t j = 0;
    for (; j + L <= n; j += L) store(x + j, exp2_nonpositive(load<P>(x + j) - P(top)));
    for (; j < n; ++j) x[j] = std::exp2(x[j] - top);
    return top;
}

/// What R pooled queries of a head say of its spans. Of a span those keys count that lie in `between`.
struct span_votes {
    std::vector<range> keys;                // of each span
    std::vector<double> votes;              // of each span, over all rows
    std::vector<std::vector<double>> mass;  // (R, spans), in units of 2^top
    std::vector<double> top;                // (R)
    index_t told = 0;                       // keys read

    template <class A, class T, class Source>
    span_votes(const head_spans& head, range between, const Source& source, index_t b, index_t g, const T* q,
               index_t stride, index_t R)
        : votes(head.spans.size()), mass(static_cast<std::size_t>(R), votes), top(static_cast<std::size_t>(R)) {
        std::vector<index_t> all;
        for (const auto& span : head.spans) {
            keys.push_back(span.keys & between);
            if (!keys.back().empty()) all.insert(all.end(), span.told_by.begin(), span.told_by.end());
        }
        told = static_cast<index_t>(all.size());
        std::vector<T> weight(static_cast<std::size_t>(R * told));
        score_keys<A>(source, b, g, all, q, stride, R, weight.data());
        for (std::size_t r = 0; r < mass.size(); ++r) {
            T* w = weight.data() + static_cast<index_t>(r) * told;
            top[r] = static_cast<double>(powers<A>(w, told));
            std::vector<double> best(votes.size());
            double sum = 0;
            for (std::size_t s = 0; s < best.size(); ++s) {
                const auto n = keys[s].empty() ? 0 : static_cast<index_t>(head.spans[s].told_by.size());
                for (index_t x = 0; x < n; ++x, ++w) {
                    best[s] = std::max(best[s], static_cast<double>(*w));
                    mass[r][s] += static_cast<double>(*w) * static_cast<double>(keys[s].size()) / static_cast<double>(n);
                }
                sum += best[s];
            }
            for (std::size_t s = 0; s < best.size() && told > 0; ++s) votes[s] += best[s] / sum;
        }
    }

    /// The log of the mass a row gives to all spans but these.
    double outside(std::size_t r, const std::vector<std::size_t>& retrieved) const {
        std::vector<double> left = mass[r];
        for (std::size_t s : retrieved) left[s] = 0;
        double sum = 0;
        for (double x : left) sum += x;
        return std::log(sum) + top[r] * ln_2<double>;
    }
};

/// Every head gets the votes of all, on spans that are the same in all.
inline void share_votes(std::vector<span_votes>& votes) {
    if (votes.empty()) return;
    std::vector<double> sum(votes[0].votes.size());
    for (const span_votes& one : votes) {
        require_argument(one.keys == votes[0].keys, "choose_spans", "heads of different spans cannot vote together");
        for (std::size_t s = 0; s < sum.size(); ++s) sum[s] += one.votes[s];
    }
    for (span_votes& one : votes) one.votes = sum;
}

/// The places of the greatest evidence among spans with keys to retrieve.
inline std::vector<std::size_t> best_spans(const head_spans& head, const std::vector<range>& keys, index_t k) {
    std::vector<std::size_t> places, best;
    std::vector<double> evidence;
    for (std::size_t s = 0; s < keys.size(); ++s)
        if (!keys[s].empty()) places.push_back(s), evidence.push_back(head.spans[s].evidence);
    for (index_t x : top_k(std::span<const double>(evidence), k)) best.push_back(places[static_cast<std::size_t>(x)]);
    return best;
}

/// The mean of the rows of every head, (B, H, 1, D).
template <class T, class Q>
std::vector<T> mean_rows(const view<Q>& q) {
    const auto [B, H, N, D] = q.shape;
    std::vector<T> mean(static_cast<std::size_t>(B * H * D));
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h)
            for (index_t n = 0; n < N; ++n)
                for (index_t d = 0; d < D; ++d)
                    mean[static_cast<std::size_t>((b * H + h) * D + d)] += static_cast<T>(q(b, h, n, d)) / static_cast<T>(N);
    return mean;
}

}  // namespace detail

/// Chooses keys for q (B, H, N, D), the queries of the newest N tokens of a source that the index knows but for its last
/// keys. Scores are scale q.k. Adds to the evidence.
template <class A = default_arch, class Q, key_value_source Source>
span_choice choose_spans(span_index& index, const view<Q>& q, const Source& source, const retrieval& rule, double scale) {
    using T = accumulator<std::remove_const_t<Q>, typename Source::key_rows::storage>;
    const index_t B = source.batch(), G = source.heads(), H = q.shape[1], N = q.shape[2], D = q.shape[3];
    const index_t R = G > 0 ? H / G : 0, stride = round_up(D, static_cast<index_t>(lanes<T, A>));
    const auto pooled = detail::mean_rows<T>(q);
    const view<const T> means = heads(pooled.data(), {B, H, 1, D});
    aligned_vector<T> rows(static_cast<std::size_t>(R * stride));
    span_choice out{key_lists(B, G), std::vector<double>(static_cast<std::size_t>(B * H)), 0};
    for (index_t b = 0; b < B; ++b) {
        std::vector<detail::span_votes> votes;
        for (index_t g = 0; g < G; ++g) {
            detail::load_group<A>(means, source, b, g, static_cast<T>(scale * log2_e<double>), rows.data(), stride);
            const detail::head_spans& head = index.of(b, g);
            const index_t last = std::min(source.keys(b, g) - rule.local - (N - 1), head.size());
            votes.emplace_back(head, range{rule.first, last}, source, b, g, rows.data(), stride, R);
            out.numbers += votes.back().told * D;
        }
        if (rule.together) detail::share_votes(votes);
        for (index_t g = 0; g < G; ++g) {
            detail::head_spans& head = index.of(b, g);
            const detail::span_votes& mine = votes[static_cast<std::size_t>(g)];
            for (std::size_t s = 0; s < mine.votes.size(); ++s)
                head.spans[s].evidence = rule.decay * head.spans[s].evidence + mine.votes[s];
            const auto best = detail::best_spans(head, mine.keys, rule.spans);
            const index_t keys = source.keys(b, g), first = std::min(rule.first, keys);
            out.keys.add(b, g, {0, first});
            for (std::size_t s : best) out.keys.add(b, g, mine.keys[s]);
            out.keys.add(b, g, {std::max(first, std::min(keys - rule.local - (N - 1), head.size())), keys});
            for (index_t r = 0; r < R; ++r)
                out.outside[static_cast<std::size_t>(b * H + g * R + r)] = mine.outside(static_cast<std::size_t>(r), best);
        }
    }
    return out;
}

}  // namespace heed::inline HEED_ABI
