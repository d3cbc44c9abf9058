// A decode loop over a cache that lets go of keys: append, attend, ask the rule of each head what stays, keep that.
//
//   mass(b, g, j) = sum over the query heads of g and the new queries i of w_i P_ij     one pass beside the attention
// The rule is told the mass and answers with the keys that stay (see cache/evict_mass.hpp: A2SF [20], H2O).
#pragma once

#include "../cache/evict_mass.hpp"
#include "../engine/attention.hpp"

namespace heed::inline HEED_ABI {

/// What `evicting` asks of the rule of one head: the weights w of n queries, and, told the mass of a step, an entry for
/// every key held and then for the new ones, the ascending indices of those that stay.
template <class Rule>
concept mass_rule = requires(Rule& rule, std::span<const float> mass, index_t n) {
    { rule.row_weights(n) } -> std::same_as<std::vector<double>>;
    { rule.step(mass, n) } -> std::same_as<std::vector<index_t>>;
};

/// A cache with append, truncate and keep, and a rule for each of its heads.
template <key_value_source Cache, mass_rule Rule>
class evicting {
public:
    /// Every head gets a copy of the rule. The cache is referred to; keys it holds already start at mass 0.
    evicting(Cache& cache, const Rule& rule)
        : cache_(cache), rules_(static_cast<std::size_t>(cache.batch() * cache.heads()), rule) {}

    /// Appends k (B, G, n, D) and v (B, G, n, E), then o = attention(q, cache, o, policies...) for q (B, H, N, D), then
    /// evicts. N is 1 to decode; a prefill gives its causal mask. What append and attention throw leaves all as it was.
    template <class A = default_arch, class Q, class K, class V, class O, class... Policies>
    void step(const Q& q, const K& k, const V& v, O&& o, const Policies&... policies) {
        const index_t G = cache_.heads(), N = as_view(q).shape[2];
        cache_.append(k, v);
        undo appended{cache_, as_view(k).shape[2]};
        const extents<3> of_heads{cache_.batch(), as_view(q).shape[1], most_keys()};
        mass_.resize(static_cast<std::size_t>(of_heads[0] * of_heads[1] * of_heads[2]));
        const view<float, 3> mass{mass_.data(), of_heads, dense_strides(of_heads)};
        const auto weights =
            rules_.empty() ? std::vector<double>(static_cast<std::size_t>(N)) : rules_[0].row_weights(N);
        attention<A>(q, cache_, o, policies..., weighted_mass{mass, weights});
        appended.armed = false;
        const extents<3> of_groups{of_heads[0], G, of_heads[2]};
        sums_.resize(static_cast<std::size_t>(of_groups[0] * of_groups[1] * of_groups[2]));
        sum_groups(mass, view<float, 3>{sums_.data(), of_groups, dense_strides(of_groups)});
        for (index_t b = 0; b < cache_.batch(); ++b)
            for (index_t g = 0; g < G; ++g) evict(b, g, N, sums_.data() + (b * G + g) * of_heads[2]);
    }

    const Rule& rule(index_t b, index_t g) const { return rules_[static_cast<std::size_t>(b * cache_.heads() + g)]; }

private:
    /// Takes back what was appended, unless attention came to its end.
    struct undo {
        Cache& cache;
        index_t n;
        bool armed = true;
        ~undo() {
            if (armed) cache.truncate(n);
        }
    };

    index_t most_keys() const {
        index_t most = 0;
        for (index_t b = 0; b < cache_.batch(); ++b)
            for (index_t g = 0; g < cache_.heads(); ++g) most = std::max(most, cache_.keys(b, g));
        return most;
    }
    void evict(index_t b, index_t g, index_t N, const float* mass) {
        const auto keys = static_cast<std::size_t>(cache_.keys(b, g));
        const auto kept = rules_[static_cast<std::size_t>(b * cache_.heads() + g)].step({mass, keys}, N);
        if (kept.size() < keys) cache_.keep(b, g, kept);
    }

    Cache& cache_;
    std::vector<Rule> rules_;  // (B, G)
    std::vector<float> mass_, sums_;
};

}  // namespace heed::inline HEED_ABI
