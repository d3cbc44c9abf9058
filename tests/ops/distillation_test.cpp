// heed_test: LABELS sanitize
#include <heed/core/threads.hpp>
#include <heed/engine/convolution.hpp>
#include <heed/ops/distillation.hpp>
#include <heed/ref/convolution.hpp>

#include "../support/compare.hpp"
#include "../support/refuses.hpp"
#include "../support/sequences.hpp"

namespace {

using namespace heed;
using test::matrix;
using test::refuses;
using test::sequence;
using test::tensor;
using complex = std::complex<double>;

/// Poles of moderate decay, one of each conjugate pair, and one real.
modal_form known(index_t pairs, std::uint64_t seed) {
    const counter_random random(seed);
    modal_form f{0.7, {{0.55, 0}}, {{0.4, 0}}};
    for (index_t n = 0; n < pairs; ++n) {
        const double spread =
            (static_cast<double>(n) + 0.2 + 0.6 * random.uniform(test::number(2 * n))) / double(pairs);
        f.poles.push_back(std::polar(0.75 + 0.2 * random.uniform(test::number(2 * n + 1)), 3.0 * spread));
        f.residues.push_back(std::polar(1.0, 5.0 * spread));
    }
    return f;
}

/// The poles of b that are nearest to those of a.
double largest_gap(const std::vector<complex>& a, const std::vector<complex>& b) {
    double worst = 0;
    for (const complex& x : a) {
        double nearest = 1e9;
        for (const complex& y : b) nearest = std::min(nearest, std::abs(x - y));
        worst = std::max(worst, nearest);
    }
    return worst;
}

double worst_difference(const std::vector<double>& a, const std::vector<double>& b) {
    double worst = 0;
    for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
    return worst;
}

TEST(distil, recovers_what_is_of_its_order) {
    for (index_t pairs : {0, 1, 2, 4})
        for (std::uint64_t seed = 0; seed < 5; ++seed) {
            const modal_form f = known(pairs, seed);
            const auto h = f.samples(400);
            const index_t order = 2 * pairs + 1;
            const modal_form g = distil(h, order);
            ASSERT_EQ(g.poles.size(), f.poles.size());
            EXPECT_LT(largest_gap(f.poles, g.poles), 1e-8);
            EXPECT_LT(largest_gap(f.residues, g.residues), 1e-7);
            EXPECT_LT(worst_difference(h, g.samples(400)), 1e-9);
            EXPECT_EQ(distillation_order(hankel_singular_values(h, 100), 1e-9), order);
            // Asked for more, it finds no more than there is.
            EXPECT_LT(worst_difference(h, distil(h, order + 6).samples(400)), 1e-8);
        }
}

/// A filter that no small recurrence has.
std::vector<double> difficult(index_t L) {
    std::vector<double> h(static_cast<std::size_t>(L));
    for (index_t t = 0; t < L; ++t)
        h[t] = std::exp(-0.01 * double(t)) * std::cos(0.3 * std::sqrt(double(t))) / (1 + 0.05 * double(t));
    return h;
}

TEST(distil, a_larger_order_is_nearer_and_no_order_beats_its_singular_value) {
    const auto h = difficult(600);
    constexpr index_t rows = 64;
    const auto sigma = hankel_singular_values(h, rows);
    for (std::size_t i = 1; i < sigma.size(); ++i) ASSERT_LE(sigma[i], sigma[i - 1]);
    double before = 1e9;
    for (index_t d : {2, 4, 8, 16}) {
        const auto near = distil(h, d, rows).samples(600);
        std::vector<double> off(h.size());
        double error = 0;
        for (std::size_t i = 0; i < h.size(); ++i) error += std::pow(off[i] = h[i] - near[i], 2);
        EXPECT_LT(error, before);
        before = error;
        EXPECT_GE(hankel_singular_values(off, rows)[0], sigma[d] * (1 - 1e-9)) << d;
    }
    EXPECT_LT(std::sqrt(before), 1e-3);
}

TEST(distil, poles_are_stable) {
    std::vector<double> growing(100), constant(100, 1.0), nothing(100, 0.0);
    for (std::size_t t = 0; t < growing.size(); ++t) growing[t] = std::pow(1.03, double(t)) + std::pow(-0.5, double(t));
    for (const auto& h : {growing, constant})
        for (const complex& pole : distil(h, 4).poles) EXPECT_LT(std::abs(pole), 1);
    EXPECT_LT(worst_difference(constant, distil(constant, 2).samples(100)), 1e-5);
    EXPECT_TRUE(distil(nothing, 4).poles.empty());
}

TEST(modal_filter, recurrence_is_the_convolution) {
    constexpr index_t B = 2, N = 300, C = 19;
    std::vector<modal_form> forms;
    tensor<double> h({1, 1, C, N});
    for (index_t c = 0; c < C; ++c) {
        forms.push_back(known(c % 5, test::number(c)));
        const auto taps = forms.back().samples(N);
        for (index_t k = 0; k < N; ++k) h(0, 0, c, k) = taps[k];
    }
    const auto x = test::normal<double>({B, 1, N, C}, 1);
    tensor<double> exact(x.shape()), y(x.shape()), pieces(x.shape(), test::layout::channels_first());
    ref::convolution(sequence(x), matrix(h), sequence(exact));
    const modal_filter<double> filter(forms);
    auto whole = filter.start(B), parts = filter.start(B);
    threads pool(3);
    filter(sequence(x), sequence(y), whole, on(pool));
    EXPECT_LT(test::distance(y, exact), 1e-13 * test::norm(exact));
    for (index_t n = 0; n < N;) {
        const range piece{n, std::min(N, n + 1 + n % 5 * 7)};
        filter(slice(sequence(x), 1, piece), slice(sequence(pieces), 1, piece), parts);
        n = piece.last;
    }
    EXPECT_TRUE(test::same_values(y, pieces));

    std::vector<modal_form> again = forms;
    const modal_filter<float> narrow{std::span<const modal_form>(again)};
    auto s = narrow.start(B);
    tensor<float> in(x.shape()), out(x.shape());
    in.each([&](index_t b, index_t o, index_t n, index_t c) { in(b, o, n, c) = float(x(b, o, n, c)); });
    narrow(sequence(in), sequence(out), s);
    EXPECT_LT(test::distance(out, exact), 1e-6 * test::norm(exact));
    auto t = narrow.start(B);
    narrow(sequence(in), sequence(in), t);
    EXPECT_TRUE(test::same_values(in, out));
}

TEST(modal_filter, the_error_is_that_of_the_filter) {
    const auto h = difficult(500);
    const modal_form f = distil(h, 8);
    const auto near = f.samples(500);
    double off = 0;
    for (std::size_t i = 0; i < h.size(); ++i) off += std::abs(h[i] - near[i]);
    const auto x = test::uniform<double>({1, 1, 500, 1}, 1, -1, 1);
    tensor<double> y(x.shape()), distilled(x.shape());
    convolution(sequence(x), convolution_filter<double>(dense(h.data(), {1, 500})), sequence(y));
    const modal_filter<double> filter(std::span(&f, 1));
    auto s = filter.start(1);
    filter(sequence(x), sequence(distilled), s);
    EXPECT_TRUE(test::all_near(y, distilled, off * (1 + 1e-9)));
    EXPECT_GT(off, 1e-9);
}

TEST(distil, refuses_what_does_not_fit) {
    const std::vector<double> two{1, 2}, odd{1, 2, std::nan(""), 3};
    refuses<argument_error>([&] { distil(two, 1); }, "a filter of 2 samples, the least is 3");
    refuses<argument_error>([&] { distil(odd, 1); }, "a sample is not finite");
    refuses<argument_error>([&] { distil(difficult(9), -1); }, "order is -1");
    const std::vector<modal_form> forms{known(1, 1), known(2, 1)};
    const modal_filter<float> filter(forms);
    auto s = filter.start(1);
    std::vector<float> m(100);
    refuses<shape_error>(
        [&] {
            filter(dense(m.data(), {1, 3, 3}), dense(m.data(), {1, 3, 3}), s);
        },
        "x has 3 channels, the filters are for 2");
    refuses<shape_error>(
        [&] {
            filter(dense(m.data(), {2, 3, 2}), dense(m.data(), {2, 3, 2}), s);
        },
        "the state is of 1 sequences, x of 2");
    refuses<shape_error>(
        [&] {
            filter(dense(m.data(), {1, 3, 2}), dense(m.data() + 1, {1, 3, 2}), s);
        },
        "y overlaps x and is not the same view");
}

}  // namespace
