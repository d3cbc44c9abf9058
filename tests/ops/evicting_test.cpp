// A decode loop that evicts: what it holds and gives against a loop in double precision, prefill against steps, errors.
#include <heed/heed.hpp>

#include "any_mask.hpp"
#include "compare.hpp"
#include "defined.hpp"
#include "random.hpp"

using namespace test;

namespace {

constexpr index_t B = 2, H = 4, G = 2, D = 16, E = 8, group = H / G;
using cache_type = contiguous_cache<float>;
using loop = evicting<cache_type, forgetting_mass<float>>;

struct input {
    tensor<float> q, k, v, o;
    explicit input(index_t N)
        : q(normal<float>({B, H, N, D}, 1, 2)),
          k(normal<float>({B, G, N, D}, 2)),
          v(normal<float>({B, G, N, E}, 3)),
          o({B, H, N, E}) {}
    void step(loop& run, range tokens, const any_mask& mask = everything{}) {
        run.step(slice(q.v(), 2, tokens), slice(k.v(), 2, tokens), slice(v.v(), 2, tokens), slice(o.v(), 2, tokens),
                 mask);
    }
};

tensor<double> exact(const view<const float>& x) {
    tensor<double> out(x.shape);
    out.each([&](index_t b, index_t h, index_t n, index_t d) { out(b, h, n, d) = static_cast<double>(x(b, h, n, d)); });
    return out;
}

std::vector<index_t> positions(const cache_type& cache, index_t b, index_t g) {
    std::vector<index_t> out;
    const index_t* at = cache.positions(b, g);
    for (index_t j = 0; j < cache.keys(b, g); ++j) out.push_back(at ? at[j] : j);
    return out;
}

/// The loop for one head of keys in double precision: outputs, and what is held at the end.
struct defined_loop {
    tensor<double> o;
    std::vector<index_t> held;

