// A decode loop over a cache that lets go of keys: append, attend, ask the rule of each head what stays, keep that.
//
//   mass(b, g, j) = sum over the query heads of g and the new queries i of w_i P_ij     one pass beside the attention
// A mass rule is told the mass (cache/evict_mass.hpp: A2SF [20], H2O), a key rule looks at the keys (low_norm [41]);
// each answers with the keys that stay.
#pragma once

#include <concepts>

#include "../cache/evict_mass.hpp"
#include "../cache/evict_norm.hpp"
#include "../cache/per_head.hpp"
#include "../cache/shape.hpp"
#include "../engine/attention.hpp"

namespace heed::inline HEED_ABI {

/// What `evicting` asks of the rule of one head: the weights w of n queries; told the mass of a step, an entry for
/// every key held and then for the new ones, the ascending indices of those that stay; and to forget all but the first
/// n keys.
template <class Rule>
concept mass_rule = std::copyable<Rule> && requires(Rule& rule, std::span<const float> mass, index_t n) {
    { rule.row_weights(n) } -> std::same_as<std::vector<double>>;
    { rule.step(mass, n) } -> std::same_as<std::vector<index_t>>;
    rule.cut(n);
};
/// A rule that needs no attention: the ascending indices of the keys that stay of head (b, g), after every step.
template <class Rule, class Cache>
concept key_rule = requires(const Rule& rule, const Cache& cache, index_t b, index_t g) {
    { rule.kept(cache, b, g) } -> std::same_as<std::vector<index_t>>;
};

/// A cache with append, truncate, reorder and keep, and a rule for each of its heads.
template <key_value_source Cache, class Rule>
    requires(mass_rule<Rule> || key_rule<Rule, Cache>)
class evicting {
public:
    /// Every head gets a copy of the rule. The cache is referred to, and from now on changes through this loop alone;
    /// keys it holds already start at mass 0. `how` the masses of the query heads of a group become one.
    evicting(Cache& cache, const Rule& rule, over_heads how = over_heads::sum)
        : cache_(cache), how_(how), heads_(cache.batch(), cache.heads(), head{rule, rule, 0, {}}) {
        if constexpr (requires { rule.check(); }) rule.check();
        count_keys();
    }

    /// Appends k (B, G, n, D) and v (B, G, n, E), then o = attention(q, cache, o, policies...) for q (B, H, N, D), then
    /// evicts. N is 1 to decode; a prefill gives its causal mask. What is thrown leaves cache and rules as they were:
    /// argument_error where the cache does not hold what the last step left, where a rule keeps what is not there, and
    /// where sequences of a paged_cache that share pages have too few free ones for their copies.
    template <class A = default_arch, class Q, class K, class V, class O, class... Policies>
    void step(const Q& q, const K& k, const V& v, O&& o, const Policies&... policies) {
        const index_t N = as_view(q).shape[2];
        check_keys("evicting::step");
        cache_.append(k, v);
        undo appended{cache_, as_view(k).shape[2]};
        if constexpr (mass_rule<Rule>) {
            const extents<3> of_heads{cache_.batch(), as_view(q).shape[1], most_keys()};
            const auto mass = resized(mass_, of_heads);
            const auto weights =
                heads_.size() > 0 ? heads_(0, 0).rule.row_weights(N) : std::vector<double>(static_cast<std::size_t>(N));
            attention<A>(q, cache_, o, policies..., weighted_mass{mass, weights});
            group_mass(mass, resized(sums_, {of_heads[0], cache_.heads(), of_heads[2]}), how_);
        } else {
            attention<A>(q, cache_, o, policies...);
        }
        heads_.each([&](head& x, index_t b, index_t g) { choose(x, b, g, N); });
        evict();
        appended.armed = false;
        if constexpr (mass_rule<Rule>) heads_.each([](head& x, index_t, index_t) { std::swap(x.rule, x.next); });
        count_keys();
    }

    /// Drops the last n tokens. What they made the rules evict does not come back, and what their queries gave to the
    /// keys before them stays counted.
    void truncate(index_t n) {
        check_keys("evicting::truncate");
        cache_.truncate(n);
        if constexpr (mass_rule<Rule>)
            heads_.each([&](head& x, index_t b, index_t g) { x.rule.cut(cache_.keys(b, g)); });
        count_keys();
    }

    /// Sequence b, with its rules, becomes a copy of sequence parents[b]; parents.size() is the new B.
    void reorder(std::span<const index_t> parents) {
        check_keys("evicting::reorder");
        cache_.reorder(parents);
        heads_.reorder(parents);
        count_keys();
    }

    const Rule& rule(index_t b, index_t g) const { return heads_(b, g).rule; }

private:
    struct head {
        Rule rule, next;            // now, and after the step at hand
        index_t held = 0;           // keys after the last step
        std::vector<index_t> kept;  // by the step at hand
    };
    /// Takes back what was appended, unless the step comes to its end.
    struct undo {
        Cache& cache;
        index_t n;
        bool armed = true;
        ~undo() {
            if (armed) cache.truncate(n);
        }
    };

    /// What the cache calls its b-th sequence.
    index_t name_of(index_t b) const {
        if constexpr (requires { cache_.ids(); })
            return cache_.ids()[static_cast<std::size_t>(b)];
        else
            return b;
    }
    static view<float, 3> resized(std::vector<float>& memory, const extents<3>& shape) {
        memory.resize(static_cast<std::size_t>(shape[0] * shape[1] * shape[2]));
        return {memory.data(), shape, dense_strides(shape)};
    }
    index_t most_keys() const {
        index_t most = 0;
        heads_.each([&](const head&, index_t b, index_t g) { most = std::max(most, cache_.keys(b, g)); });
        return most;
    }

    void count_keys() {
        heads_.each([&](head& x, index_t b, index_t g) { x.held = cache_.keys(b, g); });
    }
    void check_keys(const char* op) const {
        require_argument(cache_.batch() * cache_.heads() == heads_.size(), op, "the cache has ",
                         cache_.batch() * cache_.heads(), " heads in all, there are rules for ", heads_.size(),
                         ": reorder both by evicting::reorder");
        heads_.each([&](const head& x, index_t b, index_t g) {
            require_argument(cache_.keys(b, g) == x.held, op, "head (", b, ", ", g, ") of the cache holds ",
                             cache_.keys(b, g), " keys, the last step left ", x.held);
        });
    }

    /// What stays of a head.
    void choose(head& x, index_t b, index_t g, index_t N) {
        const index_t keys = cache_.keys(b, g);
        if constexpr (mass_rule<Rule>) {
            const auto most = static_cast<index_t>(sums_.size()) / heads_.size();
            const float* const mass = sums_.data() + (b * cache_.heads() + g) * most;
            x.next = x.rule;
            x.kept = x.next.step({mass, static_cast<std::size_t>(keys)}, N);
        } else {
            x.kept = x.rule.kept(cache_, b, g);
        }
        detail::check_kept("evicting::step", x.kept, keys);
    }
    /// Of all heads, or of none.
    void evict() {
        std::vector<kept_keys> all;
        heads_.each([&](const head& x, index_t b, index_t g) {
            if (static_cast<index_t>(x.kept.size()) < cache_.keys(b, g)) all.push_back({name_of(b), g, x.kept});
        });
        if constexpr (requires { cache_.keep(all); })
            cache_.keep(all);
        else
            for (const kept_keys& x : all) cache_.keep(x.sequence, x.head, x.keys);
    }

    Cache& cache_;
    over_heads how_;
    per_head<head> heads_;
    std::vector<float> mass_, sums_;
};

}  // namespace heed::inline HEED_ABI
