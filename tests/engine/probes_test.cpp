// Probes against the record of the definition; they agree with each other, and never change a bit of the output.
#include <algorithm>
#include <heed/heed.hpp>
#include <numeric>
#include <utility>

#include "any_mask.hpp"
#include "compare.hpp"
#include "random.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

/// Everything that can be recorded of one call, and its output.
template <class T, class O = T>
struct watched {
    tensor<O> o;
    tensor<T> lse, row_max, entropy, key_mass, raw, scored, masked, probability, chosen, best;
    std::vector<index_t> best_keys, rows;
    static constexpr index_t top = 5;

    watched(index_t B, index_t H, index_t N, index_t M, index_t E)
        : o({B, H, N, E}), lse({B, H, N, 1}), row_max(lse), entropy(lse), key_mass({B, H, M, 1}), raw({B, H, N, M}),
          scored(raw), masked(raw), probability(raw), best({B, H, N, top}),
          best_keys(static_cast<std::size_t>(B * H * N * top), -7) {
        for (index_t row : {index_t(N - 1), index_t(0), N / 2, index_t(0)})  // any order, and twice
            if (N > 0) rows.push_back(row);
        chosen = tensor<T>({B, H, static_cast<index_t>(rows.size()), M});
    }
    view<index_t, 4> best_view() {
        const auto [B, H, N, D] = best.shape();
        return dense(best_keys.data(), {B, H, N, D});
    }
    ref::record<T> record() {
        return {flat(lse), flat(row_max), flat(entropy), flat(key_mass), raw, scored, masked, probability};
    }
    /// Calls f with every probe.
    template <class F>
    void with_all(F&& f) {
        f(heed::lse{flat(lse)}, heed::row_max{flat(row_max)}, heed::entropy{flat(entropy)},
          heed::key_mass{flat(key_mass)}, top_keys{best_view(), best.v()}, logits{raw.v(), stage::raw},
          logits{scored.v(), stage::scored}, logits{masked.v(), stage::masked},
          logits{probability.v(), stage::probability}, logits{chosen.v(), stage::masked, rows});
    }
};

struct sizes {
    index_t B, H, G, N, M, D, E;
};

template <class S>
struct operands {
    tensor<S> q, k, v;
    explicit operands(const sizes& s, double spread = 1)
        : q(normal<S>({s.B, s.H, s.N, s.D}, 1, spread)), k(normal<S>({s.B, s.G, s.M, s.D}, 2, spread)),
          v(normal<S>({s.B, s.G, s.M, s.E}, 3)) {}
};

template <class S, class T>
watched<T, T> defined(const operands<S>& x, const sizes& s, const ref::options<T>& with) {
    watched<T, T> out(s.B, s.H, s.N, s.M, s.E);
    ref::naive_attention<T>(x.q.v(), x.k.v(), x.v.v(), out.o.v(), with, out.record());
    return out;
}

/// The rule of values for everything recorded.
template <class T, class O, class Make>
void expect_recorded(watched<T, O>& got, const operands<O>& x, const sizes& s, Make make) {
    using R = definition_of<T>;
    const auto naive = defined<O, T>(x, s, make(T{}));
    const auto exact = defined<O, R>(x, s, make(R{}));
    const auto check = [&](const char* what, const auto& a, const auto& b, const auto& c) {
        EXPECT_TRUE((within_rule<T>(a, b, c))) << what;
    };
    check("lse", got.lse, naive.lse, exact.lse);
    check("row_max", got.row_max, naive.row_max, exact.row_max);
    check("entropy", got.entropy, naive.entropy, exact.entropy);
    check("key_mass", got.key_mass, naive.key_mass, exact.key_mass);
    check("raw", got.raw, naive.raw, exact.raw);
    check("scored", got.scored, naive.scored, exact.scored);
    check("masked", got.masked, naive.masked, exact.masked);
    check("probability", got.probability, naive.probability, exact.probability);
}

