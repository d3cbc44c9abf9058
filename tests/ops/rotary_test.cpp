// heed_test: LABELS sanitize
#include <gtest/gtest.h>

#include <heed/core/threads.hpp>
#include <heed/ops/rotary.hpp>
#include <heed/ref/rotary.hpp>

#include "../support/compare.hpp"
#include "../support/guarded.hpp"
#include "../support/random.hpp"
#include "../support/refuses.hpp"

namespace {

using namespace heed;
using test::layout;
using test::refuses;
using test::tensor;

template <class T>
class rotary_of : public testing::Test {};
using storages = testing::Types<float, double, bf16, f16>;
TYPED_TEST_SUITE(rotary_of, storages);

/// Half a unit in the last place of the storage, and a few roundings of the arithmetic.
template <class T>
double allowed(double size) {
    return size * (0.51 * test::epsilon<T> + 4 * test::epsilon<accumulator<T>>);
}

template <class T>
void expect_near(const tensor<T>& got, const tensor<double>& want, double size = 5) {
    ASSERT_EQ(got.shape(), want.shape());
    got.each([&](index_t b, index_t h, index_t n, index_t d) {
        ASSERT_NEAR(static_cast<double>(got(b, h, n, d)), want(b, h, n, d), allowed<T>(size))
            << b << " " << h << " " << n << " " << d;
    });
}

template <class T>
tensor<double> defined(const tensor<T>& x, index_t width, bool interleave, std::function<double(index_t, index_t)> at,
                       double base = 10000) {
    tensor<double> o(x.shape());
    ref::rotary(x.v(), o.v(), width, interleave,
                [&](index_t b, index_t n, index_t pair) { return ref::rotary_turn(at(b, n), pair, width, base); });
    return o;
}

TYPED_TEST(rotary_of, matches_the_definition) {
    using T = TypeParam;
    const auto l = layout::padded();
    for (index_t D : {2, 6, 16, 30, 64, 128, 300})
        for (index_t width : {D, D / 4 * 2, index_t{0}})
            for (index_t N : {1, 3, 65}) {
                const auto x = test::uniform<T>({2, 3, N, D}, 1, -2, 2, layout::tokens());
                const auto at = [](index_t, index_t n) { return static_cast<double>(n + 7); };
                tensor<T> half({2, 3, N, D}, l), inter({2, 3, N, D}, layout::strided());
                rotary(x.v(), half.v(), rotated{width}, offset{7});
                rotary(x.v(), inter.v(), offset{7}, theta{500}, rotated{width}, interleaved{});
                expect_near(half, defined(x, width, false, at));
                expect_near(inter, defined(x, width, true, at, 500));
                EXPECT_TRUE(half.poisoned_outside());
                EXPECT_TRUE(inter.poisoned_outside());
            }
}

TYPED_TEST(rotary_of, in_place_has_the_same_bits) {
    using T = TypeParam;
    for (const layout& l : {layout::heads(), layout::tokens(), layout::padded(), layout::strided()}) {
        auto x = test::normal<T>({2, 2, 9, 20}, 4, 1, l);
        tensor<T> o(x.shape());
        rotary(x.v(), o.v(), rotated{12}, interleaved{});
        rotary(x.v(), x.v(), rotated{12}, interleaved{});
        EXPECT_TRUE(test::same_values(x, o));
    }
}

TYPED_TEST(rotary_of, norms_are_kept) {
    using T = TypeParam;
    const auto x = test::uniform<T>({1, 2, 50, 64}, 2, -1, 1);
    tensor<T> o(x.shape());
    rotary(x.v(), o.v(), offset{100000});
    for (index_t h = 0; h < 2; ++h)
        for (index_t n = 0; n < 50; ++n) {
            double before = 0, after = 0;
            for (index_t d = 0; d < 64; ++d) {
                before += std::pow(static_cast<double>(x(0, h, n, d)), 2);
                after += std::pow(static_cast<double>(o(0, h, n, d)), 2);
            }
            EXPECT_NEAR(std::sqrt(after), std::sqrt(before), 8 * allowed<T>(2));
        }
}

TEST(rotary, scores_depend_on_position_differences_only) {
    const auto q = test::normal<double>({1, 1, 1, 32}, 1), k = test::normal<double>({1, 1, 1, 32}, 2);
    const auto score = [&](index_t i, index_t j) {
        tensor<double> a(q.shape()), b(k.shape());
        rotary(q.v(), a.v(), offset{i});
        rotary(k.v(), b.v(), offset{j});
        double sum = 0;
        for (index_t d = 0; d < 32; ++d) sum += a(0, 0, 0, d) * b(0, 0, 0, d);
        return sum;
    };
    for (index_t gap : {-5, 0, 1, 77})
        for (index_t j : {0, 3, 1000}) EXPECT_NEAR(score(j + gap, j), score(200 + gap, 200), 1e-11);
    EXPECT_GT(std::abs(score(1, 0) - score(2, 0)), 1e-3);
}

TEST(rotary, pairings_differ_by_a_permutation_of_channels) {
    constexpr index_t width = 10, D = 13;
    const auto x = test::normal<float>({2, 2, 5, D}, 3);
    tensor<float> permuted(x.shape()), half(x.shape()), inter(x.shape());
    const auto from = [](index_t d) { return d < width ? d / 2 + (d % 2) * width / 2 : d; };
    x.each([&](index_t b, index_t h, index_t n, index_t d) { permuted(b, h, n, d) = x(b, h, n, from(d)); });
    rotary(x.v(), half.v(), rotated{width}, half_split{});
    rotary(permuted.v(), inter.v(), rotated{width}, interleaved{});
    x.each([&](index_t b, index_t h, index_t n, index_t d) {
        EXPECT_NEAR(inter(b, h, n, d), half(b, h, n, from(d)), allowed<float>(4));
    });
}

TEST(rotary, partial_width_copies_the_rest) {
    auto x = test::normal<float>({1, 2, 4, 9}, 3);
    x(0, 1, 2, 8) = std::nanf("");
    tensor<float> o(x.shape());
    rotary(x.v(), o.v(), rotated{4});
    x.each([&](index_t b, index_t h, index_t n, index_t d) {
        EXPECT_TRUE(d < 4 || d == 8 || o(b, h, n, d) == x(b, h, n, d));
    });
    EXPECT_TRUE(std::isnan(o(0, 1, 2, 8)));
}

TEST(rotary, every_source_of_angles_and_positions_agrees) {
    constexpr index_t B = 2, N = 7, D = 12, P = 40, first = 5;
    const auto x = test::normal<float>({B, 3, N, D}, 3);
    tensor<float> want(x.shape());
    rotary(x.v(), want.v(), offset{first});

    std::vector<std::int64_t> ids(B * N);
    std::vector<std::int32_t> ids32(B * N);
    std::vector<double> frequency(D / 2);
    std::vector<float> c(P * D / 2), s(P * D / 2), ct(B * N * D / 2), st(B * N * D / 2);
    for (index_t p = 0; p < D / 2; ++p) {
        frequency[p] = theta{10000}.frequency(p, D);
        for (index_t i = 0; i < P; ++i) {
            c[i * D / 2 + p] = static_cast<float>(std::cos(i * frequency[p]));
            s[i * D / 2 + p] = static_cast<float>(std::sin(i * frequency[p]));
        }
        for (index_t t = 0; t < B * N; ++t) {
            ids[t] = ids32[t] = static_cast<int>(t % N + first);
            ct[t * D / 2 + p] = c[ids[t] * D / 2 + p];
            st[t * D / 2 + p] = s[ids[t] * D / 2 + p];
        }
    }
    const auto by_id = positions{dense(ids.data(), {B, N})};
    const auto by_id32 = positions{dense(static_cast<const std::int32_t*>(ids32.data()), {B, N})};
    const rotary_cache table{dense(c.data(), {P, D / 2}), dense(s.data(), {P, D / 2})};
    const rotary_cache by_token{dense(ct.data(), {B, N, D / 2}), dense(st.data(), {B, N, D / 2})};
    const auto agrees = [&](auto... policies) {
        tensor<float> o(x.shape());
        rotary(x.v(), o.v(), policies...);
        EXPECT_TRUE(test::same_values(o, want));
    };
    agrees(by_id);
    agrees(by_id32);
    agrees(frequencies{frequency}, by_id);
    agrees(table, offset{first});
    agrees(by_id, table);
    agrees(by_token);

    for (auto& id : ids) id = 30 - 4 * (id - first);  // any order, also backwards
    tensor<float> a(x.shape()), b(x.shape());
    rotary(x.v(), a.v(), by_id);
    rotary(x.v(), b.v(), by_id, table);
    EXPECT_TRUE(test::same_values(a, b));
}

TEST(rotary, bits_do_not_depend_on_threads_or_neighbours) {
    const auto x = test::normal<float>({2, 3, 300, 64}, 3);
    tensor<float> one(x.shape()), many(x.shape()), alone({1, 1, 1, 64});
    threads pool(3);
    rotary(x.v(), one.v());
    rotary(x.v(), many.v(), on(pool));
    EXPECT_TRUE(test::same_values(one, many));
    rotary(slice(slice(slice(x.v(), 0, {1, 2}), 1, {2, 3}), 2, {77, 78}), alone.v(), offset{77});
    for (index_t d = 0; d < 64; ++d) EXPECT_EQ(alone(0, 0, 0, d), one(1, 2, 77, d));
}

TEST(rotary, nothing_outside_is_touched) {
    for (auto side : {test::flush::front, test::flush::back})
        for (index_t D : {2, 10, 34, 66}) {
            const auto data = test::normal<bf16>({1, 2, 3, D}, 1);
            test::guarded<bf16> x(2 * 3 * D, side), o(2 * 3 * D, side);
            const auto from = x.take(data.v());
            x.read_only();
            rotary(from, heads(o.data(), {1, 2, 3, D}));
            rotary(from, heads(o.data(), {1, 2, 3, D}), interleaved{}, rotated{2});
        }
}

TEST(rotary, empty_extents) {
    for (const extents<4>& shape : {extents<4>{0, 1, 1, 2}, {1, 0, 1, 2}, {2, 3, 0, 2}, {2, 3, 4, 0}}) {
        tensor<float> x(shape), o(shape);
        EXPECT_NO_THROW(rotary(x.v(), o.v()));
        EXPECT_NO_THROW(rotary(heads<float>(nullptr, shape), heads<float>(nullptr, shape)));
    }
}

TEST(rotary, bad_arguments_are_named_before_anything_is_written) {
    tensor<float> x({1, 2, 3, 6}), o({1, 2, 3, 6});
    x.fill([](index_t i) { return i; });
    o.fill([](index_t) { return -1; });
    tensor<float> short_o({1, 2, 2, 6}), odd({1, 1, 1, 5});
    std::vector<float> table(100);
    std::vector<std::int64_t> ids(6);
    const auto cache = [&](index_t P, index_t pairs) {
        return rotary_cache{dense(table.data(), {P, pairs}), dense(table.data(), {P, pairs})};
    };
    refuses<shape_error>([&] { rotary(x.v(), short_o.v()); }, "rotary: token extent of o is 2, of x 3");
    refuses<argument_error>([&] { rotary(odd.v(), odd.v()); }, "rotary: width 5 is odd");
    refuses<argument_error>([&] { rotary(x.v(), o.v(), rotated{8}); }, "rotary: width is 8, x has 6 channels");
    refuses<argument_error>([&] { rotary(x.v(), o.v(), rotated{-2}); }, "width is -2");
    refuses<argument_error>([&] { rotary(x.v(), o.v(), theta{0}); }, "theta is 0");
    refuses<shape_error>([&] { rotary(x.v(), o.v(), cache(9, 2)); }, "the cache holds 2 pairs, 3 turn");
    refuses<argument_error>([&] { rotary(x.v(), o.v(), cache(2, 3)); }, "position 2 of a cache of 2");
    refuses<argument_error>([&] { rotary(x.v(), o.v(), cache(9, 3), offset{-1}); }, "position -1 of a cache of 9");
    refuses<shape_error>(
        [&] {
            rotary(x.v(), o.v(), positions{dense(ids.data(), {1, 2})});
        },
        "positions are of (1, 2)");
    refuses<shape_error>(
        [&] {
            rotary(x.v(), o.v(), rotary_cache{dense(table.data(), {1, 4, 3}), dense(table.data(), {1, 4, 3})});
        },
        "the cache is of (1, 4) tokens, x of (1, 3)");
    const double few[2] = {1, 1};
    refuses<shape_error>([&] { rotary(x.v(), o.v(), frequencies{few}); }, "frequencies holds 2 values, 3 pairs turn");
    auto broadcast = o.v();
    broadcast.strides[1] = 0;
    refuses<shape_error>([&] { rotary(x.v(), broadcast); }, "head stride of o is 0");
    auto shifted = x.v();
    ++shifted.data;
    refuses<shape_error>([&] { rotary(slice(x.v(), 3, {0, 4}), slice(shifted, 3, {0, 4})); }, "o overlaps x");
    o.each([&](index_t b, index_t h, index_t n, index_t d) { EXPECT_EQ(o(b, h, n, d), -1); });
}

}  // namespace
