// A decode loop that evicts: what it holds and gives against a loop in double precision, prefill against steps, errors.
#include <heed/heed.hpp>

#include "any_mask.hpp"
#include "compare.hpp"
#include "defined.hpp"
#include "random.hpp"
#include "refuses.hpp"

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
    template <class Loop>
    void step(Loop& run, range tokens, const any_mask& mask = everything{}) {
        run.step(slice(q.v(), 2, tokens), slice(k.v(), 2, tokens), slice(v.v(), 2, tokens), slice(o.v(), 2, tokens),
                 mask);
    }
};

tensor<double> exact(const view<const float>& x) {
    tensor<double> out(x.shape);
    out.each([&](index_t b, index_t h, index_t n, index_t d) { out(b, h, n, d) = static_cast<double>(x(b, h, n, d)); });
    return out;
}

template <class Cache>
std::vector<index_t> positions(const Cache& cache, index_t b, index_t g) {
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

/// Where nothing has gone and the mass forgets all but the last query's, tokens that are dropped leave no trace.
TEST(evicting, dropped_tokens_leave_the_rules) {
    const index_t N = 24;
    input x(N), y(N);
    cache_type cache({B, G, D, E}), other({B, G, D, E});
    loop run(cache, forgetting_mass<float>(N, 0)), straight(other, forgetting_mass<float>(N, 0));
    for (index_t i = 0; i < N; ++i) {
        if (i + 5 <= N) {
            x.step(run, {i, i + 5}, causal{});  // guesses, refused
            run.truncate(5);
        }
        x.step(run, {i, i + 1});
        y.step(straight, {i, i + 1});
        for (index_t b = 0; b < B; ++b)
            for (index_t g = 0; g < G; ++g) {
                const auto got = run.rule(b, g).values(), want = straight.rule(b, g).values();
                ASSERT_TRUE(std::equal(got.begin(), got.end(), want.begin(), want.end())) << i;
            }
    }
    EXPECT_TRUE(same_values(x.o, y.o));
}

/// After evictions that differ from head to head too, a drop leaves the keys that came before, and their masses.
TEST(evicting, a_drop_after_evictions_leaves_earlier_keys_alone) {
    input x(40);
    cache_type cache({B, G, D, E});
    loop run(cache, forgetting_mass<float>(9, 0.9));
    for (index_t i = 0; i < 30; ++i) x.step(run, {i, i + 1});
    std::vector<std::vector<index_t>> held;
    for (index_t t = 0; t < B * G; ++t) held.push_back(positions(cache, t / G, t % G));
    run.truncate(4);
    for (index_t t = 0; t < B * G; ++t) {
        auto& want = held[static_cast<std::size_t>(t)];
        std::erase_if(want, [](index_t j) { return j >= 26; });
        EXPECT_EQ(positions(cache, t / G, t % G), want);
        EXPECT_EQ(run.rule(t / G, t % G).values().size(), want.size());
    }
    for (index_t i = 26; i < 40; ++i) x.step(run, {i, i + 1});
    for (index_t t = 0; t < B * G; ++t) EXPECT_EQ(cache.keys(t / G, t % G), 9);
}

/// Beams: what each sequence was told goes with it, also to more sequences than there were.
TEST(evicting, reorder_takes_the_rules_along) {
    const index_t N = 40, more = 3;
    const std::vector<index_t> parents{1, 1, 0};
    input x(N);
    const auto q = normal<float>({more, H, N, D}, 7, 2), k = normal<float>({more, G, N, D}, 8),
               v = normal<float>({more, G, N, E}, 9);
    cache_type cache({B, G, D, E});
    loop run(cache, forgetting_mass<float>(7, 0.9));
    for (index_t i = 0; i < N; ++i) x.step(run, {i, i + 1});
    tensor<float> o({more, H, N, E}), want({more, H, N, E});
    run.reorder(parents);
    const auto part = [](auto& t, index_t b, index_t i) { return slice(slice(t.v(), 0, {b, b + 1}), 2, {i, i + 1}); };
    for (index_t i = 0; i < N; ++i) {
        const range one{i, i + 1};
        run.step(slice(q.v(), 2, one), slice(k.v(), 2, one), slice(v.v(), 2, one), slice(o.v(), 2, one),
                 any_mask(everything{}));
    }
    for (index_t b = 0; b < more; ++b) {  // each sequence by itself
        cache_type alone({1, G, D, E});
        loop single(alone, forgetting_mass<float>(7, 0.9));
        const index_t from = parents[static_cast<std::size_t>(b)];
        tensor<float> unused({1, H, 1, E});
        for (index_t i = 0; i < N; ++i)
            single.step(part(x.q, from, i), part(x.k, from, i), part(x.v, from, i), unused.v(), any_mask(everything{}));
        for (index_t i = 0; i < N; ++i)
            single.step(part(q, b, i), part(k, b, i), part(v, b, i), part(want, b, i), any_mask(everything{}));
        for (index_t g = 0; g < G; ++g) EXPECT_EQ(positions(cache, b, g), positions(alone, 0, g));
    }
    EXPECT_TRUE(same_values(o, want));
    run.reorder(std::vector<index_t>{2});
    EXPECT_EQ(cache.batch(), 1);
}

TEST(evicting, a_cache_that_changed_behind_its_back_is_refused) {
    input x(20);
    tensor<float> o({B, H, 1, E});
    const auto at = [](const tensor<float>& t, index_t i) { return slice(t.v(), 2, {i, i + 1}); };
    const auto step = [&](loop& run) { run.step(at(x.q, 9), at(x.k, 9), at(x.v, 9), o.v(), any_mask(everything{})); };
    cache_type cache({B, G, D, E});
    loop run(cache, forgetting_mass<float>(5));
    for (index_t i = 0; i < 8; ++i) x.step(run, {i, i + 1});
    cache.truncate(2);
    refuses<argument_error>([&] { step(run); }, "evicting::step: head (0, 0) of the cache holds ");
    refuses<argument_error>([&] { run.truncate(1); }, "evicting::truncate: head (0, 0) of the cache holds ");
    cache_type second({B, G, D, E});
    loop other(second, forgetting_mass<float>(5));
    for (index_t i = 0; i < 3; ++i) x.step(other, {i, i + 1});
    second.append(at(x.k, 3), at(x.v, 3));
    refuses<argument_error>([&] { step(other); }, "holds 4 keys, the last step left 3");
    second.truncate(1);
    step(other);
    refuses<argument_error>([&] { other.truncate(5); }, "cannot drop 5 tokens of 4");
    second.reorder(std::vector<index_t>{0, 1, 0});
    refuses<argument_error>([&] { other.reorder(std::vector<index_t>{0}); },
                            "evicting::reorder: the cache has 6 heads in all, there are rules for 4");
    EXPECT_EQ(second.keys(2, 1), 4);
    cache_type filled({B, G, D, E});  // what it holds before the loop is no change
    filled.append(x.k, x.v);
    loop late(filled, forgetting_mass<float>(21));
    late.truncate(3);
    step(late);
    EXPECT_EQ(filled.keys(1, 1), 18);
}

/// A head that reaches 20 keys is cut down to the 12 of lowest norm, again and again [41].
TEST(evicting, low_norms_are_kept_each_time_a_head_has_grown) {
    const index_t N = 70, limit = 20;
    input x(N);
    cache_type cache({B, G, D, E});
    evicting run(cache, low_norm{.share = 0.6, .prune_after = limit, .recent = 2});
    std::vector<std::vector<index_t>> held(B * G);
    for (index_t i = 0; i < N; ++i) {
        x.step(run, {i, i + 1});
        for (index_t b = 0; b < B; ++b)
            for (index_t g = 0; g < G; ++g) {
                auto& keys = held[static_cast<std::size_t>(b * G + g)];
                keys.push_back(i);
                const defined want(
                    rows_at(exact(slice(slice(x.q.v(), 0, {b, b + 1}), 1, {g * group, (g + 1) * group})), {i}),
                    rows_at(exact(slice(slice(x.k.v(), 0, {b, b + 1}), 1, {g, g + 1})), keys),
                    rows_at(exact(slice(slice(x.v.v(), 0, {b, b + 1}), 1, {g, g + 1})), keys));
                for (index_t h = 0; h < group; ++h)
                    for (index_t e = 0; e < E; ++e)
                        ASSERT_NEAR(x.o(b, g * group + h, i, e), want.o(0, h, 0, e), 1e-5) << i;
                if (static_cast<index_t>(keys.size()) == limit) {
                    std::vector<double> norms;
                    for (index_t j : keys) {
                        double sum = 0;
                        for (index_t d = 0; d < D; ++d) sum += std::pow(static_cast<double>(x.k(b, g, j, d)), 2);
                        norms.push_back(sum);
                    }
                    keep_entries(keys, keep_lowest(norms, 12, 2));
                }
                ASSERT_EQ(positions(cache, b, g), keys) << i;
            }
    }
    EXPECT_THROW(evicting(cache, low_norm{.share = 0}), argument_error);
    EXPECT_THROW(evicting(cache, low_norm{.recent = -1}), argument_error);
}

/// A rule of one's own: every other key goes.
struct even_positions {
    std::vector<index_t> kept(const cache_type& cache, index_t b, index_t g) const {
        std::vector<index_t> out;
        const auto at = positions(cache, b, g);
        for (std::size_t j = 0; j < at.size(); ++j)
            if (at[j] % 2 == 0) out.push_back(static_cast<index_t>(j));
        return out;
    }
};
TEST(evicting, a_rule_of_ones_own) {
    input x(9);
    cache_type cache({B, G, D, E});
    evicting run(cache, even_positions{});
    for (index_t i = 0; i < 9; ++i) x.step(run, {i, i + 1});
    EXPECT_EQ(positions(cache, 1, 0), (std::vector<index_t>{0, 2, 4, 6, 8}));
    run.truncate(2);
    EXPECT_EQ(positions(cache, 1, 0), (std::vector<index_t>{0, 2, 4, 6}));
}

/// Over pages: the bits of a contiguous cache, and pages that are given back; its sequences have names of their own.
TEST(evicting, over_pages) {
    const index_t N = 60;
    input x(N), y(N);
    cache_type cache({B, G, D, E});
    paged_cache<float> pages({B + 1, G, D, E}, 4, 40);
    pages.close(0);
    loop run(cache, forgetting_mass<float>(10, 0.9));
    evicting of_pages(pages, forgetting_mass<float>(10, 0.9));
    for (index_t i = 0; i < N; ++i) {
        x.step(run, {i, i + 1});
        y.step(of_pages, {i, i + 1});
        if (i % 7 == 3) run.truncate(1), of_pages.truncate(1);
        if (i == 40) {
            run.reorder(std::vector<index_t>{1, 1});
            of_pages.reorder(std::vector<index_t>{1, 1});
        }
    }
    EXPECT_TRUE(same_values(x.o, y.o));
    for (index_t b = 0; b < B; ++b)
        for (index_t g = 0; g < G; ++g) EXPECT_EQ(positions(pages, b, g), positions(cache, b, g));
    EXPECT_EQ(pages.free_pages(), 40 - B * 3);
}

/// Sequences that share pages need copies of those in which keys move: where there are too few for all, none evicts.
TEST(evicting, too_few_pages_for_copies_change_nothing) {
    input x(30);
    paged_cache<float> pages({1, G, D, E}, 4, 6);
    cache_type cache({B, G, D, E});
    const range prompt{0, 16};
    const auto first = [&](const tensor<float>& t) { return slice(slice(t.v(), 2, prompt), 0, {0, 1}); };
    pages.append(0, first(x.k), first(x.v));
    pages.fork(0);
    for (index_t b = 0; b < B; ++b) cache.append(b, first(x.k), first(x.v));
    evicting of_pages(pages, forgetting_mass<float>(10, 0.9));
    loop run(cache, forgetting_mass<float>(10, 0.9));

    for (int again = 0; again < 2; ++again) EXPECT_THROW(x.step(of_pages, {16, 17}), argument_error);
    EXPECT_EQ(pages.free_pages(), 2);
    for (index_t b = 0; b < B; ++b) {
        EXPECT_EQ(pages.size(b), 16);
        for (index_t g = 0; g < G; ++g) {
            EXPECT_EQ(positions(pages, b, g), positions(cache, b, g));
            EXPECT_TRUE(of_pages.rule(b, g).values().empty());
        }
    }
    of_pages.truncate(8), run.truncate(8);
    input y = x;
    for (index_t i = 16; i < 30; ++i) {
        x.step(of_pages, {i, i + 1});
        y.step(run, {i, i + 1});
    }
    EXPECT_TRUE(same_values(x.o, y.o));
    for (index_t b = 0; b < B; ++b)
        for (index_t g = 0; g < G; ++g) EXPECT_EQ(positions(pages, b, g), positions(cache, b, g));
}

/// Keeps the newest key; names one too many in the last head.
struct errs_at_last {
    std::vector<index_t> kept(const cache_type& cache, index_t b, index_t g) const {
        return {cache.keys(b, g) - (b == B - 1 && g == G - 1 ? 0 : 1)};
    }
};
TEST(evicting, a_rule_that_keeps_what_is_not_there_changes_nothing) {
    input x(3);
    cache_type cache({B, G, D, E});
    evicting run(cache, errs_at_last{});
    refuses<argument_error>([&] { x.step(run, {0, 3}, causal{}); }, "evicting::step: key 3 of 3");
    for (index_t b = 0; b < B; ++b)
        for (index_t g = 0; g < G; ++g) EXPECT_EQ(cache.keys(b, g), 0);
}

/// The mass of a key is the sum, the greatest or the mean of what the heads of a group gave.
TEST(evicting, masses_of_a_group_join_as_told) {
    for (over_heads how : {over_heads::sum, over_heads::maximum, over_heads::mean}) {
        input x(30);
        cache_type cache({B, G, D, E});
        evicting run(cache, forgetting_mass<float>(29, 0), how);
        x.step(run, {0, 30}, causal{});
        for (index_t b = 0; b < B; ++b)
            for (index_t g = 0; g < G; ++g) {
                std::vector<double> mass(30);
                for (index_t h = g * group; h < (g + 1) * group; ++h) {
                    const defined last(rows_at(exact(slice(slice(x.q.v(), 0, {b, b + 1}), 1, {h, h + 1})), {29}),
                                       exact(slice(slice(x.k.v(), 0, {b, b + 1}), 1, {g, g + 1})),
                                       exact(slice(slice(x.v.v(), 0, {b, b + 1}), 1, {g, g + 1})));
                    for (std::size_t j = 0; j < 30; ++j) {
                        const double p = last.p(0, 0, 0, static_cast<index_t>(j));
                        mass[j] = how == over_heads::maximum ? std::max(mass[j], p) : mass[j] + p;
                    }
                }
                const double by = how == over_heads::mean ? group : 1;
                const auto kept = keep_highest(mass, 29, 0, ties::higher);
                EXPECT_EQ(positions(cache, b, g), kept);
                const auto got = run.rule(b, g).values();
                for (std::size_t i = 0; i < 29; ++i)
                    EXPECT_NEAR(got[i], mass[static_cast<std::size_t>(kept[i])] / by, 1e-5);
            }
    }
}

}  // namespace