/// What the probes say of each other holds to the bit.
template <class T, class O>
void expect_consistent(watched<T, O>& x) {
    const auto [B, H, N, M] = x.masked.shape();
    const auto keys = x.best_view();
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h) {
            for (std::size_t c = 0; c < x.rows.size(); ++c)
                for (index_t j = 0; j < M; ++j)
                    ASSERT_EQ(x.chosen(b, h, static_cast<index_t>(c), j), x.masked(b, h, x.rows[c], j));
            for (index_t n = 0; n < N; ++n) {
                std::vector<index_t> order;
                for (index_t j = 0; j < M; ++j) {
                    const T y = x.masked(b, h, n, j);
                    if (y != -std::numeric_limits<T>::infinity())
                        order.push_back(j);
                    else
                        ASSERT_EQ(x.probability(b, h, n, j), T(0));
                }
                std::stable_sort(order.begin(), order.end(), [&](index_t i, index_t j) {
                    return x.masked(b, h, n, i) > x.masked(b, h, n, j);
                });
                for (index_t c = 0; c < x.top; ++c) {
                    const bool there = c < static_cast<index_t>(order.size());
                    ASSERT_EQ(keys(b, h, n, c), there ? order[static_cast<std::size_t>(c)] : -1) << n << ", " << c;
                    ASSERT_EQ(x.best(b, h, n, c), there ? x.masked(b, h, n, keys(b, h, n, c))
                                                        : -std::numeric_limits<T>::infinity());
                }
                ASSERT_EQ(x.row_max(b, h, n, 0), x.best(b, h, n, 0));
            }
        }
}

template <class T>
void expect_same_record(watched<T>& a, watched<T>& b) {
    for (const auto member : {&watched<T>::o, &watched<T>::lse, &watched<T>::row_max, &watched<T>::entropy,
                              &watched<T>::key_mass, &watched<T>::raw, &watched<T>::scored, &watched<T>::masked,
                              &watched<T>::probability, &watched<T>::chosen, &watched<T>::best})
        EXPECT_TRUE(same_values(a.*member, b.*member));
    EXPECT_EQ(a.best_keys, b.best_keys);
}

struct named_mask {
    const char* name;
    any_mask mask;
};
std::vector<named_mask> masks() {
    return {{"everything", everything{}},
            {"causal", causal{}},
            {"window", window{5, 2}},
            {"causal window", causal{} & window{20}},
            {"lambda", [](const where& w) { return (w.i * 7 + w.j * 3 + w.h) % 5 != 0 && w.row % 9 != 4; }},
            {"nobody", [](const where&) { return false; }}};
}

constexpr double cap = 3;
std::vector<float> sink_logits(index_t H) {
    std::vector<float> logit(static_cast<std::size_t>(H));
    for (std::size_t h = 0; h < logit.size(); ++h) logit[h] = static_cast<float>(h) - 1.5f;
    return logit;
}

/// `rich`: softcap and sink as well.
template <class S>
void check(const sizes& s, const named_mask& m, index_t shift, bool rich) {
    using T = accumulator<S>;
    SCOPED_TRACE(testing::Message() << m.name << " N" << s.N << " M" << s.M << " D" << s.D << " H" << s.H << " G" << s.G
                                    << " offset " << shift << (rich ? ", softcap and sink" : ""));
    const operands<S> x(s);
    const auto logit = sink_logits(s.H);
    watched<T, S> got(s.B, s.H, s.N, s.M, s.E);
    tensor<S> alone(got.o.shape());
    const auto call = [&](auto& o, const auto&... probe) {
        if (rich)
            attention(x.q, x.k, x.v, o, m.mask, offset{shift}, softcap{cap}, sink{logit}, probe...);
        else
            attention(x.q, x.k, x.v, o, m.mask, offset{shift}, probe...);
    };
    call(alone);
    got.with_all([&](const auto&... probe) { call(got.o, probe...); });
    EXPECT_TRUE(same_values(alone, got.o)) << "probes change the output";
    expect_consistent(got);
    expect_recorded(got, x, s, [&](auto real) {
        ref::options<decltype(real)> with;
        with.offset = shift;
        with.visible = [&](index_t b, index_t h, index_t row, index_t i, index_t j) {
            return m.mask.allows({b, h, row, i, j});
        };
        if (rich) {
            with.score = [](auto y, auto...) { return decltype(real)(cap) * std::tanh(y / decltype(real)(cap)); };
            with.sink.assign(logit.begin(), logit.end());
        }
        return with;
    });
    if (rich) return;
    const double rows = std::accumulate(got.lse.memory().begin(), got.lse.memory().end(), 0.0,
                                        [](double n, T y) { return n + (y > -std::numeric_limits<T>::infinity()); });
    double mass = 0;
    got.key_mass.each([&](index_t b, index_t h, index_t j, index_t) { mass += double(got.key_mass(b, h, j, 0)); });
    EXPECT_NEAR(mass, rows, (rows + 1) * 1e-5) << "every row that sees a key gives away one";
}

