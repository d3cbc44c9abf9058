// Causal attention in parts that rotate the queries differently: what dual chunk attention and self-extend share.
#pragma once

#include "partials.hpp"
#include "rotary.hpp"

namespace heed::inline HEED_ABI::detail {

/// Token n of sequence b stands at place(n + first(b)).
template <class First, class Place>
struct places_of_rows {
    using role = roles::positions;
    static constexpr bool same_in_batch = false;
    const First& first;
    const Place& place;
    index_t operator()(index_t b, index_t n) const { return place(first(b) + n); }
};

/// Policies: those of rotary but positions, for the queries; scale, offset, lse and on.
template <class A, class T, class Q, class O, class... P>
class rotated_parts {
    using turning = role_list<roles::pairing, roles::width, roles::angles, roles::context>;
    using attending = role_list<roles::scale, roles::offset, roles::context>;
    static_assert(((turning::has<P> || attending::has<P> || has_role<P, roles::probe>)&&...) &&
                      (probes_lse_only<P> && ...),
                  "heed: attention in rotated parts takes angles, pairing, rotated, scale, offset, lse and on");

public:
    /// x has been checked.
    template <class Source>
    rotated_parts(const char* op, const attention_operands<Q, Source, O>& x, const P&... policies)
        : q_(x.q),
          o_(x.o),
          policies_(policies...),
          turned_(static_cast<std::size_t>(x.q.size())),
          whole_(x.o.shape),
          part_(x.o.shape) {
        check_probes(op, pick_all<roles::probe>(policies...), {x.B(), x.H(), x.N(), x.M()});
        for (index_t b = 0; b < x.B(); ++b) {
            first_.push_back(first_position(x, b, policies...));
            require_argument(first_.back() >= 0, op, "the first query stands at ", first_.back(),
                             ", before the first key");
            end_ = std::max(end_, first_.back() + x.N());
        }
    }

    /// One past the position of the last row of any sequence.
    index_t end() const { return end_; }

    /// Adds the keys the mask allows; a query at i is rotated to place(i).
    template <class Source, class Mask, class Place>
    void add(const Source& source, const Mask& mask, const Place& place) {
        const view<Q> turned = heads(turned_.data(), q_.shape);
        owned_partial<T>& to = whole_is_there_ ? part_ : whole_;
        const auto first = [&](index_t b) { return first_[static_cast<std::size_t>(b)]; };
        const places_of_rows<decltype(first), Place> at{first, place};
        with<turning>([&](const auto&... p) { rotary<A>(q_, turned, at, p...); });
        with<attending>([&](const auto&... p) { attention<A>(turned, source, to.o(), mask, lse{to.lse()}, p...); });
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
    std::tuple<P...> policies_;
    std::vector<Q> turned_;
    owned_partial<T> whole_, part_;
    std::vector<index_t> first_;  // position of row 0, by sequence
    index_t end_ = 0;
    bool whole_is_there_ = false;
};

template <class A, class Q, class Source, class O, class... P>
auto parts_of(const char* op, const view<Q>& q, const Source& source, const view<O>& o, const P&... policies) {
    using S = std::remove_const_t<Q>;
    const auto x = operands_of(q, source, o);
    x.check(op, policies...);
    return rotated_parts<A, accumulated<S, Source, O>, S, O, P...>(op, x, policies...);
}

}  // namespace heed::inline HEED_ABI::detail
