// A score against its plain formula, called with numbers and with packs of queries.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include <heed/policy/scores.hpp>

namespace test {

using namespace heed;

struct score_scene {
    index_t N = 37, M = 29, shift = -8;  // no multiple of any lane count
    index_t B = 2, H = 3;
};

/// score(x, w) is f(x, w) to `relative` for every pair; f works in double. Packs reach past the last row and key, as the
/// engine's do; there only reading outside is wrong, which ASan sees.
template <class X, class Score, class F>
void agrees(const Score& score, F&& f, double tolerance, const score_scene& at, const std::string& name) {
    using T = heed::detail::scalar_of_t<X>;
    index_t lanes = 1;
    if constexpr (is_pack<X>::value) lanes = static_cast<index_t>(X::size);
    for (index_t b = 0; b < at.B; ++b)
        for (index_t h = 0; h < at.H; ++h)
            for (index_t n = 0; n < at.N; n += lanes)
                for (index_t j = 0; j < at.M + 7; ++j) {
                    const T x = static_cast<T>(0.37 * double((n * 7 + j * 3) % 11) - 2);
                    const where w{b, h, n, n + at.shift, j};
                    T got[64];
                    if constexpr (is_pack<X>::value)
                        store(got, score(X(x), w));
                    else
                        got[0] = score(x, w);
                    for (index_t l = 0; l < lanes && n + l < at.N && j < at.M; ++l) {
                        const double want = f(double(x), where{b, h, n + l, n + l + at.shift, j});
                        if (std::isinf(want))
                            ASSERT_EQ(double(got[l]), want) << name;
                        else
                            ASSERT_NEAR(got[l], want, tolerance * std::max(1.0, std::abs(want)))
                                << name << " b " << b << " h " << h << " n " << n + l << " j " << j;
                    }
                }
}

template <class Score, class F>
void agrees(const Score& score, F&& f, const std::string& name, const score_scene& at = {}) {
    agrees<float>(score, f, 4e-6, at, name + ", float");
    agrees<double>(score, f, 1e-6, at, name + ", double");  // parameters are float
    agrees<pack<float>>(score, f, 4e-6, at, name + ", packs of float");
    agrees<pack<double>>(score, f, 1e-6, at, name + ", packs of double");
}

/// slope is the derivative of the score, by central differences in double.
template <class Score>
void slope_is_derivative(const Score& score) {
    for (double x : {-3.0, -0.5, 0.0, 0.7, 4.0})
        for (index_t j : {0, 5}) {
            const where w{1, 2, 4, 4, j};
            const double e = 1e-5, want = (score(x + e, w) - score(x - e, w)) / (2 * e);
            EXPECT_NEAR(heed::detail::slope(score, x, w), want, 1e-6);
        }
}

}  // namespace test