template <class S>
class probes : public testing::Test {};
using storages = testing::Types<float, double, bf16>;
TYPED_TEST_SUITE(probes, storages);

TYPED_TEST(probes, follow_the_definition_under_masks) {
    for (const auto& m : masks())
        for (bool rich : {false, true}) {
            check<TypeParam>({1, 2, 1, 60, 150, 12, 6}, m, 90, rich);
            check<TypeParam>({2, 2, 2, 33, 40, 5, 3}, m, 3, rich);
        }
}

TYPED_TEST(probes, follow_the_definition_around_lanes_and_tiles) {
    for (index_t N : {1, 7, 8, 9, 16, 17, 47, 48, 49, 97}) check<TypeParam>({1, 2, 1, N, 21, 8, 4}, masks()[1], 21 - N, false);
    for (index_t M : {1, 3, 7, 8, 9, 127, 128, 129, 137, 257}) check<TypeParam>({1, 1, 1, 9, M, 8, 4}, masks()[1], M - 9, true);
    check<TypeParam>({2, 6, 2, 50, 50, 16, 4}, masks()[3], 0, false);
    check<TypeParam>({1, 4, 1, 20, 10, 7, 4}, masks()[1], -10, true);  // rows before the first key
}

TYPED_TEST(probes, empty_extents) {
    check<TypeParam>({1, 2, 1, 5, 0, 4, 3}, masks()[0], 0, false);
    check<TypeParam>({1, 2, 1, 0, 5, 4, 3}, masks()[0], 0, false);
    check<TypeParam>({0, 2, 1, 3, 5, 4, 3}, masks()[0], 0, false);
    check<TypeParam>({1, 1, 1, 3, 5, 0, 3}, masks()[1], 2, false);
}

TEST(probe, each_alone_records_the_same_bits_as_all_together) {
    const sizes s{1, 2, 1, 60, 150, 12, 6};
    const operands<float> x(s);
    const auto m = causal{} & window{20};
    watched<float> all(s.B, s.H, s.N, s.M, s.E), one(all);
    const auto attend = [&](auto&... policies) { attention(x.q, x.k, x.v, one.o, m, policies...); };
    all.with_all([&](const auto&... probe) { attention(x.q, x.k, x.v, all.o, m, probe...); });
    one.with_all([&](const auto&... probe) { (attend(probe), ...); });
    expect_same_record(one, all);
}

TEST(probe, bits_do_not_depend_on_workers) {
    const sizes s{2, 4, 2, 70, 300, 12, 6};
    const operands<float> x(s);
    watched<float> alone(s.B, s.H, s.N, s.M, s.E);
    alone.with_all([&](const auto&... probe) { attention(x.q, x.k, x.v, alone.o, causal{}, probe...); });
    for (index_t n : {1, 2, 3}) {
        threads pool(n);
        watched<float> got(s.B, s.H, s.N, s.M, s.E);
        got.with_all([&](const auto&... probe) { attention(x.q, x.k, x.v, got.o, causal{}, on{pool}, probe...); });
        expect_same_record(got, alone);
    }
}

