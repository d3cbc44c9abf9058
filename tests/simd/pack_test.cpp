// heed_test: AS_USED LABELS sanitize
// Packs: comparisons, masks, rounding, powers, transposes, sums, and the way from storage types and back.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <heed/core/random.hpp>
#include <heed/simd/convert.hpp>
#include <heed/simd/rows.hpp>
#include <limits>
#include <vector>

using namespace heed;

namespace {

template <class T>
class packs : public testing::Test {
public:
    static constexpr T inf = std::numeric_limits<T>::infinity();
    static constexpr T nan = std::numeric_limits<T>::quiet_NaN();
    static constexpr int L = lanes<T>;
};
using arithmetics = testing::Types<float, double>;
TYPED_TEST_SUITE(packs, arithmetics);

template <class T>
std::vector<T> lanes_of(const pack<T>& x) {
    std::vector<T> at(pack<T>::size);
    store(at.data(), x);
    return at;
}
template <class T>
std::vector<bool> lanes_of(const pack_mask<T>& m) {
    std::vector<bool> out;
    for (T x : lanes_of(select(m, pack<T>(1), pack<T>(0)))) out.push_back(x == 1);
    return out;
}
template <class T>
T first(const pack<T>& x) {
    return lanes_of(x)[0];
}

TYPED_TEST(packs, comparisons_are_those_of_numbers) {
    using T = TypeParam;
    using P = pack<T>;
    const T some[] = {-this->inf, -1, T(-0.0), 0, std::numeric_limits<T>::denorm_min(), 1, this->inf, this->nan};
    for (T a : some)
        for (T b : some) {
            const auto expect = [&](const pack_mask<T>& m, bool value, const char* sign) {
                EXPECT_EQ(lanes_of(m), std::vector<bool>(P::size, value)) << a << " " << sign << " " << b;
                EXPECT_EQ(any(m), value);
                EXPECT_EQ(any(!m), !value);
            };
            expect(P(a) < P(b), a < b, "<");
            expect(P(a) <= P(b), a <= b, "<=");
            expect(P(a) > P(b), a > b, ">");
            expect(P(a) >= P(b), a >= b, ">=");
            expect(P(a) == P(b), a == b, "==");
            expect(P(a) != P(b), a != b, "!=");
        }
}

TYPED_TEST(packs, where_the_second_is_nan_the_maximum_and_minimum_are) {
    using T = TypeParam;
    using P = pack<T>;
    for (T a : {-this->inf, T(-1), T(0), T(2), this->inf}) {
        EXPECT_TRUE(std::isnan(first(max(P(a), P(this->nan)))));
        EXPECT_TRUE(std::isnan(first(min(P(a), P(this->nan)))));
        for (T b : {-this->inf, T(-1), T(0), T(2), this->inf}) {
            EXPECT_EQ(first(max(P(a), P(b))), std::max(a, b));
            EXPECT_EQ(first(min(P(a), P(b))), std::min(a, b));
        }
    }
}

TYPED_TEST(packs, masks_from_bits) {
    using T = TypeParam;
    using P = pack<T>;
    const unsigned all = (1u << this->L) - 1;
    for (unsigned bits = 0; bits < 1u << 16; bits += 7) {
        const auto m = mask_of_bits<T, default_arch>(bits);
        for (int l = 0; l < this->L; ++l) ASSERT_EQ(lanes_of(m)[static_cast<std::size_t>(l)], bits >> l & 1) << bits;
        ASSERT_EQ(any(m), (bits & all) != 0) << bits;
        const auto picked = lanes_of(select(m, iota<P>(), P(-1)));
        for (int l = 0; l < this->L; ++l)
            ASSERT_EQ(picked[static_cast<std::size_t>(l)], bits >> l & 1 ? T(l) : T(-1)) << bits;
    }
    const auto low = mask_of_bits<T, default_arch>(1), high = mask_of_bits<T, default_arch>(2);
    EXPECT_FALSE(any(low & high));
    EXPECT_EQ(lanes_of(low | high), lanes_of(mask_of_bits<T, default_arch>(3)));
    EXPECT_EQ(lanes_of(!low), lanes_of(mask_of_bits<T, default_arch>(0xfffe)));
}

TYPED_TEST(packs, chosen_lanes_are_stored_side_by_side) {
    using T = TypeParam;
    using P = pack<T>;
    for (unsigned bits = 0; bits < 1u << 16; bits += 5) {
        const unsigned mine = bits & ((1u << this->L) - 1);
        T lanes[P::size];
        index_t indices[16];
        ASSERT_EQ(store_chosen(lanes, iota<P>(), mine), std::popcount(mine));
        ASSERT_EQ(store_chosen<default_arch>(indices, index_t(1) << 40, bits), std::popcount(bits));
        for (int l = 0, n = 0; l < 16; ++l) {
            if (!(bits >> l & 1)) continue;
            if (l < this->L) ASSERT_EQ(lanes[n], T(l)) << bits;
            ASSERT_EQ(indices[n++], (index_t(1) << 40) + l) << bits;
        }
    }
}

TYPED_TEST(packs, rounding_goes_to_even) {
    using T = TypeParam;
    using P = pack<T>;
    for (T x = -20; x <= 20; x += T(0.25)) ASSERT_EQ(first(round_even(P(x))), std::nearbyint(x)) << x;
    const T half = T(0.5);
    for (T x : {std::nextafter(half, T(0)), std::nextafter(half, T(1)), T(8388607.5), T(8388609), T(4503599627370495.5),
                std::numeric_limits<T>::max(), this->inf, std::numeric_limits<T>::denorm_min()})
        for (T y : {x, -x}) EXPECT_EQ(first(round_even(P(y))), std::nearbyint(y)) << y;
    EXPECT_TRUE(std::isnan(first(round_even(P(this->nan)))));
}

TYPED_TEST(packs, scaling_by_a_power_is_exact_in_the_normal_range_and_vanishes_below_it) {
    using T = TypeParam;
    using P = pack<T>;
    const T bias = sizeof(T) == 4 ? 127 : 1023;
    for (T n = -bias + 1; n <= bias; ++n)
        for (T p : {T(1), T(1.25), T(1.999)}) ASSERT_EQ(first(scale_by_power(P(p), P(n))), p * std::exp2(n)) << n;
    for (T n : {-bias - 60, -bias * 2, T(-1e4), T(-1e30)}) EXPECT_EQ(first(scale_by_power(P(T(1.5)), P(n))), 0) << n;
    EXPECT_TRUE(std::isnan(first(scale_by_power(P(this->nan), P(T(3))))));
    EXPECT_TRUE(std::isnan(first(scale_by_power(P(this->nan), P(this->nan)))));
}

TYPED_TEST(packs, splitting_by_a_power_gives_back_the_number) {
    using T = TypeParam;
    using P = pack<T>;
    using limits = std::numeric_limits<T>;
    const auto expect = [](T x) {
        const auto [significand, exponent] = split_by_power(P(x));
        int power = 0;
        const T half = std::frexp(x, &power);  // in [1/2, 1)
        ASSERT_EQ(first(significand), 2 * half) << x;
        ASSERT_EQ(first(exponent), power - 1) << x;
    };
    for (int n = limits::min_exponent - limits::digits; n < limits::max_exponent; ++n)
        for (T p : {T(1), T(1.25), T(1.999), 2 - limits::epsilon()})
            if (const T x = std::ldexp(p, n); std::isfinite(x)) expect(x);
    for (T x : {limits::denorm_min(), limits::min(), limits::max()}) expect(x);
}

TYPED_TEST(packs, transposing) {
    using T = TypeParam;
    using P = pack<T>;
    constexpr int size = lanes<T>;
    P x[size];
    for (int r = 0; r < size; ++r) x[r] = P(100 * r) + iota<P>();
    transpose(x);
    for (int r = 0; r < size; ++r)
        for (int c = 0; c < size; ++c)
            ASSERT_EQ(lanes_of(x[r])[static_cast<std::size_t>(c)], 100 * c + r) << r << ", " << c;
}

TYPED_TEST(packs, interleaving_and_repeating) {
    using T = TypeParam;
    using P = pack<T>;
    constexpr int size = lanes<T>, few = size < 4 ? size : 4;
    P low = iota<P>(), high = P(100) + iota<P>();
    interleave(low, high);
    const T some[] = {5, 6, 7, 8};
    for (int l = 0; l < size; ++l) {
        ASSERT_EQ(lanes_of(low)[l], l / 2 + (l % 2) * 100);
        ASSERT_EQ(lanes_of(high)[l], (size + l) / 2 + (l % 2) * 100);
        ASSERT_EQ(lanes_of(load_repeated<P, few>(some))[l], 5 + l % few);
    }
}

TYPED_TEST(packs, sums_run_from_the_lowest_lane) {
    using T = TypeParam;
    using P = pack<T>;
    const counter_random r(5);
    std::vector<T> x(P::size);
    for (std::uint64_t round = 0; round < 50; ++round) {
        for (std::size_t l = 0; l < P::size; ++l) x[l] = static_cast<T>(r.normal(round * P::size + l) * (l == 1 ? 1e6 : 1));
        T sum = x[0];
        for (std::size_t l = 1; l < P::size; ++l) sum += x[l];
        ASSERT_EQ(reduce_add(load<P>(x.data())), sum);
    }
}

#if defined(__FMA__) || defined(__aarch64__)
TYPED_TEST(packs, multiply_adds_round_once) {
    using P = pack<TypeParam>;
    const TypeParam e = std::numeric_limits<TypeParam>::epsilon();
    volatile TypeParam above = 1 + e, below = 1 - e;  // nothing is known when compiling
    EXPECT_EQ(first(fma(P(above), P(below), P(-1))), -e * e);
    EXPECT_EQ(first(fnma(P(above), P(below), P(1))), e * e);
}
#endif

TYPED_TEST(packs, numbers_beside_packs_and_the_verbs_of_cmath) {
    using T = TypeParam;
    using P = pack<T>;
    const P x = iota<P>();
    for (std::size_t l = 0; l < P::size; ++l) {
        const T n = static_cast<T>(l);
        EXPECT_EQ(lanes_of(x + 1)[l], n + 1);
        EXPECT_EQ(lanes_of(1 - x)[l], 1 - n);
        EXPECT_EQ(lanes_of(x * 3 - 2)[l], n * 3 - 2);
        EXPECT_EQ(lanes_of(2 / (x + 1))[l], 2 / (n + 1));
        EXPECT_EQ(lanes_of(-x)[l], -n);
        EXPECT_EQ(lanes_of(abs(x - 3))[l], std::abs(n - 3));
        EXPECT_EQ(lanes_of(sqrt(x))[l], std::sqrt(n));
        EXPECT_EQ(lanes_of(copysign(x, P(-2)))[l], -n);
        EXPECT_EQ(lanes_of(fma(x, x, P(1)))[l], n * n + 1);
        EXPECT_EQ(lanes_of(fnma(x, x, P(1)))[l], 1 - n * n);
    }
    EXPECT_TRUE(std::signbit(first(-P(0))));
}

/// Every pattern of a 16-bit type, a pack at a time.
template <class S, class F>
void each_pattern(F&& f) {
    constexpr std::size_t L = pack<float>::size;
    S at[L];
    for (unsigned bits = 0; bits < 1u << 16; bits += L) {
        for (std::size_t l = 0; l < L; ++l) at[l] = std::bit_cast<S>(static_cast<std::uint16_t>(bits + l));
        f(at);
    }
}

template <class S>
void every_pattern_comes_back() {
    constexpr std::size_t L = pack<float>::size;
    each_pattern<S>([](const S(&at)[L]) {
        const auto x = widen<pack<float>>(at);
        S back[L];
        narrow(back, x);
        for (std::size_t l = 0; l < L; ++l) {
            const float exact = static_cast<float>(at[l]), got = lanes_of(x)[l];
            if (std::isnan(exact)) {
                ASSERT_TRUE(std::isnan(got) && std::isnan(static_cast<float>(back[l])));
            } else {
                ASSERT_EQ(std::bit_cast<std::uint32_t>(got), std::bit_cast<std::uint32_t>(exact));
                ASSERT_EQ(std::bit_cast<std::uint16_t>(back[l]), std::bit_cast<std::uint16_t>(at[l]));
            }
        }
    });
}

TEST(convert, every_bf16_comes_back) { every_pattern_comes_back<bf16>(); }
TEST(convert, every_f16_comes_back) { every_pattern_comes_back<f16>(); }

/// Floats around every number of S and every midpoint between two, of both signs, and special ones.
template <class S>
std::vector<float> hard_to_round() {
    std::vector<float> at;
    for (unsigned bits = 0; bits < 0x7fff; ++bits) {
        const float low = static_cast<float>(std::bit_cast<S>(static_cast<std::uint16_t>(bits)));
        const float high = static_cast<float>(std::bit_cast<S>(static_cast<std::uint16_t>(bits + 1)));
        if (!std::isfinite(low)) break;
        const float middle = std::isfinite(high) ? low + (high - low) / 2 : low;
        for (float x : {low, middle})
            for (float y : {std::nextafter(x, -1.f), x, std::nextafter(x, 3e38f)}) at.push_back(y), at.push_back(-y);
    }
    constexpr float inf = std::numeric_limits<float>::infinity(), most = std::numeric_limits<float>::max();
    for (float x : {65504.f, 65519.9f, 65520.f, 65536.f, 3.3895e38f, most, inf, std::nanf(""), -std::nanf(""),
                    std::bit_cast<float>(0x7f800001u), std::bit_cast<float>(0xffffffffu), 0x1p-149f})
        at.push_back(x), at.push_back(-x);
    while (at.size() % pack<float>::size) at.push_back(0);
    return at;
}

template <class S>
void narrowing_is_eigens() {
    constexpr std::size_t L = pack<float>::size;
    const auto at = hard_to_round<S>();
    for (std::size_t i = 0; i < at.size(); i += L) {
        S got[L];
        narrow(got, load<pack<float>>(&at[i]));
        for (std::size_t l = 0; l < L; ++l) {
            const S want = static_cast<S>(at[i + l]);
            if (std::isnan(at[i + l])) {
                ASSERT_TRUE(std::isnan(static_cast<float>(got[l]))) << i + l;
            } else {
                ASSERT_EQ(std::bit_cast<std::uint16_t>(got[l]), std::bit_cast<std::uint16_t>(want))
                    << std::hexfloat << at[i + l];
            }
        }
    }
}

TEST(convert, bf16_rounds_to_even) { narrowing_is_eigens<bf16>(); }
TEST(convert, f16_rounds_to_even) { narrowing_is_eigens<f16>(); }

template <class S, class T>
void rows_of_any_length_and_stride() {
    for (index_t n = 0; n < 70; n += n < 40 ? 1 : 7)
        for (index_t stride : {1, 2, 3}) {
            std::vector<S> from(static_cast<std::size_t>(n * stride) + 1, S(77.f));
            for (index_t i = 0; i < n; ++i) from[static_cast<std::size_t>(i * stride)] = S(static_cast<float>(i) - 9.5f);
            std::vector<T> to(static_cast<std::size_t>(n) + 1, T(55));
            widen_row<default_arch>(from.data(), stride, n, to.data());
            std::vector<S> back(from.size(), S(33.f));
            narrow_row<default_arch>(to.data(), n, back.data(), stride);
            EXPECT_EQ(to.back(), T(55));
            for (std::size_t i = 0; i < from.size(); ++i) {
                const bool element = i % static_cast<std::size_t>(stride) == 0 && i + 1 < from.size();
                ASSERT_EQ(static_cast<T>(back[i]), element ? static_cast<T>(from[i]) : T(33)) << n << ", " << stride;
                if (element) {
                    ASSERT_EQ(to[i / static_cast<std::size_t>(stride)], static_cast<T>(from[i]));
                }
            }
        }
}

TEST(convert, rows) {
    rows_of_any_length_and_stride<float, float>();
    rows_of_any_length_and_stride<bf16, float>();
    rows_of_any_length_and_stride<f16, float>();
    rows_of_any_length_and_stride<double, double>();
    rows_of_any_length_and_stride<float, double>();
    rows_of_any_length_and_stride<bf16, double>();
}

template <class S, class T>
void finds_what_is_not_finite() {
    for (index_t n : {0, 1, 7, 8, 16, 17, 50})
        for (index_t stride : {1, 2}) {
            std::vector<S> x(static_cast<std::size_t>(n * stride) + 1, S(3.f));
            x.back() = S(NAN);  // beyond the row
            if (stride == 2)
                for (index_t i = 0; i < n; ++i) x[static_cast<std::size_t>(2 * i + 1)] = S(INFINITY);  // between
            const auto finite = [&] { return all_finite<default_arch, T>(x.data(), stride, n); };
            EXPECT_TRUE(finite());
            for (index_t i = 0; i < n; ++i) {
                S& at = x[static_cast<std::size_t>(i * stride)];
                for (float bad : {INFINITY, -INFINITY, NAN}) {
                    at = S(bad);
                    ASSERT_FALSE(finite()) << i << " of " << n << ", stride " << stride;
                }
                at = std::numeric_limits<S>::max();
                ASSERT_TRUE(finite());
            }
        }
}

TEST(convert, all_finite) {
    finds_what_is_not_finite<float, float>();
    finds_what_is_not_finite<bf16, float>();
    finds_what_is_not_finite<f16, float>();
    finds_what_is_not_finite<double, double>();
    finds_what_is_not_finite<float, double>();
}

}  // namespace
