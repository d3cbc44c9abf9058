// heed_test: BUSY LABELS sanitize threads
// The selective scan against its definition and its laws.
#include <heed/core/threads.hpp>
#include <heed/ops/selective_scan.hpp>
#include <heed/ref/selective_scan.hpp>

#include "../support/compare.hpp"
#include "../support/refuses.hpp"
#include "../support/sequence.hpp"

namespace {

using namespace heed;
using test::in;
using test::matrix;
using test::refuses;
using test::flipped;
using test::seq;
using test::tensor;
using test::vec;

/// All operands of a selective scan.
template <class T>
struct system_of {
    index_t B, N, C, S, G;
    tensor<T> u, delta, decay, in, out, bias, skip, gate, state;

    system_of(index_t batch, index_t tokens, index_t channels, index_t states, index_t groups = 1,
              const test::layout& l = {})
        : B(batch),
          N(tokens),
          C(channels),
          S(states),
          G(groups),
          u(test::normal<T>({B, 1, N, C}, 1, 1, l)),
          delta(test::normal<T>({B, 1, N, C}, 2, 1, l)),
          decay(test::uniform<T>({1, 1, C, S}, 3, -2, -0.01, l)),
          in(test::normal<T>({B, G, N, S}, 4, 1, l)),
          out(test::normal<T>({B, G, N, S}, 5, 1, l)),
          bias(test::normal<T>({1, 1, 1, C}, 6, 1, l)),
          skip(test::normal<T>({1, 1, 1, C}, 7, 1, l)),
          gate(test::normal<T>({B, 1, N, C}, 8, 2, l)),
          state(test::normal<T>({B, 1, C, S}, 9, 1, l)) {}

