// Ltri-LLM [100]: a stream whose queries see the first keys, the last ones, and the spans of tokens they look for.
//
//   every `block` tokens: A = mean over the heads of a group of softmax(q k^T / sqrt(D)), causal and within the block;
//   its triangles are spans, which are indexed      select/triangles.hpp, select/span_index.hpp
//   every step: o = attention(q, k, v), causal, over sinks, retrieved spans and the local window      select/span_choice.hpp
// Cost: of a block, its map, and sums over at most block longest spans; of a step, the keys that tell spans, and the chosen.
#pragma once

#include "../cache/waiting_queries.hpp"
#include "../select/span_choice.hpp"
#include "partials.hpp"
#include "retrieved.hpp"

namespace heed::inline HEED_ABI {

/// Over a cache of sequences that grow alike, which is referred to and empty at first.
template <key_value_source Cache>
class ltri_stream {
public:
    /// H query heads; blocks of `block` tokens; how spans are found, and chosen.
    ltri_stream(Cache& cache, index_t H, index_t block, const index_rule& find, const retrieval& choose)
        : cache_(cache), index_(cache.batch(), cache.heads(), find), waiting_(cache.batch(), H, cache.key_width(), block),
          H_(H), block_(block), rule_(choose) {
        require_argument(block >= 1, op, "a block has ", block, " tokens, the least is 1");
        require_argument(cache.heads() > 0 && H % cache.heads() == 0, op, H, " query heads over ", cache.heads(), " of keys");
        require_argument(tokens() == 0, op, "the cache holds ", tokens(), " tokens");
        choose.check(op);
    }

    /// Appends k (B, G, n, D) and v (B, G, n, E), and attends for q (B, H, n, D); o (B, H, n, E). Policies: scale, lse (of
    /// what was chosen), on. What append and attention throw leaves the cache as it was.
    template <class A = default_arch, class Q, class K, class V, class O, class... P>
    retrieved step(const Q& q, const K& k, const V& v, O&& o, const P&... policies) {
        static_assert(detail::only_roles<detail::role_list<roles::scale, roles::probe, roles::context>, P...> &&
                          (detail::probes_lse_only<P> && ...),
                      "heed: ltri_stream takes scale, lse and on");
        const auto queries = as_view(q);
        const auto [B, H, N, D] = queries.shape;
        const index_t n = as_view(k).shape[2];
        require_shape(B == cache_.batch() && H == H_ && N == n && D == cache_.key_width(), op, "q is (", B, ", ", H, ", ",
                      N, ", ", D, "), expected (", cache_.batch(), ", ", H_, ", ", n, ", ", cache_.key_width(), ")");
        cache_.append(k, v);
        undo appended{cache_, n};
        auto choice = choose_spans<A>(index_, queries, cache_, rule_, detail::scale_of(D, policies...));
        const gathered chosen(cache_, std::move(choice.keys));
        retrieved out{std::vector<double>(static_cast<std::size_t>(B * H * N)), 0};
        const auto logs = dense(out.missed.data(), {B, H, N});
        attention<A>(queries, chosen, o, causal{}, policies..., lse{logs});
        appended.armed = false;
        for (index_t r = 0; r < B * H * N; ++r) {
            double& missed = out.missed[static_cast<std::size_t>(r)];
            missed = detail::missed_share(missed, choice.outside[static_cast<std::size_t>(r / std::max<index_t>(N, 1))]);
        }
        out.bytes = chosen.bytes() + choice.numbers * Cache::key_rows::bits / 8;
        waiting_.push(queries);
        while (waiting_.waiting() >= block_) index_block<A>(policies...);
        return out;
    }

    /// Drops the last n tokens, of all sequences.
    void truncate(index_t n) {
        cache_.truncate(n);
        waiting_.drop_last(std::min(n, waiting_.waiting()));
        index_.cut(tokens());
    }

    const span_index& index() const { return index_; }

private:
    static constexpr const char* op = "ltri_stream";
    using T = accumulator<typename Cache::key_rows::storage, typename Cache::value_rows::storage>;

    index_t tokens() const { return cache_.batch() > 0 ? cache_.keys(0, 0) : 0; }

    /// The next block of queries that wait: its map, its spans.
    template <class A, class... P>
    void index_block(const P&... policies) {
        const index_t B = cache_.batch(), G = cache_.heads(), n = block_, first = tokens() - waiting_.waiting();
        key_lists block(B, G);
        for (index_t b = 0; b < B; ++b)
            for (index_t g = 0; g < G; ++g) block.add(b, g, {first, first + n});
        std::vector<T> memory(static_cast<std::size_t>(B * H_ * n * (n + cache_.value_width())));
        const auto weights = heads(memory.data(), {B, H_, n, n});
        const auto unused = heads(memory.data() + weights.size(), {B, H_, n, cache_.value_width()});
        const gathered of_block(cache_, std::move(block));
        std::apply(
            [&](const auto&... p) {
                attention<A>(waiting_.front(n), of_block, unused, causal{}, offset{first},
                             logits{weights, stage::probability}, p...);
            },
            detail::policies_of<detail::role_list<roles::scale, roles::context>>(policies...));
        index_.append(mean_maps(weights));
        waiting_.pop(n);
    }

    /// Averages the maps of the heads that share spans, into that of the first of them; all share where all vote together.
    view<const T> mean_maps(const view<T>& weights) const {
        const index_t G = cache_.heads(), share = rule_.together ? H_ : H_ / G;
        for (index_t h = 0; h < H_; ++h)
            for (index_t b = 0; b < weights.shape[0]; ++b)
                for (index_t i = 0; i < block_; ++i)
                    for (index_t j = 0; j <= i; ++j) {
                        T& mean = weights(b, h / share * share, i, j);
                        const T w = weights(b, h, i, j) / static_cast<T>(share);
                        mean = h % share == 0 ? w : mean + w;
                    }
        view<const T> maps = weights;
        maps.shape[1] = G;
        maps.strides[1] = rule_.together ? 0 : weights.strides[1] * (H_ / G);
        return maps;
    }

    /// Takes back what was appended, unless attention came to its end.
    struct undo {
        Cache& cache;
        index_t n;
        bool armed = true;
        ~undo() {
            if (armed) cache.truncate(n);
        }
    };

    Cache& cache_;
    span_index index_;
    waiting_queries<T> waiting_;
    index_t H_, block_;
    retrieval rule_;
};

}  // namespace heed::inline HEED_ABI
