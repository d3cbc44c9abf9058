// Attention over a cache under masks, scores, sinks and probes, against the definition over the rows it holds.
#pragma once

#include <heed/heed.hpp>

#include "any_mask.hpp"
#include "any_score.hpp"
#include "compare.hpp"
#include "random.hpp"
#include "read_source.hpp"

namespace test {

/// What one call writes: the output of one sequence, and the probes as tensors (1, H, N, 1) and (1, H, M, 1).
template <class T>
struct probed {
    tensor<T> o, lse, key_mass;
};

template <class T, class U>
tensor<T> converted(const tensor<U>& x) {
    tensor<T> y(x.shape());
    y.each([&](index_t b, index_t h, index_t n, index_t d) { y(b, h, n, d) = static_cast<T>(x(b, h, n, d)); });
    return y;
}

/// Sequence b by the loops of the definition in Real, what the cache does to queries and outputs included.
template <class Real, class Cache>
probed<Real> by_definition(const Cache& cache, index_t b, const tensor<float>& q, ref::options<Real> with) {
    const auto held = read_source(cache, b);
    const index_t H = q.shape()[1], N = q.shape()[2], M = cache.keys(b, 0), E = cache.value_width();
    auto turned = converted<Real>(copied(slice(q.v(), 0, {b, b + 1})));
    probed<Real> out{tensor<Real>({1, H, N, E}), tensor<Real>({1, H, N, 1}), tensor<Real>({1, H, M, 1})};
    const auto numbers = [](tensor<Real>& x) {
        return view<Real, 3>{x.v().data, {1, x.shape()[1], x.shape()[2]}, {0, x.shape()[2], 1}};
    };
    ref::record<Real> to;
    to.lse = numbers(out.lse), to.key_mass = numbers(out.key_mass);
    const auto each_row = [&](const auto& f) {
        for (index_t h = 0; h < H; ++h)
            for (index_t n = 0; n < N; ++n) f(h, n);
    };
    if constexpr (requires(Real * x) { cache.turn_query(x); })
        each_row([&](index_t h, index_t n) { cache.turn_query(&turned(0, h, n, 0)); });
    ref::naive_attention<Real>(turned.v(), converted<Real>(held.k).v(), converted<Real>(held.v).v(), out.o.v(), with,
                               to);
    if constexpr (requires(Real * x) { cache.turn_output(x); })
        each_row([&](index_t h, index_t n) { cache.turn_output(&out.o(0, h, n, 0)); });
    return out;
}

/// One query, a few and many, under every mask, score and sink; B sequences of equal heads that may differ in length.
/// Key j of the cache stands at position j.
template <class Cache>
void expect_policies(const Cache& cache, const std::string& name) {
    const index_t B = cache.batch(), H = 2 * cache.heads(), D = cache.key_width(), E = cache.value_width();
    index_t M = 0;
    for (index_t b = 0; b < B; ++b) M = std::max(M, cache.keys(b, 0));
    const auto slopes = alibi_slopes(H);
    const any_mask masks[] = {causal{}, causal{} & (window{9} | first{3}),
                              [](const where& w) { return (w.i + 2 * w.j + w.h) % 3 != 0; }};
    const any_score scores[] = {identity{}, alibi{slopes}, softcap{3} >> alibi{slopes}};
    const std::vector<std::vector<float>> sinks{std::vector<float>(number(H), -INFINITY), {0, 1, -2, 3}};
    for (index_t N : {1, 3, 20}) {
        const auto q = normal<float>({B, H, N, D}, 5, 2);
        for (std::size_t m = 0; m < std::size(masks); ++m)
            for (std::size_t s = 0; s < std::size(scores); ++s)
                for (const auto& logits : sinks) {
                    tensor<float> o({B, H, N, E}), sums({B, H, N, 1}), mass({B, H, M, 1});
                    attention(q, cache, o, masks[m], scores[s], sink{logits}, lse{dense(&sums(0, 0, 0, 0), {B, H, N})},
                              key_mass{dense(&mass(0, 0, 0, 0), {B, H, M})});
                    for (index_t b = 0; b < B; ++b) {
                        SCOPED_TRACE(testing::Message() << name << ", sequence " << b << ", " << N << " queries, mask "
                                                        << m << ", score " << s << ", sink " << logits[0]);
                        const auto with = [&]<class Real>(Real) {
                            ref::options<Real> to;
                            to.visible = [&](index_t, index_t h, index_t row, index_t i, index_t j) {
                                return masks[m].allows({b, h, row, i, j});
                            };
                            to.score = [&](Real x, index_t, index_t h, index_t row, index_t i, index_t j) {
                                return static_cast<Real>(scores[s](static_cast<double>(x), {b, h, row, i, j}));
                            };
                            to.sink.assign(logits.begin(), logits.end());
                            return to;
                        };
                        const auto exact = by_definition<double>(cache, b, q, with(double{}));
                        const auto naive = by_definition<float>(cache, b, q, with(float{}));
                        const auto one = [&](const tensor<float>& x, index_t rows) {
                            return copied(slice(slice(x.v(), 0, {b, b + 1}), 2, {0, rows}));
                        };
                        ASSERT_TRUE(within_rule<float>(one(o, N), naive.o, exact.o));
                        ASSERT_TRUE(within_rule<float>(one(sums, N), naive.lse, exact.lse));
                        ASSERT_TRUE(within_rule<float>(one(mass, cache.keys(b, 0)), naive.key_mass, exact.key_mass));
                    }
                }
    }
}

}  // namespace test
