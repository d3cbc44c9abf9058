// Query-adaptive attention: decisions and outputs by the definition, its limits, and the moments of keys.
#include <heed/ops/qada.hpp>

#include "compare.hpp"
#include "operands.hpp"
#include "refuses.hpp"
#include "scattered.hpp"

namespace {

using namespace heed;
using test::all_near;
using test::refuses;
using test::tensor;
using operands = test::operands<float>;
constexpr index_t B = operands::B, H = operands::H, G = operands::G;

double logit(const operands& x, index_t b, index_t h, index_t n, index_t j, double scale) {
    double sum = 0;
    for (index_t d = 0; d < x.q.shape()[3]; ++d) sum += double(x.q(b, h, n, d)) * double(x.k(b, h / 2, j, d));
    return scale * sum;
}

bool is_local(const locality& rule, index_t i, index_t j) { return j < rule.first || j > i - rule.last; }

/// The share of weight on local keys, where log A_bulk = bulk(b, h, n, i); by row.
template <class Bulk>
std::vector<double> shares(const operands& x, const locality& rule, double scale, const Bulk& bulk) {
    std::vector<double> out;
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h)
            for (index_t n = 0; n < x.N(); ++n) {
                const index_t i = n + x.M() - x.N();
                double near = 0;
                bool some = false;
                for (index_t j = 0; j <= i; ++j) {
                    if (is_local(rule, i, j)) near += std::exp(logit(x, b, h, n, j, scale));
                    some = some || !is_local(rule, i, j);
                }
                out.push_back(some ? near / (near + bulk(b, h, n, i)) : 1);
            }
    return out;
}

std::vector<double> true_shares(const operands& x, const locality& rule, double scale) {
    return shares(x, rule, scale, [&](index_t b, index_t h, index_t n, index_t i) {
        double sum = 0;
        for (index_t j = 0; j <= i; ++j)
            if (!is_local(rule, i, j)) sum += std::exp(logit(x, b, h, n, j, scale));
        return sum;
    });
}

testing::AssertionResult attends_by(const tensor<float>& o, const operands& x, const locality& rule, double scale,
                                    const std::vector<double>& share) {
    return test::attends(o, x.q, x.k, x.v, [&](auto real) {
        ref::options<decltype(real)> with;
        with.scale = static_cast<decltype(real)>(scale);
        with.visible = [&](index_t b, index_t h, index_t row, index_t i, index_t j) {
            const bool local = share[static_cast<std::size_t>((b * H + h) * x.N() + row)] >= rule.tau;
            return j <= i && (!local || is_local(rule, i, j));
        };
        return with;
    });
}

void expect_shares(const std::vector<double>& got, const std::vector<double>& want, double tau) {
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t r = 0; r < got.size(); ++r) {
        EXPECT_NEAR(got[r], want[r], 1e-5) << r;
        ASSERT_GT(std::abs(want[r] - tau), 1e-5) << "the data decides by a hair; take another seed";
    }
}

key_moments moments_of(const operands& x) {
    key_moments m(B, G, 6);
    m.append(x.k);
    return m;
}

TEST(qada, oracle_decides_by_the_weight_of_local_keys) {
    const double scale = 1 / std::sqrt(6.0);
    for (auto [N, M] : std::vector<std::array<index_t, 2>>{{1, 40}, {40, 40}, {5, 61}})
        for (const locality& rule : {locality{4, 8, 0.5}, {0, 3, 0.3}, {7, 0, 0.4}, {0, 0, 0.5}, {100, 100, 0.9}}) {
            const operands x(N, M);
            tensor<float> o(x.rows());
            const auto share = adaptive_attention(x.q, x.k, x.v, o, rule, oracle{});
            expect_shares(share, true_shares(x, rule, scale), rule.tau);
            EXPECT_TRUE(attends_by(o, x, rule, scale, share))
                << N << " of " << M << ", " << rule.first << ", " << rule.last;
        }
}

