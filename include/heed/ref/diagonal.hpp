// Definitions of the gated diagonal recurrences, h_t = a_t h_{t-1} + b_t: what a and b are, one number at a time.
#pragma once

#include <cmath>
#include <complex>

#include "scan.hpp"

namespace heed::inline HEED_ABI::ref {

/// h_t = a h_{t-1} + b.
template <class Number>
struct linear_step {
    Number a, b;
};

template <class Real>
Real sigmoid(Real x) {
    return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x));
}
template <class Real>
Real softplus(Real x) {
    return std::max(x, Real(0)) + std::log1p(std::exp(-std::abs(x)));
}

/// HGRN: g is the log of the decay.
template <class Real>
linear_step<Real> hgrn(Real x, Real g) {
    return {std::exp(g), x};
}
/// RG-LRU: logits r of the recurrence gate and i of the input gate; at a restart the past is forgotten and the input
/// counts whole. c is the power of the decay at an open gate.
template <class Real>
linear_step<Real> rg_lru(Real u, Real r, Real i, Real lambda, bool restarts = false, Real c = 8) {
    const Real log_a = -c * softplus(lambda) * sigmoid(r), gated = sigmoid(i) * u;
    if (restarts) return {0, gated};
    return {std::exp(log_a), std::sqrt(-std::expm1(2 * log_a)) * gated};
}
/// minGRU: logits z of the update, candidate x.
template <class Real>
linear_step<Real> min_gru(Real z, Real x) {
    return {sigmoid(-z), sigmoid(z) * x};
}
/// minLSTM: logits f and i of two gates that are scaled to sum to 1, candidate x.
template <class Real>
linear_step<Real> min_lstm(Real f, Real i, Real x) {
    const Real total = sigmoid(f) + sigmoid(i);
    return {sigmoid(f) / total, sigmoid(i) / total * x};
}

/// h (B, N, C) of step(b, n, c) -> linear_step<Number>; state (sequences, C, 1) is read and updated, if it has data.
template <class Number, class Step>
void diagonal(view<Number, 3> h, const Step& step, view<Number, 3> state = {}, const token_order& order = {}) {
    const auto start = [&](index_t i, index_t c) { return state.data ? state(i, c, 0) : Number(0); };
    const auto move = [&](Number& s, index_t b, index_t n, index_t c) {
        const linear_step<Number> by = step(b, n, c);
        h(b, n, c) = s = by.a * s + by.b;
    };
    const auto finish = [&](const Number& s, index_t i, index_t c) {
        if (state.data) state(i, c, 0) = s;
    };
    scan(h.shape, order, start, move, finish);
}

}  // namespace heed::inline HEED_ABI::ref
