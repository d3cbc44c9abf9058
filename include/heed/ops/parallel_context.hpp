// Parallel context encoding [115]: pieces of a context read apart, behind a shared prefix, and a question that sees
// them all, or only those pieces its rows look at most.
//
//   prefill    attention(q, k, v, o, parallel_context(pieces)); piece p is [pieces[p], pieces[p + 1]), the prefix before
//   selection  g_p = sum of the 5 largest weights of a row in piece p; the 2 pieces of largest g stay
// A piece that goes is left out of the merge: the softmax over the rest. Prefix and question always stay.
#pragma once

#include "../policy/mask_patterns.hpp"
#include "../policy/probe.hpp"
#include "rotary.hpp"
#include "segments.hpp"

namespace heed::inline HEED_ABI {

/// Positions for rotary, of token `first` and those behind it: every piece starts behind the prefix anew; the question
/// goes on at question_starts, by default behind the longest piece.
inline auto parallel_positions(std::span<const index_t> pieces, index_t first = 0, index_t question_starts = -1) {
    const index_t prefix = pieces.empty() ? 0 : pieces.front();
    index_t longest = 0;
    for (std::size_t p = 1; p < pieces.size(); ++p) longest = std::max(longest, pieces[p] - pieces[p - 1]);
    const index_t question = question_starts < 0 ? prefix + longest : question_starts;
    return positions_by{[=](index_t n) {
        n += first;
        const auto next = std::upper_bound(pieces.begin(), pieces.end(), n);
        if (next == pieces.begin()) return n;
        return n - *(next - 1) + (next == pieces.end() ? question : prefix);
    }};
}

/// Which pieces stay: the `keep` of greatest score, ties to the first; a score sums the `largest` greatest weights.
/// together: one choice for all rows and heads of a sequence, by mean score; else each row of each head has its own.
struct piece_choice {
    index_t keep = 2, largest = 5;
    bool together = true;
};

namespace detail {

/// Marks the places of the `keep` greatest scores.
inline std::vector<bool> greatest(std::span<const double> scores, index_t keep) {
    std::vector<std::size_t> order(scores.size());
    for (std::size_t p = 0; p < order.size(); ++p) order[p] = p;
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
    std::vector<bool> kept(scores.size());
    for (std::size_t r = 0; r < order.size() && static_cast<index_t>(r) < keep; ++r) kept[order[r]] = true;
    return kept;
}

/// The log of the sum of exp of a row's greatest logits, best first.
template <class T>
double log_sum(const view<T>& logits, index_t b, index_t h, index_t n) {
    const auto top = static_cast<double>(logits(b, h, n, 0));
    if (top == -std::numeric_limits<double>::infinity()) return top;
    double sum = 0;
    for (index_t c = 0; c < logits.shape[3]; ++c) sum += std::exp(static_cast<double>(logits(b, h, n, c)) - top);
    return top + std::log(sum);
}

/// Every row's score becomes the mean over heads and rows of its sequence.
inline void average_rows(const view<double>& scores) {
    for (index_t b = 0; b < scores.shape[0]; ++b)
        for (index_t p = 0; p < scores.shape[3]; ++p) {
            const auto one = slice(slice(scores, 0, {b, b + 1}), 3, {p, p + 1});
            double sum = 0;
            each_row(one.shape, [&](index_t, index_t h, index_t n) { sum += one(0, h, n, 0); });
            each_row(one.shape,
                     [&](index_t, index_t h, index_t n) { one(0, h, n, 0) = sum / static_cast<double>(one.size()); });
        }
}

/// Empties the parts whose score is not among the `keep` greatest of the row. scores (b, h, n, part).
template <class T>
void keep_greatest(std::vector<owned_partial<T>>& parts, const view<double>& scores, index_t keep) {
    if (parts.empty()) return;
    each_row(scores.shape, [&](index_t b, index_t h, index_t n) {
        const auto kept = greatest({&scores(b, h, n, 0), parts.size()}, keep);
        for (std::size_t p = 0; p < parts.size(); ++p)
            if (!kept[p]) parts[p].lse()(b, h, n) = -std::numeric_limits<double>::infinity();
    });
}

/// Attends to every piece and writes its rows' scores, (b, h, n, piece). `whole` is the part that always stays.
template <class A, class Operands, class T, class... P>
std::vector<owned_partial<T>> attend_pieces(const Operands& x, cuts pieces, owned_partial<T>& whole, index_t largest,
                                            const view<double>& scores, const P&... policies) {
    const index_t B = x.B(), H = x.H(), N = x.N(), count = scores.shape[3];
    std::vector<index_t> keys(static_cast<std::size_t>(B * H * N * largest));
    std::vector<T> logits(keys.size());
    const top_keys top{dense(keys.data(), {B, H, N, largest}), dense(logits.data(), {B, H, N, largest})};
    std::vector<owned_partial<T>> parts;
    owned_partial<T> total({B, H, N, 0});  // log-sum-exps alone
    const auto add = [&](owned_partial<T>& part) {
        merge(total.all(), total.all(), partial(slice(part.o(), 3, {0, 0}), part.lse()));
    };
    attend_part<A>(x.q, x.source, whole, first{pieces.front()} | between{pieces.back(), no_key}, std::tuple<>{},
                   policies...);
    add(whole);
    for (index_t p = 0; p < count; ++p) {
        const auto at = static_cast<std::size_t>(p);
        auto& part = parts.emplace_back(x.o.shape);
        attend_part<A>(x.q, x.source, part, between{pieces[at], pieces[at + 1]}, std::tuple(top), policies...);
        add(part);
        each_row(scores.shape,
                 [&](index_t b, index_t h, index_t n) { scores(b, h, n, p) = log_sum(top.logit, b, h, n); });
    }
    each_row(scores.shape, [&](index_t b, index_t h, index_t n) {
        for (index_t p = 0; p < count; ++p) {  // a weight is exp(logit - lse) with the lse of everything
            const double log = scores(b, h, n, p);
            const bool empty = log == -std::numeric_limits<double>::infinity();
            scores(b, h, n, p) = empty ? 0 : std::exp(log - total.lse()(b, h, n));
        }
    });
    return parts;
}

}  // namespace detail

/// The question's rows, the last ones, over prefix, chosen pieces and question: q (B, H, N, D), a source of G heads,
/// o (B, H, N, E). Policies: score, scale, offset, lse, on. Memory beside: an output for each piece, and one. Cost:
/// that of all pieces, and q.k again. Throws shape_error or argument_error before o is touched.
template <class A = default_arch, class Q, key_value_source Source, class O, class... P>
void selective_attention(const Q& q, const Source& source, O&& o, std::span<const index_t> pieces,
                         const piece_choice& choice, const P&... policies) {
    static constexpr const char* op = "selective_attention";
    const auto x = detail::operands_of(as_view(q), source, as_view(o));
    detail::check_parts(op, x, causal{}, policies...);
    require_argument(!pieces.empty() && pieces.front() >= 0, op, "the first piece starts where the prefix ends");
    detail::check_ascending(op, "piece", pieces);
    require_shape(pieces.back() <= x.last_end, op, "the question starts at ", pieces.back(), ", the keys end at ",
                  x.last_end);
    require_argument(choice.keep >= 0, op, choice.keep, " pieces stay, the least is 0");
    require_argument(choice.largest >= 1, op, "a score sums ", choice.largest, " weights, the least is 1");

    const auto count = static_cast<index_t>(pieces.size()) - 1;
    std::vector<double> memory(static_cast<std::size_t>(x.B() * x.H() * x.N() * count));
    const auto scores = heads(memory.data(), {x.B(), x.H(), x.N(), count});
    auto whole = detail::partial_of(x);
    auto parts = detail::attend_pieces<A>(x, pieces, whole, choice.largest, scores, causal{}, policies...);
    if (choice.together) detail::average_rows(scores);
    detail::keep_greatest(parts, scores, choice.keep);
    for (auto& part : parts) merge(whole.all(), whole.all(), part.all());
    detail::deliver(whole, x.o, detail::pick_all<roles::probe>(policies...));
}

/// The same over k (B, G, M, D) and v (B, G, M, E).
template <class A = default_arch, class Q, class K, class V, class O, class... P>
    requires(!key_value_source<K>)
void selective_attention(const Q& q, const K& k, const V& v, O&& o, std::span<const index_t> pieces,
                         const piece_choice& choice, const P&... policies) {
    selective_attention<A>(q, detail::source_of(as_view(k), as_view(v)), o, pieces, choice, policies...);
}

}  // namespace heed::inline HEED_ABI
