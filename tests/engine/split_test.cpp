// heed_test: AS_USED LABELS threads
// Few queries over many keys, and sources whose rows lie scattered: values by the definition, bits by the rules.
#include <heed/heed.hpp>

#include "any_mask.hpp"
#include "compare.hpp"
#include "random.hpp"
#include "scattered.hpp"

using namespace test;

namespace {

struct sizes {
    index_t B, H, G, N, M, D, E;
};

template <class S>
struct operands {
    tensor<S> q, k, v;
    explicit operands(const sizes& s, const layout& lie = {})
        : q(normal<S>({s.B, s.H, s.N, s.D}, 1)), k(normal<S>({s.B, s.G, s.M, s.D}, 2, 1, lie)),
          v(normal<S>({s.B, s.G, s.M, s.E}, 3, 1, lie)) {}
};

/// One instantiation of the call serves all masks and executors.
template <class S, class Source>
tensor<S> attend(const tensor<S>& q, const Source& source, const any_mask& mask, threads* pool = nullptr) {
    tensor<S> o({q.shape()[0], q.shape()[1], q.shape()[2], source.value_width()});
    static threads alone(1);
    attention(q.v(), source, o.v(), mask, on{pool ? *pool : alone});
    return o;
}

template <class S>
void check(const sizes& s, const any_mask& mask = causal{}) {
    SCOPED_TRACE(testing::Message() << "B" << s.B << " H" << s.H << " G" << s.G << " N" << s.N << " M" << s.M << " D" << s.D
                                    << " E" << s.E);
    const operands<S> x(s);
    const auto o = attend(x.q, view_source<S, S>{x.k.v(), x.v.v()}, mask);
    EXPECT_TRUE(attends(o, x.q, x.k, x.v, [&](auto real) {
        ref::options<decltype(real)> with;
        with.visible = [&](index_t b, index_t h, index_t row, index_t i, index_t j) {
            return mask.allows(where{b, h, row, i, j});
        };
        return with;
    }));
    // However the rows lie, the bits are the same.
    for (index_t longest : {1, 7, 64}) {
        const scattered<S> source(x.k, x.v, std::vector<index_t>(static_cast<std::size_t>(s.B * s.G), s.M), longest);
        EXPECT_TRUE(same_values(attend(x.q, source, mask), o)) << "runs of at most " << longest;
    }
    const operands<S> apart(s, layout::strided());
    EXPECT_TRUE(same_values(attend(x.q, view_source<S, S>{apart.k.v(), x.v.v()}, mask), o)) << "elements of keys are apart";
    EXPECT_TRUE(same_values(attend(x.q, view_source<S, S>{x.k.v(), apart.v.v()}, mask), o)) << "elements of values are apart";
}

template <class S>
class split : public testing::Test {};
using storages = testing::Types<float, double, bf16, f16>;
TYPED_TEST_SUITE(split, storages);

TYPED_TEST(split, rows_and_groups) {
    for (index_t N : {1, 2, 3, 4, 5, 7, 8})
        for (index_t group : {1, 2, 3, 4, 5, 8}) check<TypeParam>({1, 2 * group, 2, N, 77, 16, 16});
}

TYPED_TEST(split, keys_around_the_tile_and_the_part) {
    for (index_t M : {1, 2, 15, 16, 17, 31, 63, 64, 65, 127, 129, 511, 512, 513, 577, 1025})
        check<TypeParam>({1, 4, 1, 1, M, 8, 8});
}

TYPED_TEST(split, any_width) {
    for (index_t D : {1, 3, 7, 8, 15, 17, 33, 80, 128, 257}) check<TypeParam>({1, 4, 1, 2, 67, D, 9});
    for (index_t E : {1, 3, 7, 8, 15, 17, 33, 80, 128, 257}) check<TypeParam>({1, 5, 1, 1, 67, 9, E});
}

TYPED_TEST(split, masks) {
    const sizes s{2, 4, 2, 3, 1300, 16, 16};
    check<TypeParam>(s, everything{});
    check<TypeParam>(s, window{100});
    check<TypeParam>(s, causal{} & (window{33} | first{4}));
    check<TypeParam>(s, [](const where& w) { return (w.j * 7 + w.row * 3 + w.h) % 5 == 0 && w.j <= w.i; });
    check<TypeParam>(s, [](const where& w) { return w.row == 1 && w.j == 700; });  // most rows see nothing
    check<TypeParam>(s, nothing{});
}

TYPED_TEST(split, a_row_of_prefill_is_what_decode_gives) {
    const operands<TypeParam> x({1, 4, 2, 40, 200, 32, 32});
    tensor<TypeParam> all({1, 4, 40, 32}), one({1, 4, 1, 32}), want({1, 4, 1, 32});
    attention(x.q, x.k, x.v, all, causal{});
    attention(slice(x.q.v(), 2, {39, 40}), x.k.v(), x.v.v(), one.v(), causal{});
    double worst = 0;
    one.each([&](index_t b, index_t h, index_t, index_t e) {
        worst = std::max(worst, std::abs(double(one(b, h, 0, e)) - double(all(b, h, 39, e))));
    });
    EXPECT_LT(worst, 8 * std::max(epsilon<TypeParam>, epsilon<accumulator<TypeParam>>));
}

TEST(split_bits, do_not_depend_on_threads_or_on_other_sequences) {
    const operands<float> x({3, 4, 2, 2, 3001, 24, 40});
    const scattered<float> source(x.k, x.v, {3001, 3001, 700, 64, 1, 0}, 48);
    const auto alone = attend(x.q, source, window{2500});
    for (index_t n : {2, 3, 7}) {
        threads pool(n);
        EXPECT_TRUE(same_values(attend(x.q, source, window{2500}, &pool), alone)) << n << " threads";
    }
    for (index_t b = 0; b < 3; ++b) {
        const scattered<float> own(copied(slice(x.k.v(), 0, {b, b + 1})), copied(slice(x.v.v(), 0, {b, b + 1})),
                                   {source.keys(b, 0), source.keys(b, 1)}, 48);
        tensor<float> o({1, 4, 2, 40});
        attention(slice(x.q.v(), 0, {b, b + 1}), own, o.v(), any_mask(window{2500}));
        o.each([&](index_t, index_t h, index_t n, index_t e) { ASSERT_EQ(o(0, h, n, e), alone(b, h, n, e)); });
    }
}

TEST(split_bits, a_row_alone_has_the_bits_it_has_among_others) {
    constexpr index_t few = 3 * lanes<float> / 4;  // more rows are prefilled, which agrees to rounding
    const operands<float> x({1, 4, 2, few, 1501, 24, 40});
    for (const any_mask& mask : {any_mask(causal{}), any_mask(causal{} & window{70}), any_mask(window{3} | first{2})}) {
        tensor<float> all({1, 4, few, 40}), one({1, 4, 1, 40});
        attention(x.q, x.k, x.v, all, mask);
        for (index_t n = 0; n < few; ++n) {
            attention(slice(x.q.v(), 2, {n, n + 1}), x.k.v(), x.v.v(), one.v(), mask, offset{1501 - few + n});
            one.each([&](index_t, index_t h, index_t, index_t e) { ASSERT_EQ(one(0, h, 0, e), all(0, h, n, e)); });
        }
    }
}

// A prefill over a source and a decode over it meet the same keys: those it holds, wherever they lie.
TEST(sources, serve_many_queries_as_few) {
    const operands<float> x({2, 4, 2, 50, 300, 24, 24});
    const scattered<float> source(x.k, x.v, {300, 300, 300, 300}, 13);
    const any_mask mask = causal{};
    tensor<float> want({2, 4, 50, 24});
    attention(x.q, x.k, x.v, want, mask);
    EXPECT_TRUE(same_values(attend(x.q, source, mask), want));
}

// Keys that stand at positions of their own: masks and scores see these, in both engines.
TEST(sources, keys_stand_at_their_positions) {
    const index_t M = 90, end = 400;
    std::vector<index_t> places;
    for (index_t j = 0; j < M; ++j) places.push_back(j * 4 + (j % 3));
    const std::vector<float> slopes{0.02f, 0.3f};
    for (index_t N : {1, 3, 30}) {
        const operands<double> x({1, 2, 1, N, M, 12, 12});
        const placed_scattered<double> source(x.k, x.v, {M}, 11, places, end);
        tensor<double> o({1, 2, N, 12});
        attention(x.q.v(), source, o.v(), window{200}, alibi{slopes});
        EXPECT_TRUE(attends(o, x.q, x.k, x.v, [&](auto real) {
            using R = decltype(real);
            ref::options<R> with;
            with.offset = end - N;
            with.visible = [&](index_t, index_t, index_t, index_t i, index_t j) {
                return places[static_cast<std::size_t>(j)] >= i - 200;
            };
            with.score = [&](R s, index_t, index_t h, index_t, index_t i, index_t j) {
                return s - R(slopes[static_cast<std::size_t>(h)]) * std::abs(R(i - places[static_cast<std::size_t>(j)]));
            };
            return with;
        })) << N << " rows";
    }
}

TEST(sources, errors_name_the_source) {
    const operands<float> x({1, 4, 2, 1, 8, 16, 16});
    const scattered<float> source(x.k, x.v, {8, 8}, 4);
    tensor<float> o({1, 4, 1, 16});
    const auto message = [&](const tensor<float>& q) {
        try {
            attention(q.v(), source, o.v());
        } catch (const shape_error& e) {
            return std::string(e.what());
        }
        return std::string("nothing");
    };
    EXPECT_EQ(message(normal<float>({1, 4, 1, 12}, 1)), "attention: the source has width 16, q has 12");
    EXPECT_EQ(message(normal<float>({1, 3, 1, 16}, 1)), "attention: o has heads 4, q has 3");
    EXPECT_EQ(message(normal<float>({2, 4, 1, 16}, 1)), "attention: the source has batch 1, q has 2");
}

/// The bytes behind the scratch a call asked for stay as they are: of many keys, of few, and of none.
TEST(split, scratch_is_kept_to_on_threads) {
    threads pool(3);
    constexpr std::size_t beyond = 1 << 17;
    for (index_t M : {0, 1, 600, 5000})
        for (index_t N : {1, 4}) {
            const auto q = normal<float>({2, 6, N, 40}, 1), k = normal<float>({2, 3, M, 40}, 2),
                       v = normal<float>({2, 3, M, 24}, 3);
            tensor<float> o({2, 6, N, 24});
            const std::size_t need = attention_scratch(q, k, v, o, on{pool});
            aligned_vector<std::byte> memory(need + beyond, std::byte{0x5a});
            arena scratch{std::span<std::byte>(memory.data(), need)};
            for (int again = 0; again < 10; ++again) attention(q, k, v, o, on{pool, scratch});
            ASSERT_TRUE(std::all_of(memory.begin() + static_cast<std::ptrdiff_t>(need), memory.end(),
                                    [](std::byte x) { return x == std::byte{0x5a}; }))
                << N << " rows over " << M << " keys";
        }
}

}  // namespace
