// Others over float keys and values in one stretch: plain loops, and Eigen's products.
#include "../support/crew.hpp"
#include "decoder.hpp"

namespace bench {
namespace {

constexpr index_t group = decode_step::H / decode_step::G, D = decode_step::D;

prepared naive(const decode_step& s) {
    const auto x = prompt_of(s.M);
    const auto to = std::make_shared<answer>();
    const job run = over_tasks<float>(s.threads, decode_step::H, s.M, [x, to, M = s.M](index_t h, float* p) {
        const float *q = &x->q(0, h, 0, 0), *k = &x->k(0, h / group, 0, 0), *v = &x->v(0, h / group, 0, 0);
        float* const o = &to->o()(0, h, 0, 0);
        const float scale = 1 / std::sqrt(static_cast<float>(D));
        float top = -std::numeric_limits<float>::infinity(), total = 0;
        for (index_t j = 0; j < M; ++j) {
            float dot = 0;
            for (index_t d = 0; d < D; ++d) dot += q[d] * k[j * D + d];
            top = std::max(top, p[j] = scale * dot);
        }
        for (index_t j = 0; j < M; ++j) total += p[j] = std::exp(p[j] - top);
        for (index_t d = 0; d < D; ++d) o[d] = 0;
        for (index_t j = 0; j < M; ++j)
            for (index_t d = 0; d < D; ++d) o[d] += p[j] / total * v[j * D + d];
    });
    return judged(*x, *to, run, plain<float>(s.M));
}

prepared eigen(const decode_step& s) {
    using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const auto x = prompt_of(s.M);
    const auto to = std::make_shared<answer>();
    const job run = over_tasks<float>(s.threads, decode_step::G, group * s.M, [x, to, M = s.M](index_t g, float* p) {
        const Eigen::Map<const matrix> Q(&x->q(0, g * group, 0, 0), group, D), K(&x->k(0, g, 0, 0), M, D),
            V(&x->v(0, g, 0, 0), M, D);
        Eigen::Map<matrix> P(p, group, M), O(&to->o()(0, g * group, 0, 0), group, D);
        P.noalias() = (Q / std::sqrt(static_cast<float>(D))) * K.transpose();
        for (index_t r = 0; r < group; ++r) {
            auto row = P.row(r).array();
            row = (row - row.maxCoeff()).exp();
            row /= row.sum();
        }
        O.noalias() = P * V;
    });
    return judged(*x, *to, run, plain<float>(s.M));
}

}  // namespace

std::vector<decoder> rival_decoders() {
    return {{"contiguous", "f32", "naive", naive}, {"contiguous", "f32", "eigen", eigen}};
}

}  // namespace bench
