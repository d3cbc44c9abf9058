// An index of the spans of a stream, cut by triangles of its own local maps, and the choice of those that new queries
// look for: Ltri-LLM [100].
//
//   every `block` tokens: A = mean over the heads of a group of softmax(scale q k^T), causal and within the block;
//   its triangles are spans                                                  triangles.hpp, span_head.hpp
//   evidence = decay evidence + (1 - decay) score(span); the spans of most evidence are retrieved      span_scores.hpp
// Chosen are the first keys, the retrieved spans in their order, and the last keys. What the paper's summaries leave
// open (c, how heads and queries are pooled, how many keys tell a span, how evidence lasts) is a parameter; keys keep
// their positions.
#pragma once

#include "gathered.hpp"
#include "head_index.hpp"
#include "head_passes.hpp"
#include "span_scores.hpp"

namespace heed::inline HEED_ABI {

/// How the heads of a group look for spans: by the mean of their queries, or each by its own, and the best counts.
enum class head_pooling { mean, max };

/// How Ltri-LLM chooses: spans of `keys` keys in all, besides the first keys and the last ones before every query.
struct ltri {
    index_t keys, first, recent;
    double decay;  // of evidence, from one choice to the next
    head_pooling pooling;
    constexpr ltri(index_t span_keys, index_t first_keys, index_t last_keys, double evidence_decay = 0,
                   head_pooling heads = head_pooling::max)
        : keys(span_keys), first(first_keys), recent(last_keys), decay(evidence_decay), pooling(heads) {}

    void check(const char* op) const {
        require_argument(keys >= 0, op, keys, " keys of spans are retrieved, the least is 0");
        require_argument(first >= 0, op, first, " first keys are attended to, the least is 0");
        require_argument(recent >= 1, op, recent, " last keys are attended to, the least is 1");
        require_argument(0 <= decay && decay < 1, op, "decay is ", decay, ", not in [0, 1)");
    }
};

/// What is chosen, and the log of the mass that the other keys are taken to have, (b, h).
struct span_choice {
    key_lists keys;
    std::vector<double> outside;
    index_t numbers = 0;  // of keys that were read
};

/// Queries wait as S for their block to be full. It grows by append, not by follow: a span is cut by its queries.
template <storage S = float>
    requires std::floating_point<S>
class span_index : public head_index<detail::span_head<S>> {
public:
    explicit span_index(const span_blocks& rule = span_blocks())
        : head_index<detail::span_head<S>>(detail::span_head<S>(rule)) {
        rule.check("span_index");
    }

    /// Throws shape_error or argument_error where q (B, H, N, D) are not the queries of the newest N tokens of the
    /// source, all others of which the index knows.
    template <class Q, key_value_source Source>
    void check(const view<Q>& q, const Source& source) {
        this->meet(source);
        const index_t B = source.batch(), G = source.heads(), H = q.shape[1], N = q.shape[2];
        require_shape(q.shape[0] == B, op, "q has batch ", q.shape[0], ", the source ", B);
        require_shape(q.shape[3] == source.key_width(), op, "q has width ", q.shape[3], ", the source ",
                      source.key_width());
        require_shape(G > 0 ? H % G == 0 : H == 0, op, "q has ", H, " heads, the source ", G);
        for (index_t t = 0; t < B * G; ++t) {
            const auto& head = this->of(t / G, t % G);
            require_shape(head.rows() == 0 || head.rows() * G == H, op, "q has ", H, " heads, those before had ",
                          head.rows() * G);
            require_argument(head.size() + N == source.keys(t / G, t % G), op, "the index knows ", head.size(),
                             " keys, q has ", N, " more, the source holds ", source.keys(t / G, t % G));
        }
    }

    /// Learns the newest tokens of the source from their queries q (B, H, N, D), in any portions; spans are the same.
    /// Policy: on. Throws as check.
    template <class A = default_arch, class Q, key_value_source Source, class... P>
    void append(const view<Q>& q, const Source& source, double scale, const P&... policies) {
        check(q, source);
        const view<const std::remove_const_t<Q>> rows = q;
        this->each_head([&](auto& head, index_t b, index_t g) { head.template append<A>(rows, source, b, g, scale); },
                        policies...);
    }

    /// Chooses for q (B, H, N, D), the queries of the newest N tokens, one choice for all rows of a group; scores are
    /// scale q.k. Keys that are in no span yet are among the last ones. Policy: on. Throws as check.
    template <class A = default_arch, class Q, key_value_source Source, class... P>
    span_choice choose(const view<Q>& q, const Source& source, const ltri& rule, double scale, const P&... policies) {
        using T = accumulator<std::remove_const_t<Q>, typename Source::key_rows::storage>;
        using pass = detail::span_scores<A, Source, T>;
        check(q, source);
        const index_t B = source.batch(), G = source.heads(), H = q.shape[1], N = q.shape[2], group = G > 0 ? H / G : 0;
        const index_t rows = rule.pooling == head_pooling::mean ? std::min<index_t>(1, group) : group;
        span_choice out{key_lists(B, G), {}, 0};
        out.outside.assign(static_cast<std::size_t>(B * H), -std::numeric_limits<double>::infinity());
        const auto between = [&](index_t t) -> range {  // the keys that retrieved spans may bring
            const auto& head = this->of(t / G, t % G);
            return {rule.first, std::min(head.spanned(), head.size() + 1 - rule.recent)};
        };
        const auto start = [&](index_t t, carver& from) {
            const auto& head = this->of(t / G, t % G);
            return pass(source, t / G, t % G, head.spans(), head.told(), rows, from);
        };
        std::vector<index_t> heads;  // where there is something to choose
        std::size_t bytes = 0;
        for (index_t t = 0; t < B * G; ++t) {
            const auto& head = this->of(t / G, t % G);
            if (between(t).size() <= rule.keys || rows * N == 0) {
                out.keys.add(t / G, t % G, {0, head.size() + N});
                continue;
            }
            heads.push_back(t);
            out.numbers += static_cast<index_t>(head.told().size()) * source.key_width();
            carver one;
            start(t, one);
            bytes = std::max(bytes, one.used());
        }
        const auto context = detail::pick<roles::context>(detail::calling_thread{}, policies...);
        detail::run_passes(
            *context.pool, heads, bytes,
            [&](index_t t, carver& from) {
                const pass over = start(t, from);
                over.pool(view<const std::remove_const_t<Q>>(q), scale);
                return over;
            },
            [&](index_t t, const pass& over) {
                auto& head = this->own(t / G, t % G);
                const range among = between(t);
                head.hear(rule.decay, [&](std::size_t s) { return over.best(s); });
                const auto chosen = head.greatest(among, rule.keys);
                out.keys.add(t / G, t % G, {0, among.first});
                for (std::size_t s = 0; s < chosen.size(); ++s)
                    if (chosen[s]) out.keys.add(t / G, t % G, head.spans()[s].keys & among);
                out.keys.add(t / G, t % G, {among.last, head.size() + N});
                for (index_t h = 0; h < group; ++h)
                    out.outside[static_cast<std::size_t>(t * group + h)] = over.outside(h % rows, chosen, among);
            });
        return out;
    }

private:
    static constexpr const char* op = "span_index";
};

}  // namespace heed::inline HEED_ABI
