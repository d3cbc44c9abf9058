// Distillation of a filter to a diagonal recurrence, as in Laughing Hyena [9]: O(d) a token instead of O(t).
//
//   h[0] + Re sum_n R_n lambda_n^(t-1) for t >= 1;  order d = modes, a complex one counting twice
// Poles by Ho and Kalman's realisation, H_ij = h[i+j+1] ~ U S V^T at rank d, A = S^-1/2 U^T H' V S^-1/2 with H' one
// sample later; those on or outside the unit circle are reflected into it. Residues by least squares over all samples.
// The published fit descends a gradient; this one has no steps to tune, and is exact where h is of order d. In double:
// templates only so that who does not distil need not compile it.
// Cost O(m^3 + L d^2) for a Hankel matrix of m rows.
#pragma once

#include <Eigen/Core>
#include <Eigen/Eigenvalues>
#include <Eigen/QR>
#include <complex>
#include <span>
#include <type_traits>
#include <vector>

#include "modal_filter.hpp"

namespace heed::inline HEED_ABI {
namespace detail {

template <class Real>
using real_matrix = Eigen::Matrix<Real, Eigen::Dynamic, Eigen::Dynamic>;
template <class Real>
using real_vector = Eigen::Matrix<Real, Eigen::Dynamic, 1>;

/// H_ij = h[i + j + first], (m, m); symmetric.
template <class Real>
real_matrix<Real> hankel(std::span<const Real> h, index_t m, index_t first) {
    return real_matrix<Real>::NullaryExpr(
        m, m, [&](index_t i, index_t j) { return h[static_cast<std::size_t>(i + j + first)]; });
}

/// Rows of the largest Hankel matrix whose successor the samples still fill.
template <class Real>
index_t hankel_rows(std::span<const Real> h, index_t asked) {
    const index_t most = (static_cast<index_t>(h.size()) - 1) / 2;
    require_argument(most >= 1, "distil", "a filter of ", h.size(), " samples, the least is 3");
    return asked > 0 ? std::min(asked, most) : most;
}

/// Eigenvalues of the Hankel matrix and their vectors, the largest first: |value| is a singular value.
template <class Real>
struct hankel_spectrum {
    real_vector<Real> values;
    real_matrix<Real> vectors;