    template <class R>
    system_of<R> in_type() const {
        system_of<R> x(B, N, C, S, G);
        const auto take = [](auto& to, const auto& from) { to = test::in<R>(from); };
        take(x.u, u), take(x.delta, delta), take(x.decay, decay), take(x.in, in), take(x.out, out);
        take(x.bias, bias), take(x.skip, skip), take(x.gate, gate), take(x.state, state);
        return x;
    }
    /// (B, G, N, S) as (B, N, G, S).
    static view<const T, 4> grouped(const tensor<T>& x) {
        const auto v = x.v();
        return {v.data,
                {v.shape[0], v.shape[2], v.shape[1], v.shape[3]},
                {v.strides[0], v.strides[2], v.strides[1], v.strides[3]}};
    }
};

/// Runs with every option. What varies is in the policies.
template <class T, class... P>
tensor<T> run(const system_of<T>& x, const P&... policies) {
    tensor<T> y(x.u.shape());
    selective_scan(seq(x.u), seq(x.delta), matrix(x.decay), x.grouped(x.in), x.grouped(x.out), seq(y), policies...);
    return y;
}
template <class T, class... P>
tensor<T> run_all(system_of<T>& x, const P&... policies) {
    return run(x, softplus_step{}, step_bias{vec(x.bias)}, skip{vec(x.skip)}, gate{seq(x.gate)}, carry{seq(x.state)},
               policies...);
}
template <class R>
tensor<R> defined(system_of<R>& x, const ref::token_order& order = {}) {
    tensor<R> y(x.u.shape());
    const ref::selective_options<R> with{vec(x.bias),  vec(x.skip), seq(std::as_const(x.gate)),
                                         seq(x.state), true,        order};
    ref::selective_scan<R>(seq(std::as_const(x.u)), seq(std::as_const(x.delta)), matrix(x.decay), x.grouped(x.in),
                           x.grouped(x.out), seq(y), with);
    return y;
}

/// y and the final state by the rule: twice the error of the naive loops.
template <class T>
void expect_defined(system_of<T> x) {
    using A = accumulator<T>;
    auto exact = x.template in_type<test::definition_of<A>>();
    auto naive = x.template in_type<A>();
    const auto want = defined(exact);
    const auto loops = defined(naive);
    const auto got = run_all(x);
    EXPECT_TRUE((test::within_rule<A>(got, in<T>(loops), want)));
    EXPECT_TRUE((test::within_rule<A>(x.state, in<T>(naive.state), exact.state)));
    EXPECT_TRUE(x.state.poisoned_outside());
}

template <class T>
class selective_of : public testing::Test {};
using storages = testing::Types<float, double, bf16, f16>;
TYPED_TEST_SUITE(selective_of, storages);

TYPED_TEST(selective_of, matches_the_definition_in_every_layout) {
    const auto L = static_cast<index_t>(lanes<accumulator<TypeParam>>);
    index_t size = 0;
    for (const auto& l : test::layouts()) {
        expect_defined(system_of<TypeParam>(2, 33, L + 3, 5, 1, l));
        expect_defined(system_of<TypeParam>(1, 2 * L, 2 * L, 16, 2, l));
        expect_defined(system_of<TypeParam>(1, 1 + size++, 3 * (L - 1), 21, 3, l));
    }
}

TEST(selective_scan, sizes_around_lanes_and_tiles) {
    for (index_t C : {1, 7, 15, 16, 17, 257, 272})
        for (index_t N : {1, 15, 16, 17, 40}) expect_defined(system_of<float>(1, N, C, C % 2 ? 4 : 17));
}

TEST(selective_scan, options_are_what_they_say) {
    const system_of<float> x(1, 20, 19, 6);
    const auto plain = run(x, softplus_step{});
    auto zero = test::constant<float>({1, 1, 1, 19}, 0);
    auto zero_state = test::constant<float>({1, 1, 19, 6}, 0);
    EXPECT_TRUE(test::same_values(run(x, softplus_step{}, step_bias{vec(zero)}), plain));
    EXPECT_TRUE(test::same_values(run(x, softplus_step{}, carry{seq(zero_state)}), plain));
    const auto skipped = run(x, softplus_step{}, skip{vec(x.skip)}), gated = run(x, softplus_step{}, gate{seq(x.gate)});
    plain.each([&](index_t b, index_t h, index_t n, index_t c) {
        EXPECT_NEAR(skipped(b, h, n, c), plain(b, h, n, c) + x.skip(0, 0, 0, c) * x.u(b, h, n, c), 1e-4);
        EXPECT_NEAR(gated(b, h, n, c), plain(b, h, n, c) * silu(x.gate(b, h, n, c)), 1e-4);
    });
    auto doubled = plain;
    selective_scan(seq(x.u), seq(x.delta), matrix(x.decay), x.grouped(x.in), x.grouped(x.out), seq(doubled),
                   softplus_step{}, adding{});
    plain.each(
        [&](index_t b, index_t h, index_t n, index_t c) { EXPECT_EQ(doubled(b, h, n, c), 2 * plain(b, h, n, c)); });
}

TEST(selective_scan, a_stream_is_one_run_bit_for_bit) {
    system_of<float> whole(2, 57, 37, 9), parts = whole;
    const auto want = run_all(whole);
    tensor<float> got(want.shape());
    const counter_random r(3);
    for (index_t n = 0, i = 0; n < parts.N; ++i) {
        const range piece{n, std::min(parts.N, n + r.integer(static_cast<std::uint64_t>(i), 1, 20))};
        const auto at = [&](const auto& v) { return slice(v, 1, piece); };
        selective_scan(at(seq(parts.u)), at(seq(parts.delta)), matrix(parts.decay), at(parts.grouped(parts.in)),
                       at(parts.grouped(parts.out)), at(seq(got)), softplus_step{}, step_bias{vec(parts.bias)},
                       skip{vec(parts.skip)}, gate{at(seq(std::as_const(parts.gate)))}, carry{seq(parts.state)});
        n = piece.last;
    }
    EXPECT_TRUE(test::same_values(got, want));
    EXPECT_TRUE(test::same_values(parts.state, whole.state));
}

/// Segments at once are one run: to rounding, whatever a segment is, and to the bit where there is but one.
TEST(selective_scan, segments_are_one_run) {
    for (auto [C, S, G] : {std::array<index_t, 3>{1, 1, 1}, {5, 16, 1}, {36, 9, 2}}) {
        system_of<float> x(2, 57, C, S, G), plain = x, one = x;
        auto exact = x.in_type<double>();
        const auto want = defined(exact);
        auto naive = x;
        const auto loops = defined(naive);
        for (index_t segment : {1, 7, 16, 56}) {
            auto y = x;
            EXPECT_TRUE(test::within_rule<float>(run_all(y, chunked{segment}), loops, want)) << segment;
            EXPECT_TRUE(test::within_rule<float>(y.state, naive.state, exact.state)) << segment;
        }
        EXPECT_TRUE(test::same_values(run_all(one, chunked{57}), run_all(plain)));
        EXPECT_TRUE(test::same_values(one.state, plain.state));
    }
}

/// What a stretch of a sequence sums and multiplies is its own: bits depend on the cut alone, and not on what follows.
TEST(selective_scan, segments_have_the_laws_of_a_scan) {
    threads pool(3);
    system_of<float> x(1, 50, 21, 5), many = x, back = x, ahead = x, spoiled = x;
    const auto want = run_all(x, chunked{8});
    EXPECT_TRUE(test::same_values(run_all(many, on(pool), chunked{8}), want));
    EXPECT_TRUE(test::same_values(many.state, x.state));
    for (auto* t : {&back.u, &back.delta, &back.in, &back.out, &back.gate}) *t = flipped(*t);
    EXPECT_TRUE(test::same_values(run_all(back, reversed{}, chunked{8}), flipped(want)));
    for (auto* t : {&spoiled.u, &spoiled.delta, &spoiled.in, &spoiled.out, &spoiled.gate})
        t->each([&](index_t b, index_t h, index_t n, index_t d) {
            if (n >= 29) (*t)(b, h, n, d) = std::nanf("");
        });
    const auto prefix = [](const tensor<float>& t) { return test::copied(slice(t.v(), 2, {0, 29})); };
    EXPECT_TRUE(test::same_values(prefix(run_all(spoiled, chunked{8})), prefix(want)));
    const std::vector<index_t> offsets{0, 0, 9, 10, 50};
    system_of<float> packs(1, 50, 21, 5), last(1, 40, 21, 5);
    packs.state = test::normal<float>({4, 1, 21, 5}, 9);
    for (auto [to, from] : {std::pair{&last.u, &packs.u},
                            {&last.delta, &packs.delta},
                            {&last.in, &packs.in},
                            {&last.out, &packs.out},
                            {&last.gate, &packs.gate}})
        *to = test::copied(slice(from->v(), 2, {10, 50}));
    last.state = test::copied(slice(packs.state.v(), 0, {3, 4}));
    const auto all = run_all(packs, packed{offsets}, chunked{8}), alone = run_all(last, chunked{8});
    EXPECT_TRUE(test::same_values(test::copied(slice(all.v(), 2, {10, 50})), alone));
    EXPECT_TRUE(test::same_values(test::copied(slice(packs.state.v(), 0, {3, 4})), last.state));
    refuses<argument_error>([&] { run(x, chunked{0}); }, "selective_scan: chunked has 0 tokens, the least is 1");
}

TEST(selective_scan, reversed_is_flip_scan_flip) {
    for (const auto& l : test::layouts()) {
        system_of<float> x(2, 35, 33, 16, 1, l), back = x;
        for (auto* t : {&back.u, &back.delta, &back.in, &back.out, &back.gate}) *t = flipped(*t);
        EXPECT_TRUE(test::same_values(run_all(x, reversed{}), flipped(run_all(back))));
        EXPECT_TRUE(test::same_values(x.state, back.state));
    }
}

TEST(selective_scan, packed_sequences_are_apart) {
    const std::vector<index_t> offsets{0, 5, 5, 22, 41};
    system_of<float> x(1, 41, 21, 5);
    x.state = test::normal<float>({4, 1, 21, 5}, 9);
    for (bool back : {false, true}) {
        auto packs = x;
        const auto got = back ? run_all(packs, packed{offsets}, reversed{}) : run_all(packs, packed{offsets});
        for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
            const range own{offsets[i], offsets[i + 1]};
            system_of<float> alone(1, own.size(), 21, 5);
            const auto take = [&](tensor<float>& to, const tensor<float>& from) {
                to = test::copied(slice(from.v(), 2, own));
            };
            take(alone.u, x.u), take(alone.delta, x.delta), take(alone.in, x.in), take(alone.out, x.out),
                take(alone.gate, x.gate);
            const auto row = static_cast<index_t>(i);
            alone.decay = x.decay, alone.bias = x.bias, alone.skip = x.skip;
            alone.state = test::copied(slice(x.state.v(), 0, {row, row + 1}));
            const auto want = back ? run_all(alone, reversed{}) : run_all(alone);
            EXPECT_TRUE(test::same_values(test::copied(slice(got.v(), 2, own)), want));
            EXPECT_TRUE(test::same_values(test::copied(slice(packs.state.v(), 0, {row, row + 1})), alone.state));
        }
    }
}

