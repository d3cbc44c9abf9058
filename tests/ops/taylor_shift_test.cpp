// TaylorShift: both forms against the definition, the switch, and its limits.
#include <heed/ops/taylor_shift.hpp>
#include <heed/ref/taylor_shift.hpp>

#include "recurrent_op.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

constexpr taylor_form forms[] = {taylor_form::direct, taylor_form::efficient, taylor_form::fastest};

struct operands {
    tensor<float> q, k, v, qn, kn, o;
    std::vector<float> tau;
    operands(index_t B, index_t H, index_t N, index_t D, index_t E, index_t M = 0)
        : q(normal<float>({B, H, N, D}, 1)),
          k(normal<float>({B, H, M ? M : N, D}, 2)),
          v(normal<float>({B, H, M ? M : N, E}, 3)),
          qn(q.shape()),
          kn(k.shape()),
          o({B, H, N, E}) {
        for (index_t h = 0; h < H; ++h) tau.push_back(1.0f + 0.5f * static_cast<float>(h));
    }
    void prepare() {
        unit_rows(q, qn, tau);
        unit_rows(k, kn);
    }
    template <class R>
    tensor<R> defined(bool sized, bool causal, const std::array<R, 3>& c = {1, 1, R(0.5)}) const {
        tensor<R> to(o.shape());
        ref::taylor_shift<R>(q.v(), k.v(), v.v(), to.v(), std::vector<R>(tau.begin(), tau.end()), sized, causal, c);
        return to;
    }
    tensor<float> mean() const {
        tensor<float> m(o.shape());
        const index_t N = v.shape()[2];
        m.each([&](index_t b, index_t h, index_t n, index_t e) {
            double sum = 0;
            for (index_t j = 0; j < N; ++j) sum += v(b, h, j, e) / static_cast<double>(N);
            m(b, h, n, e) = static_cast<float>(sum);
        });
        return m;
    }
    testing::AssertionResult holds(bool sized, bool causal) const {
        return all_near(o, defined<float>(sized, causal), 1e-5);
    }
};

TEST(taylor_shift, both_forms_are_the_definition) {
    for (auto [N, D, E] : {std::array<index_t, 3>{1, 8, 8}, {37, 7, 5}, {50, 16, 17}, {130, 4, 9}}) {
        operands x(2, 2, N, D, E);
        x.prepare();
        for (taylor_form form : forms)
            for (bool sized : {true, false}) {
                taylor_shift(x.qn, x.kn, x.v, x.o, sized, form);
                EXPECT_TRUE(x.holds(sized, false)) << N << " " << D << " form " << static_cast<int>(form);
            }
        causal_taylor_shift(x.qn, x.kn, x.v, x.o);
        EXPECT_TRUE(x.holds(false, true));
        state<float> s(2, 2, taylor_features{}.width(D), E);
        EXPECT_TRUE(goes_on(
            x.o, [&](range n, auto to) { causal_taylor_shift(part(x.qn, n), part(x.kn, n), part(x.v, n), to, s); }));
    }
}

TEST(taylor_shift, direct_form_is_within_the_rule) {
    operands x(1, 2, 60, 16, 9);
    x.prepare();
    taylor_shift(x.qn, x.kn, x.v, x.o, false, taylor_form::direct);
    EXPECT_TRUE(within_rule<float>(x.o, x.defined<float>(false, false), x.defined<double>(false, false)));
}

TEST(taylor_shift, of_constant_values_is_sqrt_n_over_d_of_it) {
    operands x(1, 2, 50, 8, 5);
    x.prepare();
    x.v = constant<float>(x.v.shape(), 3);
    for (taylor_form form : forms) {
        taylor_shift(x.qn, x.kn, x.v, x.o, true, form);
        EXPECT_TRUE(all_near(x.o, constant<float>(x.o.shape(), 3 * std::sqrt(50.0 / 8)), 1e-5));
    }
}

TEST(taylor_shift, of_a_temperature_of_0_or_rows_of_0_is_the_mean) {
    for (bool rows : {false, true}) {
        operands x(1, 2, 20, 8, 5);
        if (rows)
            x.q = constant<float>(x.q.shape(), 0);
        else
            x.tau = {0, 0};
        x.prepare();
        for (taylor_form form : forms) {
            taylor_shift(x.qn, x.kn, x.v, x.o, false, form);
            EXPECT_TRUE(all_near(x.o, x.mean(), 1e-6));
        }
    }
}

