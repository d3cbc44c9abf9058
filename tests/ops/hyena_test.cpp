// heed_test: BUSY LABELS sanitize
#include <heed/core/threads.hpp>
#include <heed/ops/hyena_layer.hpp>
#include <heed/ref/hyena.hpp>

#include "../support/compare.hpp"
#include "../support/refuses.hpp"
#include "../support/sequences.hpp"

namespace {

using namespace heed;
using test::layout;
using test::matrix;
using test::refuses;
using test::sequence;
using test::tensor;

using reals = implicit_filter<double>::matrix;
using real_column = implicit_filter<double>::column;

/// (n, c) of the only sequence of a tensor.
template <class T>
view<T, 2> tokens_of(const view<T, 3>& x) {
    return {x.data, {x.shape[1], x.shape[2]}, {x.strides[1], x.strides[2]}};
}

/// hyena of order p against the definition.
template <class T>
void agrees(index_t p, index_t N, index_t C, const layout& l) {
    SCOPED_TRACE("order " + std::to_string(p) + " N " + std::to_string(N) + " C " + std::to_string(C));
    const auto u = test::normal<T>({1, 1, N, (p + 1) * C}, 1, 1, l);
    std::vector<tensor<T>> h;
    std::vector<view<const T, 2>> taps;
    std::vector<std::vector<double>> beta;
    std::vector<convolution_filter<T>> filters;
    for (index_t o = 0; o < p - 1; ++o) {
        h.push_back(test::normal<T>({1, 1, C, N}, 10 + test::number(o), 1 / std::sqrt(double(N))));
        std::vector<T> skip(C);
        for (index_t c = 0; c < C; ++c) skip[c] = static_cast<T>(o + 1) / static_cast<T>(c + 1);
        beta.emplace_back(skip.begin(), skip.end());
        filters.emplace_back(matrix(std::as_const(h.back())), dense(std::as_const(skip).data(), {C}),
                             filter_options{.longest = N});
    }
    for (const auto& x : h) taps.push_back(matrix(x));
    tensor<T> y({1, 1, N, C}, l), naive({1, 1, N, C});
    tensor<double> exact({1, 1, N, C});
    hyena(sequence(u), std::span<const convolution_filter<T>>(filters), sequence(y));
    ref::hyena(tokens_of(sequence(u)), taps, beta, tokens_of(sequence(exact)));
    ref::hyena<T>(tokens_of(sequence(u)), taps, beta, tokens_of(sequence(naive)));
    EXPECT_TRUE((test::within_norm<T>(y, naive, exact)));
}

TEST(hyena, matches_the_definition) {
    for (index_t p : {2, 3, 4, 5})
        for (index_t N : {1, 30, 65, 257})
            for (const layout& l : {layout::heads(), layout::channels_first()}) {
                agrees<float>(p, N, 5, l);
                agrees<float>(p, N, 16, l);
            }
    agrees<double>(3, 100, 3, layout::heads());
    agrees<float>(2, 8192, 1, layout::channels_first());
}

TEST(hyena, a_delta_and_gates_of_one_are_the_identity) {
    constexpr index_t N = 100, C = 4;
    auto u = test::normal<double>({1, 1, N, 3 * C}, 1);
    tensor<double> delta({1, 1, C, N}), y({1, 1, N, C});
    delta.fill([](index_t i) { return i % N == 0; });
    const convolution_filter<double> filter(matrix(delta));
    hyena(sequence(u), filter, sequence(y));
    y.each([&](index_t, index_t, index_t n, index_t c) {
        ASSERT_NEAR(y(0, 0, n, c), u(0, 0, n, c) * u(0, 0, n, C + c) * u(0, 0, n, 2 * C + c), 1e-13);
    });
    for (index_t n = 0; n < N; ++n)
        for (index_t c = 0; c < 2 * C; ++c) u(0, 0, n, c) = 1;
    hyena(sequence(u), filter, sequence(y));
    y.each([&](index_t, index_t, index_t n, index_t c) { ASSERT_NEAR(y(0, 0, n, c), u(0, 0, n, 2 * C + c), 1e-13); });
}

/// Streams of any pieces are one shot, with the pasts of all filters carried along.
template <class T>
void streams(index_t p, index_t N, index_t C, index_t length, const layout& l) {
    SCOPED_TRACE("order " + std::to_string(p) + ", pieces of " + std::to_string(length));
    const auto u = test::normal<T>({2, 1, N, (p + 1) * C}, 1, 1, l);
    std::vector<convolution_filter<T>> filters;
    std::vector<tensor<T>> held;
    std::vector<view<T, 3>> before;
    for (index_t o = 0; o < p - 1; ++o) {
        const index_t K = o == 1 ? 3 : N / 2 + o;
        const auto h = test::normal<T>({1, 1, C, K}, 10 + test::number(o), 1 / std::sqrt(double(K)));
        filters.emplace_back(matrix(h));
        held.push_back(test::constant<T>({2, 1, C, K - 1}, 0));
    }
    for (auto& x : held) before.push_back(sequence(x));
    const std::span<const convolution_filter<T>> all(filters);
    tensor<T> whole({2, 1, N, C}), pieces(whole.shape(), l);
    hyena(sequence(u), all, sequence(whole));
    for (index_t n = 0; n < N; n += length) {
        const range piece{n, std::min(N, n + length)};
        hyena(slice(sequence(u), 1, piece), all, slice(sequence(pieces), 1, piece), pasts<T>(before));
    }
    EXPECT_LE(test::distance(whole, pieces), 4 * double(p) * test::epsilon<T> * test::norm(whole));
    if (p > 2) return;
    auto zeros = test::constant<T>(held[0].shape(), 0);
    hyena(sequence(u), filters[0], sequence(pieces), past(sequence(zeros)));
    EXPECT_LE(test::distance(whole, pieces), 8 * test::epsilon<T> * test::norm(whole));
    EXPECT_TRUE(test::same_values(zeros, held[0]));
}

TEST(hyena, pieces_are_one_shot) {
    for (index_t p : {2, 3, 4})
        for (index_t length : {1, 2, 7, 100, 301}) {
            streams<float>(p, 301, 5, length, layout::heads());
            streams<double>(p, 301, 3, length, layout::channels_first());
        }
}

/// Distilled filters, a token at a time, against the convolutions with their samples; states can be read and set.
TEST(hyena, distilled_filters_decode_as_the_convolution) {
    constexpr index_t N = 90, C = 5;
    for (std::size_t p : {2, 4}) {
        std::vector<convolution_filter<double>> filters;
        std::vector<modal_filter<double>> modal;
        std::vector<modal_filter<double>::state> states;
        const counter_random random(4);
        std::uint64_t drawn = 0;
        for (std::size_t o = 0; o + 1 < p; ++o) {
            std::vector<modal_form> forms(C);
            std::vector<double> taps;
            for (modal_form& f : forms) {
                f.first = random.normal(drawn++);
                for (int n = 0; n < 3; ++n) {
                    f.poles.push_back(std::polar(0.3 + 0.6 * random.uniform(drawn), 3 * random.uniform(drawn + 1)));
                    f.residues.emplace_back(random.normal(drawn + 2), random.normal(drawn + 3));
                    drawn += 4;
                }
                const auto h = f.samples(N);
                taps.insert(taps.end(), h.begin(), h.end());
            }
            filters.emplace_back(dense(std::as_const(taps).data(), {C, N}));
            modal.emplace_back(std::span<const modal_form>(forms));
            states.push_back(modal.back().start(2));
        }
        const auto u = test::normal<double>({2, 1, N, static_cast<index_t>(p + 1) * C}, 1);
        tensor<double> whole({2, 1, N, C}), steps(whole.shape());
        hyena(sequence(u), std::span<const convolution_filter<double>>(filters), sequence(whole));
        for (index_t n = 0; n < N; ++n) {
            const range piece{n, n + 1};
            if (n == 40)  // a copy made by hand goes on alike
                for (auto& state : states) {
                    auto copy = modal[0].start(2);
                    for (index_t b = 0; b < 2; ++b)
                        for (index_t c = 0; c < C; ++c)
                            for (index_t m = 0; m < 3; ++m) copy.set_mode(b, c, m, state.mode(b, c, m));
                    state = copy;
                }
            hyena(slice(sequence(u), 1, piece), std::span<const modal_filter<double>>(modal),
                  slice(sequence(steps), 1, piece), std::span(states));
        }
        EXPECT_LE(test::distance(whole, steps), 1e-13 * test::norm(whole));
    }
}

reals drawn(index_t rows, index_t columns, std::uint64_t seed, double spread) {
    const counter_random random(seed);
    reals m(rows, columns);
    for (index_t i = 0; i < m.size(); ++i) m.data()[i] = spread * random.normal(test::number(i));
    return m;
}
std::vector<std::vector<double>> rows_of(const reals& m) {
    std::vector<std::vector<double>> rows;
    for (index_t r = 0; r < m.rows(); ++r) rows.emplace_back(m.row(r).data(), m.row(r).data() + m.cols());
    return rows;
}
std::vector<double> list(const real_column& c) { return {c.data(), c.data() + c.size()}; }

/// A network of positions with E features, W wide, two inner layers.
struct network {
    std::vector<implicit_filter<double>::sine_layer> layers;
    reals last;
    real_column frequency, decay;
    double shift = 0.05;
    index_t longest;

