// Retention: linear attention that forgets by a constant of each head [113].
//
//   o_t = q_t^T S_t / sqrt(D),   S_t = gamma_h S_{t-1} + k_t v_t^T,   gamma_h = 1 - 2^-(5 + h)
// A block of RetNet: rotary(q, q, interleaved{}, retention_angles{}), likewise k; retention with centred{} (the paper's
// group norm of each head) or rms{}; silu_gate. The raw form is computed: factors by which other codes keep rows small
// vanish in the norm.
// Cost: 4 D E a token and head. Sun et al., arXiv:2307.08621.
#pragma once

#include "rotary.hpp"
#include "row_norm.hpp"
#include "with_default.hpp"

namespace heed::inline HEED_ABI {

/// The decay of head h is 1 - 2^-(5 + h), of heads first, first + 1, ... where a model is cut among machines.
struct retention_decay {
    using role = roles::decay;
    static constexpr decay_kind kind = decay_kind::scalar;
    index_t first = 0;
    retention_decay() = default;
    explicit retention_decay(index_t first_head) : first(first_head) {}

    /// ln gamma of a head.
    double log(index_t h) const { return std::log1p(-std::exp2(-5.0 - static_cast<double>(first + h))); }
    void check(const char* op, const recurrence_extents&) const {
        require_argument(first >= 0, op, "retention_decay begins with head ", first, ", the least is 0");
    }
    template <class A, class T>
    void load(const token_walk& at, index_t h, index_t, T* to, index_t) const {
        std::fill_n(to, at.count, static_cast<T>(std::exp(log(h))));
    }
};

/// The angles of RetNet, base^-linspace(0, 1, D / 2): the last pair turns by exactly 1 / base, unlike theta's.
struct retention_angles {
    using role = roles::angles;
    double base = 10000;
    double frequency(index_t pair, index_t width) const {
        return width > 2 ? std::pow(base, -static_cast<double>(pair) / static_cast<double>(width / 2 - 1)) : 1.0;
    }
    void check(const char* op, index_t) const {
        require_argument(base > 0, op, "the base is ", base, ", must be above 0");
    }
};

/// q (B, Hq, N, D), k (B, Hk, N, D), v (B, Hv, N, E), o (B, max(Hq, Hk, Hv), N, E), rotated before if they are to be. E
/// may differ from D. Policies of recurrence: a state<T> to go on from (one token is the same call), a norm of heads, a
/// form, on{...}; a decay of your own takes the place of gamma.
template <class A = default_arch, class Q, class K, class V, class O, class... P>
void retention(const Q& q, const K& k, const V& v, O&& o, P&&... policies) {
    detail::with_default(
        retention_decay{}, [&](auto&... all) { recurrence<A>(q, k, v, o, all...); }, policies...);
}

}  // namespace heed::inline HEED_ABI
