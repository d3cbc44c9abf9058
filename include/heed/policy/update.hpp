// Updates: what a token writes into the state, S_t = A S_{t-1} + k w^T with A the decay, and what reads see of it.
#pragma once

#include <tuple>

#include "../core/half.hpp"
#include "../core/recurrence_kinds.hpp"
#include "../core/roles.hpp"
#include "token_walk.hpp"

namespace heed::inline HEED_ABI {

/// w = v (the default).
struct additive_update {
    using role = roles::update;
    static constexpr update_kind kind = update_kind::additive;
    index_t steps() const { return 1; }
    void check(const char*, const recurrence_extents&) const {}
};

/// w = weight v, weights (B, heads, N): what a token is let in with. A normaliser's sums of keys are weighted alike.
template <class S>
struct weighted_update {
    using role = roles::update;
    static constexpr update_kind kind = update_kind::additive;
    view<const S, 3> weights;
    explicit weighted_update(view<const S, 3> w) : weights(w) {}
    explicit weighted_update(view<S, 3> w) : weights(w) {}

    index_t steps() const { return 1; }
    void check(const char* op, const recurrence_extents& x) const {
        const auto [B, heads, N] = weights.shape;
        detail::check_gate(op, "weighted_update", B, heads, N, x.B, x.heads, x.N);
    }
    auto token_views() { return std::tie(weights); }
    /// Of token n, for state head h of `heads`.
    template <class T>
    T weight(index_t b, index_t h, index_t heads, index_t n) const {
        return static_cast<T>(weights(b, detail::serving(h, heads, weights.shape[1]), n));
    }
};
template <class S>
weighted_update(view<S, 3>) -> weighted_update<std::remove_const_t<S>>;

/// w = beta (v - (A S)^T k): the value kept under key k is moved towards v; beta (B, heads, N). With a decay, the gated delta
/// rule. Keys are taken as they are: normalise them before, so that the update contracts for beta in [0, 2].
template <class S>
struct delta_rule {
    using role = roles::update;
    static constexpr update_kind kind = update_kind::delta;
    view<const S, 3> beta;
    explicit delta_rule(view<const S, 3> b) : beta(b) {}
    explicit delta_rule(view<S, 3> b) : beta(b) {}

    index_t steps() const { return 1; }
    void check(const char* op, const recurrence_extents& x) const {
        detail::check_gate(op, "delta_rule's beta", beta.shape[0], beta.shape[1], beta.shape[2], x.B, x.heads, x.N);
    }
    auto token_views() { return std::tie(beta); }
};
template <class S>
delta_rule(view<S, 3>) -> delta_rule<std::remove_const_t<S>>;

/// n delta steps a token: k and v have rows n t, ..., n t + n - 1 for token t, and so has beta (B, heads, n N). The decay acts
/// before the first, the output is read after the last. The product of n generalised Householder factors (DeltaProduct).
template <class S>
struct householder {
    using role = roles::update;
    static constexpr update_kind kind = update_kind::householder;
    view<const S, 3> beta;
    index_t n;
    householder(view<const S, 3> b, index_t factors) : beta(b), n(factors) {}
    householder(view<S, 3> b, index_t factors) : beta(b), n(factors) {}

    index_t steps() const { return n; }
    void check_steps(const char* op) const {
        require_argument(n >= 1, op, "householder has ", n, " factors, the least is 1");
    }
    void check(const char* op, const recurrence_extents& x) const {
        detail::check_gate(op, "householder's beta", beta.shape[0], beta.shape[1], beta.shape[2], x.B, x.heads, n * x.N);
    }
    auto token_views() { return std::tie(beta); }
};
template <class S>
householder(view<S, 3>, index_t) -> householder<std::remove_const_t<S>>;

/// S_t = (A + a b^T) S_{t-1} + k v^T, a and b (B, heads, N, D): diagonal plus low rank (RWKV-7, DPLR; IPLR without a decay).
template <class S>
struct low_rank {
    using role = roles::update;
    static constexpr update_kind kind = update_kind::low_rank;
    view<const S, 4> a, b;
    low_rank(view<const S, 4> left, view<const S, 4> right) : a(left), b(right) {}
    low_rank(view<S, 4> left, view<S, 4> right) : a(left), b(right) {}

    index_t steps() const { return 1; }
    void check(const char* op, const recurrence_extents& x) const {
        const auto one = [&](const char* name, const view<const S, 4>& v) {
            detail::check_gate(op, name, v.shape[0], v.shape[1], v.shape[2], x.B, x.heads, x.N);
            require_shape(v.shape[3] == x.D, op, name, " has width ", v.shape[3], ", the state has ", x.D, " rows");
        };
        one("low_rank's a", a);
        one("low_rank's b", b);
    }
    auto token_views() { return std::tie(a, b); }
};
template <class S>
low_rank(view<S, 4>, view<S, 4>) -> low_rank<std::remove_const_t<S>>;

/// o = q^T S_t (the default).
struct read_after {
    using role = roles::read;
    static constexpr read_kind kind = read_kind::after;
    void check(const char*, const recurrence_extents&) const {}
};

/// o = q^T S_{t-1}: the state before the token's decay and update. Causal orders only.
struct read_before {
    using role = roles::read;
    static constexpr read_kind kind = read_kind::before;
    void check(const char*, const recurrence_extents&) const {}
};

/// o = q^T (S_{t-1} + diag(u) k v^T), u (heads, D): the token's own value counts by u (RWKV-6). Additive updates
/// and causal orders only.
template <class S>
struct bonus {
    using role = roles::read;
    static constexpr read_kind kind = read_kind::bonus;
    view<const S, 2> u;
    explicit bonus(view<const S, 2> weights) : u(weights) {}
    explicit bonus(view<S, 2> weights) : u(weights) {}

    void check(const char* op, const recurrence_extents& x) const {
        require_shape(u.shape[0] > 0 ? x.heads % u.shape[0] == 0 : x.heads == 0, op, "bonus has ", u.shape[0],
                      " heads, which do not divide the ", x.heads, " of the state");
        require_shape(u.shape[1] == x.D, op, "bonus has width ", u.shape[1], ", the state has ", x.D, " rows");
    }
    auto parameters() const { return std::tuple(u); }
};
template <class S>
bonus(view<S, 2>) -> bonus<std::remove_const_t<S>>;

}  // namespace heed::inline HEED_ABI