    network(index_t E, index_t W, index_t C, index_t length) : longest(length) {
        for (index_t i = 0; i < 3; ++i)
            layers.push_back(
                {drawn(W, i == 0 ? E : W, 20 + test::number(i), 0.5), drawn(W, 1, 30 + test::number(i), 1)});
        last = drawn(C, W, 40, 0.3);
        frequency = drawn(W, 1, 41, 3);
        const auto decays = hyena_decays(C);
        decay = Eigen::Map<const real_column>(decays.data(), C);
    }
    template <class T>
    implicit_filter<T> made() const {
        std::vector<typename implicit_filter<T>::sine_layer> cast;
        for (const auto& layer : layers) cast.push_back({layer.weight.cast<T>(), layer.bias.cast<T>()});
        return {cast, last.cast<T>(), frequency.cast<T>(), decay.cast<T>(), static_cast<T>(shift), longest};
    }
    /// (C, N), by the definition, computed in Real.
    template <class Real = double>
    reals defined(index_t N) const {
        std::vector<ref::dense_layer> plain;
        for (const auto& layer : layers) plain.push_back({rows_of(layer.weight), list(layer.bias)});
        reals k(last.rows(), N);
        for (index_t l = 0; l < N; ++l) {
            const auto taps =
                ref::implicit_taps<Real>(plain, rows_of(last), list(frequency), list(decay), shift, longest, l);
            for (index_t c = 0; c < k.rows(); ++c) k(c, l) = static_cast<double>(taps[c]);
        }
        return k;
    }
};

TEST(implicit_filter, matches_the_definition_and_shorter_ones_are_prefixes) {
    for (index_t E : {3, 5, 33}) {
        const network net(E, 16, 7, 3000);
        const reals exact = net.defined<long double>(1500);
        const auto allowed = [&](const reals& naive, double floor) {
            return 2 * (naive - exact).cwiseAbs().maxCoeff() + floor;
        };
        const double in_double = allowed(net.defined<double>(1500), 1e-15);
        const double in_single = allowed(net.defined<float>(1500), 1e-6);
        for (index_t N : {0, 1, 700, 1500}) {
            reals k(7, N);
            const auto filter = net.made<double>();
            filter.taps(filter.hidden(N), 0, 1, dense(k.data(), {7, N}));
            if (N > 0) EXPECT_LT((k - exact.leftCols(N)).cwiseAbs().maxCoeff(), in_double);
            implicit_filter<float>::matrix kf(3, N);
            const auto narrow = net.made<float>();
            narrow.taps(narrow.hidden(N), 1, 2, dense(kf.data(), {3, N}));
            for (index_t r = 0; r < 3; ++r)
                for (index_t l = 0; l < N; ++l) ASSERT_NEAR(kf(r, l), exact(1 + 2 * r, l), in_single);
        }
    }
}

/// A layer of order p against its definition: plain products, plain sums.
void layer_agrees(index_t p, index_t C, index_t D, index_t N, const hyena_layer_options& options) {
    SCOPED_TRACE("order " + std::to_string(p) + " N " + std::to_string(N));
    const network net(5, 16, C * (p - 1), 400);
    const index_t rows = (p + 1) * C;
    hyena_weights<double> w{p,
                            drawn(rows, D, 1, 0.3),
                            drawn(rows, 1, 2, 0.3),
                            drawn(rows, 3, 3, 0.5),
                            drawn(rows, 1, 4, 0.3),
                            net.made<double>(),
                            drawn(C * (p - 1), 1, 5, 0.5),
                            drawn(D, C, 6, 0.3),
                            drawn(D, 1, 7, 0.3)};
    const auto x = test::normal<double>({2, 1, N, D}, 8);
    tensor<double> y(x.shape());
    threads pool(2);
    const hyena_layer<double> layer(w, options);
    std::size_t need = 0;
    layer(sequence(x), sequence(y), scratch_size(pool, need));
    EXPECT_TRUE(test::same_values(y, tensor<double>(x.shape()))) << "was written";
    EXPECT_GT(need, 0u);
    std::vector<std::byte> poisoned(need + arena::alignment, std::byte{0xff});
    arena scratch{std::span<std::byte>(poisoned)}, small(need / 2);
    EXPECT_THROW(layer(sequence(x), sequence(y), on(pool, small)), argument_error);
    layer(sequence(x), sequence(y), on(pool, scratch));
    if (options.kept_length > 0) {
        for (index_t length : {1, 3, 100}) {
            tensor<double> pieces(x.shape(), layout::strided());
            auto past = layer.start(2);
            for (index_t n = 0; n < N; n += length) {
                const range piece{n, std::min(N, n + length)};
                layer(slice(sequence(x), 1, piece), slice(sequence(pieces), 1, piece), past, on(pool));
            }
            EXPECT_EQ(past.tokens(), N);
            EXPECT_LE(test::distance(y, pieces), 1e-13 * test::norm(y)) << length;
        }
        auto past = layer.start(2);
        EXPECT_THROW(layer(sequence(x), sequence(y), past = layer.start(1)), shape_error);
    }
    const reals k = net.defined(N);
    for (index_t b = 0; b < 2; ++b) {
        const Eigen::Map<const reals> xb(&x(b, 0, 0, 0), N, D);
        const reals z = (xb * w.in.transpose()).rowwise() + w.in_bias.transpose();
        reals u = reals::Zero(N, rows), v(N, C);
        for (index_t n = 0; n < N; ++n)
            for (index_t r = 0; r < rows; ++r) {
                u(n, r) = w.short_bias[r];
                for (index_t t = 0; t < std::min<index_t>(3, n + 1); ++t) u(n, r) += w.short_taps(r, t) * z(n - t, r);
            }
        std::vector<reals> h(p - 1, reals(C, N));
        std::vector<view<const double, 2>> taps;
        std::vector<std::vector<double>> beta(p - 1);
        for (index_t o = 0; o < p - 1; ++o) {
            for (index_t c = 0; c < C; ++c) {
                h[o].row(c) = k.row(c * (p - 1) + o);
                beta[o].push_back(w.skip[c * (p - 1) + o]);
            }
            taps.push_back(dense(std::as_const(h[o]).data(), {C, N}));
        }
        ref::hyena(dense(std::as_const(u).data(), {N, rows}), taps, beta, dense(v.data(), {N, C}));
        const reals want = (v * w.out.transpose()).rowwise() + w.out_bias.transpose();
        const Eigen::Map<const reals> got(&y(b, 0, 0, 0), N, D);
        EXPECT_LT((want - got).norm(), 1e-12 * want.norm());
    }
}

TEST(hyena_layer, matches_the_definition) {
    for (index_t N : {1, 2, 3, 64, 257}) {
        layer_agrees(2, 20, 6, N, {});
        layer_agrees(3, 5, 4, N, {.channels_at_once = 2});
        layer_agrees(2, 5, 4, N, {.channels_at_once = 3, .kept_length = 300});
        layer_agrees(3, 5, 4, N, {.channels_at_once = 2, .kept_length = 260});
    }
}

/// bf16 in and out: the groups of channels add up in float, and are rounded once.
TEST(hyena_layer, narrow_outputs_are_rounded_once) {
    constexpr index_t N = 70, C = 24, D = 5;
    const auto cast = [](const reals& m) { return implicit_filter<float>::matrix(m.cast<float>()); };
    const auto column = [](const reals& m) { return implicit_filter<float>::column(m.cast<float>()); };
    const network net(5, 16, C, 400);
    const hyena_weights<float> w{2,
                                 cast(drawn(3 * C, D, 1, 0.3)),
                                 column(drawn(3 * C, 1, 2, 0.3)),
                                 cast(drawn(3 * C, 3, 3, 0.5)),
                                 column(drawn(3 * C, 1, 4, 0.3)),
                                 net.made<float>(),
                                 column(drawn(C, 1, 5, 0.5)),
                                 cast(drawn(D, C, 6, 0.3)),
                                 column(drawn(D, 1, 7, 0.3))};
    const auto x = test::normal<bf16>({2, 1, N, D}, 8);
    tensor<bf16> narrow(x.shape());
    tensor<float> wide(x.shape()), strided(x.shape(), layout::strided());
    const hyena_layer<float> layer(w, {.channels_at_once = 5});
    layer(sequence(x), sequence(wide));
    layer(sequence(x), sequence(narrow));
    layer(sequence(x), sequence(strided));
    EXPECT_TRUE(test::same_values(wide, strided));
    EXPECT_TRUE(strided.poisoned_outside());
    narrow.each([&](index_t b, index_t h, index_t n, index_t d) {
        ASSERT_EQ(static_cast<float>(narrow(b, h, n, d)), static_cast<float>(static_cast<bf16>(wide(b, h, n, d))));
    });
}

TEST(hyena, refuses_what_does_not_fit) {
    std::vector<float> m(1000, 1);
    const auto u = dense(m.data(), {1, 10, 12}), y = dense(m.data() + 500, {1, 10, 4});
    const convolution_filter<float> filter(dense(m.data(), {4, 10})), other(dense(m.data(), {3, 10}));
    refuses<shape_error>(
        [&] {
            hyena(slice(u, 2, range{0, 11}), filter, y);
        },
        "hyena: u is (1, 10, 11), order 2 and y ask for (1, 10, 12)");
    refuses<shape_error>([&] { hyena(u, other, y); }, "a filter has 3 channels, y has 4");
    refuses<shape_error>([&] { hyena(u, filter, dense(m.data(), {1, 10, 4})); }, "y overlaps u");
    refuses<argument_error>([&] { hyena(u, std::span<const convolution_filter<float>>(), y); }, "the least order is 2");
    const auto before = dense(m.data() + 600, {1, 4, 9});
    const std::vector<view<float, 3>> two{before, before};
    refuses<argument_error>([&] { hyena(u, filter, y, pasts<float>(two)); }, "there are 2 pasts of 1 filters");
    refuses<shape_error>([&] { hyena(u, filter, y, past(dense(m.data() + 530, {1, 4, 9}))); },
                         "a past overlaps u or y");
    refuses<shape_error>([&] { hyena(u, filter, y, past(dense(m.data() + 600, {1, 4, 8}))); }, "the past has 8 tokens");
    const auto net = network(5, 8, 4, 100);
    refuses<argument_error>([&] { net.made<float>().hidden(101); }, "asked for 101 taps of 100");
    refuses<shape_error>([&] { network(4, 8, 4, 100).made<float>(); }, "a position has 4 features");
}

}  // namespace
