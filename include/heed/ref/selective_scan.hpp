// The definition of the selective scan, in double precision and plain loops.
//
//   d = delta + bias, log(1 + e^d) if asked;  h_n = exp(d A_n) h_n + d B_n u;  y = sum_n C_n h_n + D u, times silu(z)
#pragma once

#include <cmath>
#include <optional>

#include "scan.hpp"

namespace heed::inline HEED_ABI::ref {

/// What varies from one selective scan to the next; a view without data is left out.
template <class Real = double>
struct selective_options {
    view<const Real, 1> bias = {}, skip = {};  // (C)
    view<const Real, 3> gate = {};             // (B, N, C)
    view<Real, 3> state = {};                  // (sequences, C, S), read and updated
    bool softplus = false;
    token_order order = {};
};

/// u, delta, y: (B, N, C); A: (C, S); B, C: (B, N, G, S), channel c reads group c / (C / G).
template <class Real = double>
void selective_scan(view<const Real, 3> u, view<const Real, 3> delta, view<const Real, 2> A, view<const Real, 4> B,
                    view<const Real, 4> C, view<Real, 3> y, const selective_options<Real>& with = {}) {
    const index_t channels = u.shape[2], S = A.shape[1], G = B.shape[2];
    const auto start = [&](index_t i, index_t c) {
        std::vector<Real> h(static_cast<std::size_t>(S));
        for (index_t n = 0; n < S && with.state.data; ++n) h[static_cast<std::size_t>(n)] = with.state(i, c, n);
        return h;
    };
    const auto step = [&](std::vector<Real>& h, index_t b, index_t t, index_t c) {
        Real d = delta(b, t, c) + (with.bias.data ? with.bias(c) : Real(0));
        if (with.softplus) d = std::max(d, Real(0)) + std::log1p(std::exp(-std::abs(d)));
        const index_t g = c / (channels / G);
        Real sum = 0;
        for (index_t n = 0; n < S; ++n) {
            Real& s = h[static_cast<std::size_t>(n)];
            s = std::exp(d * A(c, n)) * s + d * B(b, t, g, n) * u(b, t, c);
            sum += C(b, t, g, n) * s;
        }
        if (with.skip.data) sum += with.skip(c) * u(b, t, c);
        if (with.gate.data) {
            const Real z = with.gate(b, t, c);
            sum *= z == -std::numeric_limits<Real>::infinity() ? Real(0) : z / (1 + std::exp(-z));
        }
        y(b, t, c) = sum;
    };
    const auto finish = [&](const std::vector<Real>& h, index_t i, index_t c) {
        for (index_t n = 0; n < S && with.state.data; ++n) with.state(i, c, n) = h[static_cast<std::size_t>(n)];
    };
    scan(u.shape, with.order, start, step, finish);
}

}  // namespace heed::inline HEED_ABI::ref
