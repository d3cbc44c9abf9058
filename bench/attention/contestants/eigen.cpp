// Eigen: scores of a head as a matrix, then its array expressions.
#include "contestant.hpp"

namespace bench {
namespace {

template <class T>
using matrix = Eigen::Map<Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
using bytes = Eigen::Map<const Eigen::Array<std::uint8_t, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;

template <class T>
job prepare_as(const problem& p, operands& x) {
    const auto q = x.q.as<T>(), k = x.k.as<T>(), v = x.v.as<T>(), o = x.o.as<T>();
    const std::uint8_t* mask = x.dense(p);
    return over_tasks<T>(p.threads, p.H, p.N * p.M, [=](index_t h, T* scores) {
        const index_t g = h / (p.H / p.G);
        matrix<T> S(scores, p.N, p.M), Q(&q(0, h, 0, 0), p.N, p.D), K(&k(0, g, 0, 0), p.M, p.D),
            V(&v(0, g, 0, 0), p.M, p.D), O(&o(0, h, 0, 0), p.N, p.D);
        S.noalias() = (Q * static_cast<T>(p.scale())) * K.transpose();
        const auto cap = static_cast<T>(p.what.softcap);
        if (cap > 0) S.array() = cap * (S.array() / cap).tanh();
        if (mask) S.array() = (bytes(mask, p.N, p.M) != 0).select(S.array(), -std::numeric_limits<T>::infinity());
        for (index_t i = 0; i < p.N; ++i) {  // by rows, while the row is in cache
            auto row = S.row(i).array();
            row = (row - row.maxCoeff()).exp();
            row *= 1 / row.sum();
        }
        O.noalias() = S * V;
    });
}

job prepare(const problem& p, operands& x) {
    return p.type == dtype::f64 ? prepare_as<double>(p, x) : prepare_as<float>(p, x);
}

bool able(const problem& p) {
    return !p.what.sinks && (p.type == dtype::f32 || p.type == dtype::f64) && p.N * p.M <= index_t(8192) * 8192;
}

}  // namespace

extern const contestant eigen_contestant{"eigen", able, prepare};

}  // namespace bench
