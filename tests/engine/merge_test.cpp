// heed_test: LABELS sanitize
// Merging partial results: the laws of a commutative monoid, and any split of the keys equals one call.
#include <heed/heed.hpp>

#include "compare.hpp"
#include "random.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

constexpr double inf = std::numeric_limits<double>::infinity();

/// An owning partial.
template <class T, class L = T>
struct part {
    tensor<T> o;
    tensor<L> sums;
    explicit part(const extents<4>& shape, const layout& l = {}) : o(shape, l), sums({shape[0], shape[1], shape[2], 1}) {}
    view<L, 3> lse() {
        const auto v = sums.v();
        return {v.data, {v.shape[0], v.shape[1], v.shape[2]}, {v.strides[0], v.strides[1], v.strides[2]}};
    }
    partial<T, L> p() { return {o.v(), lse()}; }
};

const extents<4> shape{2, 3, 5, 7};

template <class T>
part<T> random(std::uint64_t seed, double spread = 3) {
    part<T> x(shape);
    x.o = normal<T>(shape, seed);
    x.sums = normal<T>({shape[0], shape[1], shape[2], 1}, seed + 100, spread);
    return x;
}

/// Saw no key: lse is -inf, and o must not be read.
template <class T>
part<T> identity(double o = std::nan("")) {
    part<T> x(shape);
    x.o = constant<T>(shape, o);
    x.sums = constant<T>({shape[0], shape[1], shape[2], 1}, -inf);
    return x;
}

template <class T>
testing::AssertionResult near(const tensor<T>& a, const tensor<T>& b, double roundings) {
    testing::AssertionResult result = testing::AssertionSuccess();
    a.each([&](index_t i, index_t h, index_t n, index_t d) {
        const auto x = static_cast<double>(a(i, h, n, d)), y = static_cast<double>(b(i, h, n, d));
        if (!(x == y || std::abs(x - y) <= roundings * epsilon<T> * std::max(1.0, std::abs(y))))
            result = testing::AssertionFailure() << "at (" << i << ", " << h << ", " << n << ", " << d << "): " << x << ", " << y;
    });
    return result;
}

template <class T>
void expect_near(const part<T>& a, const part<T>& b, double roundings = 16) {
    EXPECT_TRUE(near(a.o, b.o, roundings));
    EXPECT_TRUE(near(a.sums, b.sums, roundings));
}

template <class T, class... P>
part<T> merged(P&&... parts) {
    part<T> out(shape);
    merge(out.p(), parts.p()...);
    return out;
}

template <class T>
class merging : public testing::Test {};
using arithmetics = testing::Types<float, double>;
TYPED_TEST_SUITE(merging, arithmetics);

TYPED_TEST(merging, one_part_is_itself) {
    using T = TypeParam;
    auto a = random<T>(1);
    const auto alone = merged<T>(a);
    EXPECT_TRUE(same_values(alone.o, a.o));
    EXPECT_TRUE(same_values(alone.sums, a.sums));
}

TYPED_TEST(merging, has_an_identity_whose_output_is_not_read) {
    using T = TypeParam;
    auto a = random<T>(1), none = identity<T>();
    for (const auto& x : {merged<T>(a, none), merged<T>(none, a), merged<T>(none, a, none)}) {
        EXPECT_TRUE(same_values(x.o, a.o));
        EXPECT_TRUE(same_values(x.sums, a.sums));
    }
}

TYPED_TEST(merging, identities_merge_to_the_identity) {
    using T = TypeParam;
    auto x = identity<T>(), y = identity<T>(inf);
    const auto both = merged<T>(x, y);
    EXPECT_TRUE(same_values(both.o, constant<T>(shape, 0)));
    EXPECT_TRUE(same_values(both.sums, x.sums));
}

TYPED_TEST(merging, is_commutative_and_associative_to_rounding) {
    using T = TypeParam;
    for (double spread : {0.0, 3.0, 30.0, 300.0}) {
        auto a = random<T>(1, spread), b = random<T>(2, spread), c = random<T>(3, spread);
        auto ab = merged<T>(a, b), bc = merged<T>(b, c);
        expect_near(ab, merged<T>(b, a));
        expect_near(merged<T>(ab, c), merged<T>(a, bc));
        expect_near(merged<T>(ab, c), merged<T>(c, a, b));
    }
}

