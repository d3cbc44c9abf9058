// Plain loops.
#include "../support/crew.hpp"
#include "problem.hpp"

namespace bench {
namespace {

prepared prepare(const convolution_problem& p) {
    const auto x = operands_of<float>(p);
    const auto to = std::make_shared<convolution_output<float>>(p);
    const job run = over_tasks<float>(p.threads, p.C, 0, [x, to, p](index_t c, float*) {
        for (index_t t = 0; t < p.N; ++t) {
            float sum = 0;
            for (index_t k = 0; k <= std::min(t, p.K - 1); ++k) sum += x->h(c, k) * x->x(0, t - k, c);
            to->y(0, t, c) = sum;
        }
    });
    return judged(p, *x, *to, run);
}

}  // namespace

convolver naive_convolver() { return {"f32", "naive", prepare}; }

}  // namespace bench
