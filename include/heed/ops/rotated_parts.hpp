// Causal attention in parts that see the queries at different positions: what dual chunk attention and self-extend
// share.
#pragma once

#include "partials.hpp"
#include "rotary.hpp"

namespace heed::inline HEED_ABI::detail {

/// Policies: those of rotary but positions, for the queries; scale, offset, lse and on.
template <class A, class T, class Q, class O, class... P>
class rotated_parts {
    using turning = role_list<roles::pairing, roles::width, roles::angles, roles::context>;
    using attending = role_list<roles::scale, roles::context>;
    using others = role_list<roles::offset, roles::probe>;
    static_assert(((turning::has<P> || attending::has<P> || others::has<P>)&&...) && (probes_lse_only<P> && ...),
                  "heed: attention in rotated parts takes angles, pairing, rotated, scale, offset, lse and on");

public:
    /// Row 0 stands at `first`.
    rotated_parts(const char* op, const view<const Q>& q, const view<O>& o, index_t first, const P&... policies)
        : q_(q),
          o_(o),
          first_(first),
          policies_(policies...),
          turned_(static_cast<std::size_t>(q.size())),
          whole_(o.shape),
          part_(o.shape) {
        check_probes(op, pick_all<roles::probe>(policies...), {q.shape[0], q.shape[1], q.shape[2], 0});
        require_argument(first >= 0, op, "the first query stands at ", first, ", before the first key");
    }

    /// One past the position of the last row.
    index_t end() const { return first_ + q_.shape[2]; }

    /// Adds the keys the mask lets queries see that stand `back` positions back; a query at i is rotated to place(i).
    template <class Keys, class Mask, class Place>
    void add(const Keys& keys, const Mask& mask, index_t back, const Place& place) {
        const view<Q> turned = heads(turned_.data(), q_.shape);
        owned_partial<T>& to = whole_is_there_ ? part_ : whole_;
        const auto at = positions_by{[&](index_t n) { return place(first_ + n); }};
        with<turning>([&](const auto&... p) { rotary<A>(q_, turned, at, p...); });
        with<attending>([&](const auto&... p) {
            keys.template attend<A>(turned, to.o(), mask, offset{first_ - back}, lse{to.lse()}, p...);
        });
        if (whole_is_there_) merge(whole_.all(), whole_.all(), part_.all());
        whole_is_there_ = true;
    }
    void deliver() {
        with<role_list<roles::probe>>([&](const auto&... probe) { detail::deliver(whole_, o_, std::tuple(probe...)); });
    }

private:
    template <class Roles, class F>
    void with(const F& f) const {
        std::apply([&](const auto&... p) { std::apply(f, policies_of<Roles>(p...)); }, policies_);
    }

    view<const Q> q_;
    view<O> o_;
    index_t first_;
    std::tuple<P...> policies_;
    std::vector<Q> turned_;
    owned_partial<T> whole_, part_;
    bool whole_is_there_ = false;
};

template <class A, class Keys, class Q, class O, class... P>
auto parts_of(const char* op, const Keys& keys, const view<Q>& q, const view<O>& o, const P&... policies) {
    using S = std::remove_const_t<Q>;
    using T = typename Keys::template accumulated<S, O>;
    keys.check(op, q, o);
    return rotated_parts<A, T, S, O, P...>(op, q, o, keys.first_position(q.shape[2], policies...), policies...);
}

}  // namespace heed::inline HEED_ABI::detail