TYPED_TEST(merging, in_place) {
    using T = TypeParam;
    auto a = random<T>(1), b = random<T>(2);
    const auto apart = merged<T>(a, b);
    merge(a.p(), a.p(), b.p());
    EXPECT_TRUE(same_values(a.o, apart.o));
    EXPECT_TRUE(same_values(a.sums, apart.sums));
}

TYPED_TEST(merging, nan_propagates_in_its_row) {
    using T = TypeParam;
    auto a = random<T>(1), b = random<T>(2);
    b.sums(1, 1, 2, 0) = std::numeric_limits<T>::quiet_NaN();
    a.o(0, 0, 0, 3) = std::numeric_limits<T>::quiet_NaN();
    for (const auto& x : {merged<T>(a, b), merged<T>(b, a)}) {
        x.o.each([&](index_t i, index_t h, index_t n, index_t e) {
            const bool row = i == 1 && h == 1 && n == 2, one = i == 0 && h == 0 && n == 0 && e == 3;
            ASSERT_EQ(std::isnan(x.o(i, h, n, e)), row || one) << i << h << n << e;
        });
        x.sums.each([&](index_t i, index_t h, index_t n, index_t) {
            ASSERT_EQ(std::isnan(x.sums(i, h, n, 0)), i == 1 && h == 1 && n == 2);
        });
    }
}

TEST(merge, far_apart_the_larger_part_wins_and_nothing_overflows) {
    auto a = random<float>(1), b = random<float>(2);
    a.sums = constant<float>({2, 3, 5, 1}, 3e38);
    b.sums = constant<float>({2, 3, 5, 1}, -3e38);
    const auto x = merged<float>(a, b);
    EXPECT_TRUE(same_values(x.o, a.o));
    EXPECT_TRUE(same_values(x.sums, a.sums));
}

TEST(merge, storage_and_layouts_mix) {
    auto a = random<float>(1);
    part<bf16, float> b(shape, layout::strided());
    part<f16, double> c(shape, layout::tokens());
    b.o = normal<bf16>(shape, 2, 1, layout::strided());
    b.sums = normal<float>({2, 3, 5, 1}, 5);
    c.o = normal<f16>(shape, 3, 1, layout::tokens());
    c.sums = normal<double>({2, 3, 5, 1}, 6);
    part<float> into(shape, layout::padded());
    merge(into.p(), a.p(), b.p(), c.p());
    into.o.each([&](index_t i, index_t h, index_t n, index_t e) {
        const double x = std::exp(a.sums(i, h, n, 0)), y = std::exp(b.sums(i, h, n, 0)), z = std::exp(c.sums(i, h, n, 0));
        const double o = x * a.o(i, h, n, e) + y * static_cast<double>(b.o(i, h, n, e)) + z * static_cast<double>(c.o(i, h, n, e));
        ASSERT_NEAR(into.o(i, h, n, e), o / (x + y + z), 1e-6);
        ASSERT_NEAR(into.sums(i, h, n, 0), std::log(x + y + z), 1e-6);
    });
    EXPECT_TRUE(into.o.poisoned_outside());
}

TEST(merge, parts_may_be_views_of_const) {
    auto a = random<float>(1), b = random<float>(2);
    part<float> into(shape);
    const view<const float> o = b.o.v();
    const view<const float, 3> sums = b.lse();
    merge(into.p(), a.p(), partial(o, sums));
    EXPECT_TRUE(same_values(into.o, merged<float>(a, b).o));
}

