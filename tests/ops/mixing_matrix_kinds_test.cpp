// The mixing matrices of operators over the recurrence are what their definitions say of each pair of tokens.
#include <heed/ops/deltanet.hpp>
#include <heed/ops/gated_delta_product.hpp>
#include <heed/ops/gla.hpp>
#include <heed/ops/gsa.hpp>
#include <heed/ops/mixing_matrix.hpp>
#include <heed/ops/mlstm.hpp>
#include <heed/ops/retention.hpp>

#include "recurs.hpp"

using namespace test;

namespace {

constexpr index_t N = 29, D = 6;
const double scale_of_width = 1 / std::sqrt(double(D));

struct matrix_of : testing::Test {
    recurrence_data<double> x{{2, 2, 2, 2, N, D, 5, 1, 2}, 3};

    double dot(const tensor<double>& a, index_t i, const tensor<double>& c, index_t j, index_t b, index_t h) const {
        double sum = 0;
        for (index_t d = 0; d < D; ++d) sum += a(b, h, i, d) * c(b, h, j, d);
        return sum;
    }
    /// The sum of the logs of channel c that token i has met since token j.
    static double met(const tensor<double>& g, index_t b, index_t h, index_t j, index_t i, index_t c) {
        double log = 0;
        for (index_t s = j + 1; s <= i; ++s) log += g(b, h, s, c);
        return log;
    }
    /// The operator's matrix (N, M) is wanted(b, h, i, j), and 0 for j of later tokens, of `rows` each.
    template <class Run, class Wanted>
    static void is(const Run& run, const Wanted& wanted, index_t rows = 1) {
        tensor<double> m({2, 2, N, N * rows});
        mixing_matrix(run, m, 10);
        m.each([&](index_t b, index_t h, index_t i, index_t j) {
            ASSERT_NEAR(m(b, h, i, j), j < (i + 1) * rows ? wanted(b, h, i, j) : 0.0, 1e-12) << i << ", " << j;
        });
    }
    /// sum_{r <= last} q_i.k_r w_r, where w_r = beta_r (1 if r is j, less what the rows before have written under k_r).
    double erased(index_t b, index_t h, index_t i, index_t j, index_t last, const recurrence_data<double>& y) const {
        std::vector<double> w;
        double sum = 0;
        for (index_t r = 0; r <= last; ++r) {
            double held = 0;
            for (index_t s = 0; s < r; ++s) held += dot(y.k, r, y.k, s, b, h) * w[static_cast<std::size_t>(s)];
            w.push_back(y.beta(b, h, r, 0) * ((r == j) - held));
            sum += dot(y.q, i, y.k, r, b, h) * w.back();
        }
        return scale_of_width * sum;
    }
};

TEST_F(matrix_of, retention) {
    is([&](const auto& v, const auto& o) { retention(x.q, x.k, v, o); },
       [&](index_t b, index_t h, index_t i, index_t j) {
           const double gamma = 1 - std::exp2(-5.0 - double(h));
           return scale_of_width * std::pow(gamma, double(i - j)) * dot(x.q, i, x.k, j, b, h);
       });
}

TEST_F(matrix_of, hgrn2) {
    is([&](const auto& v, const auto& o) { hgrn2(x.q, v, o, x.channel); },
       [&](index_t b, index_t h, index_t i, index_t j) {
           double sum = 0;
           for (index_t d = 0; d < D; ++d)
               sum += x.q(b, h, i, d) * std::exp(met(x.channel, b, h, j, i, d)) * -std::expm1(x.channel(b, h, j, d));
           return sum;
       });
}

TEST_F(matrix_of, deltanet) {
    is([&](const auto& v, const auto& o) { deltanet(x.q, x.k, v, o, numbers(x.beta)); },
       [&](index_t b, index_t h, index_t i, index_t j) { return erased(b, h, i, j, i, x); });
}

TEST_F(matrix_of, delta_product) {
    const recurrence_data<double> two({2, 2, 2, 2, N, D, 5, 2, 2}, 3);
    is([&](const auto& v, const auto& o) { delta_product(two.q, two.k, v, o, numbers(two.beta), 2); },
       [&](index_t b, index_t h, index_t i, index_t j) { return erased(b, h, i, j, 2 * i + 1, two); }, 2);
}

TEST_F(matrix_of, mlstm) {
    const auto let_in = normal<double>({2, 2, N, 1}, 20, 3);
    is([&](const auto& v, const auto& o) { mlstm(x.q, x.k, v, o, numbers(let_in), numbers(x.token)); },
       [&](index_t b, index_t h, index_t i, index_t j) {
           const auto log = [&](index_t s) { return met(x.token, b, h, s, i, 0) + let_in(b, h, s, 0); };
           double top = log(0), sum = 0;
           for (index_t s = 0; s <= i; ++s) top = std::max(top, log(s));
           const auto weight = [&](index_t s) {
               return scale_of_width * dot(x.q, i, x.k, s, b, h) * std::exp(log(s) - top);
           };
           for (index_t s = 0; s <= i; ++s) sum += weight(s);
           return weight(j) / std::max(std::abs(sum), std::exp(-top));
       });
}

TEST_F(matrix_of, gated_slots) {
    const index_t slots = 4;
    const auto g = uniform<double>({2, 2, N, slots}, 20, -1, 0), s = uniform<double>({2, 2, N, slots}, 21);
    is([&](const auto& v, const auto& o) { gated_slot_attention(x.q, x.k, v, o, s.v(), g.v()); },
       [&](index_t b, index_t h, index_t i, index_t j) {
           const auto kept = [&](index_t t, index_t m) { return std::exp(met(g, b, h, t, i, m)) * s(b, h, t, m); };
           double total = 0, sum = 0;
           for (index_t m = 0; m < slots; ++m) {
               double logit = 0;
               for (index_t t = 0; t <= i; ++t) logit += scale_of_width * dot(x.q, i, x.k, t, b, h) * kept(t, m);
               total += std::exp(logit);
               sum += std::exp(logit) * kept(j, m);
           }
           return sum / total;
       });
}

}  // namespace
