// heed_test: LABELS sanitize
// Alignments: the transducer lattice against all its paths, monotonic and chunkwise attention, Aaren.
#include <heed/core/threads.hpp>
#include <heed/engine/attention.hpp>
#include <heed/ops/aaren.hpp>
#include <heed/ops/monotonic.hpp>
#include <heed/ops/transducer_lattice.hpp>
#include <heed/policy/mask_position.hpp>
#include <heed/ref/lattice.hpp>

#include "../support/compare.hpp"
#include "../support/refuses.hpp"
#include "../support/sequence.hpp"

namespace {

using namespace heed;
using test::refuses;
using test::seq;
using test::tensor;

constexpr double inf = std::numeric_limits<double>::infinity();

template <class S>
struct lattices {
    index_t B, T, U;
    tensor<S> blank, label;
    tensor<double> d_blank, d_label;
    std::vector<double> log_p;
    lattices(index_t batch, index_t frames, index_t labels, const test::layout& l = {})
        : B(batch),
          T(frames),
          U(labels),
          blank(test::uniform<S>({B, 1, T, U + 1}, 1, -3, 0, l)),
          label(test::uniform<S>({B, 1, T, U}, 2, -3, 0, l)),
          d_blank({B, 1, T, U + 1}),
          d_label({B, 1, T, U}),
          log_p(static_cast<std::size_t>(B)) {}
    template <class... P>
    lattices& run(const P&... policies) {
        std::vector<double> alone(log_p.size());
        transducer_lattice(seq(std::as_const(blank)), seq(std::as_const(label)), dense(alone.data(), {B}), policies...);
        transducer_lattice_gradient(seq(std::as_const(blank)), seq(std::as_const(label)), seq(d_blank), seq(d_label),
                                    dense(log_p.data(), {B}), policies...);
        for (std::size_t b = 0; b < alone.size(); ++b) EXPECT_EQ(alone[b], log_p[b]);
        return *this;
    }
    void expect_brute_force(index_t b, index_t t, index_t u, double by) {
        tensor<double> db(d_blank.shape()), dl(d_label.shape());
        db.fill([](index_t) { return 0; }), dl.fill([](index_t) { return 0; });
        double total = -inf;
        const auto at = [b](const tensor<S>& x) {
            return [&x, b](index_t i, index_t j) { return static_cast<double>(x(b, 0, i, j)); };
        };
        const auto walk = [&](const auto& f) { ref::each_transducer_path(t, u, at(blank), at(label), f); };
        walk([&](double weight, const auto&) { total = ref::log_plus(total, weight); });
        walk([&](double weight, const auto& steps) {
            for (const auto& s : steps) (s.emits ? dl : db)(b, 0, s.t, s.u) -= std::exp(weight - total);
        });
        if (total == -inf)
            EXPECT_EQ(log_p[static_cast<std::size_t>(b)], -inf);
        else
            EXPECT_NEAR(log_p[static_cast<std::size_t>(b)], total, by);
        for (index_t i = 0; i < T; ++i)
            for (index_t j = 0; j <= U; ++j) {
                EXPECT_NEAR(d_blank(b, 0, i, j), db(b, 0, i, j), by) << i << " " << j;
                if (j < U) EXPECT_NEAR(d_label(b, 0, i, j), dl(b, 0, i, j), by) << i << " " << j;
            }
    }
};

TEST(transducer_lattice, is_the_sum_over_all_paths) {
    for (const auto& l : {test::layout::heads(), test::layout::strided()})
        for (index_t T : {1, 2, 5})
            for (index_t U : {0, 1, 4, 5}) {
                lattices<float> f(2, T, U, l);
                lattices<double> d(1, T, U, l);
                for (index_t b = 0; b < 2; ++b) f.run().expect_brute_force(b, T, U, 1e-5);
                d.run().expect_brute_force(0, T, U, 1e-12);
            }
}

TEST(transducer_lattice, lengths) {
    lattices<double> x(4, 5, 4);
    const index_t frames[] = {5, 3, 0, 2}, labels[] = {4, 2, 1, 0};
    for (index_t b = 0; b < 4; ++b)
        for (index_t t = 0; t < 5; ++t)
            for (index_t u = 0; u <= 4; ++u) {
                if (t >= frames[b] || u > labels[b]) x.blank(b, 0, t, u) = std::nan("");
                if (u < 4 && (t >= frames[b] || u >= labels[b])) x.label(b, 0, t, u) = std::nan("");
            }
    x.run(alignment_lengths(dense(static_cast<const index_t*>(frames), {4}),
                            dense(static_cast<const index_t*>(labels), {4})));
    for (index_t b = 0; b < 4; ++b) x.expect_brute_force(b, frames[b], labels[b], 1e-12);
}

/// Without an alignment nothing depends on anything; with one that is no number everything does.
TEST(transducer_lattice, gradients_of_no_alignment_and_of_nan) {
    lattices<double> none(1, 3, 2), spoilt(1, 3, 2);
    for (index_t u = 0; u <= 2; ++u) none.blank(0, 0, 2, u) = -inf;
    EXPECT_EQ(none.run().log_p[0], -inf);
    none.d_blank.each([&](index_t b, index_t h, index_t t, index_t u) { EXPECT_EQ(none.d_blank(b, h, t, u), 0); });
    spoilt.blank(0, 0, 1, 1) = std::nan("");
    std::vector<double> log_p(1);
    transducer_lattice_gradient(seq(std::as_const(spoilt.blank)), seq(std::as_const(spoilt.label)), seq(spoilt.d_blank),
                                seq(spoilt.d_label), dense(log_p.data(), {1}));
    EXPECT_TRUE(std::isnan(log_p[0]));
    EXPECT_TRUE(std::isnan(spoilt.d_blank(0, 0, 2, 2)));
    EXPECT_TRUE(std::isnan(spoilt.d_label(0, 0, 0, 0)));
}

/// Steps out of the cells of a diagonal are taken with probability 1, however long the lattice.
TEST(transducer_lattice, posterior_mass_of_a_diagonal_is_one) {
    lattices<float> x(1, 700, 150);
    x.run();
    for (index_t d = 0; d + 1 < 850; ++d) {
        double sum = 0;
        for (index_t u = std::max<index_t>(0, d - 699); u <= std::min<index_t>(d, 150); ++u) {
            sum -= x.d_blank(0, 0, d - u, u);
            if (u < 150) sum -= x.d_label(0, 0, d - u, u);
        }
        ASSERT_NEAR(sum, 1, 1e-3) << d;
    }
}

TEST(transducer_lattice, threads_and_refusals) {
    lattices<float> one(5, 9, 6), many = one;
    threads pool(2);
    one.run();
    many.run(on(pool));
    EXPECT_EQ(one.log_p, many.log_p);
    EXPECT_TRUE(test::same_values(one.d_blank, many.d_blank));
    refuses<shape_error>([&] { transducer_lattice(seq(one.blank), seq(one.blank), dense(one.log_p.data(), {5})); },
                         "transducer_lattice: label has extent 7 on axis 2, blank asks for 6");
    refuses<shape_error>(
        [&] {
            transducer_lattice(seq(one.blank), seq(one.label), view<double, 1>{one.log_p.data(), {5}, {0}});
        },
        "transducer_lattice: log_p has stride 0 on axis 0 of extent 5");
    lattices<float>(0, 4, 2).run();
    EXPECT_EQ(lattices<float>(1, 0, 2).run().log_p[0], -inf);
}

/// (1, 1, B, M) as (B, M).
view<float, 2> rows(tensor<float>& x) {
    return {x.v().data, {x.shape()[2], x.shape()[3]}, {x.v().strides[2], x.v().strides[3]}};
}

TEST(monotonic_alignment, follows_its_recurrence) {
    const index_t B = 21, M = 60;
    auto alpha = test::constant<float>({1, 1, B, M}, 0), next = alpha;
    for (index_t b = 0; b < B; ++b) alpha(0, 0, b, 0) = 1;
    for (std::uint64_t t = 0; t < 5; ++t) {
        auto e = test::normal<float>({1, 1, B, M}, t, 3);
        monotonic_alignment(rows(e), rows(alpha), rows(next));
        for (index_t b = 0; b < B; ++b) {
            double q = 0, before = 0, sum = 0;  // before: p of the key before
            for (index_t j = 0; j < M; ++j) {
                q = (j ? (1 - before) * q : 0) + alpha(0, 0, b, j);
                before = 1 / (1 + std::exp(-double(e(0, 0, b, j))));
                ASSERT_NEAR(next(0, 0, b, j), before * q, 1e-6);
                sum += next(0, 0, b, j);
            }
            EXPECT_LE(sum, 1 + 1e-5);
        }
        std::swap(alpha, next);
    }
}

TEST(monotonic_alignment, sure_energies_are_hard_decoding) {
    const index_t M = 40;
    auto e = test::normal<float>({1, 1, 1, M}, 3, 1), alpha = test::constant<float>({1, 1, 1, M}, 0), next = alpha;
    for (index_t j = 0; j < M; ++j) e(0, 0, 0, j) = e(0, 0, 0, j) > 1 ? 1e4f : -1e4f;
    const view<const float, 1> energies{e.v().data, {M}, {1}};
    for (index_t from = 0; from < M; from += 3) {
        for (index_t j = 0; j < M; ++j) alpha(0, 0, 0, j) = j == from;
        monotonic_alignment(rows(e), rows(alpha), rows(next));
        const index_t stop = monotonic_stop(energies, from);
        for (index_t j = 0; j < M; ++j) EXPECT_EQ(next(0, 0, 0, j), j == stop) << from;
    }
    auto sure = test::constant<float>({1, 1, 1, M}, 1e4);
    alpha = test::uniform<float>({1, 1, 1, M}, 4);
    monotonic_alignment(rows(sure), rows(alpha), rows(next));  // p = 1: nothing moves
    EXPECT_TRUE(test::same_values(next, alpha));
}

TEST(chunkwise_alignment, spreads_and_keeps_the_sum) {
    const index_t B = 3, M = 30;
    auto alpha = test::uniform<float>({1, 1, B, M}, 1, 0, 0.03), u = test::normal<float>({1, 1, B, M}, 2, 30),
         beta = alpha;
    chunkwise_alignment(rows(alpha), rows(u), 1, rows(beta));
    EXPECT_TRUE(test::same_values(alpha, beta));
    for (index_t w : {2, 5, 40}) {
        chunkwise_alignment(rows(alpha), rows(u), w, rows(beta));
        for (index_t b = 0; b < B; ++b) {
            double before = 0, after = 0;
            std::vector<double> want(static_cast<std::size_t>(M));
            for (index_t k = 0; k < M; ++k) {
                double total = 0, top = -inf;
                const index_t first = std::max<index_t>(0, k - w + 1);
                for (index_t l = first; l <= k; ++l) top = std::max(top, double(u(0, 0, b, l)));
                for (index_t l = first; l <= k; ++l) total += std::exp(u(0, 0, b, l) - top);
                for (index_t l = first; l <= k; ++l)
                    want[static_cast<std::size_t>(l)] += alpha(0, 0, b, k) * std::exp(u(0, 0, b, l) - top) / total;
                before += alpha(0, 0, b, k), after += beta(0, 0, b, k);
            }
            EXPECT_NEAR(before, after, 1e-6);
            for (index_t j = 0; j < M; ++j) EXPECT_NEAR(beta(0, 0, b, j), want[static_cast<std::size_t>(j)], 1e-7);
        }
    }
    refuses<argument_error>([&] { chunkwise_alignment(rows(alpha), rows(u), 0, rows(beta)); }, "windows have 0 keys");
}

TEST(chunkwise_alignment, threads_and_scratch_of_the_caller) {
    const index_t B = 7, M = 40;
    auto alpha = test::uniform<float>({1, 1, B, M}, 1), u = test::normal<float>({1, 1, B, M}, 2), one = alpha,
         many = alpha;
    threads pool(3);
    chunkwise_alignment(rows(alpha), rows(u), 5, rows(one));
    std::size_t bytes = 0;
    chunkwise_alignment(rows(alpha), rows(u), 5, rows(many), scratch_size(pool, bytes));
    EXPECT_TRUE(test::same_values(many, alpha));
    arena scratch(bytes);
    chunkwise_alignment(rows(alpha), rows(u), 5, rows(many), on(pool, scratch));
    EXPECT_TRUE(test::same_values(one, many));
}

/// Windows of any length are those of all keys; where all keys of one are masked, it has no weight.
TEST(chunkwise_alignment, any_window_and_masked_keys) {
    const index_t M = 12, masked = 5;
    auto alpha = test::uniform<float>({1, 1, 1, M}, 1), u = test::normal<float>({1, 1, 1, M}, 2), beta = alpha,
         whole = alpha;
    chunkwise_alignment(rows(alpha), rows(u), std::numeric_limits<index_t>::max(), rows(beta));
    chunkwise_alignment(rows(alpha), rows(u), M, rows(whole));
    EXPECT_TRUE(test::same_values(beta, whole));
    for (index_t j = 0; j < masked; ++j) u(0, 0, 0, j) = -HUGE_VALF;
    chunkwise_alignment(rows(alpha), rows(u), 3, rows(beta));
    double sum = 0, seen = 0;
    for (index_t j = 0; j < M; ++j) {
        if (j < masked)
            EXPECT_EQ(beta(0, 0, 0, j), 0);
        else
            seen += alpha(0, 0, 0, j);
        sum += beta(0, 0, 0, j);
    }
    EXPECT_NEAR(sum, seen, 1e-6);
}

/// With all of alpha at the stop, the soft weights over the values are the hard context; without a stop it is 0.
TEST(chunkwise_context, is_the_soft_context_of_a_sure_stop) {
    const index_t B = 4, M = 17, E = 5;
    auto u = test::normal<float>({1, 1, B, M}, 1, 20);
    const auto v = test::normal<float>({B, 1, M, E}, 2);
    const std::vector<index_t> stops{0, 7, M, M - 1};
    auto alpha = test::constant<float>({1, 1, B, M}, 0), beta = alpha;
    for (index_t b = 0; b < B; ++b)
        if (stops[b] < M) alpha(0, 0, b, stops[b]) = 1;
    for (index_t w : {1, 2, 6, 100}) {
        tensor<float> context({1, 1, B, E}, test::layout::strided());
        chunkwise_context(stops, rows(u), seq(v), w, rows(context));
        chunkwise_alignment(rows(alpha), rows(u), w, rows(beta));
        for (index_t b = 0; b < B; ++b)
            for (index_t e = 0; e < E; ++e) {
                double want = 0;
                for (index_t j = 0; j < M; ++j) want += double(beta(0, 0, b, j)) * v(b, 0, j, e);
                EXPECT_NEAR(context(0, 0, b, e), want, 1e-6);
                if (stops[b] == M) EXPECT_EQ(context(0, 0, b, e), 0);
                if (w == 1 && stops[b] < M) EXPECT_EQ(context(0, 0, b, e), v(b, 0, stops[b], e));
            }
        EXPECT_TRUE(context.poisoned_outside());
    }
    tensor<float> context({1, 1, B, E});
    const auto call = [&](std::vector<index_t> at, index_t w) {
        chunkwise_context(at, rows(u), seq(v), w, rows(context));
    };
    refuses<argument_error>([&] { call(stops, 0); }, "chunkwise_context: windows have 0 keys");
    refuses<argument_error>([&] { call({0, 1, M + 1, 2}, 2); }, "stop 18 of 17 keys");
    refuses<shape_error>([&] { call({0, 1, 2}, 2); }, "there are 3 stops of 4 sequences");
    EXPECT_TRUE(std::isnan(context(0, 0, 0, 0)));
}

struct prefixes {
    tensor<float> q, k, v, o;
    explicit prefixes(const test::layout& l = {})
        : q(test::normal<float>({1, 1, 3, 18}, 1, 2)),
          k(test::normal<float>({2, 3, 45, 18}, 2, 2, l)),
          v(test::normal<float>({2, 3, 45, 21}, 3, 1, l)),
          o({2, 3, 45, 21}, l) {}
    view<const float, 2> query() const { return test::matrix(q); }
};

TEST(aaren, is_causal_attention_with_one_query_for_all) {
    for (const auto& l : {test::layout::heads(), test::layout::tokens(), test::layout::strided()}) {
        prefixes x(l);
        aaren(x.query(), x.k.v(), x.v.v(), x.o.v());
        tensor<float> want(x.o.shape());
        const view<const float> same{x.q.v().data, {2, 3, 45, 18}, {0, 18, 0, 1}};
        attention(same, x.k.v(), x.v.v(), want.v(), causal{});
        EXPECT_TRUE(test::all_near(x.o, want, 1e-5));
    }
}

TEST(aaren, is_the_scan_of_its_monoid) {
    prefixes x;
    aaren(x.query(), x.k.v(), x.v.v(), x.o.v(), scale{1});
    for (index_t e = 0; e < 21; ++e) {
        numbers<double, 3> s;
        softmax_prefix::start(s);
        for (index_t n = 0; n < 45; ++n) {
            double logit = 0;
            for (index_t d = 0; d < 18; ++d) logit += double(x.q(0, 0, 1, d)) * x.k(1, 1, n, d);
            softmax_prefix::act(s, numbers<double, 3>{logit, 1, x.v(1, 1, n, e)});
            ASSERT_NEAR(x.o(1, 1, n, e), softmax_prefix::read(s)[0], 2e-5);
        }
    }
}

TEST(aaren, streams_huge_logits_and_threads) {
    prefixes whole, parts;
    tensor<float> state({2, 1, 3, 23}), last(state.shape());
    threads pool(3);
    for (auto* s : {&state, &last}) aaren_start(seq(*s));
    aaren(whole.query(), whole.k.v(), whole.v.v(), whole.o.v(), scale{3000}, carry{seq(last)}, on(pool));
    for (range piece : {range{0, 1}, range{1, 30}, range{30, 45}}) {
        const auto at = [&](const auto& v) { return slice(v, 2, piece); };
        aaren(parts.query(), at(parts.k.v()), at(parts.v.v()), at(parts.o.v()), scale{3000}, carry{seq(state)});
    }
    EXPECT_TRUE(test::same_values(whole.o, parts.o));
    EXPECT_TRUE(test::same_values(state, last));
    whole.o.each([&](index_t b, index_t h, index_t n, index_t e) { ASSERT_TRUE(std::isfinite(whole.o(b, h, n, e))); });
    const auto thin = test::normal<float>({2, 3, 45, 17}, 1);
    refuses<shape_error>([&] { aaren(parts.query(), thin.v(), parts.v.v(), parts.o.v()); },
                         "aaren: k has extent 17 on axis 3");
}

/// Masked keys, of logit -inf, repeat the output before them, 0 if there is none; their values are not touched.
TEST(aaren, masked_tokens_repeat) {
    prefixes x;
    for (index_t n : {0, 1, 7}) {
        x.k(0, 0, n, 3) =
            x.q(0, 0, 0, 3) > 0 ? -std::numeric_limits<float>::infinity() : std::numeric_limits<float>::infinity();
        x.v(0, 0, n, 2) = std::nanf("");
    }
    aaren(x.query(), x.k.v(), x.v.v(), x.o.v());
    for (index_t e = 0; e < 21; ++e) {
        EXPECT_EQ(x.o(0, 0, 0, e), 0);
        EXPECT_EQ(x.o(0, 0, 1, e), 0);
        EXPECT_EQ(x.o(0, 0, 7, e), x.o(0, 0, 6, e));
        EXPECT_TRUE(std::isfinite(x.o(0, 0, 44, e)));
    }
}

}  // namespace