    hankel_spectrum(std::span<const Real> h, index_t m) {
        const Eigen::SelfAdjointEigenSolver<real_matrix<Real>> solved(hankel(h, m, 1));
        std::vector<index_t> order(static_cast<std::size_t>(m));
        for (index_t i = 0; i < m; ++i) order[i] = i;
        std::sort(order.begin(), order.end(), [&](index_t a, index_t b) {
            return std::abs(solved.eigenvalues()[a]) > std::abs(solved.eigenvalues()[b]);
        });
        values.resize(m), vectors.resize(m, m);
        for (index_t i = 0; i < m; ++i) {
            values[i] = solved.eigenvalues()[order[i]];
            vectors.col(i) = solved.eigenvectors().col(order[i]);
        }
    }
};

/// Inside the unit circle: what grows is reflected into what decays.
template <class Real>
std::complex<Real> stable(std::complex<Real> pole) {
    const Real radius = std::abs(pole), most = Real(1) - Real(1e-9);
    return radius < most ? pole : pole * (std::min(1 / radius, most) / radius);
}

/// The residues of these poles that fit h[1], h[2], ... best.
template <class Real>
std::vector<std::complex<double>> fitted_residues(std::span<const Real> h,
                                                  const std::vector<std::complex<double>>& poles) {
    const auto T = static_cast<index_t>(h.size()) - 1;
    index_t columns = 0;
    for (const auto& pole : poles) columns += pole.imag() != 0 ? 2 : 1;
    real_matrix<Real> basis(T, columns);
    index_t at = 0;
    for (const auto& pole : poles) {  // Re(R p) = Re R Re p - Im R Im p
        std::complex<Real> power = 1;
        for (index_t t = 0; t < T; ++t, power *= std::complex<Real>(pole)) {
            basis(t, at) = power.real();
            if (pole.imag() != 0) basis(t, at + 1) = -power.imag();
        }
        at += pole.imag() != 0 ? 2 : 1;
    }
    const real_vector<Real> lengths = basis.colwise().norm().transpose().cwiseMax(Real(1e-300));
    const real_vector<Real> x = (basis * lengths.cwiseInverse().asDiagonal())
                                    .colPivHouseholderQr()
                                    .solve(Eigen::Map<const real_vector<Real>>(h.data() + 1, T))
                                    .cwiseQuotient(lengths);
    std::vector<std::complex<double>> residues;
    at = 0;
    for (const auto& pole : poles) {
        residues.emplace_back(static_cast<double>(x[at]), pole.imag() != 0 ? static_cast<double>(x[at + 1]) : 0.0);
        at += pole.imag() != 0 ? 2 : 1;
    }
    return residues;
}

}  // namespace detail

/// Singular values of the Hankel matrix of h (L samples), largest first: no recurrence of order d has a Hankel matrix
/// nearer than value d (counting from 0). At most `rows` of them; 0: as many as the samples give.
template <class Real = double>
std::vector<double> hankel_singular_values(std::type_identity_t<std::span<const Real>> h, index_t rows = 0) {
    const detail::hankel_spectrum<Real> s(h, detail::hankel_rows(h, rows));
    std::vector<double> values;
    for (Real v : s.values) values.push_back(static_cast<double>(std::abs(v)));
    return values;
}

/// The least order whose singular values beyond are below tolerance times the largest.
inline index_t distillation_order(std::span<const double> singular_values, double tolerance) {
    index_t d = 0;
    while (d < static_cast<index_t>(singular_values.size()) &&
           singular_values[static_cast<std::size_t>(d)] > tolerance * singular_values[0])
        ++d;
    return d;
}

/// A recurrence of at most this order for the filter h (L >= 3 samples). rows: of the Hankel matrix, which looks at
/// 2 rows + 1 samples; 0: 8 times the order, at least 64, as far as there are samples.
template <class Real = double>
modal_form distil(std::type_identity_t<std::span<const Real>> h, index_t order, index_t rows = 0) {
    require_argument(order >= 0, "distil", "order is ", order);
    for (Real x : h) require_argument(std::isfinite(x), "distil", "a sample is not finite");
    const index_t m = detail::hankel_rows(h, rows > 0 ? rows : std::max<index_t>(64, 8 * order));
    const detail::hankel_spectrum<Real> s(h, m);
    modal_form form{static_cast<double>(h[0]), {}, {}};
    index_t d = std::min(order, m);
    while (d > 0 && std::abs(s.values[d - 1]) <= Real(1e-14) * std::abs(s.values[0])) --d;  // nothing but rounding
    if (d == 0) return form;
    // H = V D V^T, so U S^1/2 = V |D|^1/2, and the right vectors are V with the signs of D.
    const detail::real_vector<Real> root = s.values.head(d).cwiseAbs().cwiseSqrt().cwiseInverse();
    const detail::real_vector<Real> signs = s.values.head(d).cwiseSign();
    const auto V = s.vectors.leftCols(d);
    const detail::real_matrix<Real> A =
        root.asDiagonal() * (V.transpose() * (detail::hankel(h, m, 2) * V)) * signs.asDiagonal() * root.asDiagonal();
    const Eigen::EigenSolver<detail::real_matrix<Real>> solved(A, false);
    for (const auto& pole : solved.eigenvalues())
        if (pole.imag() >= 0) form.poles.emplace_back(detail::stable(pole));
    form.residues = detail::fitted_residues(h, form.poles);
    return form;
}

}  // namespace heed::inline HEED_ABI
