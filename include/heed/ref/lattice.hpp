// Definitions of sums over alignments, by the recursions in plain log arithmetic, and over all paths one by one.
#pragma once

#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "../core/view.hpp"

namespace heed::inline HEED_ABI::ref {

inline double log_plus(double a, double b) {
    const double top = std::max(a, b);
    if (top == -std::numeric_limits<double>::infinity()) return top;
    return top + std::log1p(std::exp(std::min(a, b) - top));
}

/// Log density of a frame under a diagonal Gaussian whose deviations are at least `least`.
template <class Real = double>
Real gaussian_log_density(const std::vector<double>& x, const std::vector<double>& mean,
                          const std::vector<double>& deviation, double least) {
    Real sum = 0;
    for (std::size_t d = 0; d < x.size(); ++d) {
        const Real by = static_cast<Real>(std::max(deviation[d], least));
        const Real off = (static_cast<Real>(x[d]) - static_cast<Real>(mean[d])) / by;
        sum -= off * off / 2 + std::log(by) + std::log(2 * std::numbers::pi_v<Real>) / 2;
    }
    return sum;
}

/// Calls f(state of each frame, log weight) for every alignment of a left-to-right HMM without skips: e(t, s)
/// densities, w(t, s) logits of leaving.
template <class E, class W, class F>
void each_hmm_path(index_t T, index_t N, const E& e, const W& w, const F& f) {
    const auto log_leave = [&](index_t t, index_t s) { return -log_plus(0, -w(t, s)); };
    const auto log_stay = [&](index_t t, index_t s) { return -log_plus(0, w(t, s)); };
    std::vector<index_t> path(static_cast<std::size_t>(T));
    const auto extend = [&](const auto& self, index_t t, double weight) -> void {
        const index_t s = path[static_cast<std::size_t>(t - 1)];
        if (t == T) {
            if (s == N - 1) f(path, weight + log_leave(T - 1, s));
            return;
        }
        path[static_cast<std::size_t>(t)] = s;
        self(self, t + 1, weight + log_stay(t, s) + e(t, s));
        if (s + 1 >= N) return;
        path[static_cast<std::size_t>(t)] = s + 1;
        self(self, t + 1, weight + log_leave(t, s) + e(t, s + 1));
    };
    if (T == 0 || N == 0) return;
    path[0] = 0;
    extend(extend, 1, e(0, 0));
}

/// Log probabilities of all labels at a cell, from rows f and g (D), W (D)(V) and c (V).
template <class Real>
std::vector<Real> transducer_joint(const std::vector<Real>& f, const std::vector<Real>& g,
                                   const std::vector<std::vector<Real>>& W, std::vector<Real> c) {
    for (std::size_t d = 0; d < f.size(); ++d)
        for (std::size_t v = 0; v < c.size(); ++v) c[v] += std::tanh(f[d] + g[d]) * W[d][v];
    Real top = c[0], sum = 0;
    for (Real z : c) top = std::max(top, z);
    for (Real z : c) sum += std::exp(z - top);
    for (Real& z : c) z -= top + std::log(sum);
    return c;
}

/// Calls f(weight, steps) for every way through a transducer lattice of T frames and U labels: steps are (t, u, emits),
/// blank(t, u) ends frame t after u labels, label(t, u) emits label u + 1.
struct lattice_step {
    index_t t, u;
    bool emits;
};
template <class Blank, class Label, class F>
void each_transducer_path(index_t T, index_t U, const Blank& blank, const Label& label, const F& f) {
    std::vector<lattice_step> steps;
    const auto extend = [&](const auto& self, index_t t, index_t u, double weight) -> void {
        if (u < U) {
            steps.push_back({t, u, true});
            self(self, t, u + 1, weight + label(t, u));
            steps.pop_back();
        }
        steps.push_back({t, u, false});
        if (t + 1 < T)
            self(self, t + 1, u, weight + blank(t, u));
        else if (u == U)
            f(weight + blank(t, u), steps);
        steps.pop_back();
    };
    if (T > 0) extend(extend, 0, 0, 0.0);
}

}  // namespace heed::inline HEED_ABI::ref