/// Attention over [0, M) and over its pieces, merged.
template <class T, class Mask>
void check_split(const Mask& mask, const std::vector<index_t>& cuts, bool sinks) {
    const index_t N = 50, M = 200, H = 2;
    const auto q = normal<T>({1, H, N, 8}, 1), k = normal<T>({1, H, M, 8}, 2), v = normal<T>({1, H, M, 6}, 3);
    const std::vector<float> logit{0.5f, 3}, none(2, -static_cast<float>(inf));
    const extents<4> rows{1, H, N, 6};
    part<T> whole(rows), sum(rows);
    attention(q, k, v, whole.o, mask, sink{sinks ? logit : none}, lse{whole.lse()});
    sum.o = constant<T>(rows, std::nan(""));
    sum.sums = constant<T>({1, H, N, 1}, -inf);
    index_t first = 0;
    for (std::size_t c = 0; c <= cuts.size(); ++c) {
        const range keys{first, c < cuts.size() ? cuts[c] : M};
        first = keys.last;
        part<T> piece(rows);
        // Positions count from the first key of the piece; the sink belongs to one piece only.
        attention(q, slice(k.v(), 2, keys), slice(v.v(), 2, keys), piece.o, mask, offset{M - N - keys.first},
                  sink{sinks && c == 0 ? logit : none}, lse{piece.lse()});
        merge(sum.p(), sum.p(), piece.p());
    }
    EXPECT_TRUE(near(sum.o, whole.o, 32));
    EXPECT_TRUE(near(sum.sums, whole.sums, 32));
}

TYPED_TEST(merging, any_split_of_the_keys_is_one_call) {
    using T = TypeParam;
    for (const auto& cuts : std::vector<std::vector<index_t>>{{}, {100}, {1}, {199}, {128}, {150, 151, 152}, {0, 7, 64, 64, 190, 200}})
        for (bool sinks : {false, true}) {
            SCOPED_TRACE(testing::Message() << cuts.size() << " cuts" << (sinks ? ", sink" : ""));
            check_split<T>(causal{}, cuts, sinks);
            check_split<T>(window{9, 4}, cuts, sinks);
        }
}

TEST(merge, errors_name_what_differs_and_nothing_is_written) {
    auto a = random<float>(1), into = identity<float>();
    part<float> longer({2, 3, 6, 7});
    refuses<shape_error>([&] { merge(into.p(), a.p(), longer.p()); }, "merge: a part has extent 6 on axis 2, the result has 5");
    refuses<shape_error>([&] { merge(into.p(), a.p(), partial(a.o.v(), longer.lse())); }, "merge: lse of a part has extent 6 on axis 2");
    refuses<shape_error>([&] { merge(partial(into.o.v(), longer.lse()), a.p()); }, "merge: lse of the result has extent 6 on axis 2");
    std::vector<float> memory(500, 1.f);
    const auto shifted = heads(memory.data(), shape), here = heads(memory.data() + 1, shape);
    refuses<shape_error>([&] { merge(partial(here, into.lse()), a.p(), partial(shifted, a.lse())); },
                "merge: the result overlaps a part in memory");
    // The log-sums of one must not lie in the output, or one row off the log-sums, of another.
    const auto sums = dense(memory.data(), {2, 3, 5}), next = dense(memory.data() + 1, {2, 3, 5});
    refuses<shape_error>([&] { merge(partial(into.o.v(), next), partial(a.o.v(), sums)); }, "overlap");
    refuses<shape_error>([&] { merge(partial(shifted, into.lse()), partial(a.o.v(), sums)); }, "overlap");
    refuses<shape_error>([&] { merge(partial(into.o.v(), sums), partial(shifted, a.lse())); }, "overlap");
    refuses<shape_error>([&] { merge(partial(shifted, sums), a.p()); }, "overlap");
    auto still = into.o.v();
    still.strides[3] = 0;
    refuses<shape_error>([&] { merge(partial(still, into.lse()), a.p()); }, "merge: the result has stride 0 on axis 3 of extent 7");
    for (float x : memory) ASSERT_EQ(x, 1.f);
    into.o.each([&](index_t i, index_t h, index_t n, index_t e) { ASSERT_TRUE(std::isnan(into.o(i, h, n, e))); });
}

TEST(merge, empty_extents) {
    part<float> none({2, 0, 5, 7}), thin({1, 1, 2, 0}), other({1, 1, 2, 0});
    merge(none.p(), none.p());
    thin.sums = constant<float>({1, 1, 2, 1}, 0);
    merge(other.p(), thin.p(), thin.p());
    EXPECT_FLOAT_EQ(other.sums(0, 0, 1, 0), static_cast<float>(std::log(2)));
}

}  // namespace