TEST(qada, moments_decide_by_their_estimate) {
    const double scale = 0.3;
    for (auto [N, M] : std::vector<std::array<index_t, 2>>{{1, 40}, {40, 40}})
        for (const locality& rule : {locality{4, 8, 0.5}, {0, 3, 0.3}}) {
            const operands x(N, M);
            const auto moments = moments_of(x);
            tensor<float> o(x.rows());
            const auto share = adaptive_attention(x.q, x.k, x.v, o, rule, moments, heed::scale{scale});
            const auto want = shares(x, rule, scale, [&](index_t b, index_t h, index_t n, index_t i) {
                const auto q = [&](index_t d) { return double(x.q(b, h, n, d)); };
                double linear = 0, square = 0;
                for (index_t c = 0; c < 6; ++c) {
                    linear += q(c) * moments.mean(b, h / 2, c);
                    for (index_t d = 0; d < 6; ++d) square += q(c) * moments.covariance(b, h / 2, c, d) * q(d);
                }
                const auto keys = static_cast<double>(i + 1 - rule.last - rule.first);
                return keys * std::exp(scale * linear + scale * scale * square / 2);
            });
            expect_shares(share, want, rule.tau);
            EXPECT_TRUE(attends_by(o, x, rule, scale, want));
            index_t local = 0;
            for (double p : share) local += p >= rule.tau;
            EXPECT_TRUE(N == 1 || (0 < local && local < B * H * N)) << "both kinds occur";
        }
}

TEST(qada, limits_of_tau) {
    const operands x(9, 40);
    const auto moments = moments_of(x);
    tensor<float> o(x.rows()), want(x.rows());
    std::vector<float> sums(B * H * 9), wanted(sums);
    const auto check = [&](double tau, const auto& mask, const auto& estimate) {
        adaptive_attention(x.q, x.k, x.v, o, locality{4, 8, tau}, estimate, lse{dense(sums.data(), {B, H, 9})});
        attention(x.q, x.k, x.v, want, mask, lse{dense(wanted.data(), {B, H, 9})});
        EXPECT_TRUE(all_near(o, want, 4e-6)) << tau;
        for (std::size_t r = 0; r < sums.size(); ++r) EXPECT_NEAR(sums[r], wanted[r], 1e-5) << tau;
    };
    const auto local = causal{} & (first{4} | recent{8});
    for (double tau : {0.0, -1.0}) {
        check(tau, local, moments);
        check(tau, local, oracle{});
    }
    for (double tau : {1.0, 2.0}) {
        check(tau, causal{}, moments);
        check(tau, causal{}, oracle{});
    }
}

TEST(qada, sequences_of_a_source_count_their_own_bulk) {
    const operands x(2, 40);
    const locality rule{4, 8, 0.5};
    tensor<float> o(x.rows());
    const auto share =
        adaptive_attention(x.q, test::scattered<float>(x.k, x.v, {10, 10, 40, 40}, 7), o, rule, moments_of(x));
    for (std::size_t r = 0; r < share.size(); ++r)  // ten keys are all local
        EXPECT_EQ(share[r] == 1, r < share.size() / 2) << r;
}

TEST(key_moments, are_those_of_two_passes_however_keys_arrive) {
    constexpr index_t n = 50, D = 5;
    const auto k = test::normal<bf16>({2, 3, n, D}, 4, 3);
    key_moments once(2, 3, D), parts(2, 3, D);
    once.append(k);
    for (range r : {range{0, 1}, range{1, 1}, range{1, 30}, range{30, n}}) parts.append(slice(k.v(), 2, r));
    for (index_t b = 0; b < 2; ++b)
        for (index_t g = 0; g < 3; ++g) {
            EXPECT_EQ(once.count(b, g), n);
            const auto at = [&](index_t j, index_t d) { return static_cast<double>(k(b, g, j, d)); };
            std::vector<double> mean(D);
            for (index_t d = 0; d < D; ++d)
                for (index_t j = 0; j < n; ++j) mean[d] += at(j, d) / n;
            for (index_t c = 0; c < D; ++c) {
                EXPECT_NEAR(once.mean(b, g, c), mean[c], 1e-13);
                EXPECT_EQ(once.mean(b, g, c), parts.mean(b, g, c));
                for (index_t d = 0; d < D; ++d) {
                    double sum = 0;
                    for (index_t j = 0; j < n; ++j) sum += (at(j, c) - mean[c]) * (at(j, d) - mean[d]) / n;
                    EXPECT_NEAR(once.covariance(b, g, c, d), sum, 1e-12);
                    EXPECT_EQ(once.covariance(b, g, c, d), parts.covariance(b, g, c, d));
                }
            }
        }
}

