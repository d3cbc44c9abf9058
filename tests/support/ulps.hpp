// Functions on packs against long double: errors in units of the last place, over sweeps of their arguments.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <heed/core/random.hpp>
#include <heed/simd/math.hpp>
#include <vector>

namespace test {

using namespace heed;

using wide = long double;

template <class T>
constexpr bool single = sizeof(T) == 4;

/// |got - exact| in units of the last place of a normal exact.
template <class T>
double ulps(T got, wide exact) {
    const T nearest = static_cast<T>(exact);
    if (std::isnan(nearest) || std::isinf(nearest)) return std::isnan(nearest) ? !std::isnan(got) : got != nearest;
    const int exponent = std::max(std::ilogb(std::abs(nearest)), std::numeric_limits<T>::min_exponent - 1);
    const wide unit =
        std::ldexp(wide(1), nearest == 0 ? std::numeric_limits<T>::min_exponent - std::numeric_limits<T>::digits
                                         : exponent + 1 - std::numeric_limits<T>::digits);
    return static_cast<double>(std::abs(wide(got) - exact) / unit);
}

/// Arguments in [first, last]: even steps, every exponent of either sign, and for float a stride through all patterns.
template <class T>
std::vector<T> sweep(T first, T last) {
    std::vector<T> at{first, last};
    const auto add = [&](T x) {
        if (x >= first && x <= last) at.push_back(x);
    };
    const counter_random r(7);
    for (std::uint64_t i = 0; i < 200000; ++i) {
        add(static_cast<T>(double(first) + (double(last) - double(first)) * r.uniform(3 * i)));
        const T x = static_cast<T>(std::exp2(-40 + 52 * r.uniform(3 * i + 1)));
        add(r.bits(3 * i + 2) & 1 ? x : -x);
    }
    if constexpr (single<T>)
        for (std::uint64_t bits = 0; bits < std::uint64_t(1) << 32; bits += 4099)
            if (const T x = std::bit_cast<T>(static_cast<std::uint32_t>(bits)); std::isnormal(x)) add(x);
    while (at.size() % pack<T>::size) at.push_back(first);
    return at;
}

template <class T, class F, class Exact>
void expect_within(double bound, T first, T last, F f, Exact exact) {
    using P = pack<T>;
    const auto at = sweep(first, last);
    double worst = 0;
    std::size_t where = 0;
    for (std::size_t i = 0; i < at.size(); i += P::size) {
        T got[P::size];
        store(got, f(load<P>(&at[i])));
        for (std::size_t l = 0; l < P::size; ++l)
            if (const double u = ulps(got[l], exact(wide(at[i + l]))); !(u <= worst)) worst = u, where = i + l;
    }
    EXPECT_LE(worst, bound) << "at " << std::hexfloat << at[where];
}

/// f on one number, through every lane.
template <class T, class F>
T through(F f, T x) {
    using P = pack<T>;
    T got[P::size];
    store(got, f(P(x)));
    for (T y : got) EXPECT_EQ(std::isnan(y) ? 0 : y, std::isnan(got[0]) ? 0 : got[0]);
    return got[0];
}

}  // namespace test