    defined_loop(const input& x, index_t b, index_t g, forgetting_mass<double> rule)
        : o({1, group, x.q.shape()[2], E}) {
        const auto one = [&](const view<const float>& of, range heads) {
            return exact(slice(slice(of, 0, {b, b + 1}), 1, heads));
        };
        const auto q = one(x.q.v(), {g * group, (g + 1) * group}), k = one(x.k.v(), {g, g + 1}),
                   v = one(x.v.v(), {g, g + 1});
        for (index_t i = 0; i < x.q.shape()[2]; ++i) {
            held.push_back(i);
            const defined step(rows_at(q, {i}), rows_at(k, held), rows_at(v, held));
            std::vector<double> mass(held.size());
            for (index_t h = 0; h < group; ++h) {
                for (std::size_t j = 0; j < held.size(); ++j) mass[j] += step.p(0, h, 0, static_cast<index_t>(j));
                for (index_t e = 0; e < E; ++e) o(0, h, i, e) = step.o(0, h, 0, e);
            }
            keep_entries(held, rule.step(mass));
        }
    }
};

TEST(evicting, decodes_as_defined) {
    const index_t N = 90;
    for (const auto& [budget, alpha, recent] :
         {std::tuple<index_t, double, index_t>{12, 0.8, 0}, {12, 1, 6}, {1, 0, 0}, {40, 1, 0}}) {
        input x(N);
        cache_type cache({B, G, D, E});
        loop run(cache, forgetting_mass<float>(budget, alpha, recent));
        for (index_t i = 0; i < N; ++i) {
            x.step(run, {i, i + 1});
            for (index_t b = 0; b < B; ++b)
                for (index_t g = 0; g < G; ++g) ASSERT_EQ(cache.keys(b, g), std::min(budget, i + 1));
        }
        EXPECT_EQ(cache.end(0), N);
        for (index_t b = 0; b < B; ++b)
            for (index_t g = 0; g < G; ++g) {
                const defined_loop want(x, b, g, forgetting_mass<double>(budget, alpha, recent));
                EXPECT_EQ(positions(cache, b, g), want.held) << b << " " << g;
                EXPECT_LT(
                    distance(exact(slice(slice(x.o.v(), 0, {b, b + 1}), 1, {g * group, (g + 1) * group})), want.o),
                    1e-5);
            }
    }
}

TEST(evicting, room_for_all_is_attention) {
    const index_t N = 40;
    input x(N);
    cache_type cache({B, G, D, E}), plain({B, G, D, E});
    evicting run(cache, heavy_hitters(N));
    for (index_t i = 0; i < N; ++i) {
        x.step(run, {i, i + 1});
        plain.append(slice(x.k.v(), 2, {i, i + 1}), slice(x.v.v(), 2, {i, i + 1}));
        tensor<float> o({B, H, 1, E});
        attention(slice(x.q.v(), 2, {i, i + 1}), plain, o, any_mask(everything{}));
        EXPECT_TRUE(same_values(o, copied(slice(x.o.v(), 2, {i, i + 1}))));
    }
}

/// The statistic does not depend on how the tokens are cut into steps, as long as nothing goes.
TEST(evicting, a_prefill_counts_as_its_steps) {
    const index_t N = 50;
    std::vector<std::vector<float>> values;
    for (const std::vector<index_t>& cuts : {std::vector<index_t>{0, 50}, {0, 20, 21, 50}, {0, 1, 2, 3, 30, 49, 50}}) {
        input x(N);
        cache_type cache({B, G, D, E});
        loop run(cache, forgetting_mass<float>(N, 0.9));
        for (std::size_t c = 1; c < cuts.size(); ++c) x.step(run, {cuts[c - 1], cuts[c]}, causal{});
        const auto got = run.rule(1, 1).values();
        values.emplace_back(got.begin(), got.end());
        EXPECT_EQ(got.size(), 50u);
    }
    for (std::size_t j = 0; j < 50; ++j) {
        EXPECT_NEAR(values[0][j], values[1][j], 1e-4f);
        EXPECT_NEAR(values[0][j], values[2][j], 1e-4f);
    }
    double total = 0, want = 0;
    for (float x : values[0]) total += x;
    for (double w : forgetting(N, 0.9)) want += group * w;
    EXPECT_NEAR(total, want, 1e-3);
}

/// Scores and masks see what is kept where it stood.
TEST(evicting, what_stays_keeps_its_position) {
    const index_t N = 60;
    input x(N);
    cache_type cache({B, G, D, E});
    evicting run(cache, forgetting_mass(9, 0.95));
    for (index_t i = 0; i + 1 < N; ++i) x.step(run, {i, i + 1});
    const auto held = positions(cache, 0, 1);
    x.step(run, {N - 1, N}, [](const where& w) { return w.i - w.j < 30; });
    std::vector<index_t> near;
    for (index_t j : held)
        if (N - 1 - j < 30) near.push_back(j);
    near.push_back(N - 1);
    ASSERT_LT(near.size(), held.size() + 1);
    const auto of = [&](const tensor<float>& t, range heads) {
        return exact(slice(slice(t.v(), 0, {0, 1}), 1, heads));
    };
    const defined want(rows_at(of(x.q, {2, 4}), {N - 1}), rows_at(of(x.k, {1, 2}), near),
                       rows_at(of(x.v, {1, 2}), near));
    EXPECT_LT(distance(rows_at(of(x.o, {2, 4}), {N - 1}), want.o), 1e-5);
}

TEST(evicting, errors_change_nothing) {
    input x(20), y(20);
    cache_type cache({B, G, D, E}), other({B, G, D, E});
    loop run(cache, forgetting_mass<float>(5)), same(other, forgetting_mass<float>(5));
    for (index_t i = 0; i < 20; ++i) {
        const auto q = slice(x.q.v(), 2, {i, i + 1}), k = slice(x.k.v(), 2, {i, i + 1}),
                   v = slice(x.v.v(), 2, {i, i + 1});
        tensor<float> o({B, H, 1, E}), narrow({B, H, 1, E - 1});
        const any_mask mask(everything{});
        EXPECT_THROW(run.step(q, slice(k, 3, {1, D}), v, o.v(), mask), shape_error);
        EXPECT_THROW(run.step(q, k, v, narrow.v(), mask), shape_error);
        EXPECT_THROW(run.step(slice(q, 1, {1, H}), k, v, slice(o.v(), 1, {1, H}), mask), shape_error);
        x.step(run, {i, i + 1});
        y.step(same, {i, i + 1});
        ASSERT_EQ(cache.end(0), i + 1);
        for (index_t b = 0; b < B; ++b)
            for (index_t g = 0; g < G; ++g) ASSERT_EQ(positions(cache, b, g), positions(other, b, g));
    }
    EXPECT_TRUE(same_values(x.o, y.o));
}

}  // namespace
