// The filters of S4D, diagonal state space models (arXiv:2206.11893), and bidirectional ones [56].
//
//   K[l] = 2 Re sum_n C_n B_n Abar_n^l,  one of each conjugate pair; A_n = rate_n + i frequency_n, rate_n < 0
//   zero-order hold: Abar = exp(dt A), B = (Abar - 1) / A      bilinear: Abar = (1 + dt A / 2) / (1 - dt A / 2),
//                                                                        B = dt / (1 - dt A / 2)
// A filter of L taps costs O(n L); as a recurrence it is modal_filter. Powers are taken in double, afresh every few
// taps.
#pragma once

#include <complex>

#include "../core/context.hpp"
#include "../engine/convolution_filter.hpp"
#include "diagonal_ssm.hpp"
#include "modal_filter.hpp"

namespace heed::inline HEED_ABI {

enum class discretisation { zero_order_hold, bilinear };

/// Parameters of C channels with n modes each: dt (c), A (c, n) and C (c, n), the input matrix folded into C.
struct s4d_parameters {
    std::span<const double> dt;
    std::span<const std::complex<double>> A, C;
    discretisation by = discretisation::zero_order_hold;

    index_t channels() const { return static_cast<index_t>(dt.size()); }
    index_t modes() const { return dt.empty() ? 0 : static_cast<index_t>(A.size() / dt.size()); }

    void check() const {
        constexpr const char* op = "s4d";
        require_shape(A.size() == C.size() && static_cast<index_t>(A.size()) == channels() * modes(), op, "A has ",
                      A.size(), " numbers and C ", C.size(), " for ", channels(), " channels");
        for (double step : dt) require_argument(step > 0, op, "a time step is ", step, ", it must be positive");
        for (const auto& a : A)
            require_argument(a.real() < 0, op, "a mode has rate ", a.real(), ", it must be negative");
    }
    /// Abar and 2 C B of a mode, so that K[l] = Re sum of second first^l.
    std::array<std::complex<double>, 2> discrete(index_t c, index_t n) const {
        const auto i = static_cast<std::size_t>(c * modes() + n);
        const double step = dt[static_cast<std::size_t>(c)];
        const std::complex<double> one = 1;
        const auto mode =
            by == discretisation::zero_order_hold ? zero_order_hold{}(A[i], one, step) : bilinear{}(A[i], one, step);
        return {mode.a, 2.0 * C[i] * mode.b};
    }
};

/// k (c, l), any strides, in T.
template <class T, class A = default_arch>
void s4d_taps(const s4d_parameters& p, const view<T, 2>& k) {
    p.check();
    require_shape(k.shape[0] == p.channels(), "s4d", "k has ", k.shape[0], " channels, the parameters ", p.channels());
    constexpr index_t afresh = 64;  // taps from one exact power on
    for (index_t c = 0; c < p.channels(); ++c)
        for (index_t l = 0; l < k.shape[1]; l += afresh) {
            double sum[afresh] = {};
            const index_t count = std::min(afresh, k.shape[1] - l);
            for (index_t n = 0; n < p.modes(); ++n) {
                const auto [pole, weight] = p.discrete(c, n);
                const auto power = static_cast<double>(l);  // by radius and angle: a pole may be 0
                const std::complex<double> term =
                    weight * std::polar(std::pow(std::abs(pole), power), std::arg(pole) * power);
                const double re = pole.real(), im = pole.imag();
                double x = term.real(), y = term.imag();
                for (index_t i = 0; i < count; ++i) {
                    sum[i] += x;
                    const double next = x * re - y * im;
                    y = x * im + y * re, x = next;
                }
            }
            for (index_t i = 0; i < count; ++i) k(c, l + i) = static_cast<T>(sum[i]);
        }
}

/// The same filters as recurrences, for modal_filter.
inline std::vector<modal_form> s4d_modes(const s4d_parameters& p) {
    p.check();
    std::vector<modal_form> forms(static_cast<std::size_t>(p.channels()));
    for (index_t c = 0; c < p.channels(); ++c) {
        modal_form& f = forms[static_cast<std::size_t>(c)];
        for (index_t n = 0; n < p.modes(); ++n) {
            const auto [pole, weight] = p.discrete(c, n);
            f.first += weight.real();
            f.poles.push_back(pole);
            f.residues.push_back(weight * pole);
        }
    }
    return forms;
}

/// Taps of a filter that looks both ways: y[t] = sum_l k0[l] x[t - l] + sum_m k1[m - 1] x[t + m], as one filter whose
/// `ahead` is the length of k1. k (c, M + L), k0 (c, L), k1 (c, M).
template <class T>
void bidirectional_taps(const view<const T, 2>& k0, const view<const T, 2>& k1, const view<T, 2>& k) {
    const index_t L = k0.shape[1], M = k1.shape[1];
    require_shape(k0.shape[0] == k.shape[0] && k1.shape[0] == k.shape[0] && k.shape[1] == L + M, "bidirectional_taps",
                  "k is (", k.shape[0], ", ", k.shape[1], "), asked for (", k0.shape[0], ", ", L + M, ")");
    for (index_t c = 0; c < k.shape[0]; ++c) {
        for (index_t m = 0; m < M; ++m) k(c, m) = k1(c, M - 1 - m);
        for (index_t l = 0; l < L; ++l) k(c, M + l) = k0(c, l);
    }
}

}  // namespace heed::inline HEED_ABI
