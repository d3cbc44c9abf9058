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

/// score(x, w) is f(x, w) to `relative` in every lane that is a pair of the scene; f works in double. Packs reach past
/// the last row and key, as the engine's do; there only reading outside is wrong, which ASan sees.
template <class X, class Score, class F>
void agrees_at(const Score& score, F&& f, double tolerance, const score_scene& at, const where& w,
               const std::string& name) {
    using T = heed::detail::scalar_of_t<X>;
    const T x = static_cast<T>(0.37 * double((w.row * 7 + w.j * 3) % 11) - 2);
    T got[64];
    index_t lanes = 1;
    if constexpr (is_pack<X>::value) {
        lanes = static_cast<index_t>(X::size);
        store(got, score(X(x), w));
    } else {
        got[0] = score(x, w);
    }
    for (index_t l = 0; l < lanes; ++l) {
        const where one = w.lane(l);
        if (one.row >= at.N || one.j >= at.M) continue;
        const double want = f(double(x), one);
        if (std::isinf(want))
            ASSERT_EQ(double(got[l]), want) << name;
        else
            ASSERT_NEAR(got[l], want, tolerance * std::max(1.0, std::abs(want)))
                << name << " b " << w.b << " h " << w.h << " n " << one.row << " j " << one.j;
    }
}

/// Lanes are rows; lanes are neighbouring keys; lanes are keys at odd places.
template <class X, class Score, class F>
void agrees(const Score& score, F&& f, double tolerance, const score_scene& at, const std::string& name) {
    index_t lanes = 1;
    if constexpr (is_pack<X>::value) lanes = static_cast<index_t>(X::size);
    for (index_t b = 0; b < at.B; ++b)
        for (index_t h = 0; h < at.H; ++h) {
            for (index_t n = 0; n < at.N; n += lanes)
                for (index_t j = 0; j < at.M + 7; ++j)
                    agrees_at<X>(score, f, tolerance, at, where{b, h, n, n + at.shift, j}, name);
            if (lanes == 1) continue;
            for (index_t n = 0; n < at.N; n += 5)
                for (index_t j = 0; j < at.M + 7; j += lanes) {
                    where w{b, h, n, n + at.shift, j, lane_axis::keys};
                    agrees_at<X>(score, f, tolerance, at, w, name + ", lanes are keys");
                    index_t places[64];
                    for (index_t l = 0; l < lanes; ++l) places[l] = j + l + l / 3;
                    w.places = places;
                    agrees_at<X>(score, f, tolerance, at, w, name + ", lanes are keys at places");
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
