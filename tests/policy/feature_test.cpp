// heed_test: LABELS sanitize
// Feature maps: the kernels that dot products of their rows are, for every width around the lanes.
#include <heed/policy/feature_gate.hpp>
#include <heed/policy/feature_power.hpp>
#include <heed/policy/feature_random.hpp>
#include <heed/policy/random_directions.hpp>

#include "random.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

template <class T>
std::vector<T> row_of(index_t D, std::uint64_t seed, double spread = 1) {
    const counter_random r(seed);
    std::vector<T> x;
    for (index_t d = 0; d < D; ++d) x.push_back(static_cast<T>(spread * r.normal(number(d))));
    return x;
}
/// phi of a row, with numbers after it that must stay.
template <class T, class Map>
std::vector<T> mapped(const Map& map, const std::vector<T>& x, feature_place at = {}) {
    const index_t F = map.width(static_cast<index_t>(x.size()));
    std::vector<T> y(static_cast<std::size_t>(F) + 20, T(7));
    map(x.data(), static_cast<index_t>(x.size()), y.data(), at);
    for (std::size_t i = static_cast<std::size_t>(F); i < y.size(); ++i) EXPECT_EQ(y[i], 7) << "beyond the row";
    y.resize(static_cast<std::size_t>(F));
    return y;
}
template <class T>
double dot(const std::vector<T>& x, const std::vector<T>& y) {
    double sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) sum += static_cast<double>(x[i]) * static_cast<double>(y[i]);
    return sum;
}
constexpr index_t widths[] = {1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 19, 31, 33, 64};

feature_place query() {
    feature_place at;
    at.query = true;
    return at;
}

TEST(features, channel_by_channel) {
    for (index_t D : widths) {
        const auto x = row_of<float>(D, 3, 2);
        const auto r = mapped(relu_features{}, x), e = mapped(exp_features{}, x), u = mapped(elu_plus_one{}, x);
        for (std::size_t d = 0; d < x.size(); ++d) {
            const double y = x[d];
            EXPECT_EQ(r[d], std::max(x[d], 0.0f));
            EXPECT_NEAR(e[d], std::exp(y), 3e-7 * std::exp(y));
            EXPECT_NEAR(u[d], y > 0 ? y + 1 : std::exp(y), 3e-7 * (1 + std::abs(y)));
        }
    }
    const float nan = std::nanf("");
    const std::vector<float> x{nan, 1, nan};
    const auto check = [&](const auto& map) {
        const auto y = mapped(map, x);
        EXPECT_TRUE(std::isnan(y[0]) && std::isnan(y[2]) && !std::isnan(y[1]));
    };
    check(relu_features{}), check(exp_features{}), check(elu_plus_one{});
}

template <class T>
void taylor_is_a_polynomial(double tolerance) {
    for (index_t D : widths) {
        const auto q = row_of<T>(D, 1), k = row_of<T>(D, 2);
        const auto check = [&](const taylor_features& map, double factor) {
            const double s = factor * dot(q, k), want = map.c0 + map.c1 * s + map.c2 * s * s;
            const double size =
                map.c0 + map.c1 * std::abs(factor) * dot(q, q) + map.c2 * std::pow(factor * dot(q, q), 2);
            EXPECT_NEAR(dot(mapped(map, q, query()), mapped(map, k)), want, tolerance * (1 + size)) << "width " << D;
        };
        check(taylor_features{}, 1 / std::sqrt(static_cast<double>(D)));
        check(taylor_features{1}, 1);
        check(taylor_features{0.5, 2, 0, 3}, 0.5);
    }
}
TEST(features, taylor_is_a_polynomial_float) { taylor_is_a_polynomial<float>(3e-6); }
TEST(features, taylor_is_a_polynomial_double) { taylor_is_a_polynomial<double>(1e-14); }

TEST(features, rebased_is_a_square_of_what_was_normalised) {
    for (index_t D : widths) {
        const auto q = row_of<double>(D, 1), k = row_of<double>(D, 2), gamma = row_of<double>(D, 3),
                   beta = row_of<double>(D, 4), gamma2 = row_of<double>(D, 5);
        const auto normed = [&](const std::vector<double>& x, const std::vector<double>& g) {
            double mean = 0, spread = 0;
            for (double one : x) mean += one / static_cast<double>(D);
            for (double one : x) spread += (one - mean) * (one - mean) / static_cast<double>(D);
            auto y = x;
            for (std::size_t d = 0; d < x.size(); ++d) y[d] = g[d] * (x[d] - mean) / std::sqrt(spread + 1e-5) + beta[d];
            return y;
        };
        using map = rebased_features<double>;
        const map apart({gamma, beta}, {gamma2, beta});
        const double want = std::pow(dot(normed(q, gamma), normed(k, gamma2)), 2) / static_cast<double>(D);
        EXPECT_NEAR(dot(mapped(apart, q, query()), mapped(apart, k)), want, 1e-11 * (1 + want)) << "width " << D;
    }
    const std::vector<float> short_one(4), right(5);
    const rebased_features<float> bad{std::span(short_one), std::span(right)};
    refuses<shape_error>([&] { bad.check("recurrence", 5); },
                         "recurrence: rebased_features has 4 numbers of gamma, q has width 5");
    refuses<argument_error>(
        [&] {
            (taylor_features{1, 1, -1, 1}.check("recurrence", 5));
        },
        "recurrence: taylor_features has a coefficient of -1, the least is 0");
}

