// rollback: a state whose last tokens can be undone, as speculative decoding does with drafts that are refused.
//
//   S, the state now; S_0, the state before the last r tokens; k, v and gates of those tokens in a ring
//   undo n:  S = S_0, then the tokens that remain, one by one
// A decay cannot be divided out again (it may be 0), so tokens are replayed. Bits are those of steps of one token.
// Cost: a second state, the ring, and one more update a token, half a step; an undo, r - n updates. The sequences of a
// batch may be undone by numbers of their own.
#pragma once

#include <span>
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
        copy(rows_of(from, token), rows_of(all(), slot));
    }
    /// The rows of slot `from` become those of slot `to`, for sequence b alone.
    void move(index_t b, index_t from, index_t to) {
        const auto one = slice(all(), 0, {b, b + 1});
        copy(rows_of(view<const S, Rank>(one), from), rows_of(one, to));
    }
    view<const S, Rank> at(index_t slot) { return rows_of(all(), slot); }

private:
    view<S, Rank> all() { return {memory_.data(), shape_, dense_strides(shape_)}; }
    template <class X>
    X rows_of(const X& x, index_t token) const {
        return slice(x, 2, {token * rows_, (token + 1) * rows_});
    }
    static void copy(view<const S, Rank> from, view<S, Rank> to) {
        for (index_t i = 0; i < to.size(); ++i) {
            index_t rest = i, target = 0, source = 0;
            for (std::size_t a = Rank; a-- > 0; rest /= to.shape[a]) {
                target += rest % to.shape[a] * to.strides[a];
                source += rest % to.shape[a] * from.strides[a];
            }
            to.data[target] = from.data[source];
        }
    }
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
template <class Rings>
inline constexpr bool has_positions = false;
template <class... Ring>
inline constexpr bool has_positions<std::tuple<Ring...>> = (std::is_same_v<Ring, position_ring> || ...);

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
            const index_t next = slot(count_++);
            k_.put(next, keys, t), v_.put(next, values, t);
            each_ring([&](auto& ring, const auto& view) { ring.put(next, view, t); }, policies...);
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
        for (index_t t = 0; t < count_; ++t) replay<A>(now_, slot(t));
    }
    /// The same with a number for each sequence. Afterwards as many tokens can be undone as are left of the sequence
    /// with the fewest.
    template <class A = default_arch>
    void undo(std::span<const index_t> n) {
        static_assert(!(detail::has_positions<detail::rings<P>> || ...),
                      "heed: a feature map of positions has one position for all sequences, which stay together");
        const index_t B = now_.shape()[0];
        require_shape(static_cast<index_t>(n.size()) == B, op, "there are ", n.size(), " numbers of tokens, ", B,
                      " sequences");
        for (index_t one : n)
            require_argument(one >= 0 && one <= count_, op, one, " tokens are to be undone, ", count_, " can be");
        if (n.empty()) return;
        const auto [least, most] = std::minmax_element(n.begin(), n.end());
        const index_t left = count_ - *most;
        const auto kept = [&](index_t b) { return count_ - n[static_cast<std::size_t>(b)]; };
        state<T> at = before_;
        for (index_t t = 0; t <= count_ - *least; ++t) {
            if (t > 0) replay<A>(at, slot(t - 1));
            for (index_t b = 0; b < B; ++b) {
                if (t == kept(b) && t < count_) detail::copy_sequence(at, b, now_, b);
                if (t == kept(b) - left) detail::copy_sequence(at, b, before_, b);
            }
        }
        for (index_t b = 0; b < B; ++b)
            for (index_t t = 0; t < left; ++t) move(b, slot(t + kept(b) - left), slot(t));
        count_ = left;
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
    /// Where token t of those that can be undone is kept.
    index_t slot(index_t t) const { return (first_ + t) % capacity_; }
    void move(index_t b, index_t from, index_t to) {
        k_.move(b, from, to), v_.move(b, from, to);
        const auto of_one = [&](auto&... ring) { (ring.move(b, from, to), ...); };
        std::apply([&](auto&... own) { (std::apply(of_one, own), ...); }, rings_);
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
