// heed_test: LABELS sanitize
// top_k against sorting, for any distribution, tie and length; NaN, infinities and both zeros.
#include <gtest/gtest.h>

#include <algorithm>
#include <heed/core/random.hpp>
#include <heed/select/topk.hpp>
#include <limits>
#include <numeric>

using namespace heed;

namespace {

/// By sorting: NaN first, then the greater, then the lower index.
template <class T>
std::vector<index_t> sorted(const std::vector<T>& x, index_t k) {
    std::vector<index_t> order(x.size());
    std::iota(order.begin(), order.end(), index_t(0));
    std::stable_sort(order.begin(), order.end(), [&](index_t i, index_t j) {
        const T a = x[static_cast<std::size_t>(i)], b = x[static_cast<std::size_t>(j)];
        return a > b || (a != a && b == b);
    });
    order.resize(static_cast<std::size_t>(std::clamp<index_t>(k, 0, static_cast<index_t>(x.size()))));
    std::sort(order.begin(), order.end());
    return order;
}

template <class T>
class top : public testing::Test {};
using numbers = testing::Types<float, double>;
TYPED_TEST_SUITE(top, numbers);

template <class T, class F>
std::vector<T> made(index_t n, const F& f) {
    std::vector<T> x;
    const counter_random random(static_cast<std::uint64_t>(n));
    for (index_t i = 0; i < n; ++i) x.push_back(static_cast<T>(f(random, static_cast<std::uint64_t>(i))));
    return x;
}

template <class T>
void check(const std::vector<T>& x, const char* what) {
    const auto n = static_cast<index_t>(x.size());
    for (index_t k : {index_t(0), index_t(1), n / 7, n / 2, n - 1, n, n + 3})
        EXPECT_EQ(top_k(std::span<const T>(x), k), sorted(x, k)) << what << ", " << k << " of " << n;
}

TYPED_TEST(top, k_of_any_scores_are_those_of_sorting) {
    using T = TypeParam;
    constexpr T inf = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
    constexpr int L = lanes<T>;
    for (index_t n : {1, L - 1, L, L + 1, 61, 1000, 4096, 4097, 10007}) {
        check(made<T>(n, [](auto& r, auto i) { return r.normal(i); }), "normal");
        check(made<T>(n, [](auto& r, auto i) { return std::exp(20 * r.normal(i)); }), "of all powers");
        check(made<T>(n, [](auto& r, auto i) { return std::floor(r.normal(i)); }), "ties");
        check(made<T>(n, [](auto&, auto) { return 3; }), "equal");
        check(made<T>(n, [](auto&, auto i) { return static_cast<double>(i); }), "ascending");
        check(made<T>(n, [](auto&, auto i) { return -static_cast<double>(i); }), "descending");
        // The guesses of many scores read every 32nd, which here tells nothing of the others.
        check(made<T>(n, [](auto& r, auto i) { return i % 32 ? r.uniform(i) : 5 + r.uniform(i); }), "a biased sample");
        check(made<T>(n, [](auto& r, auto i) { return i % 32 ? r.uniform(i) : -5.0; }), "a biased sample");
        check(made<T>(n,
                      [](auto& r, auto i) {
                          const T special[] = {inf, -inf, nan, -nan, T(0), T(-0.0), T(1), -T(1),
                                               std::numeric_limits<T>::denorm_min(), std::numeric_limits<T>::max()};
                          return special[r.integer(i, 0, 10)];
                      }),
              "special");
        check(made<T>(n, [](auto&, auto i) { return i % 3 ? nan : T(1); }), "mostly NaN");
        check(made<T>(n, [](auto&, auto i) { return i % 2 ? T(0) : T(-0.0); }), "zeros");
    }
    EXPECT_TRUE(top_k(std::span<const T>(), 3).empty());
    EXPECT_TRUE(top_k(std::span<const T>(std::vector<T>(5)), -1).empty());
}

TYPED_TEST(top, k_reads_nothing_beyond_the_scores) {
    using T = TypeParam;
    for (index_t n : {1, 7, 33, 4100}) {
        std::vector<T> x(static_cast<std::size_t>(n) + 40, std::numeric_limits<T>::max());
        for (index_t i = 0; i < n; ++i) x[static_cast<std::size_t>(i)] = static_cast<T>(i % 5);
        const std::span<const T> inside(x.data(), static_cast<std::size_t>(n));
        EXPECT_EQ(top_k(inside, n / 2 + 1), sorted(std::vector<T>(inside.begin(), inside.end()), n / 2 + 1));
    }
}

}  // namespace