/// Numbers -1, 0, 1 and a width of 3, so that products are exact in any units and most logits tie.
template <class S>
void check_ties() {
    const index_t N = 30, M = 140, D = 3, top = 12;
    const auto small = [](std::uint64_t seed, index_t rows) {
        const counter_random r(seed);
        return tensor<S>({1, 2, rows, 3}).fill([&](index_t i) { return static_cast<double>(r.integer(number(i), -1, 2)); });
    };
    const auto q = small(1, N), k = small(2, M), v = small(3, M);
    tensor<S> o({1, 2, N, D});
    std::vector<index_t> keys(static_cast<std::size_t>(2 * N * top));
    std::vector<float> best(keys.size());
    const auto at = dense(keys.data(), {1, 2, N, top});
    const auto value = dense(best.data(), {1, 2, N, top});
    attention(q, k, v, o, causal{}, scale{1}, top_keys{at, value});
    for (index_t h = 0; h < 2; ++h)
        for (index_t n = 0; n < N; ++n) {
            std::vector<std::pair<float, index_t>> order;
            for (index_t j = 0; j <= n + M - N; ++j) {
                float dot = 0;
                for (index_t d = 0; d < D; ++d) dot += static_cast<float>(q(0, h, n, d)) * static_cast<float>(k(0, h, j, d));
                order.emplace_back(-dot, j);
            }
            std::sort(order.begin(), order.end());
            for (index_t c = 0; c < top; ++c) {
                ASSERT_EQ(at(0, h, n, c), order[static_cast<std::size_t>(c)].second) << n << ", " << c;
                ASSERT_EQ(value(0, h, n, c), -order[static_cast<std::size_t>(c)].first);
            }
        }
}

TEST(probe, ties_go_to_the_lower_key) {
    check_ties<float>();
    check_ties<double>();
    check_ties<bf16>();
}

TEST(probe, nan_stays_in_its_row_and_hidden_pairs_weigh_nothing) {
    const sizes s{1, 1, 1, 40, 40, 8, 8};
    operands<float> x(s);
    x.k(0, 0, 25, 3) = std::nanf("");
    watched<float> got(1, 1, 40, 40, 8);
    got.with_all([&](const auto&... probe) { attention(x.q, x.k, x.v, got.o, causal{}, probe...); });
    for (index_t n = 0; n < 40; ++n) {
        EXPECT_EQ(std::isnan(got.lse(0, 0, n, 0)), n >= 25) << n;
        EXPECT_EQ(std::isnan(got.row_max(0, 0, n, 0)), n >= 25) << n;
        EXPECT_EQ(std::isnan(got.entropy(0, 0, n, 0)), n >= 25) << n;
        for (index_t j = 0; j < 40; ++j) {
            EXPECT_EQ(std::isnan(got.probability(0, 0, n, j)), n >= 25 && j <= n) << n << ", " << j;
            if (j > n) {
                EXPECT_EQ(got.probability(0, 0, n, j), 0) << n << ", " << j;
            }
        }
    }
    for (index_t j = 0; j < 40; ++j) EXPECT_TRUE(std::isnan(got.key_mass(0, 0, j, 0))) << j;
}

TEST(probe, a_scale_of_zero_is_a_scale) {
    const sizes s{1, 1, 1, 20, 30, 8, 8};
    const operands<float> x(s);
    watched<float> got(1, 1, 20, 30, 8);
    got.with_all([&](const auto&... probe) { attention(x.q, x.k, x.v, got.o, scale{0}, probe...); });
    got.raw.each([&](index_t, index_t, index_t n, index_t j) {
        ASSERT_EQ(got.raw(0, 0, n, j), 0);
        ASSERT_NEAR(got.probability(0, 0, n, j), 1 / 30.0, 1e-7);
    });
}