TEST(selective_scan, the_suffix_moves_no_bit_of_the_prefix) {
    system_of<float> x(1, 50, 40, 16), spoiled = x;
    const index_t cut = 23;
    for (auto* t : {&spoiled.u, &spoiled.delta, &spoiled.in, &spoiled.out, &spoiled.gate})
        t->each([&](index_t b, index_t h, index_t n, index_t d) {
            if (n >= cut) (*t)(b, h, n, d) = std::nanf("");
        });
    const auto a = run_all(x), b = run_all(spoiled);
    EXPECT_TRUE(test::same_values(test::copied(slice(a.v(), 2, {0, cut})), test::copied(slice(b.v(), 2, {0, cut}))));
}

TEST(selective_scan, bits_do_not_depend_on_threads_or_neighbours) {
    threads pool(3);
    system_of<float> x(3, 30, 300, 16, 2), many = x, alone(1, 30, 300, 16, 2);
    const auto one = run_all(x);
    EXPECT_TRUE(test::same_values(run_all(many, on(pool)), one));
    EXPECT_TRUE(test::same_values(many.state, x.state));
    const auto of_last = [](const tensor<float>& t) { return test::copied(slice(t.v(), 0, {2, 3})); };
    system_of<float> fresh(3, 30, 300, 16, 2);
    alone.u = of_last(fresh.u), alone.delta = of_last(fresh.delta), alone.in = of_last(fresh.in);
    alone.out = of_last(fresh.out), alone.gate = of_last(fresh.gate), alone.state = of_last(fresh.state);
    EXPECT_TRUE(test::same_values(run_all(alone), of_last(one)));
}

