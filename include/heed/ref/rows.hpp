// What the definitions of recurrences share: rows of views as vectors, and a matrix that is carried along a sequence.
#pragma once

#include <vector>

#include "../core/view.hpp"

namespace heed::inline HEED_ABI::ref::detail {

/// The row (b, h, n, :) in the arithmetic of Real.
template <class Real, class T>
std::vector<Real> row(const view<T>& x, index_t b, index_t h, index_t n) {
    std::vector<Real> r(static_cast<std::size_t>(x.shape[3]));
    for (index_t d = 0; d < x.shape[3]; ++d) r[d] = static_cast<Real>(x(b, h, n, d));
    return r;
}

template <class Real>
Real dot(const std::vector<Real>& x, const std::vector<Real>& y) {
    Real sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
    return sum;
}

template <class Real>
std::vector<Real> times(Real a, std::vector<Real> x) {
    for (Real& one : x) one *= a;
    return x;
}

/// A state S (D, E).
template <class Real>
struct matrix {
    index_t D = 0, E = 0;
    std::vector<Real> data = std::vector<Real>(static_cast<std::size_t>(D * E), Real(0));

    Real& operator()(index_t d, index_t e) { return data[d * E + e]; }
    const Real& operator()(index_t d, index_t e) const { return data[d * E + e]; }

    /// x^T S.
    std::vector<Real> read(const std::vector<Real>& x) const {
        std::vector<Real> y(static_cast<std::size_t>(E), Real(0));
        for (index_t d = 0; d < D; ++d)
            for (index_t e = 0; e < E; ++e) y[e] += x[d] * (*this)(d, e);
        return y;
    }
    /// S += k w^T.
    void add(const std::vector<Real>& k, const std::vector<Real>& w) {
        for (index_t d = 0; d < D; ++d)
            for (index_t e = 0; e < E; ++e) (*this)(d, e) += k[d] * w[e];
    }
    void scale(Real a) {
        for (Real& s : data) s *= a;
    }
    template <class T>
    void load(const view<T>& from, index_t b, index_t h) {
        for (index_t d = 0; d < D; ++d)
            for (index_t e = 0; e < E; ++e) (*this)(d, e) = static_cast<Real>(from(b, h, d, e));
    }
    template <class T>
    void store(const view<T>& to, index_t b, index_t h) const {
        for (index_t d = 0; d < D; ++d)
            for (index_t e = 0; e < E; ++e) to(b, h, d, e) = static_cast<T>((*this)(d, e));
    }
};

/// Writes a row (b, h, n, :).
template <class Real, class T>
void write(const view<T>& o, index_t b, index_t h, index_t n, const std::vector<Real>& y) {
    for (index_t e = 0; e < o.shape[3]; ++e) o(b, h, n, e) = static_cast<T>(y[e]);
}

}  // namespace heed::inline HEED_ABI::ref::detail