TEST(features, random_ones_are_unbiased_estimates) {
    constexpr index_t D = 8, m = 40000;
    const auto q = row_of<double>(D, 1, 0.3), k = row_of<double>(D, 2, 0.3);
    const auto w = normal_directions(1, D, m, 9);
    const auto all = dense(w.data(), {1, D, m});
    const positive_features positive(all);
    const double want = std::exp(dot(q, k) / std::sqrt(double(D)));
    EXPECT_NEAR(dot(mapped(positive, q), mapped(positive, k)), want, 0.03 * want);
    const positive_features whole(all, 1);
    EXPECT_NEAR(dot(mapped(whole, q), mapped(whole, k)), std::exp(dot(q, k)), 0.05 * std::exp(dot(q, k)));
    const fourier_features fourier(all, 0);
    const double apart = 2 - 2 * dot(q, k) / std::sqrt(dot(q, q) * dot(k, k));
    EXPECT_NEAR(dot(mapped(fourier, q), mapped(fourier, k)) / m, std::exp(-apart / 2), 0.01);
    EXPECT_NEAR(dot(mapped(fourier, q), mapped(fourier, q)), m, 1e-6 * m) << "sin^2 + cos^2";
}

TEST(features, a_query_of_positive_features_is_over_its_largest) {
    const auto w = normal_directions(2, 6, 21, 4);
    const positive_features map(dense(w.data(), {2, 6, 21}));
    auto at = query();
    at.h = 1;
    const auto q = row_of<double>(6, 1);
    auto key = feature_place{};
    key.h = 1;
    const auto as_query = mapped(map, q, at), as_key = mapped(map, q, key);
    EXPECT_NEAR(*std::max_element(as_query.begin(), as_query.end()), 1 / std::sqrt(21.0), 1e-12);
    for (std::size_t i = 0; i < as_key.size(); ++i) EXPECT_NEAR(as_query[i] / as_key[i], as_query[0] / as_key[0], 1e-9);
    const auto far = row_of<float>(6, 1, 1000);  // would underflow
    const auto y = mapped(map, far, at);
    EXPECT_NEAR(*std::max_element(y.begin(), y.end()), 1 / std::sqrt(21.0f), 1e-6);
}

TEST(features, directions_may_have_any_strides_and_count) {
    for (index_t m : {1, 7, 16, 33, 70}) {
        const auto w = normal_directions(2, 5, m, 4);
        std::vector<float> turned(w.size());
        const auto a = dense(w.data(), {2, 5, m});
        view<float, 3> b{turned.data(), {2, 5, m}, {5 * m, 1, 5}};
        for (index_t h = 0; h < 2; ++h)
            for (index_t d = 0; d < 5; ++d)
                for (index_t i = 0; i < m; ++i) b(h, d, i) = a(h, d, i);
        const auto x = row_of<float>(5, 1);
        feature_place at;
        at.h = 1;
        const auto one = mapped(fourier_features(a), x, at), other = mapped(fourier_features(b), x, at);
        for (std::size_t i = 0; i < one.size(); ++i) EXPECT_NEAR(one[i], other[i], 1e-6);
    }
}

TEST(features, orthogonal_directions_are_orthogonal_in_groups) {
    constexpr index_t D = 5, m = 12;
    const auto w = orthogonal_directions(2, D, m, 4), drawn = normal_directions(2, D, m, 4);
    const auto a = dense(w.data(), {2, D, m}), n = dense(drawn.data(), {2, D, m});
    for (index_t h = 0; h < 2; ++h)
        for (index_t i = 0; i < m; ++i)
            for (index_t j = i / D * D; j <= i; ++j) {
                double sum = 0, length = 0;
                for (index_t d = 0; d < D; ++d)
                    sum += double(a(h, d, i)) * a(h, d, j), length += double(n(h, d, i)) * n(h, d, i);
                EXPECT_NEAR(sum, i == j ? length : 0, 2e-6 * length + 1e-5) << i << " " << j;
            }
}

}  // namespace