TEST(probe, weights_that_do_not_sum_to_one) {
    const sizes s{1, 2, 1, 20, 140, 8, 4};
    const operands<float> x(s);
    watched<float> got(1, 2, 20, 140, 4);
    attention(x.q, x.k, x.v, got.o, causal{}, relu_squared{}, heed::row_max{flat(got.row_max)},
              heed::key_mass{flat(got.key_mass)}, logits{got.probability.v(), stage::probability});
    const auto with = [](auto real) {
        ref::options<decltype(real)> options;
        options.visible = [](index_t, index_t, index_t, index_t i, index_t j) { return j <= i; };
        options.weight = [](auto y) { return y > 0 ? y * y : decltype(real)(0); };
        return options;
    };
    const auto naive = defined<float, float>(x, s, with(0.f));
    const auto exact = defined<float, double>(x, s, with(0.0));
    EXPECT_TRUE(within_rule<float>(got.row_max, naive.row_max, exact.row_max));
    EXPECT_TRUE(within_rule<float>(got.key_mass, naive.key_mass, exact.key_mass));
    EXPECT_TRUE(within_rule<float>(got.probability, naive.probability, exact.probability));
}

/// Keys that a sequence does not hold, though another does, have neither logits nor weight.
TEST(probe, keys_that_are_not_held_read_as_hidden) {
    contiguous_cache<float> cache({2, 1, 4, 4});
    cache.append(0, normal<float>({1, 1, 70, 4}, 1), normal<float>({1, 1, 70, 4}, 2));
    cache.append(1, normal<float>({1, 1, 3, 4}, 3), normal<float>({1, 1, 3, 4}, 4));
    for (index_t N : {1, 40}) {
        const auto q = normal<float>({2, 2, N, 4}, 5);
        watched<float> to(2, 2, N, 70, 4);
        to.with_all([&](const auto&... probes) { attention(q, cache, to.o, causal{}, probes...); });
        to.raw.each([&](index_t b, index_t h, index_t n, index_t j) {
            const bool held = b == 0 || j < 3;
            for (const auto* logit : {&to.raw, &to.scored}) ASSERT_EQ(std::isfinite((*logit)(b, h, n, j)), held);
            if (held) return;
            ASSERT_EQ(to.masked(b, h, n, j), -INFINITY);
            ASSERT_EQ(to.probability(b, h, n, j), 0.f);
            ASSERT_EQ(to.key_mass(b, h, j, 0), 0.f);
        });
        for (std::size_t r = 0; r < to.rows.size(); ++r)
            for (index_t j = 0; j < 70; ++j)
                ASSERT_EQ(to.chosen(1, 1, static_cast<index_t>(r), j), to.masked(1, 1, to.rows[r], j));
    }
}

TEST(probe, errors) {
    const sizes s{1, 2, 1, 20, 30, 8, 4};
    const operands<float> x(s);
    watched<float> w(1, 2, 20, 30, 4), wrong(1, 2, 21, 31, 4);
    const auto attend = [&](const auto& probe) { attention(x.q, x.k, x.v, w.o, probe); };
    refuses<std::invalid_argument>([&] { attend(heed::row_max{flat(wrong.row_max)}); }, "attention: row_max has shape (1, 2, 21), the rows are (1, 2, 20)");
    refuses<std::invalid_argument>([&] { attend(heed::entropy{flat(wrong.entropy)}); }, "attention: entropy has shape (1, 2, 21)");
    refuses<std::invalid_argument>([&] { attend(heed::key_mass{flat(wrong.key_mass)}); }, "attention: key_mass has shape (1, 2, 31)");
    refuses<std::invalid_argument>([&] { attend(logits{wrong.raw.v(), stage::raw}); }, "attention: logits has shape (1, 2, 21, 31), expected (1, 2, 20, 30)");
    refuses<std::invalid_argument>([&] { attend(top_keys{wrong.best_view(), wrong.best.v()}); }, "attention: top_keys has rows (1, 2, 21)");
    refuses<std::invalid_argument>([&] { attend(top_keys{w.best_view(), wrong.best.v()}); }, "attention: top_keys: logits and keys differ in shape");
    w.rows[1] = 20;
    refuses<std::invalid_argument>([&] { attend(logits{w.chosen.v(), stage::raw, w.rows}); }, "attention: logits: row 20 is not below 20");
    w.o.each([&](index_t b, index_t h, index_t n, index_t e) { ASSERT_TRUE(std::isnan(w.o(b, h, n, e))); });
}

}  // namespace
