// RG-LRU, the recurrence of Hawk and Griffin (arXiv:2402.19427) [53]: a real diagonal decay that the token gates.
//
//   log a_t = -c softplus(lambda) sigmoid(r_t);  h_t = a_t h_{t-1} + sqrt(1 - a_t^2) sigmoid(i_t) u_t
// u, logits r and i, h: (B, N, C); lambda: (C). 1 - a^2 is -expm1(log a) (1 + a): no digits are lost where a is near 1.
// c is 8. Trap: with a = sigmoid(L) in place of lambda, lambda = -L.
#pragma once

#include "../engine/scan.hpp"

namespace heed::inline HEED_ABI {

/// 1 (or any number but 0) at tokens that start a document, else 0, (B, N): there a_t = 0, and sqrt(1 - a_t^2) = 1.
template <class T>
struct restarts {
    using role = roles::restarts;
    view<const T, 2> x;
    explicit restarts(const view<T, 2>& marks) : x(marks) {}
};

/// Another c, above 0: the decay at an open gate is sigmoid(-lambda)^c.
struct decay_power {
    using role = roles::scale;
    double c = 8;
};

namespace detail {
template <bool Restarts>
struct rg_lru_cell : affine_cell<3 + Restarts, 1> {
    double c = 8;
    explicit rg_lru_cell(double power) : c(power) {}

    template <class X>
    HEED_INLINE void prepare(numbers<X, 1>& k) const {
        k[0] = X(-c) * softplus(k[0]);
    }
    /// log a, the gated input, and the mark.
    template <class X>
    HEED_INLINE numbers<X, 2 + Restarts> first(const numbers<X, 3 + Restarts>& x, const numbers<X, 1>& k) const {
        const auto [r, i] = sigmoids(x[1], x[2]);
        if constexpr (Restarts)
            return {k[0] * r, i * x[0], x[3]};
        else
            return {k[0] * r, i * x[0]};
    }
    template <class X>
    HEED_INLINE numbers<X, 2> leaf(const numbers<X, 2 + Restarts>& g, const numbers<X, 1>&) const {
        const auto [a, a_less_1] = exp_both_nonpositive(g[0]);
        const X b = sqrt(-a_less_1 * (X(1) + a)) * g[1];
        if constexpr (Restarts) {
            const auto here = g[2] != X(0);
            return {select(here, X(0), a), select(here, g[1], b)};
        } else {
            return {a, b};
        }
    }
};
/// (B, N) as (B, N, C), the same for all channels.
template <class T>
view<T, 3> for_channels(const view<T, 2>& x, index_t C) {
    return {x.data, {x.shape[0], x.shape[1], C}, {x.strides[0], x.strides[1], 0}};
}
}  // namespace detail

/// Policies as in scan, restarts{marks} and decay_power{c}; carry is (B, C).
template <class A = default_arch, class U, class R, class I, class Lambda, class H, class... P>
void rg_lru(const U& u, const R& r, const I& i, const Lambda& lambda, H&& h, const P&... policies) {
    using namespace detail;
    static constexpr const char* op = "rg_lru";
    const auto to = writes("h", h);
    const auto in = std::tuple(reads("u", u), reads("r", r), reads("i", i));
    const auto constants = std::tuple(reads("lambda", lambda));
    const auto marks = pick<roles::restarts>(absent<roles::restarts>{}, policies...);
    const double c = pick<roles::scale>(decay_power{}, policies...).c;
    require_argument(c > 0 && std::isfinite(c), op, "c is ", c, ", must be above 0 and finite");
    if constexpr (requires { marks.x; })
        run_scan<A, roles::restarts, roles::scale>(
            op, rg_lru_cell<true>(c),
            std::tuple_cat(in, std::tuple(reads("the restarts", for_channels(marks.x, to.v.shape[2])))), constants,
            std::tuple(to), policies...);
    else
        run_scan<A, roles::restarts, roles::scale>(op, rg_lru_cell<false>(c), in, constants, std::tuple(to),
                                                   policies...);
}

}  // namespace heed::inline HEED_ABI
