// The definition of attention, in double precision and plain loops. It shares nothing with the engine.
//
//   x = scale q.k -> score -> mask (hidden: -inf) -> p = weight(x) -> o = sum over visible j of p_j v_j
//
// Rows are (b, h, i); query head h reads key head h / (H / G). A row without a visible key gives o = 0 and lse = -inf,
// whatever the values are (lse = the sink where there is one: it is always visible and has no value); hidden keys and
// values touch nothing; NaN and inf in visible ones propagate.
#pragma once

#include <cmath>
#include <functional>
#include <limits>
#include <optional>
#include <vector>

#include "../core/view.hpp"

namespace heed::inline HEED_ABI::ref {

/// What varies from one attention to the next. A function is asked with (b, h, row, i, j): batch, query head, query
/// row, the row's position on the key axis (row + offset), key position. An empty function is left out.
template <class Real = double>
struct options {
    std::function<bool(index_t b, index_t h, index_t row, index_t i, index_t j)> visible = {};
    std::function<Real(index_t b, index_t h, index_t row, index_t i, index_t j)> bias =
        {};  // an additive mask: -inf hides
    std::function<Real(Real x, index_t b, index_t h, index_t row, index_t i, index_t j)> score = {};
    std::function<Real(Real x)> weight = {};  // elementwise, in place of softmax
    std::vector<Real> sink = {};              // one more logit per head, without a value; softmax only
    std::optional<Real> scale = {};           // default 1 / sqrt(D)
    std::optional<index_t> offset = {};       // default M - N
    std::vector<index_t> sequence_offsets = {};  // in its place: one for each sequence
};

/// What is written down beside o; a view without data is not wanted. lse and entropy speak of softmax.
template <class Real = double>
struct record {
    view<Real, 3> lse = {}, row_max = {}, entropy = {};  // (b, h, n)
    view<Real, 3> key_mass = {};                         // (b, h, m): weight a key receives from all rows
    view<Real, 4> raw = {}, scored = {}, masked = {}, probability = {};  // (b, h, n, m): the logit at its four stages
};

namespace detail {

/// One row of logits and what the mask says of it.
template <class Real>
struct logit_row {
    std::vector<Real> raw, scored, masked, probability;  // (m)
    std::vector<char> seen;                              // (m)
    Real max = -std::numeric_limits<Real>::infinity();
    Real lse = -std::numeric_limits<Real>::infinity();

