// OpenBLAS: scores of a head by gemm, a softmax loop over them, values by gemm. Threads take heads.
#include <cblas.h>

#include "contestant.hpp"

namespace bench {
namespace {

void gemm(CBLAS_TRANSPOSE b, index_t m, index_t n, index_t k, float scale, const float* x, const float* y, float* out) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, b, int(m), int(n), int(k), scale, x, int(k), y,
                int(b == CblasTrans ? k : n), 0, out, int(n));
}
void gemm(CBLAS_TRANSPOSE b, index_t m, index_t n, index_t k, double scale, const double* x, const double* y,
          double* out) {
    cblas_dgemm(CblasRowMajor, CblasNoTrans, b, int(m), int(n), int(k), scale, x, int(k), y,
                int(b == CblasTrans ? k : n), 0, out, int(n));
}

/// In place; the packs and exponential are heed's, so that the products decide, not the loop.
template <class T>
void softmax_row(T* s, const std::uint8_t* visible, index_t M) {
    using P = pack<T>;
    constexpr index_t L = P::size;
    const T hidden = -std::numeric_limits<T>::infinity();
    if (visible)
        for (index_t j = 0; j < M; ++j) s[j] = visible[j] ? s[j] : hidden;
    alignas(64) T lane[L];
    const auto fold = [&](const P& x, auto f) {
        store_aligned(lane, x);
        T y = lane[0];
        for (index_t l = 1; l < L; ++l) y = f(y, lane[l]);
        return y;
    };
    const index_t whole = M / L * L;
    P most(hidden);
    for (index_t j = 0; j < whole; j += L) most = max(most, load<P>(s + j));
    T top = fold(most, [](T a, T b) { return std::max(a, b); });
    for (index_t j = whole; j < M; ++j) top = std::max(top, s[j]);
    const P base(top * log2_e<T>), unit(log2_e<T>);
    P sums(T(0));
    for (index_t j = 0; j < whole; j += L) {
        const P e = exp2_nonpositive(load<P>(s + j) * unit - base);
        store(s + j, e);
        sums = sums + e;
    }
    T sum = fold(sums, [](T a, T b) { return a + b; });
    for (index_t j = whole; j < M; ++j) sum += s[j] = std::exp(s[j] - top);
    const P by(1 / sum);
    for (index_t j = 0; j < whole; j += L) store(s + j, load<P>(s + j) * by);
    for (index_t j = whole; j < M; ++j) s[j] /= sum;
}

template <class T>
job prepare_as(const problem& p, operands& x) {
    const auto q = x.q.as<T>(), k = x.k.as<T>(), v = x.v.as<T>(), o = x.o.as<T>();
    const std::uint8_t* mask = x.dense(p);
    openblas_set_num_threads(1);
    return over_tasks<T>(p.threads, p.H, p.N * p.M, [=](index_t h, T* s) {
        const index_t g = h / (p.H / p.G);
        gemm(CblasTrans, p.N, p.M, p.D, static_cast<T>(p.scale()), &q(0, h, 0, 0), &k(0, g, 0, 0), s);
        for (index_t i = 0; i < p.N; ++i) softmax_row(s + i * p.M, mask ? mask + i * p.M : nullptr, p.M);
        gemm(CblasNoTrans, p.N, p.D, p.M, T(1), s, &v(0, g, 0, 0), &o(0, h, 0, 0));
    });
}

job prepare(const problem& p, operands& x) {
    return p.type == dtype::f64 ? prepare_as<double>(p, x) : prepare_as<float>(p, x);
}

bool able(const problem& p) {
    return p.plain() && (p.type == dtype::f32 || (p.type == dtype::f64 && p.N <= 8192)) &&
           p.N * p.M <= index_t(16384) * 16384;
}

}  // namespace

extern const contestant openblas_contestant{"openblas", able, prepare};

}  // namespace bench
