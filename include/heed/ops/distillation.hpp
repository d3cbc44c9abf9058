// Distillation of a filter to a diagonal recurrence, as in Laughing Hyena [9]: O(d) a token instead of O(t).
//
//   h[0] + Re sum_n R_n lambda_n^(t-1) for t >= 1;  order d = modes, a complex one counting twice
// Poles by Ho and Kalman's realisation, H_ij = h[i+j+1] ~ U S V^T at rank d, A = S^-1/2 U^T H' V S^-1/2 with H' one
// sample later; those on or outside the unit circle are reflected into it. Residues by least squares over all samples.
// The published fit descends a gradient; this one has no steps to tune, and is exact where h is of order d. In double.
// Cost O(m^3 + L d^2) for a Hankel matrix of m rows.
#pragma once

#include <Eigen/Core>
#include <Eigen/Eigenvalues>
#include <Eigen/QR>
#include <complex>
#include <span>
#include <vector>

#include "modal_filter.hpp"

namespace heed::inline HEED_ABI {
namespace detail {

/// H_ij = h[i + j + first], (m, m); symmetric.
inline Eigen::MatrixXd hankel(std::span<const double> h, index_t m, index_t first) {
    return Eigen::MatrixXd::NullaryExpr(
        m, m, [&](index_t i, index_t j) { return h[static_cast<std::size_t>(i + j + first)]; });
}

/// Rows of the largest Hankel matrix whose successor the samples still fill.
inline index_t hankel_rows(std::span<const double> h, index_t asked) {
    const index_t most = (static_cast<index_t>(h.size()) - 1) / 2;
    require_argument(most >= 1, "distil", "a filter of ", h.size(), " samples, the least is 3");
    return asked > 0 ? std::min(asked, most) : most;
}

/// Eigenvalues of the Hankel matrix and their vectors, the largest first: |value| is a singular value.
struct hankel_spectrum {
    Eigen::VectorXd values;
    Eigen::MatrixXd vectors;

    hankel_spectrum(std::span<const double> h, index_t m) {
        const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solved(hankel(h, m, 1));
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
inline std::complex<double> stable(std::complex<double> pole) {
    const double radius = std::abs(pole), most = 1 - 1e-9;
    return radius < most ? pole : pole * (std::min(1 / radius, most) / radius);
}

/// The residues of these poles that fit h[1], h[2], ... best.
inline std::vector<std::complex<double>> fitted_residues(std::span<const double> h,
                                                         const std::vector<std::complex<double>>& poles) {
    const auto T = static_cast<index_t>(h.size()) - 1;
    index_t columns = 0;
    for (const auto& pole : poles) columns += pole.imag() != 0 ? 2 : 1;
    Eigen::MatrixXd basis(T, columns);
    index_t at = 0;
    for (const auto& pole : poles) {  // Re(R p) = Re R Re p - Im R Im p
        std::complex<double> power = 1;
        for (index_t t = 0; t < T; ++t, power *= pole) {
            basis(t, at) = power.real();
            if (pole.imag() != 0) basis(t, at + 1) = -power.imag();
        }
        at += pole.imag() != 0 ? 2 : 1;
    }
    const Eigen::VectorXd lengths = basis.colwise().norm().transpose().cwiseMax(1e-300);
    const Eigen::VectorXd x = (basis * lengths.cwiseInverse().asDiagonal())
                                  .colPivHouseholderQr()
                                  .solve(Eigen::Map<const Eigen::VectorXd>(h.data() + 1, T))
                                  .cwiseQuotient(lengths);
    std::vector<std::complex<double>> residues;
    at = 0;
    for (const auto& pole : poles) {
        residues.emplace_back(x[at], pole.imag() != 0 ? x[at + 1] : 0.0);
        at += pole.imag() != 0 ? 2 : 1;
    }
    return residues;
}

}  // namespace detail

/// Singular values of the Hankel matrix of h (L samples), largest first: no recurrence of order d has a Hankel matrix
/// nearer than value d (counting from 0). At most `rows` of them; 0: as many as the samples give.
inline std::vector<double> hankel_singular_values(std::span<const double> h, index_t rows = 0) {
    const detail::hankel_spectrum s(h, detail::hankel_rows(h, rows));
    std::vector<double> values;
    for (double v : s.values) values.push_back(std::abs(v));
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
inline modal_form distil(std::span<const double> h, index_t order, index_t rows = 0) {
    require_argument(order >= 0, "distil", "order is ", order);
    for (double x : h) require_argument(std::isfinite(x), "distil", "a sample is not finite");
    const index_t m = detail::hankel_rows(h, rows > 0 ? rows : std::max<index_t>(64, 8 * order));
    const detail::hankel_spectrum s(h, m);
    modal_form form{h[0], {}, {}};
    index_t d = std::min(order, m);
    while (d > 0 && std::abs(s.values[d - 1]) <= 1e-14 * std::abs(s.values[0])) --d;  // nothing but rounding
    if (d == 0) return form;
    // H = V D V^T, so U S^1/2 = V |D|^1/2, and the right vectors are V with the signs of D.
    const Eigen::VectorXd root = s.values.head(d).cwiseAbs().cwiseSqrt().cwiseInverse();
    const Eigen::VectorXd signs = s.values.head(d).cwiseSign();
    const auto V = s.vectors.leftCols(d);
    const Eigen::MatrixXd A =
        root.asDiagonal() * (V.transpose() * (detail::hankel(h, m, 2) * V)) * signs.asDiagonal() * root.asDiagonal();
    const Eigen::EigenSolver<Eigen::MatrixXd> solved(A, false);
    for (const auto& pole : solved.eigenvalues())
        if (pole.imag() >= 0) form.poles.push_back(detail::stable(pole));
    form.residues = detail::fitted_residues(h, form.poles);
    return form;
}

}  // namespace heed::inline HEED_ABI