/// One sequence of few channels still has a task for each of the crew, with the same bits.
TEST(selective_scan, channels_of_one_sequence_are_shared_out) {
    for (index_t crew : {2, 3}) {
        index_t asked = 0;
        executor_adapter pool(crew, [&](index_t n, auto f) {
            asked = std::max(asked, n);
            for (index_t i = 0; i < n; ++i) f(i);
        });
        system_of<float> x(1, 20, 256 + 5, 16), shared = x;
        const auto one = run_all(x);
        EXPECT_TRUE(test::same_values(run_all(shared, on(pool)), one));
        EXPECT_TRUE(test::same_values(shared.state, x.state));
        EXPECT_EQ(asked, crew);
    }
}

TEST(selective_scan, extreme_steps) {
    constexpr float inf = std::numeric_limits<float>::infinity();
    for (float step : {-inf, -1e30f, -100.0f, 0.0f, 100.0f, 1e30f}) {
        system_of<float> x(1, 40, 17, 4);
        x.delta.fill([&](index_t) { return step; });
        x.u.fill([&](index_t) { return step > 1e10f ? 0.0f : 1.0f; });
        const auto y = run(x, softplus_step{});
        y.each([&](index_t b, index_t h, index_t n, index_t c) {
            ASSERT_TRUE(std::isfinite(y(b, h, n, c))) << step;
            if (step < -200) ASSERT_EQ(y(b, h, n, c), 0) << step;
        });
    }
}

TEST(selective_scan, a_million_tokens_do_not_drift) {
    const index_t N = 1 << 20;
    system_of<float> x(1, N, 1, 2);
    auto exact = x.in_type<double>();
    x.decay.fill([](index_t i) { return i ? -1e-3 : -1e-1; });
    exact.decay.fill([](index_t i) { return double(i ? -1e-3f : -1e-1f); });
    auto naive = x, segments = x;
    const auto want = defined(exact);
    const auto loops = defined(naive);
    EXPECT_TRUE(test::within_rule<float>(run_all(x), loops, want));
    EXPECT_TRUE(test::within_rule<float>(run_all(segments, chunked{4096}), loops, want));
}

