// heed_test: LABELS sanitize
// The joint network of a transducer against its definition, and what it refuses.
#include <heed/ops/transducer_joint.hpp>
#include <heed/ops/transducer_lattice.hpp>
#include <heed/ref/lattice.hpp>

#include "keeps_to_scratch.hpp"
#include "refuses.hpp"
#include "sequence.hpp"

using namespace test;

namespace {

template <class T>
struct joint {
    index_t B, frames, U, D, V;
    tensor<T> f, g, w, c, blank, label;
    std::vector<index_t> ids;

    joint(index_t batch, index_t t, index_t u, index_t width, index_t labels, const layout& l = {})
        : B(batch),
          frames(t),
          U(u),
          D(width),
          V(labels),
          f(normal<T>({B, 1, frames, D}, 1, 1, l)),
          g(normal<T>({B, 1, U + 1, D}, 2, 1, l)),
          w(normal<T>({1, 1, D, V}, 3, 1, l)),
          c(normal<T>({1, 1, 1, V}, 4, 1, l)),
          blank({B, 1, frames, U + 1}, l),
          label({B, 1, frames, U}, l) {
        for (index_t i = 0; i < B * U; ++i) ids.push_back((7 * i + 2) % V);
    }
    view<const index_t, 2> labels() const { return {ids.data(), {B, U}, {U, 1}}; }
    template <class... P>
    void run(const P&... policies) {
        transducer_joint(seq(std::as_const(f)), seq(std::as_const(g)), matrix(w), vec(c), labels(), V / 2, seq(blank),
                         seq(label), policies...);
    }
    template <class Real>
    std::pair<tensor<Real>, tensor<Real>> defined() const {
        const auto row = [](const tensor<T>& x, index_t b, index_t n) {
            std::vector<Real> y;
            for (index_t d = 0; d < x.shape()[3]; ++d) y.push_back(static_cast<Real>(x(b, 0, n, d)));
            return y;
        };
        std::vector<std::vector<Real>> weights;
        for (index_t d = 0; d < D; ++d) weights.push_back(row(w, 0, d));
        tensor<Real> first(blank.shape()), second(label.shape());
        first.each([&](index_t b, index_t h, index_t t, index_t u) {
            const auto p = ref::transducer_joint(row(f, b, t), row(g, b, u), weights, row(c, 0, 0));
            first(b, h, t, u) = p[static_cast<std::size_t>(V / 2)];
            if (u < U) second(b, h, t, u) = p[static_cast<std::size_t>(labels()(b, u))];
        });
        return {first, second};
    }
};

template <class T>
void expect_definition(const layout& l) {
    for (index_t frames : {1, 2, 37})
        for (index_t U : {0, 1, 5})
            for (index_t D : {1, 17, 40})
                for (index_t V : {1, 3, 16, 131}) {
                    SCOPED_TRACE("U " + std::to_string(U) + " D " + std::to_string(D) + " V " + std::to_string(V));
                    joint<T> x(2, frames, U, D, V, l);
                    x.run();
                    using S = accumulator<T>;
                    const auto exact = x.template defined<definition_of<S>>();
                    const auto naive = x.template defined<S>();
                    const allowance floor{.floor = 16 * epsilon<S> + (std::is_same_v<S, T> ? 0 : epsilon<T>)};
                    EXPECT_TRUE((within_rule<S>(x.blank, naive.first, exact.first, floor)));
                    EXPECT_TRUE((within_rule<S>(x.label, naive.second, exact.second, floor)));
                    EXPECT_TRUE(x.blank.poisoned_outside());
                    EXPECT_TRUE(x.label.poisoned_outside());
                }
}
TEST(transducer_joint, is_its_definition) {
    expect_definition<float>({});
    expect_definition<float>(layout::strided());
    expect_definition<double>(layout::channels_first());
    expect_definition<bf16>(layout::padded());
}

TEST(transducer_joint, without_a_bias_and_with_logits_of_thousands) {
    joint<float> x(1, 9, 4, 6, 20), y = x;
    y.c.fill([](index_t) { return 0; });
    transducer_joint(seq(x.f), seq(x.g), matrix(x.w), view<const float, 1>{}, x.labels(), 10, seq(x.blank),
                     seq(x.label));
    y.run();
    EXPECT_TRUE(same_values(x.blank, y.blank));
    x.c.fill([](index_t v) { return v == 10 ? 5000 : -5000; });
    x.run();
    x.blank.each([&](index_t b, index_t h, index_t t, index_t u) { EXPECT_EQ(x.blank(b, h, t, u), 0); });
    x.c.fill([](index_t v) { return v == 10 ? 0 : -HUGE_VAL; });
    x.run();
    x.label.each([&](index_t b, index_t h, index_t t, index_t u) {
        EXPECT_EQ(x.label(b, h, t, u), x.labels()(b, u) == 10 ? 0 : -HUGE_VALF);
    });
}

/// All ways to emit any labels have probability 1: over label sequences of length 0 and 1 and more, what remains is
/// small.
TEST(transducer_joint, is_what_the_lattice_takes) {
    joint<double> x(3, 6, 4, 8, 5);
    x.run();
    std::vector<double> log_p(3);
    transducer_lattice(seq(std::as_const(x.blank)), seq(std::as_const(x.label)), dense(log_p.data(), {3}));
    for (double p : log_p) EXPECT_LT(p, 0);
    // One label, all probability on the blank: the path of blanks alone.
    joint<double> alone(1, 6, 0, 8, 1);
    alone.run();
    transducer_lattice(seq(std::as_const(alone.blank)), seq(std::as_const(alone.label)), dense(log_p.data(), {1}));
    EXPECT_NEAR(log_p[0], 0, 1e-12);
}

TEST(transducer_joint, keeps_to_its_scratch) {
    const joint<float> x(2, 30, 4, 33, 70);
    keeps_to_scratch(
        "transducer_joint", {2, 1, 30, 5},
        [&] {
            return tensor<float>({2, 1, 30, 4});
        },
        [&](tensor<float>& label, tensor<float>& o, const auto& context) {
            transducer_joint(seq(x.f), seq(x.g), matrix(x.w), vec(x.c), x.labels(), 3, seq(o), seq(label), context);
        });
}

TEST(transducer_joint, refuses_what_does_not_fit) {
    joint<float> x(2, 3, 4, 5, 6);
    x.ids[5] = 6;
    refuses<argument_error>([&] { x.run(); }, "transducer_joint: label 6 of 6");
    x.ids[5] = 0;
    const auto with = [&](index_t blank_id, const view<float, 3>& label) {
        transducer_joint(seq(x.f), seq(x.g), matrix(x.w), vec(x.c), x.labels(), blank_id, seq(x.blank), label);
    };
    refuses<argument_error>([&] { with(-1, seq(x.label)); }, "the blank is -1 of 6 labels");
    refuses<shape_error>([&] { with(0, seq(x.blank)); }, "label has extent 5 on axis 2, f, g asks for 4");
    x.c = normal<float>({1, 1, 1, 5}, 1);
    refuses<shape_error>([&] { x.run(); }, "transducer_joint: c has extent 5 on axis 0, W asks for 6");
    EXPECT_TRUE(std::isnan(x.blank(0, 0, 0, 0)));
}

}  // namespace
