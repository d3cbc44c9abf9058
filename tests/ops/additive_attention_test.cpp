// heed_test: LABELS sanitize
// Additive attention against its definition, its limits, and what it refuses.
#include <heed/ops/additive_attention.hpp>
#include <heed/ref/additive_attention.hpp>

#include "keeps_to_scratch.hpp"
#include "refuses.hpp"
#include "sequence.hpp"

using namespace test;

namespace {

/// Operands of a step; rows (1, 1, B, n) as (B, n).
template <class T>
struct step {
    index_t B, M, D, E, F, R;
    tensor<T> q, k, v, w, before, taps, mix, history;
    tensor<T> alpha, context;

    step(index_t batch, index_t keys, index_t width, index_t values, index_t filters, index_t reach,
         const layout& l = {})
        : B(batch),
          M(keys),
          D(width),
          E(values),
          F(filters),
          R(reach),
          q(normal<T>({1, 1, B, D}, 1, 1, l)),
          k(normal<T>({B, 1, M, D}, 2, 1, l)),
          v(normal<T>({B, 1, M, E}, 3, 1, l)),
          w(normal<T>({1, 1, 1, D}, 4, 2, l)),
          before(uniform<T>({1, 1, B, M}, 5, 0, 1, l)),
          taps(normal<T>({1, 1, F, R}, 6, 1, l)),
          mix(normal<T>({1, 1, F, D}, 7, 1, l)),
          history(normal<T>({1, 1, B, M}, 8, 1, l)),
          alpha({1, 1, B, M}, l),
          context({1, 1, B, E}, l) {}

