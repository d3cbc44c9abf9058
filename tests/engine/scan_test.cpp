// heed_test: AS_USED LABELS sanitize threads
// The scan engine: every monoid against plain loops, every layout, and the laws of cutting and turning sequences.
#include <heed/core/threads.hpp>
#include <heed/engine/scan.hpp>
#include <heed/ref/diagonal.hpp>

#include "../support/compare.hpp"
#include "../support/guarded.hpp"
#include "../support/refuses.hpp"
#include "../support/sequence.hpp"

namespace {

using namespace heed;
using test::flipped;
using test::refuses;
using test::seq;
using test::tensor;

template <class T>
struct gates {
    tensor<T> a, b, h, state;
    explicit gates(const extents<4>& shape, const test::layout& l = {})
        : a(test::uniform<T>(shape, 1, 0.5, 1, l)),
          b(test::normal<T>(shape, 2, 1, l)),
          h(shape, l),
          state(test::normal<T>({shape[0], 1, 1, shape[3]}, 3, 1, l)) {}
    /// (sequences, C)
    view<T, 2> carried() {
        const auto v = state.v();
        return {v.data, {v.shape[0], v.shape[3]}, {v.strides[0], v.strides[3]}};
    }
    template <class... P>
    gates& run(const P&... policies) {
        scan(affine{}, inputs{seq(std::as_const(a)), seq(std::as_const(b))}, outputs{seq(h)}, carry{carried()},
             policies...);
        return *this;
    }
};

template <class Real, class T>
std::pair<tensor<Real>, tensor<Real>> defined(const gates<T>& x) {
    tensor<Real> h(x.h.shape()), state(test::in<Real>(x.state));
    const auto v = state.v();
    ref::diagonal<Real>(
        seq(h),
        [&](index_t b, index_t n, index_t c) {
            return ref::linear_step<Real>{static_cast<Real>(x.a(b, 0, n, c)), static_cast<Real>(x.b(b, 0, n, c))};
        },
        view<Real, 3>{v.data, {v.shape[0], v.shape[3], 1}, {v.strides[0], v.strides[3], 1}});
    return {h, state};
}

template <class T>
void expect_defined(const extents<4>& shape, const test::layout& l = {}) {
    using A = accumulator<T>;
    gates<T> x(shape, l);
    const auto exact = defined<test::definition_of<A>>(x);
    const auto naive = defined<A>(x);
    x.run();
    EXPECT_TRUE(test::within_rule<A>(x.h, test::in<T>(naive.first), exact.first));
    EXPECT_TRUE(test::within_rule<A>(x.state, test::in<T>(naive.second), exact.second));
    EXPECT_TRUE(x.h.poisoned_outside());
    EXPECT_TRUE(x.state.poisoned_outside());
}

template <class T>
class scan_of : public testing::Test {};
using storages = testing::Types<float, double, bf16, f16>;
TYPED_TEST_SUITE(scan_of, storages);

TYPED_TEST(scan_of, matches_the_definition_in_every_layout) {
    const auto L = static_cast<index_t>(lanes<accumulator<TypeParam>>);
    for (const auto& l : test::layouts())
        for (index_t C : {index_t(1), L - 1, L, L + 1, 3 * L})
            for (index_t N : {1, 17, 40}) expect_defined<TypeParam>({2, 1, N, C}, l);
}

TEST(scan, wide_rows_and_long_sequences) {
    for (const auto& l : {test::layout::heads(), test::layout::channels_first()}) {
        expect_defined<float>({1, 1, 37, 4200}, l);
        expect_defined<float>({1, 1, 1200, 5}, l);
        expect_defined<bf16>({1, 1, 600, 61}, l);  // a last block whose tiles are longer than those of the first
    }
}

/// Broadcast operands: one decay for all channels, one input for all tokens.
TEST(scan, strides_of_zero_broadcast) {
    const index_t N = 30, C = 37;
    gates<float> x({1, 1, N, C}), spread = x;
    auto a = seq(std::as_const(x.a)), b = seq(std::as_const(x.b));
    a.strides[2] = 0;
    b.strides[1] = 0;
    spread.a.each([&](index_t i, index_t h, index_t n, index_t c) {
        spread.a(i, h, n, c) = a(i, n, c);
        spread.b(i, h, n, c) = b(i, n, c);
    });
    scan(affine{}, inputs{a, b}, outputs{seq(x.h)}, carry{x.carried()});
    spread.run();
    EXPECT_TRUE(test::same_values(x.h, spread.h));
}

/// out of a scan with `states` outputs against the loops that define it, for inputs as they are drawn.
template <class M>
void expect_like_loops(const M&) {
    constexpr auto I = static_cast<std::size_t>(M::elements);
    const extents<4> shape{2, 1, 50, 19};
    std::array<tensor<float>, I> x;
    for (std::size_t i = 0; i < I; ++i) x[i] = test::normal<float>(shape, i, 0.6);
    if constexpr (std::is_same_v<M, softmax_prefix>) x[1] = test::uniform<float>(shape, 9, 0.1, 1);  // masses
    using cell = detail::plain_cell<M>;
    std::array<tensor<float>, static_cast<std::size_t>(cell::outputs)> y, chunks;
    for (auto* set : {&y, &chunks})
        for (auto& t : *set) t = tensor<float>(shape);
    const auto run = [&](auto& to, const auto&... policies) {
        [&]<std::size_t... i, std::size_t... o>(std::index_sequence<i...>, std::index_sequence<o...>) {
            scan(M{}, inputs{seq(std::as_const(x[i]))...}, outputs{seq(to[o])...}, policies...);
        }
        (std::make_index_sequence<I>(), std::make_index_sequence<static_cast<std::size_t>(cell::outputs)>());
    };
    run(y);
    for (index_t segment : {1, 7, 50, 90}) {
        run(chunks, chunked{segment});
        for (std::size_t o = 0; o < y.size(); ++o) EXPECT_TRUE(test::all_near(chunks[o], y[o], 2e-5)) << segment;
    }
    for (index_t b = 0; b < 2; ++b)
        for (index_t c = 0; c < 19; ++c) {
            numbers<double, M::states> s;
            M::start(s);
            for (index_t n = 0; n < 50; ++n) {
                numbers<double, M::elements> e;
                for (std::size_t i = 0; i < I; ++i) e[i] = static_cast<double>(x[i](b, 0, n, c));
                M::act(s, e);
                const auto out = cell{}.read(s, e, {});
                for (std::size_t o = 0; o < y.size(); ++o)
                    ASSERT_NEAR(y[o](b, 0, n, c), out[o], 3e-5 * std::max(1.0, std::abs(out[o])));
            }
        }
}

TEST(scan, every_monoid) {
    expect_like_loops(running_sum{});
    expect_like_loops(running_log_sum{});
    expect_like_loops(running_max{});
    expect_like_loops(affine{});
    expect_like_loops(log_affine{});
    expect_like_loops(max_plus{});
    expect_like_loops(complex_affine{});
}
TEST(scan, softmax_over_prefixes) { expect_like_loops(softmax_prefix{}); }

/// A monoid of one's own: the smallest and the largest so far.
struct extremes {
    static constexpr int elements = 2, states = 2;
    static void start(auto& s) {
        using X = std::remove_cvref_t<decltype(s[0])>;
        s = {X(std::numeric_limits<double>::infinity()), X(-std::numeric_limits<double>::infinity())};
    }
    static void identity(auto& x) { start(x); }
    static void act(auto& s, const auto& x) { s = {min(s[0], x[0]), max(s[1], x[1])}; }
    static void multiply(auto& x, const auto& y) { act(x, y); }
};
TEST(scan, a_monoid_of_the_users_own) { expect_like_loops(extremes{}); }

TEST(scan, a_stream_is_one_run_bit_for_bit) {
    gates<float> whole({2, 1, 97, 35}), parts = whole;
    whole.run();
    const counter_random r(3);
    for (index_t n = 0, i = 0; n < 97; ++i) {
        const range piece{n, std::min<index_t>(97, n + r.integer(test::number(i), 1, 30))};
        const auto at = [&](const auto& v) { return slice(v, 1, piece); };
        scan(affine{}, inputs{at(seq(parts.a)), at(seq(parts.b))}, outputs{at(seq(parts.h))}, carry{parts.carried()});
        n = piece.last;
    }
    EXPECT_TRUE(test::same_values(parts.h, whole.h));
    EXPECT_TRUE(test::same_values(parts.state, whole.state));
}

TEST(scan, reversed_is_flip_scan_flip) {
    for (const auto& l : test::layouts()) {
        gates<float> x({2, 1, 45, 37}, l), back = x;
        back.a = flipped(x.a), back.b = flipped(x.b);
        EXPECT_TRUE(test::same_values(x.run(reversed{}).h, flipped(back.run().h)));
        EXPECT_TRUE(test::same_values(x.state, back.state));
    }
}

TEST(scan, both_ways_is_a_sum) {
    gates<float> x({2, 1, 21, 18}), ahead = x, back = x;
    ahead.run();
    back.run(reversed{});
    x.h = ahead.h;
    x.run(reversed{}, adding{});
    x.h.each([&](index_t b, index_t h, index_t n, index_t c) {
        EXPECT_EQ(x.h(b, h, n, c), ahead.h(b, h, n, c) + back.h(b, h, n, c));
    });
}

TEST(scan, packed_sequences_start_anew) {
    const std::vector<index_t> offsets{0, 0, 9, 10, 44};
    const gates<float> x({1, 1, 44, 21});
    for (bool turned : {false, true})
        for (bool cut : {false, true}) {
            auto packs = x;
            packs.state = test::normal<float>({4, 1, 1, 21}, 3);
            const auto first = packs.state;
            const auto call = [&](gates<float>& g, const auto&... more) {
                if (turned && cut)
                    g.run(reversed{}, chunked{8}, more...);
                else if (turned)
                    g.run(reversed{}, more...);
                else if (cut)
                    g.run(chunked{8}, more...);
                else
                    g.run(more...);
            };
            call(packs, packed{offsets});
            for (index_t i = 0; i < 4; ++i) {
                const range own{offsets[test::number(i)], offsets[test::number(i) + 1]};
                const auto part = [&](const tensor<float>& t) { return test::copied(slice(t.v(), 2, own)); };
                gates<float> alone({1, 1, own.size(), 21});
                alone.a = part(x.a), alone.b = part(x.b);
                alone.state = test::copied(slice(first.v(), 0, {i, i + 1}));
                call(alone);
                EXPECT_TRUE(test::same_values(part(packs.h), alone.h));
                EXPECT_TRUE(test::same_values(test::copied(slice(packs.state.v(), 0, {i, i + 1})), alone.state));
            }
        }
}

TEST(scan, the_suffix_moves_no_bit_of_the_prefix) {
    for (bool cut : {false, true}) {
        gates<float> x({1, 1, 60, 33}), spoiled = x;
        for (auto* t : {&spoiled.a, &spoiled.b})
            t->each([&](index_t b, index_t h, index_t n, index_t c) {
                if (n >= 29) (*t)(b, h, n, c) = std::nanf("");
            });
        for (auto* g : {&x, &spoiled}) cut ? g->run(chunked{16}) : g->run();
        const auto prefix = [](const tensor<float>& t) { return test::copied(slice(t.v(), 2, {0, 29})); };
        EXPECT_TRUE(test::same_values(prefix(x.h), prefix(spoiled.h)));
    }
}

TEST(scan, bits_do_not_depend_on_threads_or_neighbours) {
    threads pool(3);
    for (bool cut : {false, true}) {
        gates<float> x({3, 1, 50, 200}), many = x;
        const auto run = [&](gates<float>& g, const auto&... more) {
            cut ? g.run(chunked{11}, more...) : g.run(more...);
        };
        gates<float> alone({1, 1, 50, 200});
        const auto last = [](const tensor<float>& t) { return test::copied(slice(t.v(), 0, {2, 3})); };
        alone.a = last(x.a), alone.b = last(x.b), alone.state = last(x.state);
        run(x);
        run(many, on(pool));
        run(alone);
        EXPECT_TRUE(test::same_values(many.h, x.h));
        EXPECT_TRUE(test::same_values(many.state, x.state));
        EXPECT_TRUE(test::same_values(alone.h, last(x.h)));
    }
}

TEST(scan, in_place_has_the_same_bits) {
    for (const auto& l : test::layouts()) {
        gates<float> x({2, 1, 40, 21}, l), same = x;
        x.run();
        scan(affine{}, inputs{seq(same.a), seq(same.b)}, outputs{seq(same.b)}, carry{same.carried()});
        EXPECT_TRUE(test::same_values(same.b, x.h));
    }
}

/// The three passes in float, one number after the other: what a product of many decays near 1 loses is part of them.
tensor<float> naive_segments(const gates<float>& x, index_t segment) {
    tensor<float> h(x.h.shape());
    float before = x.state(0, 0, 0, 0);
    for (index_t first = 0; first < h.shape()[2]; first += segment) {
        float s = before, a = 1, b = 0;
        for (index_t n = first; n < std::min(h.shape()[2], first + segment); ++n) {
            h(0, 0, n, 0) = s = x.a(0, 0, n, 0) * s + x.b(0, 0, n, 0);
            a *= x.a(0, 0, n, 0), b = x.a(0, 0, n, 0) * b + x.b(0, 0, n, 0);
        }
        before = a * before + b;
    }
    return h;
}

TEST(scan, a_million_tokens_do_not_drift) {
    gates<float> x({1, 1, 1 << 20, 1});
    x.a.fill([](index_t i) { return i % 2 ? 1.0 : 1 - 1e-6; });
    const auto exact = defined<double>(x);
    const auto naive = defined<float>(x);
    const auto segments = naive_segments(x, 4096);
    auto y = x;
    EXPECT_TRUE(test::within_rule<float>(x.run().h, naive.first, exact.first));
    EXPECT_TRUE(test::within_rule<float>(y.run(chunked{4096}).h, segments, exact.first));
}

TEST(scan, nothing_outside_is_touched) {
    for (auto side : {test::flush::front, test::flush::back})
        for (index_t C : {1, 16, 19}) {
            const gates<float> x({1, 1, 33, C});
            test::guarded<float> a(33 * C, side), b(33 * C, side), h(33 * C, side);
            const auto av = a.take(x.a.v()), bv = b.take(x.b.v());
            a.read_only(), b.read_only();
            const auto at = [&](const view<float>& v) { return view<float, 3>{v.data, {1, 33, C}, {33 * C, C, 1}}; };
            scan(affine{}, inputs{at(av), at(bv)}, outputs{dense(h.data(), {1, 33, C})});
            scan(affine{}, inputs{at(av), at(bv)}, outputs{dense(h.data(), {1, 33, C})}, chunked{5}, reversed{});
        }
}

TEST(scan, empty_extents) {
    for (const extents<4>& shape : {extents<4>{0, 1, 3, 4}, {2, 1, 0, 4}, {2, 1, 3, 0}}) {
        gates<float> x(shape);
        const auto before = x.state;
        x.run();
        x.run(chunked{2});
        if (shape[2] == 0) EXPECT_TRUE(test::same_values(x.state, before));
    }
}

TEST(scan, bad_arguments_are_named_before_anything_is_written) {
    gates<float> x({2, 1, 4, 6});
    x.h = test::constant<float>({2, 1, 4, 6}, -1);
    const gates<float> few({2, 1, 3, 6});
    const auto a = seq(std::as_const(x.a)), b = seq(std::as_const(x.b));
    refuses<shape_error>(
        [&] {
            scan(affine{}, inputs{a, seq(few.b)}, outputs{seq(x.h)});
        },
        "scan: input 1 has extent 3 on axis 1, output 0 asks for 4");
    refuses<argument_error>([&] { x.run(chunked{0}); }, "scan: chunked has 0 tokens, the least is 1");
    const std::vector<index_t> low{0, 3, 2, 4}, late{1, 4}, early{0, 3};
    gates<float> one({1, 1, 4, 6});
    one.h = test::constant<float>({1, 1, 4, 6}, -1);
    refuses<argument_error>([&] { one.run(packed{low}); }, "scan: packed offsets fall from 3 to 2");
    refuses<shape_error>([&] { one.run(packed{late}); }, "scan: packed offsets do not begin with 0");
    refuses<shape_error>([&] { one.run(packed{early}); }, "scan: packed offsets end at 3, there are 4 tokens");
    auto h = seq(x.h);
    h.strides[1] = 0;
    refuses<shape_error>([&] { scan(affine{}, inputs{a, b}, outputs{h}); }, "output 0 has stride 0 on axis 1");
    auto shifted = seq(x.b);
    ++shifted.data;
    shifted.shape[2] = 5;
    auto narrow_a = a, narrow_b = b;
    narrow_a.shape[2] = narrow_b.shape[2] = 5;
    refuses<shape_error>(
        [&] {
            scan(affine{}, inputs{narrow_a, narrow_b}, outputs{shifted});
        },
        "output 0 overlaps input 1 in memory");
    const view<float, 3> inside{seq(x.h).data, {2, 6, 1}, {6, 1, 1}};
    refuses<shape_error>(
        [&] {
            scan(affine{}, inputs{a, b}, outputs{seq(x.h)}, carry{inside});
        },
        "output 0 overlaps the carried state in memory");
    for (auto* t : {&x.h, &one.h})
        t->each([&](index_t i, index_t k, index_t n, index_t c) { EXPECT_EQ((*t)(i, k, n, c), -1); });
}

}  // namespace
