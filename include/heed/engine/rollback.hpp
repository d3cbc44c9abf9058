// rollback: a state whose last tokens can be undone, as speculative decoding does with drafts that are refused.
//
//   S, the state now; S_0, the state before the last r tokens; k, v and gates of those tokens in a ring
//   undo n:  S = S_0, then the tokens that remain, one by one
// A decay cannot be divided out again (it may be 0), so tokens are replayed. Bits are those of steps of one token.
// Cost: a second state, the ring, and one more update a token, half a step; an undo, r - n updates.
#pragma once

#include <tuple>
#include <vector>

#include "../policy/token_views.hpp"
#include "recurrence.hpp"

namespace heed::inline HEED_ABI {
namespace detail {

/// The rows of the last `capacity` tokens of a view, `rows` each.
template <class S, std::size_t Rank>
class token_ring {
public:
    token_ring(view<const S, Rank> like, index_t capacity, index_t tokens)
        : rows_(tokens > 0 ? like.shape[2] / tokens : 1), shape_(like.shape) {
        shape_[2] = capacity * rows_;
        index_t size = 1;
        for (index_t extent : shape_) size *= extent;
        memory_.resize(static_cast<std::size_t>(size));
    }
    void check(const char* op, view<const S, Rank> x) const {
        for (std::size_t a = 0; a < Rank; ++a)
            require_shape(a == 2 || x.shape[a] == shape_[a], op, "an operand has extent ", x.shape[a], " on axis ", a,
                          ", was made for ", shape_[a]);
    }
    void put(index_t slot, view<const S, Rank> from, index_t token) {
        const auto to = all(), here = slice(to, 2, {slot * rows_, (slot + 1) * rows_});
        from = slice(from, 2, {token * rows_, (token + 1) * rows_});
        for (index_t i = 0; i < here.size(); ++i) {
            index_t rest = i, target = 0, source = 0;
            for (std::size_t a = Rank; a-- > 0; rest /= here.shape[a]) {
                target += rest % here.shape[a] * here.strides[a];
                source += rest % here.shape[a] * from.strides[a];
            }
            here.data[target] = from.data[source];
        }
    }
    view<const S, Rank> at(index_t slot) { return slice(all(), 2, {slot * rows_, (slot + 1) * rows_}); }

private:
    view<S, Rank> all() { return {memory_.data(), shape_, dense_strides(shape_)}; }
    index_t rows_;
    extents<Rank> shape_;
    std::vector<S> memory_;
};
template <class S, std::size_t Rank>
token_ring(view<const S, Rank>, index_t, index_t) -> token_ring<S, Rank>;

/// The positions of the last `capacity` tokens.
class position_ring {
public:
    explicit position_ring(index_t capacity) : at_(static_cast<std::size_t>(capacity)) {}
    void check(const char*, index_t) const {}
    void put(index_t slot, index_t first, index_t token) { at_[static_cast<std::size_t>(slot)] = first + token; }
    index_t at(index_t slot) const { return at_[static_cast<std::size_t>(slot)]; }

private:
    std::vector<index_t> at_;
};

template <class S, std::size_t Rank>
auto ring_of(const view<const S, Rank>& like, index_t capacity, index_t tokens) {
    return token_ring(like, capacity, tokens);
}
inline position_ring ring_of(index_t, index_t capacity, index_t) { return position_ring(capacity); }

/// The rings of a policy's token_views.
template <class P>
auto rings_of(const P& policy, index_t capacity, index_t tokens) {
    P copy = policy;
    return std::apply([&](const auto&... views) { return std::make_tuple(ring_of(views, capacity, tokens)...); },
                      token_views(copy));
}
template <class P>
using rings = decltype(rings_of(std::declval<const P&>(), 0, 0));

}  // namespace detail

/// K and V: elements of keys and values; P: the policies of every step, those of recurrence but form, order and packed.
template <class T, class K, class V, class... P>
class rollback {
    static constexpr const char* op = "rollback";
    static_assert(((!has_role<P, roles::form> && !has_role<P, roles::order> && !has_role<P, roles::packed>)&&...),
                  "heed: steps go token by token, first to last");

public:
    /// From the state s, with the last `tokens` undoable. k, v and policies say only what shapes and types steps have.
    rollback(const state<T>& s, index_t tokens, view<const K> k, view<const V> v, const P&... policies)
        : rollback(s, tokens, k, v, k.shape[2] / steps(policies...), policies...) {}

    /// The state after all tokens that were not undone.
    const state<T>& now() const { return now_; }
    /// How many tokens can be undone.
    index_t undoable() const { return count_; }