TEST(taylor_shift, of_other_tokens_than_its_queries) {
    for (auto [N, M] : {std::array<index_t, 2>{9, 40}, {70, 21}, {1, 100}}) {
        operands x(2, 2, N, 6, 7, M);
        x.prepare();
        for (taylor_form form : forms) {
            taylor_shift(x.qn, x.kn, x.v, x.o, true, form);
            EXPECT_TRUE(x.holds(true, false)) << N << " queries, " << M << " keys, form " << static_cast<int>(form);
        }
    }
}

TEST(taylor_shift, of_other_coefficients) {
    operands x(1, 2, 37, 7, 5);
    x.prepare();
    constexpr std::array<float, 3> coefficients[] = {{2, 0.5f, 1.5f}, {1, 2, 1}, {0.5f, 0, 0}};
    for (taylor_form form : forms) {
        for (const auto& c : coefficients) {
            const taylor_features map(1, c[0], c[1], c[2]);
            taylor_shift(x.qn, x.kn, x.v, x.o, false, form, map);
            EXPECT_TRUE(all_near(x.o, x.defined<float>(false, false, c), 1e-5));
            causal_taylor_shift(x.qn, x.kn, x.v, x.o, map);
            EXPECT_TRUE(all_near(x.o, x.defined<float>(false, true, c), 1e-5));
        }
        taylor_shift(x.qn, x.kn, x.v, x.o, false, form, taylor_features(1, 3, 0, 0));
        EXPECT_TRUE(all_near(x.o, x.mean(), 1e-6));
        const auto kept = x.o;
        const auto refused = [&](const taylor_features& map, const std::string& words) {
            refuses<argument_error>([&] { taylor_shift(x.qn, x.kn, x.v, x.o, false, form, map); }, words);
        };
        refused(taylor_features(1, 1, 1, 0), "taylor_shift: weights of 1 + 1 x + 0 x^2 may be negative");
        refused(taylor_features(1, 0, 0, 1), "0 for a row of zeros");
        EXPECT_TRUE(same_values(x.o, kept));
    }
}

TEST(taylor_shift, the_form_is_chosen_by_length) {
    EXPECT_EQ(taylor_shift_crossover(16), 273);
    EXPECT_EQ(taylor_shift_crossover(32), 1057);
    EXPECT_EQ(taylor_shift_crossover(64), 4161);
    for (index_t N : {21, 22}) {  // D = 4: 21 is the last for the direct form
        operands x(1, 1, N, 4, 5);
        x.prepare();
        taylor_shift(x.qn, x.kn, x.v, x.o);
        auto p = x.o;
        taylor_shift(x.qn, x.kn, x.v, p, true, N == 21 ? taylor_form::direct : taylor_form::efficient);
        EXPECT_TRUE(same_values(x.o, p));
    }
}

TEST(taylor_shift, heads_may_share_keys) {
    operands x(1, 4, 30, 8, 5);
    x.prepare();
    const auto two = [](const tensor<float>& t) { return slice(t.v(), 1, {0, 2}); };
    tensor<float> p(x.o.shape());
    taylor_shift(x.qn, two(x.kn), two(x.v), x.o, true, taylor_form::direct);
    taylor_shift(x.qn, two(x.kn), two(x.v), p, true, taylor_form::efficient);
    EXPECT_TRUE(all_near(x.o, p, 1e-5));
}

TEST(unit_rows, have_the_length_of_their_factor) {
    operands x(2, 2, 9, 7, 5);
    for (index_t d = 0; d < 7; ++d) x.q(1, 1, 4, d) = 0;
    x.prepare();
    for (index_t h = 0; h < 2; ++h)
        for (index_t n = 0; n < 9; ++n) {
            double sum = 0;
            for (index_t d = 0; d < 7; ++d) sum += double(x.qn(1, h, n, d)) * x.qn(1, h, n, d);
            EXPECT_NEAR(std::sqrt(sum), h == 1 && n == 4 ? 0 : x.tau[static_cast<std::size_t>(h)], 1e-6);
        }
    refuses<shape_error>([&] { unit_rows(x.q, x.qn, std::span(x.tau).first(1)); },
                         "unit_rows: there are 1 factors, x has 2 heads");
}

}  // namespace