    static view<T, 2> rows(tensor<T>& x) { return {x.v().data, {x.shape()[2], x.shape()[3]}, matrix(x).strides}; }
    auto where() const { return location(matrix(before), matrix(taps), matrix(mix)); }
    template <class... P>
    void run(const P&... policies) {
        additive_attention(matrix(q), seq(std::as_const(k)), seq(std::as_const(v)), vec(w), rows(alpha), rows(context),
                           policies...);
    }
    template <class... P>
    tensor<T> weights(const P&... policies) {
        run(policies...);
        return alpha;
    }
    /// Weights and contexts of the definition in Real, for `keys` of the keys.
    template <class Real>
    std::pair<tensor<Real>, tensor<Real>> defined(bool located, bool penalised, index_t keys) const {
        tensor<Real> p(alpha.shape()), c(context.shape());
        p.fill([](index_t) { return 0; }), c.fill([](index_t) { return 0; });
        for (index_t b = 0; b < B; ++b) {
            const auto row = [](const tensor<T>& x, index_t h, index_t i, index_t n) {
                std::vector<Real> y;
                for (index_t d = 0; d < n; ++d) y.push_back(static_cast<Real>(x(h, 0, i, d)));
                return y;
            };
            ref::additive_operands<Real> x;
            x.q = row(q, 0, b, D), x.w = row(w, 0, 0, D);
            for (index_t j = 0; j < keys; ++j) x.k.push_back(row(k, b, j, D));
            if (located) x.before = row(before, 0, b, keys);
            for (index_t f = 0; f < F; ++f) x.taps.push_back(row(taps, 0, f, R)), x.mix.push_back(row(mix, 0, f, D));
            if (penalised)
                for (Real y : row(history, 0, b, keys)) x.history.push_back(std::exp(y));
            const auto of = ref::additive_attention(x);
            for (index_t j = 0; j < keys; ++j) {
                p(0, 0, b, j) = of[static_cast<std::size_t>(j)];
                for (index_t e = 0; e < E; ++e) c(0, 0, b, e) += p(0, 0, b, j) * static_cast<Real>(v(b, 0, j, e));
            }
        }
        return {p, c};
    }
    void expect(bool located, bool penalised, index_t keys) {
        using R64 = definition_of<accumulator<T>>;
        const auto exact = defined<R64>(located, penalised, keys);
        const auto naive = defined<accumulator<T>>(located, penalised, keys);
        const auto floor = allowance{.floor = 64 * epsilon<accumulator<T>> + epsilon<T>};
        EXPECT_TRUE((within_rule<accumulator<T>>(alpha, naive.first, exact.first, floor)));
        EXPECT_TRUE((within_rule<accumulator<T>>(context, naive.second, exact.second, floor)));
        EXPECT_TRUE(alpha.poisoned_outside());
        EXPECT_TRUE(context.poisoned_outside());
    }
};

template <class T>
void expect_definition() {
    for (const layout& l : {layout::heads(), layout::strided(), layout::channels_first()})
        for (index_t M : {1, 5, 64, 130})
            for (index_t D : {1, 16, 33})
                for (index_t E : {1, 40, 300})
                    for (const auto& [F, R] : {std::pair<index_t, index_t>{1, 1}, {3, 5}, {2, 31}}) {
                        SCOPED_TRACE(std::to_string(M) + " keys, D " + std::to_string(D) + ", E " + std::to_string(E));
                        step<T> x(2, M, D, E, F, R, l);
                        x.run();
                        x.expect(false, false, M);
                        x.run(x.where());
                        x.expect(true, false, M);
                        auto y = x;
                        y.run(penalty(step<T>::rows(y.history)), x.where());
                        y.history = x.history;
                        y.expect(true, true, M);
                    }
}
TEST(additive_attention, is_its_definition) { expect_definition<float>(); }
TEST(additive_attention, of_doubles) { expect_definition<double>(); }
TEST(additive_attention, of_halves) {
    step<bf16> x(2, 70, 33, 40, 3, 5, layout::strided());
    x.run(x.where());
    x.expect(true, false, 70);
}

TEST(additive_attention, location_without_a_map_and_a_first_penalty_are_content) {
    step<float> x(3, 50, 20, 7, 4, 9);
    const auto plain = x.weights();
    double sum = 0;
    for (index_t j = 0; j < 50; ++j) sum += plain(0, 0, 1, j);
    EXPECT_NEAR(sum, 1, 1e-6);
    x.mix.fill([](index_t) { return 0; });
    EXPECT_TRUE(same_values(x.weights(x.where()), plain));
    x.history.fill([](index_t) { return -HUGE_VAL; });
    EXPECT_TRUE(same_values(x.weights(penalty(x.rows(x.history))), plain));
    // Now history holds the energies of one step, and the next has no key before the others.
    const auto flat = x.weights(penalty(x.rows(x.history)));
    flat.each([&](index_t b, index_t h, index_t i, index_t j) { ASSERT_NEAR(flat(b, h, i, j), 1.0 / 50, 1e-6); });
}

TEST(additive_attention, keys_that_do_not_count_are_not_touched) {
    step<float> x(3, 90, 20, 7, 4, 9), y = x;
    const index_t counts[] = {90, 33, 0};
    for (index_t b = 0; b < 3; ++b)
        for (index_t j = counts[b]; j < 90; ++j) {
            x.before(0, 0, b, j) = x.history(0, 0, b, j) = std::nanf("");
            for (index_t d = 0; d < 20; ++d) x.k(b, 0, j, d) = std::nanf("");
            for (index_t e = 0; e < 7; ++e) x.v(b, 0, j, e) = std::nanf("");
        }
    x.run(x.where(), key_counts(dense(counts, {3})));
    for (index_t b = 0; b < 3; ++b) {
        const auto [p, c] = y.defined<double>(true, false, counts[b]);
        for (index_t j = 0; j < 90; ++j) ASSERT_NEAR(x.alpha(0, 0, b, j), p(0, 0, b, j), 1e-5);
        for (index_t e = 0; e < 7; ++e) ASSERT_NEAR(x.context(0, 0, b, e), c(0, 0, b, e), 1e-4);
    }
    for (index_t e = 0; e < 7; ++e) EXPECT_EQ(x.context(0, 0, 2, e), 0);
    step<float> none(2, 0, 5, 3, 1, 1), nowhere(0, 4, 5, 3, 1, 1);
    none.run(none.where()), nowhere.run();
    EXPECT_EQ(none.context(0, 0, 1, 2), 0);
}

TEST(additive_attention, keeps_to_its_scratch) {
    const step<float> x(2, 150, 33, 300, 4, 9);
    keeps_to_scratch(
        "additive_attention", {1, 1, 2, 300}, [&] { return std::vector<float>(300); },
        [&](std::vector<float>& alpha, tensor<float>& o, const auto& context) {
            additive_attention(matrix(x.q), seq(x.k), seq(x.v), vec(x.w), dense(alpha.data(), {2, 150}),
                               step<float>::rows(o), x.where(), context);
        });
}

TEST(additive_attention, refuses_what_does_not_fit) {
    step<float> x(2, 10, 5, 3, 4, 6);
    refuses<argument_error>([&] { x.run(x.where()); }, "filters of the alignment have 6 taps, an odd number is asked");
    const index_t counts[] = {3, 11};
    refuses<argument_error>([&] { x.run(key_counts(dense(counts, {2}))); }, "sequence 1 has 11 keys of 10");
    x.taps = normal<float>({1, 1, 4, 5}, 1);
    x.mix = normal<float>({1, 1, 3, 5}, 1);
    refuses<shape_error>([&] { x.run(x.where()); }, "U has extent 3 on axis 0, the taps, k asks for 4");
    refuses<shape_error>([&] { x.run(penalty(x.rows(x.alpha))); }, "additive_attention: alpha overlaps the penalty");
    x.w = normal<float>({1, 1, 1, 4}, 1);
    refuses<shape_error>([&] { x.run(); }, "additive_attention: w has extent 4 on axis 0, k asks for 5");
    EXPECT_TRUE(std::isnan(x.context(0, 0, 0, 0)));
    EXPECT_TRUE(std::isnan(x.alpha(0, 0, 0, 0)));
}

}  // namespace