    /// heed::step, remembered. Any number of tokens.
    template <class A = default_arch, class Q, class Keys, class Values, class O>
    void step(const Q& q, const Keys& k, const Values& v, O&& o, const P&... policies) {
        const view<const K> keys = as_view(k);
        const view<const V> values = as_view(v);
        k_.check(op, keys), v_.check(op, values);
        each_ring([](auto& ring, const auto& view) { ring.check(op, view); }, policies...);
        heed::step<A>(now_, q, keys, values, o, policies...);
        for (index_t t = 0, N = keys.shape[2] / steps(policies...); t < N && capacity_ > 0; ++t) {
            if (count_ == capacity_) {
                replay<A>(before_, first_);
                first_ = (first_ + 1) % capacity_;
                --count_;
            }
            const index_t slot = (first_ + count_++) % capacity_;
            k_.put(slot, keys, t), v_.put(slot, values, t);
            each_ring([&](auto& ring, const auto& view) { ring.put(slot, view, t); }, policies...);
        }
        if (capacity_ == 0) before_ = now_;
    }

    /// The state becomes that before the last n tokens, n <= undoable(). Policies without rows of tokens are those of
    /// the construction.
    template <class A = default_arch>
    void undo(index_t n) {
        require_argument(n >= 0 && n <= count_, op, n, " tokens are to be undone, ", count_, " can be");
        if (n == 0) return;
        count_ -= n;
        now_ = before_;
        for (index_t t = 0; t < count_; ++t) replay<A>(now_, (first_ + t) % capacity_);
    }

private:
    rollback(const state<T>& s, index_t tokens, view<const K> k, view<const V> v, index_t N, const P&... policies)
        : now_(s),
          before_(s),
          capacity_(checked(tokens)),
          k_(k, tokens, N),
          v_(v, tokens, N),
          policies_(policies...),
          rings_(detail::rings_of(policies, tokens, N)...) {}

    static index_t checked(index_t tokens) {
        require_argument(tokens >= 0, op, tokens, " tokens are to be kept, the least is 0");
        return tokens;
    }
    static index_t steps(const P&... policies) {
        return std::max<index_t>(1, detail::pick<roles::update>(additive_update{}, policies...).steps());
    }
    /// Calls f(ring, view) for every view of the policies.
    template <class F>
    void each_ring(const F& f, P... policies) {
        const auto of_one = [&](auto& own, auto views) {
            std::apply([&](auto&... ring) { std::apply([&](const auto&... view) { (f(ring, view), ...); }, views); },
                       own);
        };
        std::apply([&](auto&... own) { (of_one(own, detail::token_views(policies)), ...); }, rings_);
    }
    /// A policy with the rows of one token in place of its views.
    template <class Policy>
    static Policy placed(Policy policy, detail::rings<Policy>& own, index_t slot) {
        auto views = detail::token_views(policy);
        std::apply([&](auto&... view) { std::apply([&](auto&... ring) { ((view = ring.at(slot)), ...); }, own); },
                   views);
        return policy;
    }
    template <class A>
    void replay(state<T>& s, index_t slot) {
        const auto all = at(slot, std::index_sequence_for<P...>{});
        const auto writing = std::apply(
            [](const auto&... policy) {
                return std::tuple_cat(
                    detail::pick_all<roles::decay>(policy...), detail::pick_all<roles::update>(policy...),
                    detail::pick_all<roles::features>(policy...), detail::pick_all<roles::normaliser>(policy...),
                    detail::pick_all<roles::context>(policy...));
            },
            all);
        std::apply([&](const auto&... policy) { absorb<A>(s, k_.at(slot), v_.at(slot), policy...); }, writing);
    }
    template <std::size_t... I>
    std::tuple<P...> at([[maybe_unused]] index_t slot, std::index_sequence<I...>) {
        return {placed(std::get<I>(policies_), std::get<I>(rings_), slot)...};
    }

    state<T> now_, before_;
    index_t capacity_, first_ = 0, count_ = 0;
    detail::token_ring<K, 4> k_;
    detail::token_ring<V, 4> v_;
    std::tuple<P...> policies_;
    std::tuple<detail::rings<P>...> rings_;
};
template <class T, class K, class V, class... P>
rollback(const state<T>&, index_t, const K&, const V&, const P&...)
    -> rollback<T, typename decltype(as_view(std::declval<const K&>()))::value_type,
                typename decltype(as_view(std::declval<const V&>()))::value_type, P...>;

}  // namespace heed::inline HEED_ABI