TEST(key_moments, the_estimate_is_exact_for_equal_keys_and_close_for_normal_ones) {
    constexpr index_t D = 4, n = 100000;
    const auto one = test::normal<double>({1, 1, 1, D}, 1), q = test::normal<double>({1, 1, 1, D}, 2);
    const auto query = [&](index_t d) { return q(0, 0, 0, d); };
    key_moments equal(1, 1, D), spread(1, 1, D), none(1, 1, D);
    double dot = 0;
    for (index_t d = 0; d < D; ++d) dot += query(d) * one(0, 0, 0, d);
    for (int j = 0; j < 3; ++j) equal.append(one);
    EXPECT_NEAR(equal.log_mass(0, 0, query, 0.7, 1000), std::log(1000) + 0.7 * dot, 1e-13);
    EXPECT_EQ(equal.log_mass(0, 0, query, 0.7, 0), -std::numeric_limits<double>::infinity());
    EXPECT_NEAR(none.log_mass(0, 0, query, 0.7, 10), std::log(10), 1e-13);
    // Keys that are correlated normal numbers around a mean: k = one + L z.
    auto k = test::normal<double>({1, 1, n, D}, 3);
    for (index_t j = 0; j < n; ++j)
        for (index_t d = D; d-- > 0;)
            k(0, 0, j, d) = one(0, 0, 0, d) + 0.5 * k(0, 0, j, d) + (d > 0 ? 0.4 * k(0, 0, j, d - 1) : 0);
    spread.append(k);
    double sum = 0, square = 0;
    for (index_t j = 0; j < n; ++j) {
        double x = 0;
        for (index_t d = 0; d < D; ++d) x += query(d) * k(0, 0, j, d);
        sum += std::exp(0.5 * x);
    }
    for (index_t c = 0; c < D; ++c)
        for (index_t d = 0; d < D; ++d) square += query(c) * spread.covariance(0, 0, c, d) * query(d);
    EXPECT_GT(0.25 * square, 0.05);  // it matters
    EXPECT_LT(0.25 * square, 2);
    EXPECT_NEAR(std::exp(spread.log_mass(0, 0, query, 0.5, n)) / sum, 1, 0.05);
}

TEST(qada, bad_arguments_are_named_before_anything_is_written) {
    const operands x(3, 20);
    auto o = test::constant<float>(x.rows(), 7);
    const auto with = [&](const locality& rule, const key_moments& m) {
        return [&, rule] { adaptive_attention(x.q, x.k, x.v, o, rule, m); };
    };
    const key_moments fit(B, G, 6);
    refuses<argument_error>(with({-1, 2, 0.5}, fit), "adaptive_attention: -1 first keys are local, the least is 0");
    refuses<argument_error>(with({1, -2, 0.5}, fit), "adaptive_attention: -2 last keys are local");
    refuses<argument_error>(with({1, 2, std::nan("")}, fit), "adaptive_attention: tau is not a number");
    refuses<shape_error>(with({1, 2, 0.5}, key_moments(B, H, 6)),
                         "the moments have extent 4 on axis 1, the keys have 2");
    refuses<shape_error>(with({1, 2, 0.5}, key_moments(B, G, 5)),
                         "the moments have extent 5 on axis 2, the keys have 6");
    for (float y : o.memory()) EXPECT_EQ(y, 7);
    key_moments m(B, G, 6);
    refuses<shape_error>([&] { m.append(x.q); }, "key_moments: k has extent 4 on axis 1, the moments have 2");
    EXPECT_EQ(m.count(0, 0), 0);
    refuses<argument_error>([] { key_moments(1, -1, 2); }, "key_moments: an extent is negative: -1");
}

}  // namespace
