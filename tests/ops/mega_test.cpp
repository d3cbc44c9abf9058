// The whole layer of Mega against plain loops.
#include <heed/ops/mega.hpp>

#include "../support/averages.hpp"
#include "../support/compare.hpp"
#include "../support/refuses.hpp"
#include "../support/sequence.hpp"
#include "../support/streams.hpp"

namespace {

using namespace heed;
using test::matrix;
using test::seq;
using test::tensor;
using test::vec;

constexpr index_t B = 2, N = 23, C = 7, Z = 5, H = 9, S = 3, width = 2 * C + Z + H;

struct layer {
    test::ema_tensors p, back;
    tensor<float> x, res, omega, w, b, wv, bv, kq, bq, kk, bk, wh, bh;
    layer()
        : p(test::random_average(C, S, 20)),
          back(test::random_average(C, S, 30)),
          x(test::normal<float>({B, 1, N, C}, 1)),
          res(test::normal<float>({B, 1, N, C}, 2)),
          omega(row(C, 3)),
          w(test::normal<float>({1, 1, C, width}, 4, 0.5)),
          b(row(width, 5)),
          wv(test::normal<float>({1, 1, C, H}, 6, 0.5)),
          bv(row(H, 7)),
          kq(row(Z, 8)),
          bq(row(Z, 9)),
          kk(row(Z, 10)),
          bk(row(Z, 11)),
          wh(test::normal<float>({1, 1, H, C}, 12, 0.5)),
          bh(row(C, 13)) {}
    static tensor<float> row(index_t n, std::uint64_t seed) { return test::normal<float>({1, 1, 1, n}, seed, 0.5); }
    mega_parameters<float> parameters(bool both = false) const {
        mega_parameters<float> all{test::parameters_of(p),
                                   vec(omega),
                                   matrix(w),
                                   vec(b),
                                   matrix(wv),
                                   vec(bv),
                                   vec(kq),
                                   vec(bq),
                                   vec(kk),
                                   vec(bk),
                                   matrix(wh),
                                   vec(bh)};
        if (both) all.back = test::parameters_of(back);
        return all;
    }
    template <class... P>
    tensor<float> run(bool both, const P&... policies) const {
        tensor<float> y(x.shape());
        mega(seq(x), seq(res), parameters(both), seq(y), policies...);
        return y;
    }
    /// visible(i, j); weight(logit, keys the row sees) -> weight, softmax if `normal`.
    template <class Visible, class Weight>
    tensor<double> defined(bool both, const Visible& visible, bool normal, const Weight& weight) const {
        const auto u = test::in<double>(x);
        const auto m = test::averaged(x, p, both ? &back : nullptr, omega);
        tensor<double> y(x.shape()), v({B, 1, N, H}), q({B, 1, N, Z}), k({B, 1, N, Z}), base({B, 1, N, width});
        const auto silu = [](double a) { return a * ref::sigmoid(a); };
        const auto times = [](const auto& rows, const tensor<float>& by, index_t i, index_t n, index_t o,
                              index_t inner) {
            double sum = 0;
            for (index_t c = 0; c < inner; ++c) sum += rows(i, 0, n, c) * by(0, 0, c, o);
            return sum;
        };
        base.each([&](index_t i, index_t h, index_t n, index_t o) {
            base(i, h, n, o) = times(m, w, i, n, o, C) + b(0, 0, 0, o);
        });
        v.each([&](index_t i, index_t h, index_t n, index_t o) {
            v(i, h, n, o) = silu(times(u, wv, i, n, o, C) + bv(0, 0, 0, o));
        });
        q.each([&](index_t i, index_t h, index_t n, index_t z) {
            const double s = silu(base(i, h, n, C + z));
            q(i, h, n, z) = s * kq(0, 0, 0, z) + bq(0, 0, 0, z);
            k(i, h, n, z) = s * kk(0, 0, 0, z) + bk(0, 0, 0, z);
        });
        for (index_t i = 0; i < B; ++i)
            for (index_t n = 0; n < N; ++n) {
                std::vector<double> wt(static_cast<std::size_t>(N)), a(static_cast<std::size_t>(H));
                double total = 0;
                index_t seen = 0;
                for (index_t j = 0; j < N; ++j) seen += visible(n, j);
                for (index_t j = 0; j < N; ++j) {
                    double dot = 0;
                    for (index_t z = 0; z < Z; ++z) dot += q(i, 0, n, z) * k(i, 0, j, z);
                    const double at = visible(n, j) ? weight(dot, seen) : 0;
                    wt[static_cast<std::size_t>(j)] = at, total += at;
                }
                for (index_t o = 0; o < H; ++o) {
                    for (index_t j = 0; j < N; ++j)
                        a[static_cast<std::size_t>(o)] +=
                            wt[static_cast<std::size_t>(j)] / (normal ? total : 1) * v(i, 0, j, o);
                    a[static_cast<std::size_t>(o)] *= silu(base(i, 0, n, C + Z + o));
                }
                for (index_t c = 0; c < C; ++c) {
                    double h = base(i, 0, n, C + Z + H + c) + bh(0, 0, 0, c);
                    for (index_t o = 0; o < H; ++o) h += a[static_cast<std::size_t>(o)] * wh(0, 0, o, c);
                    y(i, 0, n, c) = res(i, 0, n, c) + ref::sigmoid(base(i, 0, n, c)) * (silu(h) - res(i, 0, n, c));
                }
            }
        return y;
    }
};

void expect_near(const tensor<float>& got, const tensor<double>& want) {
    EXPECT_TRUE(test::all_near(test::in<double>(got), want, 2e-5));
}
const auto exponential = [](double x, index_t) { return std::exp(x / std::sqrt(double(Z))); };
const auto always = [](index_t, index_t) { return true; };
const auto causally = [](index_t i, index_t j) { return j <= i; };

TEST(mega, softmax_full_causal_and_both_ways) {
    const layer l;
    expect_near(l.run(false, causal{}), l.defined(false, causally, true, exponential));
    expect_near(l.run(true), l.defined(true, always, true, exponential));
}

TEST(mega, weights_of_its_own) {
    const layer l;
    const auto smooth = [](double x, index_t seen) {
        return 0.5 * (1 + std::erf((x / double(seen) - 0.707107) / (0.282095 * std::sqrt(2.0))));
    };
    const auto squared = [](double x, index_t seen) { return std::pow(std::max(0.0, x / double(seen)), 2); };
    expect_near(l.run(false, causal{}, laplace{}), l.defined(false, causally, false, smooth));
    expect_near(l.run(true, relu_squared{}), l.defined(true, always, false, squared));
}

/// Pieces of any lengths are the whole pass; a copy of the state is a snapshot.
template <class Mask, class... P>
void expect_streams(index_t chunk_tokens, const Mask& mask, const P&... policies) {
    const layer l;
    const auto run = [&](auto& s, range piece, auto& y) {
        const auto at = [&](const auto& v) { return slice(v, 1, piece); };
        mega(s, at(seq(l.x)), at(seq(l.res)), l.parameters(), at(seq(y)), policies...);
    };
    test::pieces_are(
        l.run(false, mask, policies...), 2e-6, [&] { return mega_state<float>(B, C, S, Z, H, chunk_tokens); }, run);
    mega_state<float> s(B, C, S, Z, H, chunk_tokens);
    tensor<float> y(l.x.shape()), again(y);
    run(s, {0, 11}, y);
    auto snapshot = s;
    run(s, {11, N}, y), run(snapshot, {11, N}, again);
    for (index_t n = 11; n < N; ++n) ASSERT_EQ(y(1, 0, n, 3), again(1, 0, n, 3));
    EXPECT_EQ(s.kept(), chunk_tokens ? N % chunk_tokens : N);
}
TEST(mega, a_stream_is_the_whole_pass) {
    expect_streams(0, causal{});
    expect_streams(8, causal{} & chunk{8});
    expect_streams(1, causal{} & chunk{1}, relu_squared{});
    expect_streams(8, causal{} & chunk{8}, laplace{});
    const layer l;
    tensor<float> y(l.x.shape());
    mega_state<float> s(B, C, S, Z, H), other(B, C, S, Z + 1, H);
    const auto refused = [&](auto& state, const auto& parameters, const char* what) {
        test::refuses<std::exception>([&] { mega(state, seq(l.x), seq(l.res), parameters, seq(y)); }, what);
    };
    refused(s, l.parameters(true), "mega: a state has no average from the other end");
    refused(other, l.parameters(), "mega: the state has extent 6 on axis 2, y, kq asks for 5");
    auto inside = l.parameters();
    inside.bh.data = seq(y).data;
    refused(s, inside, "mega: y overlaps bh in memory");
    EXPECT_EQ(s.kept(), 0);
}

TEST(mega, packed_sequences_are_apart) {
    const layer l;
    for (bool both : {false, true}) {
        const auto run = [&](const auto&... more) {
            return [&, more...](range piece, auto& y, const auto&... packs) {
                const auto at = [&](const auto& v) { return slice(slice(v, 0, {0, 1}), 1, piece); };
                mega(at(seq(l.x)), at(seq(l.res)), l.parameters(both), at(seq(y)), more..., packs...);
            };
        };
        test::packed_are_apart(N, C, run(chunk{4} & causal{}));
        test::packed_are_apart(N, C, run(laplace{}));
    }
}

TEST(mega, chunks_are_a_mask_and_one_chunk_is_all) {
    const layer l;
    const auto inside = [](index_t i, index_t j) { return i / 8 == j / 8 && j <= i; };
    expect_near(l.run(false, chunk{8} & causal{}), l.defined(false, inside, true, exponential));
    EXPECT_TRUE(test::all_near(l.run(true, chunk{N}), l.run(true), 1e-6));
}

}  // namespace
