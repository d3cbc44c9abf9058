// Attention to quantised keys, SeqBoat and pooling of neighbours against plain loops.
#include <heed/core/threads.hpp>
#include <heed/ops/point_groups.hpp>
#include <heed/ops/seqboat.hpp>
#include <heed/ops/vq_attention.hpp>
#include <heed/policy/score_distance.hpp>
#include <heed/ref/attention.hpp>

#include "../support/averages.hpp"
#include "../support/compare.hpp"
#include "../support/refuses.hpp"
#include "../support/sequence.hpp"
#include "../support/streams.hpp"

namespace {

using namespace heed;
using test::matrix;
using test::refuses;
using test::seq;
using test::tensor;
using test::vec;

struct quantised {
    index_t S;
    tensor<float> q, k, v, book, khat, o;
    std::vector<index_t> codes;
    explicit quantised(index_t size, index_t N = 41)
        : S(size),
          q(test::normal<float>({2, 3, N, 6}, 1)),
          k(test::normal<float>({2, 3, N, 6}, 2)),
          v(test::normal<float>({2, 3, N, 5}, 3)),
          book(test::normal<float>({1, 3, S, 6}, 4)),
          khat(k),
          o({2, 3, N, 5}),
          codes(static_cast<std::size_t>(6 * N)) {
        vq_codes(k.v(), table(), dense(codes.data(), {2, 3, N}));
        khat.each(
            [&](index_t b, index_t h, index_t n, index_t d) { khat(b, h, n, d) = book(0, h, code()(b, h, n), d); });
    }
    view<const float, 3> table() const { return {book.v().data, {3, S, 6}, {S * 6, 6, 1}}; }
    view<const index_t, 3> code() const { return dense(codes.data(), {2, 3, k.shape()[2]}); }
    tensor<double> dense_attention(bool causally) const {
        tensor<double> want(o.shape());
        ref::options<double> with;
        if (causally) with.visible = [](index_t, index_t, index_t, index_t i, index_t j) { return j <= i; };
        ref::attention(q.v(), khat.v(), v.v(), want.v(), with);
        return want;
    }
};

TEST(vq_attention, is_attention_to_quantised_keys) {
    for (index_t S : {1, 4, 60}) {
        quantised x(S);
        vq_attention(x.q.v(), x.table(), x.code(), x.v.v(), x.o.v());
        EXPECT_TRUE(test::all_near(test::in<double>(x.o), x.dense_attention(false), 1e-5)) << S;
        for (index_t L : {1, 7, 16, 50}) {
            causal_vq_attention(x.q.v(), x.table(), x.code(), x.v.v(), x.o.v(), L);
            EXPECT_TRUE(test::all_near(test::in<double>(x.o), x.dense_attention(true), 1e-5)) << S << " " << L;
        }
    }
}

/// Pieces of any lengths are the whole pass, across blocks and inside them.
TEST(vq_attention, a_stream_is_the_whole_pass) {
    for (index_t L : {1, 4, 7, 30}) {
        quantised x(9);
        const auto slopes = std::array{0.5f, 0.25f, 0.125f};
        tensor<float> near(x.o.shape());
        causal_vq_attention(x.q.v(), x.table(), x.code(), x.v.v(), near.v(), L, alibi{slopes});
        const auto run = [&](auto& s, range piece, auto& y, const auto&... bias_near) {
            const auto at = [&](const auto& v) { return slice(v, 2, piece); };
            causal_vq_attention(s, at(x.q.v()), x.table(), at(x.code()), at(x.v.v()), at(y.v()), bias_near...);
        };
        const auto start = [&] { return vq_state<float>(2, 3, 9, 6, 5, L); };
        causal_vq_attention(x.q.v(), x.table(), x.code(), x.v.v(), x.o.v(), L);
        test::pieces_are(x.o, 1e-5, start, run);
        test::pieces_are(near, 1e-5, start, [&](auto& s, range piece, auto& y) { run(s, piece, y, alibi{slopes}); });
    }
    quantised x(9);
    vq_state<float> other(2, 3, 8, 6, 5, 4);
    refuses<shape_error>([&] { causal_vq_attention(other, x.q.v(), x.table(), x.code(), x.v.v(), x.o.v()); },
                         "causal_vq_attention: the state is of 8 codes, the call of 9");
}

/// The nearest code by its definition, for any number of codes and threads.
TEST(vq_attention, codes_are_the_nearest) {
    threads pool(3);
    for (index_t S : {1, 15, 16, 17, 60}) {
        quantised x(S, 300);
        std::vector<index_t> shared(x.codes.size());
        vq_codes(x.k.v(), x.table(), dense(shared.data(), {2, 3, 300}), on(pool));
        EXPECT_EQ(shared, x.codes);
        for (index_t b = 0; b < 2; ++b)
            for (index_t h = 0; h < 3; ++h)
                for (index_t n = 0; n < 300; ++n) {
                    const auto far = [&](index_t s) {
                        double sum = 0;
                        for (index_t d = 0; d < 6; ++d)
                            sum += std::pow(double(x.k(b, h, n, d)) - x.book(0, h, s, d), 2);
                        return sum;
                    };
                    index_t best = 0;
                    for (index_t s = 1; s < S; ++s)
                        if (far(s) < far(best)) best = s;
                    ASSERT_EQ(x.code()(b, h, n), best) << S << " " << n;
                }
    }
}

/// A codebook of the keys themselves quantises nothing; ties go to the lowest code.
TEST(vq_attention, codes) {
    quantised x(41);
    for (index_t h = 0; h < 3; ++h)
        for (index_t n = 0; n < 41; ++n)
            for (index_t d = 0; d < 6; ++d) x.book(0, h, n, d) = x.k(0, h, n, d);
    vq_codes(slice(x.k.v(), 0, {0, 1}), x.table(), dense(x.codes.data(), {1, 3, 41}));
    for (index_t n = 0; n < 41; ++n) EXPECT_EQ(x.codes[static_cast<std::size_t>(41 + n)], n);
    x.book.fill([](index_t) { return 0.5; });
    vq_codes(x.k.v(), x.table(), dense(x.codes.data(), {2, 3, 41}));
    for (index_t code : x.codes) EXPECT_EQ(code, 0);
    x.codes[5] = 41;
    refuses<argument_error>([&] { vq_attention(x.q.v(), x.table(), x.code(), x.v.v(), x.o.v()); },
                            "vq_attention: code 41 of 41");
}

constexpr index_t B = 2, N = 31, C = 6, Z = 4, H = 5, S = 3;

struct boat {
    test::ema_tensors p, back;
    tensor<float> x, res, omega, w, b, w2, b2, kq, bq, kk, bk, w3, b3;
    boat()
        : p(test::random_average(C, S, 20)),
          back(test::random_average(C, S, 30)),
          x(test::normal<float>({B, 1, N, C}, 1)),
          res(test::normal<float>({B, 1, N, C}, 2)),
          omega(row(C, 3)),
          w(test::normal<float>({1, 1, C, C + 2}, 4, 0.5)),
          b(row(C + 2, 5)),
          w2(test::normal<float>({1, 1, C, Z + 2 * H}, 6, 0.5)),
          b2(row(Z + 2 * H, 7)),
          kq(row(Z, 8)),
          bq(row(Z, 9)),
          kk(row(Z, 10)),
          bk(row(Z, 11)),
          w3(test::normal<float>({1, 1, H, C}, 12, 0.5)),
          b3(row(C, 13)) {}
    static tensor<float> row(index_t n, std::uint64_t seed) { return test::normal<float>({1, 1, 1, n}, seed, 0.5); }
    seqboat_parameters<float> parameters(bool both) const {
        seqboat_parameters<float> all{test::parameters_of(p),
                                      vec(omega),
                                      matrix(w),
                                      vec(b),
                                      matrix(w2),
                                      vec(b2),
                                      vec(kq),
                                      vec(bq),
                                      vec(kk),
                                      vec(bk),
                                      matrix(w3),
                                      vec(b3),
                                      1.7};
        if (both) all.back = test::parameters_of(back);
        return all;
    }
    tensor<double> defined(bool both, index_t reach, bool causally, bool normal, std::vector<index_t>* counts) const {
        const auto u = test::in<double>(x);
        const auto m = test::averaged(x, p, both ? &back : nullptr, omega);
        tensor<double> y(x.shape());
        const auto silu = [](double a) { return a * ref::sigmoid(a); };
        for (index_t i = 0; i < B; ++i) {
            const auto base = [&](index_t n, index_t o) {
                double sum = b(0, 0, 0, o);
                for (index_t c = 0; c < C; ++c) sum += m(i, 0, n, c) * w(0, 0, c, o);
                return sum;
            };
            const auto inner = [&](index_t n, index_t o) {
                double sum = b2(0, 0, 0, o);
                for (index_t c = 0; c < C; ++c) sum += m(i, 0, n, c) * w2(0, 0, c, o);
                return silu(sum);
            };
            std::vector<index_t> active;
            for (index_t n = 0; n < N; ++n)
                if (base(n, 1) > base(n, 0)) active.push_back(n);
            if (counts) counts->push_back(static_cast<index_t>(active.size()));
            for (index_t n = 0; n < N; ++n)
                for (index_t c = 0; c < C; ++c) y(i, 0, n, c) = base(n, 2 + c) + res(i, 0, n, c);
            for (index_t t = 0; t < static_cast<index_t>(active.size()); ++t) {
                const index_t n = active[static_cast<std::size_t>(t)];
                std::vector<double> a(static_cast<std::size_t>(H));
                double total = 0;
                for (index_t s = std::max<index_t>(0, t - reach);
                     s < static_cast<index_t>(active.size()) && s <= (causally ? t : t + reach); ++s) {
                    const index_t j = active[static_cast<std::size_t>(s)];
                    double dot = 0;
                    for (index_t z = 0; z < Z; ++z)
                        dot += (inner(n, z) * kq(0, 0, 0, z) + bq(0, 0, 0, z)) *
                               (inner(j, z) * kk(0, 0, 0, z) + bk(0, 0, 0, z));
                    const double squared = std::pow(std::max(0.0, dot / double(causally ? reach : 2 * reach)), 2);
                    const double weight = normal ? std::exp(dot / std::sqrt(double(Z))) : squared;
                    total += weight;
                    for (index_t h = 0; h < H; ++h) a[static_cast<std::size_t>(h)] += weight * inner(j, Z + H + h);
                }
                const double gate = ref::sigmoid((base(n, 1) - base(n, 0)) / 1.7);
                for (index_t c = 0; c < C; ++c) {
                    double sum = b3(0, 0, 0, c);
                    for (index_t h = 0; h < H; ++h)
                        sum += a[static_cast<std::size_t>(h)] / (normal ? total : 1) * inner(n, Z + h) * w3(0, 0, h, c);
                    y(i, 0, n, c) += gate * sum;
                }
            }
        }
        y.each([&](index_t i, index_t h, index_t n, index_t c) { y(i, h, n, c) = silu(y(i, h, n, c)); });
        return y;
    }
};

TEST(seqboat, follows_its_definition) {
    const boat l;
    for (bool both : {false, true})
        for (bool causally : {false, true}) {
            std::vector<index_t> counts;
            const auto squared = l.defined(both, 3, causally, false, &counts),
                       normal = l.defined(both, 3, causally, true, nullptr);
            tensor<float> y(l.x.shape());
            EXPECT_EQ(seqboat(seq(l.x), seq(l.res), l.parameters(both), active_window{3, causally}, seq(y)), counts);
            EXPECT_TRUE(test::all_near(test::in<double>(y), squared, 2e-5));
            seqboat(seq(l.x), seq(l.res), l.parameters(both), active_window{3, causally}, seq(y), softmax{});
            EXPECT_TRUE(test::all_near(test::in<double>(y), normal, 2e-5));
            EXPECT_GT(counts[0], 2);
            EXPECT_LT(counts[0], N);
        }
}

/// Pieces of any lengths are the whole pass, with few or many tokens active in them.
TEST(seqboat, a_stream_is_the_whole_pass) {
    const boat l;
    for (index_t near : {1, 3, 40}) {
        tensor<float> whole(l.x.shape());
        const auto want = seqboat(seq(l.x), seq(l.res), l.parameters(false), active_window{near}, seq(whole));
        std::vector<index_t> counts;
        test::pieces_are(
            whole, 2e-6,
            [&] {
                counts.assign(static_cast<std::size_t>(B), 0);
                return seqboat_state<float>(B, C, S, Z, H, near);
            },
            [&](auto& s, range piece, auto& y) {
                const auto at = [&](const auto& v) { return slice(v, 1, piece); };
                const auto more = seqboat(s, at(seq(l.x)), at(seq(l.res)), l.parameters(false), at(seq(y)));
                for (std::size_t i = 0; i < counts.size(); ++i) counts[i] += more[i];
            });
        EXPECT_EQ(counts, want);
    }
    tensor<float> y(l.x.shape());
    seqboat_state<float> s(B, C, S, Z, H, 3), other(B, C, S, Z, H + 1, 3);
    refuses<argument_error>([&] { seqboat(s, seq(l.x), seq(l.res), l.parameters(true), seq(y)); },
                            "seqboat: a state has no average from the other end");
    auto inside = l.parameters(false);
    inside.b3.data = seq(y).data;
    refuses<shape_error>([&] { seqboat(s, seq(l.x), seq(l.res), inside, seq(y)); },
                         "seqboat: y overlaps b3 in memory");
    refuses<shape_error>([&] { seqboat(other, seq(l.x), seq(l.res), l.parameters(false), seq(y)); },
                         "the state has keys and values of widths 4 and 6, the layer of 4 and 5");
}

TEST(seqboat, packed_sequences_are_apart) {
    const boat l;
    for (bool both : {false, true})
        test::packed_are_apart(N, C, [&](range piece, auto& y, const auto&... packs) {
            const auto at = [&](const auto& v) { return slice(slice(v, 0, {0, 1}), 1, piece); };
            seqboat(at(seq(l.x)), at(seq(l.res)), l.parameters(both), active_window{3, !both}, at(seq(y)), packs...);
        });
}

/// No token active: silu(r + residual), and attention is not asked.
TEST(seqboat, nothing_active) {
    boat l;
    l.b(0, 0, 0, 0) = 1e4f;
    tensor<float> y(l.x.shape());
    EXPECT_EQ(seqboat(seq(l.x), seq(l.res), l.parameters(false), active_window{3}, seq(y)),
              (std::vector<index_t>{0, 0}));
    EXPECT_TRUE(test::all_near(test::in<double>(y), l.defined(false, 3, true, false, nullptr), 2e-5));
}

TEST(pool_neighbours, softmax_over_the_group_for_each_channel) {
    for (index_t C_all : {1, 16, 19}) {
        const auto f = test::normal<float>({5, 1, 8, C_all}, 1, 2), p = test::normal<float>({5, 1, 8, C_all}, 2);
        tensor<float> out({1, 1, 5, C_all}), turned(out.shape());
        const view<float, 2> to{out.v().data, {5, C_all}, {C_all, 1}},
            to_turned{turned.v().data, {5, C_all}, {C_all, 1}};
        for (bool placed : {false, true}) {
            pool_neighbours(seq(f), to, placed ? seq(p) : view<const float, 3>{});
            for (index_t g = 0; g < 5; ++g)
                for (index_t c = 0; c < C_all; ++c) {
                    double total = 0, sum = 0;
                    for (index_t n = 0; n < 8; ++n) {
                        const double weight = std::exp(f(g, 0, n, c) + (placed ? p(g, 0, n, c) : 0.0f));
                        total += weight, sum += weight * f(g, 0, n, c);
                    }
                    EXPECT_NEAR(out(0, 0, g, c), sum / total, 2e-6);
                }
        }
        pool_neighbours(seq(f), to);
        threads pool(3);
        std::size_t need = 0;
        pool_neighbours(seq(f), to_turned, view<const float, 3>{}, scratch_size(pool, need));
        arena enough(need);
        pool_neighbours(seq(f), to_turned, view<const float, 3>{}, on(pool, enough));
        EXPECT_TRUE(test::same_values(out, turned));
        auto back = seq(f);
        back.data += 7 * back.strides[1];
        back.strides[1] = -back.strides[1];
        pool_neighbours(back, to_turned);
        EXPECT_TRUE(test::all_near(out, turned, 2e-6));
        pool_neighbours(slice(seq(f), 1, {3, 4}), to);  // one neighbour
        for (index_t g = 0; g < 5; ++g) EXPECT_EQ(out(0, 0, g, 0), f(g, 0, 3, 0));
    }
}

}  // namespace
