// The definition of the recurrences with a matrix state, in double precision and plain loops, token by token. It shares
// nothing with the engine.
//
//   S_t = A_t S_{t-1} + k_t w_t^T,   o_t = q_t^T S_t     S (D, E) per state head, q_t = scale phi(row), k_t = phi(row)
//   A = diag(exp key_decay) . diag(exp value_decay) (+ a b^T of S_{t-1}),   w = v, or beta (v - (A S)^T k)
//
// State heads are the more of the heads of k and v; a state head h reads head h X / Hs of an operand of X heads; the
// heads of o are the more of those of q and of the state. A token has m = rows of k / rows of q update rows.
#pragma once

#include <cmath>
#include <functional>
#include <optional>

#include "rows.hpp"

namespace heed::inline HEED_ABI::ref {

/// What varies from one recurrence to the next; a function that is empty is left out. Functions are asked with batch b,
/// state head h, token n (of the memory's order) and channel. Gates are natural logs.
template <class Real = double>
struct recurrence_options {
    using gate = std::function<Real(index_t b, index_t h, index_t n, index_t channel)>;
    using rows = std::function<std::vector<Real>(const std::vector<Real>& x, index_t h)>;  // h of q or k

    gate key_decay = {}, value_decay = {};
    gate phase = {};  // of key channels: the state is complex, rows Re, then rows Im, and its real part is read
    bool complex_rows = false;                                         // so are rows of q and k, Re, then Im
    std::function<Real(index_t b, index_t h, index_t row)> beta = {};  // the delta rule, of each update row
    gate a = {}, b = {};                                               // S += a (b^T S_{t-1})
    bool read_before = false;                                          // o_t = q_t^T S_{t-1} ...
    std::function<Real(index_t h, index_t d)> bonus = {};              // ... + q_t^T diag(u) k_t v_t^T, reads before
    rows query_features = {}, key_features = {};
    bool normalised = false;  // o = q^T S / q.z, z the state of v = 1 and the last column of S; 0 where q.z is 0
    bool absolute = false;    // |q.z| in place of q.z
    std::function<Real(index_t b, index_t h, index_t n)> floor = {};  // and at least this; h of o
    rows norm = {};                                                   // of outputs, h of o
    bool reversed = false, non_causal = false;                        // from the end; every query reads the last state
    index_t updates = 0;  // rows of k a token, where every query reads the last state and rows of q are others
    std::vector<index_t> offsets = {};  // packed: sequence i is [offsets[i], offsets[i + 1])
    std::optional<Real> scale = {};     // default 1 / sqrt(D), or 1 with features
};

/// A gate given by a view (b, h, n) or (b, h, n, channel; 1 stands for all), for state heads Hs.
template <class Real, class T, std::size_t Rank>
auto gate_of(view<T, Rank> g, index_t Hs) {
    return [=](index_t b, index_t h, index_t n, index_t c = 0) {
        const index_t head = h * g.shape[1] / Hs;
        if constexpr (Rank == 3)
            return static_cast<Real>(g(b, head, n));
        else
            return static_cast<Real>(g(b, head, n, g.shape[3] == 1 ? 0 : c));
    };
}

namespace detail {

/// What one token says to one state head, read from the operands.
template <class Real>
struct recurrent_token {
    index_t b, h, n, F;                   // F features, so rows of a real state
    std::vector<std::vector<Real>> k, v;  // its update rows
};

template <class Real>
void decay(matrix<Real>& S, const recurrent_token<Real>& t, const recurrence_options<Real>& with) {
    const index_t F = t.F;
    for (index_t d = 0; d < S.D; ++d)
        for (index_t e = 0; e < S.E; ++e) {
            if (with.key_decay) S(d, e) *= std::exp(with.key_decay(t.b, t.h, t.n, d % F));
            if (with.value_decay) S(d, e) *= std::exp(with.value_decay(t.b, t.h, t.n, e));
        }
    for (index_t d = 0; with.phase && d < F; ++d) {
        const Real angle = with.phase(t.b, t.h, t.n, d), c = std::cos(angle), s = std::sin(angle);
        for (index_t e = 0; e < S.E; ++e) {
            const Real re = S(d, e), im = S(F + d, e);
            S(d, e) = c * re - s * im;
            S(F + d, e) = s * re + c * im;
        }
    }
}

template <class Real>
void update(matrix<Real>& S, const recurrent_token<Real>& t, const recurrence_options<Real>& with) {
    std::vector<Real> a(S.D), b(S.D);
    for (index_t d = 0; with.a && d < t.F; ++d) a[d] = with.a(t.b, t.h, t.n, d), b[d] = with.b(t.b, t.h, t.n, d);
    const std::vector<Real> seen = S.read(b);
    decay(S, t, with);
    if (with.a) S.add(a, seen);
    const auto m = static_cast<index_t>(t.k.size());
    for (index_t i = 0; i < m; ++i) {
        std::vector<Real> w = t.v[i];
        if (with.beta) {
            const Real beta = with.beta(t.b, t.h, t.n * m + i);
            const std::vector<Real> held = S.read(t.k[i]);
            for (index_t e = 0; e < S.E; ++e) w[e] = beta * (w[e] - held[e]);
        }
        S.add(t.k[i], w);
    }
}

/// Output head g.
template <class Real>
std::vector<Real> read(const matrix<Real>& S, const std::vector<Real>& q, const recurrent_token<Real>& t, index_t g,
                       const recurrence_options<Real>& with) {
    std::vector<Real> y = S.read(q);
    if (with.bonus) {
        Real qk = 0;
        for (index_t d = 0; d < (with.complex_rows ? 2 : 1) * t.F; ++d)
            qk += q[d] * with.bonus(t.h, d % t.F) * t.k[0][d];
        for (index_t e = 0; e < S.E; ++e) y[e] += qk * t.v[0][e];
    }
    if (!with.normalised) return y;
    Real z = with.absolute ? std::abs(y.back()) : y.back();
    if (with.floor && z < with.floor(t.b, g, t.n)) z = with.floor(t.b, g, t.n);
    for (Real& one : y) one = z == 0 ? 0 : one / z;
    return y;
}

template <class Real, class Q, class K, class V, class O, class T>
void recurrence_loops(const view<Q>& q, const view<K>& k, const view<V>& v, const view<O>& o,
                      const recurrence_options<Real>& with, const view<T>& state) {
    const index_t B = q.shape[0], Hq = q.shape[1], N = q.shape[2], D = q.shape[3];
    const index_t Hk = k.shape[1], Hv = v.shape[1], E = v.shape[3];
    const index_t Hs = std::max(Hk, Hv), Ho = std::max(Hq, Hs);
    const index_t m = with.updates ? with.updates : N > 0 ? k.shape[2] / N : 1, M = with.updates ? k.shape[2] / m : N;
    require_shape(k.shape == extents<4>{B, Hk, M * m, D} && v.shape == extents<4>{B, Hv, M * m, E} &&
                      o.shape == extents<4>{B, Ho, N, E},
                  "ref::recurrence", "shapes of q, k, v, o do not fit");
    const Real scale =
        with.scale.value_or(D > 0 && !with.query_features ? 1 / std::sqrt(static_cast<Real>(D)) : Real(1));
    const auto phi = [](const auto& map, std::vector<Real> x, index_t h) { return map ? map(x, h) : x; };
    const index_t F =
        with.complex_rows ? D / 2 : static_cast<index_t>(phi(with.key_features, std::vector<Real>(D), 0).size());
    const bool packed = !with.offsets.empty();
    const index_t sequences = packed ? static_cast<index_t>(with.offsets.size()) - 1 : B;

    for (index_t s = 0; s < sequences; ++s)
        for (index_t h = 0; h < Hs; ++h) {
            const index_t first = packed ? with.offsets[s] : 0, last = packed ? with.offsets[s + 1] : M;
            matrix<Real> S{with.phase ? 2 * F : F, with.normalised ? E + 1 : E};
            if (state.data) S.load(state, s, h);
            const auto token = [&](index_t i) {
                recurrent_token<Real> t{packed ? 0 : s, h, with.reversed ? last - 1 - (i - first) : i, F, {}, {}};
                for (index_t r = t.n * m; r < (t.n + 1) * m; ++r) {
                    t.k.push_back(phi(with.key_features, row<Real>(k, t.b, h * Hk / Hs, r), h * Hk / Hs));
                    t.v.push_back(row<Real>(v, t.b, h * Hv / Hs, r));
                    t.k.back().resize(S.D, Real(0));  // Im
                    t.v.back().resize(S.E, Real(1));  // z
                }
                return t;
            };
            const auto answer = [&](const recurrent_token<Real>& t) {
                for (index_t g = h * (Ho / Hs); g < (h + 1) * (Ho / Hs); ++g) {
                    const index_t x = g * Hq / Ho;
                    auto query = times(scale, phi(with.query_features, row<Real>(q, t.b, x, t.n), x));
                    query.resize(S.D, Real(0));
                    for (index_t d = F; with.complex_rows && d < D; ++d) query[d] = -query[d];
                    const auto y = read(S, query, t, g, with);
                    write(o, t.b, g, t.n, with.norm ? with.norm(y, g) : y);
                }
            };
            const bool before = with.read_before || with.bonus;
            for (index_t i = first; i < last; ++i) {
                const auto t = token(i);
                if (before) answer(t);
                update(S, t, with);
                if (!before && !with.non_causal) answer(t);
            }
            if (with.non_causal)
                for (index_t i = first; i < (packed ? last : N); ++i) answer({packed ? 0 : s, h, i, F, {}, {}});
            if (state.data) S.store(state, s, h);
        }
}

}  // namespace detail

/// The definition. The state (sequences, Hs, F, E) for F features is read and updated; without data it starts at 0. It
/// has 2 F rows if complex, one more column if normalised.
template <class Q, class K, class V, class O, class S = double>
void recurrence(view<Q> q, view<K> k, view<V> v, view<O> o, const recurrence_options<double>& with = {},
                view<S> state = {}) {
    detail::recurrence_loops<double>(q, k, v, o, with, state);
}

/// The same loops in the arithmetic of Real: the measure of a kernel's error, or the reference of double data.
template <class Real = float, class Q, class K, class V, class O, class S = Real>
void naive_recurrence(view<Q> q, view<K> k, view<V> v, view<O> o, const recurrence_options<Real>& with = {},
                      view<S> state = {}) {
    detail::recurrence_loops<Real>(q, k, v, o, with, state);
}

}  // namespace heed::inline HEED_ABI::ref