TEST(selective_scan, empty_extents) {
    for (auto [B, N, C, S] : {std::array<index_t, 4>{0, 3, 4, 5}, {2, 0, 4, 5}, {2, 3, 0, 5}, {2, 3, 4, 0}}) {
        system_of<float> x(B, N, C, S);
        const auto before = x.state;
        if (N == 0 || S == 0) run_all(x, chunked{2});
        const auto y = run_all(x);
        if (N == 0) EXPECT_TRUE(test::same_values(x.state, before));
        if (S == 0)
            y.each([&](index_t b, index_t h, index_t n, index_t c) {
                EXPECT_NEAR(y(b, h, n, c), x.skip(0, 0, 0, c) * x.u(b, h, n, c) * silu(x.gate(b, h, n, c)), 1e-6);
            });
    }
}

TEST(selective_scan, scratch_of_the_callers) {
    system_of<float> x(2, 20, 40, 16);
    const auto want = run(x);
    threads pool(2);
    std::size_t bytes = 0;
    run(x, scratch_size(pool, bytes));
    arena enough(bytes), little(bytes / 2);
    EXPECT_TRUE(test::same_values(run(x, on(pool, enough)), want));
    refuses<argument_error>([&] { run(x, on(pool, little)); }, "selective_scan: the arena holds");
}

TEST(selective_scan, bad_arguments_are_named_before_anything_is_written) {
    const system_of<float> x(2, 4, 6, 3);
    auto y = test::constant<float>({2, 1, 4, 6}, -1);
    const auto call = [&](auto u, auto delta, auto decay, auto b, auto c, const auto&... policies) {
        selective_scan(u, delta, decay, b, c, seq(y), policies...);
    };
    const auto fits = [&](const auto&... policies) {
        call(seq(x.u), seq(x.delta), matrix(x.decay), x.grouped(x.in), x.grouped(x.out), policies...);
    };
    const auto few = test::normal<float>({2, 1, 3, 6}, 1), thin = test::normal<float>({1, 1, 1, 5}, 1);
    const auto wide = test::normal<float>({1, 1, 6, 4}, 1);
    refuses<shape_error>([&] { call(seq(few), seq(x.delta), matrix(x.decay), x.grouped(x.in), x.grouped(x.out)); },
                         "selective_scan: u has extent 3 on axis 1, y asks for 4");
    refuses<shape_error>([&] { call(seq(x.u), seq(few), matrix(x.decay), x.grouped(x.in), x.grouped(x.out)); },
                         "delta has extent 3");
    refuses<shape_error>([&] { call(seq(x.u), seq(x.delta), matrix(wide), x.grouped(x.in), x.grouped(x.out)); },
                         "B has extent 3 on axis 3");
    refuses<shape_error>([&] { fits(skip{vec(thin)}); }, "D has extent 5 on axis 0, y asks for 6");
    refuses<shape_error>([&] { fits(step_bias{vec(thin)}); }, "the step bias has extent 5");
    refuses<shape_error>([&] { fits(gate{seq(few)}); }, "z has extent 3");
    auto state = test::normal<float>({2, 1, 6, 2}, 1);
    refuses<shape_error>([&] { fits(carry{seq(state)}); },
                         "the carried state has extent 2 on axis 2, the scan asks for 3");
    const std::vector<index_t> ends{0, 4};
    refuses<shape_error>([&] { fits(packed{ends}); }, "packed sequences are in one batch entry, q has 2");
    const system_of<float> groups(2, 4, 6, 3, 4);
    refuses<shape_error>(
        [&] { call(seq(x.u), seq(x.delta), matrix(x.decay), x.grouped(groups.in), x.grouped(groups.out)); },
        "6 channels, not a multiple of the 4 groups");
    refuses<shape_error>(
        [&] {
            selective_scan(seq(x.u), seq(x.delta), matrix(x.decay), x.grouped(x.in), x.grouped(x.out),
                           view<float, 3>{const_cast<float*>(seq(x.u).data), {2, 4, 6}, {24, 6, 1}});
        },
        "y overlaps u in memory");
    y.each([&](index_t b, index_t h, index_t n, index_t c) { EXPECT_EQ(y(b, h, n, c), -1); });
}

}  // namespace