    explicit logit_row(index_t M) : raw(M), scored(M), masked(M), probability(M), seen(M) {}
};

template <class Real>
void weigh(logit_row<Real>& x, const options<Real>& with, index_t h) {
    const auto M = x.raw.size();
    const Real inf = std::numeric_limits<Real>::infinity();
    bool empty = true;
    x.max = x.lse = -inf;
    for (std::size_t j = 0; j < M; ++j) {
        x.probability[j] = 0;
        if (!x.seen[j]) continue;
        empty = false;
        if (x.masked[j] > x.max || std::isnan(x.masked[j])) x.max = x.masked[j];  // a NaN stays
    }
    const bool sinks = !with.weight && !with.sink.empty() && with.sink[h] != -inf;
    if (empty && !sinks) return;
    if (with.weight) {
        for (std::size_t j = 0; j < M; ++j)
            if (x.seen[j]) x.probability[j] = with.weight(x.masked[j]);
        return;
    }
    const Real top = sinks && with.sink[h] > x.max ? with.sink[h] : x.max;
    Real sum = sinks ? std::exp(with.sink[h] - top) : Real(0);
    for (std::size_t j = 0; j < M; ++j)
        if (x.seen[j]) sum += x.probability[j] = std::exp(x.masked[j] - top);
    for (std::size_t j = 0; j < M; ++j)
        if (x.seen[j]) x.probability[j] /= sum;  // hidden keys stay at 0, whatever the sum is
    x.lse = top + std::log(sum);
}

template <class Real>
void write_down(const logit_row<Real>& x, const record<Real>& to, index_t b, index_t h, index_t row) {
    const auto M = static_cast<index_t>(x.raw.size());
    if (to.lse.data) to.lse(b, h, row) = x.lse;
    if (to.row_max.data) to.row_max(b, h, row) = x.max;
    if (to.entropy.data) to.entropy(b, h, row) = 0;
    for (index_t j = 0; j < M; ++j) {
        const Real p = x.probability[j];
        if (to.entropy.data && p != 0) to.entropy(b, h, row) -= p * std::log(p);
        if (to.key_mass.data) to.key_mass(b, h, j) += p;
        if (to.raw.data) to.raw(b, h, row, j) = x.raw[j];
        if (to.scored.data) to.scored(b, h, row, j) = x.scored[j];
        if (to.masked.data) to.masked(b, h, row, j) = x.masked[j];
        if (to.probability.data) to.probability(b, h, row, j) = p;
    }
}

template <class Real, class Q, class K, class V, class O>
void attention_loops(const view<Q>& q, const view<K>& k, const view<V>& v, const view<O>& o, const options<Real>& with,
                     const record<Real>& to) {
    const index_t B = q.shape[0], H = q.shape[1], N = q.shape[2], D = q.shape[3];
    const index_t G = k.shape[1], M = k.shape[2], E = v.shape[3];
    require_shape(G > 0 ? H % G == 0 : H == 0, "ref::attention", H, " query heads over ", G, " key heads");
    require_shape(
        k.shape == extents<4>{B, G, M, D} && v.shape == extents<4>{B, G, M, E} && o.shape == extents<4>{B, H, N, E},
        "ref::attention", "shapes of q, k, v, o do not fit");
    const Real scale = with.scale.value_or(D > 0 ? 1 / std::sqrt(static_cast<Real>(D)) : Real(1));
    const auto& own = with.sequence_offsets;
    require_shape(own.empty() || static_cast<index_t>(own.size()) == B, "ref::attention", own.size(),
                  " offsets for ", B, " sequences");
    const auto offset = [&](index_t b) { return own.empty() ? with.offset.value_or(M - N) : own[b]; };
    if (to.key_mass.data)
        for (index_t b = 0; b < B; ++b)
            for (index_t h = 0; h < H; ++h)
                for (index_t j = 0; j < M; ++j) to.key_mass(b, h, j) = 0;

    logit_row<Real> x(M);
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h)
            for (index_t row = 0; row < N; ++row) {
                const index_t g = h / (H / G), i = row + offset(b);
                for (index_t j = 0; j < M; ++j) {
                    Real dot = 0;
                    for (index_t d = 0; d < D; ++d)
                        dot += static_cast<Real>(q(b, h, row, d)) * static_cast<Real>(k(b, g, j, d));
                    x.raw[j] = scale * dot;
                    x.scored[j] = with.score ? with.score(x.raw[j], b, h, row, i, j) : x.raw[j];
                    const Real bias = with.bias ? with.bias(b, h, row, i, j) : Real(0);
                    x.seen[j] = bias != -std::numeric_limits<Real>::infinity() &&
                                (!with.visible || with.visible(b, h, row, i, j));
                    x.masked[j] = x.seen[j] ? x.scored[j] + bias : -std::numeric_limits<Real>::infinity();
                }
                weigh(x, with, h);
                write_down(x, to, b, h, row);
                for (index_t e = 0; e < E; ++e) {
                    Real sum = 0;
                    for (index_t j = 0; j < M; ++j)
                        if (x.seen[j]) sum += x.probability[j] * static_cast<Real>(v(b, g, j, e));
                    o(b, h, row, e) = static_cast<O>(sum);
                }
            }
}

}  // namespace detail

/// The definition. o of any storage type; a view<double> keeps every digit.
template <class Q, class K, class V, class O>
void attention(view<Q> q, view<K> k, view<V> v, view<O> o, const options<double>& with = {},
               const record<double>& to = {}) {
    detail::attention_loops<double>(q, k, v, o, with, to);
}

/// The same loops in the arithmetic of Real: naive_attention<float> is what a kernel's error is measured by,
/// naive_attention<long double> the reference of double data.
template <class Real = float, class Q, class K, class V, class O>
void naive_attention(view<Q> q, view<K> k, view<V> v, view<O> o, const options<Real>& with = {},
                     const record<Real>& to = {}) {
    detail::attention_loops<Real>(q, k, v, o, with, to);
}

}  // namespace heed::inline HEED_ABI::ref
