// heed_test: AS_USED LABELS sanitize
// Quantised rows: every number within half a step, packs equal single numbers, nothing read beside a row.
#include <gtest/gtest.h>

#include <heed/simd/quantised_rows.hpp>

#include "guarded.hpp"
#include "random.hpp"

using namespace test;

namespace {

const index_t widths[] = {1, 2, 7, 8, 9, 15, 16, 17, 20, 31, 32, 33, 48, 49, 63, 64, 65, 80, 96, 100, 127, 128, 130};
constexpr float tiniest = std::numeric_limits<float>::min();

/// Half a step, and the roundings of x / factor (at most `levels` steps) and of q * factor.
double half_step(float factor, double levels) { return factor * (0.5 + 2 * levels * epsilon<float>); }

/// Rows quantised by a format, in memory between guards.
template <class Rows>
struct quantised {
    index_t n, width;
    guarded<std::int8_t> bytes;
    guarded<float> factors;

    quantised(const tensor<float>& x, flush side)
        : n(x.shape()[2]), width(x.shape()[3]), bytes(n * row_bytes(), side), factors(factor_count(), side) {
        if constexpr (std::is_same_v<Rows, int8_channel_rows>)
            Rows::template quantise_rows<default_arch>(x.v().data, n, width, bytes.data(), factors.data());
        else
            for (index_t row = 0; row < n; ++row)
                Rows::template quantise_row<default_arch>(&x(0, 0, row, 0), width, bytes.data() + row * row_bytes(),
                                                          factors.data() + row * Rows::factors_of(width));
    }
    Rows rows() {
        if constexpr (std::is_same_v<Rows, int8_channel_rows>)
            return {{bytes.data(), width}, factors.data()};
        else
            return Rows::over(bytes.data(), factors.data(), width);
    }
    index_t row_bytes() const {
        if constexpr (std::is_same_v<Rows, int8_channel_rows>)
            return width;
        else
            return Rows::bytes_of(width);
    }
    index_t factor_count() const {
        if constexpr (std::is_same_v<Rows, int8_channel_rows>)
            return width;
        else
            return n * Rows::factors_of(width);
    }
};

/// The factor of a number as the format's definition has it: max|x| / levels over what shares it.
template <class Rows>
struct shared {
    static constexpr double levels = 127;
    static bool together(index_t r, index_t, index_t s, index_t) { return r == s; }
};
template <>
struct shared<int8_channel_rows> {
    static constexpr double levels = 127;
    static bool together(index_t, index_t d, index_t, index_t e) { return d == e; }
};
template <index_t Group>
struct shared<int8_group_rows<Group>> {
    static constexpr double levels = 127;
    static bool together(index_t r, index_t d, index_t s, index_t e) { return r == s && d / Group == e / Group; }
};
template <index_t Group>
struct shared<int4_group_rows<Group>> : shared<int8_group_rows<Group>> {
    static constexpr double levels = 7;
};

template <class Rows>
float factor_of(const tensor<float>& x, index_t row, index_t d) {
    float most = 0;
    x.each([&](index_t, index_t, index_t s, index_t e) {
        if (shared<Rows>::together(row, d, s, e)) most = std::max(most, std::abs(x(0, 0, s, e)));
    });
    return most > 0 ? std::max(most / static_cast<float>(shared<Rows>::levels), tiniest) : 0;
}

template <class Rows, class F>
void each_case(const tensor<float>& x, F&& f) {
    for (flush side : {flush::front, flush::back}) {
        quantised<Rows> q(x, side);
        q.bytes.read_only();
        q.factors.read_only();
        f(q.rows());
    }
}

template <class Rows>
class quantised_as : public testing::Test {};
using formats = testing::Types<int8_rows, int8_channel_rows, int8_group_rows<32>, int8_group_rows<64>,
                               int4_group_rows<32>, int4_group_rows<96>>;
TYPED_TEST_SUITE(quantised_as, formats);

TYPED_TEST(quantised_as, every_number_is_within_half_a_step) {
    for (index_t width : widths) {
        auto x = normal<float>({1, 1, 5, width}, 1);
        x.each([&](index_t, index_t, index_t row, index_t d) {
            if (row == 1) x(0, 0, row, d) *= 1e-38f;  // around the end of the normal range
            if (row == 2) x(0, 0, row, d) = 0;
            if (row == 3 && d % 40 == 3) x(0, 0, row, d) = 1e38f;
        });
        each_case<TypeParam>(x, [&](const TypeParam& rows) {
            x.each([&](index_t, index_t, index_t row, index_t d) {
                const float factor = factor_of<TypeParam>(x, row, d);
                const double bound = half_step(factor, shared<TypeParam>::levels);
                ASSERT_NEAR(rows.number(row, d), x(0, 0, row, d), bound) << width << ": " << row << ", " << d;
                ASSERT_TRUE(factor == 0 || std::abs(x(0, 0, row, d)) < factor || rows.number(row, d) != 0);
            });
        });
    }
}

TYPED_TEST(quantised_as, zeros_stay_zeros_and_have_the_factor_0) {
    for (index_t width : {1, 33, 128}) {
        const auto x = constant<float>({1, 1, 3, width}, -0.0);
        each_case<TypeParam>(x, [&](const TypeParam& rows) {
            x.each([&](index_t, index_t, index_t row, index_t d) { ASSERT_EQ(rows.number(row, d), 0); });
            ASSERT_EQ(rows.factors[0], 0);
        });
    }
}

/// Whole numbers of steps come back as they were, and half steps go to the even neighbour.
TYPED_TEST(quantised_as, ties_go_to_even) {
    const auto levels = static_cast<index_t>(shared<TypeParam>::levels);
    const index_t width = 2 * levels + 1;
    tensor<float> x({1, 1, 1, width});
    x.each([&](index_t, index_t, index_t, index_t d) {  // each group holds the largest magnitude; the factor is 2
        const auto place = static_cast<float>(d % 28 - 14);
        x(0, 0, 0, d) =
            d % 32 == 31 || d == width - 1 ? 2 * static_cast<float>(levels) : place / 14 * static_cast<float>(levels);
        x(0, 0, 0, d) = std::round(x(0, 0, 0, d));
    });
    if constexpr (std::is_same_v<TypeParam, int8_channel_rows>) {
        tensor<float> two({1, 1, 2, width});
        two.each([&](index_t, index_t, index_t row, index_t d) { two(0, 0, row, d) = row == 0 ? x(0, 0, 0, d) : 254; });
        x = two;
    }
    each_case<TypeParam>(x, [&](const TypeParam& rows) {
        for (index_t d = 0; d < width; ++d)
            ASSERT_EQ(rows.number(0, d), 2 * std::nearbyint(x(0, 0, 0, d) / 2.0)) << d;  // the default mode: to even
    });
}

/// A pack of T holds what number() says, in the accuracy of T, and zeros above the row; widen_row the same.
template <class T, class Rows>
void expect_packs(const Rows& rows, index_t n, index_t width) {
    using P = pack<T>;
    constexpr auto L = static_cast<index_t>(P::size);
    for (index_t row = 0; row < n; ++row) {
        const auto own = static_cast<T>(Rows::has_factor ? rows.factor(row) : 1);
        const auto expected = [&](index_t d) { return static_cast<T>(rows.number(row, d)); };
        for (index_t d = 0; d < width; d += L) {
            alignas(64) T at[P::size];
            for (index_t count = std::min(L, width - d); count >= 0; --count) {
                if (count == L)
                    store_aligned(at, rows.template load<P>(row, d));
                else
                    store_aligned(at, rows.template load<P>(row, d, count));
                for (index_t l = 0; l < L; ++l)
                    ASSERT_EQ(at[l] * own, l < count ? expected(d + l) : T(0)) << d << ", " << l;
            }
        }
        std::vector<T> whole(number(width));
        widen_row<default_arch>(rows, row, width, whole.data());
        for (index_t d = 0; d < width; ++d) ASSERT_EQ(whole[number(d)], expected(d));
        ASSERT_TRUE((all_finite<default_arch, T>(rows, row, width)));
    }
}

TYPED_TEST(quantised_as, packs_hold_the_numbers_and_nothing_else_is_read) {
    for (index_t width : widths) {
        const auto x = normal<float>({1, 1, 3, width}, 2);
        each_case<TypeParam>(x, [&](const TypeParam& rows) {
            ASSERT_TRUE(rows.contiguous());
            expect_packs<float>(rows, 3, width);
            expect_packs<double>(rows, 3, width);
        });
    }
}

TEST(quantised_rows, bytes_are_the_rounded_quotients) {
    const float x[] = {-2.54f, 0.02f, 1.27f, 0.011f, -0.009f};  // the factor is 0.02
    std::int8_t bytes[5];
    float factor;
    int8_rows::quantise_row<default_arch>(x, 5, bytes, &factor);
    EXPECT_FLOAT_EQ(factor, 0.02f);
    EXPECT_EQ(std::vector<int>(bytes, bytes + 5), (std::vector<int>{-127, 1, 64, 1, 0}));
    const int8_rows rows = int8_rows::over(bytes, &factor, 5);
    EXPECT_EQ(rows.data, bytes);
    EXPECT_EQ(rows.stride, 5);
}

TEST(quantised_rows, halves_of_bytes_stand_sixteen_columns_apart) {
    std::vector<float> x(44);
    for (index_t d = 0; d < 44; ++d) x[number(d)] = static_cast<float>(4 * d % 15 - 7);
    std::vector<std::int8_t> bytes(number(int4_group_rows<32>::bytes_of(44)));
    std::vector<float> factors(2);
    ASSERT_EQ(bytes.size(), 16u + 12u);
    int4_group_rows<32>::quantise_row<default_arch>(x.data(), 44, bytes.data(), factors.data());
    EXPECT_EQ(factors, (std::vector<float>{1, 1}));
    const auto low = [](int byte) { return (byte & 15) - (byte & 8) * 2; };
    for (index_t i = 0; i < 16; ++i) {
        EXPECT_EQ(low(bytes[number(i)]), x[number(i)]) << i;
        EXPECT_EQ(bytes[number(i)] >> 4, x[number(i + 16)]) << i;
    }
    for (index_t i = 0; i < 12; ++i) {
        EXPECT_EQ(low(bytes[number(16 + i)]), x[number(32 + i)]) << i;
        EXPECT_EQ(bytes[number(16 + i)] >> 4, 0) << i;
    }
}

TEST(quantised_rows, huge_and_tiny_numbers_keep_their_range) {
    constexpr float huge = std::numeric_limits<float>::max();
    for (float most : {huge, 1.f, tiniest, tiniest / 8, std::numeric_limits<float>::denorm_min()}) {
        const float x[] = {most, -most, most / 2, 0};
        std::int8_t bytes[4];
        float factor;
        int8_rows::quantise_row<default_arch>(x, 4, bytes, &factor);
        ASSERT_TRUE(std::isfinite(factor));
        for (index_t d = 0; d < 4; ++d)
            EXPECT_NEAR(int8_rows::over(bytes, &factor, 4).number(0, d), x[d], half_step(factor, 127)) << most;
        EXPECT_EQ(bytes[0], -bytes[1]);
    }
}

}  // namespace
