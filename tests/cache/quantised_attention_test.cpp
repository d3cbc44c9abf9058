// Attention over quantised caches: the definition over the numbers they hold, for one query and for many.
#include <heed/heed.hpp>

#include "compare.hpp"
#include "random.hpp"
#include "read_source.hpp"

using namespace test;

namespace {

constexpr index_t H = 4, G = 2, D = 80, E = 36;

/// One sequence by the loops of the definition in Real, the transforms included.
template <class Real, class Cache>
tensor<Real> by_definition(const Cache& cache, index_t b, const tensor<float>& q) {
    const auto as_real = [](const tensor<double>& x) {
        tensor<Real> y(x.shape());
        y.each([&](index_t i, index_t h, index_t n, index_t d) { y(i, h, n, d) = static_cast<Real>(x(i, h, n, d)); });
        return y;
    };
    const auto held = read_source(cache, b);
    const index_t N = q.shape()[2], M = cache.keys(b, 0);
    tensor<Real> turned({1, H, N, D}), o({1, H, N, E});
    turned.each([&](index_t, index_t h, index_t n, index_t d) { turned(0, h, n, d) = q(b, h, n, d); });
    for (index_t h = 0; h < H; ++h)
        for (index_t n = 0; n < N; ++n) cache.turn_query(&turned(0, h, n, 0));
    ref::options<Real> with;
    with.offset = M - N;
    with.visible = [](index_t, index_t, index_t, index_t i, index_t j) { return j <= i; };
    ref::naive_attention<Real>(turned.v(), as_real(held.k).v(), as_real(held.v).v(), o.v(), with);
    for (index_t h = 0; h < H; ++h)
        for (index_t n = 0; n < N; ++n) cache.turn_output(&o(0, h, n, 0));
    return o;
}

template <class K, class V>
void expect_attention(const K& keys, const V& values, hadamard transformed, allowance allow = {}) {
    quantised_cache<K, V> cache({2, G, D, E}, keys, values, transformed);
    cache.append(normal<float>({2, G, 70, D}, 1), normal<float>({2, G, 70, E}, 2));
    cache.append(1, normal<float>({1, G, 29, D}, 3), normal<float>({1, G, 29, E}, 4));
    for (index_t N : {1, 3, 40}) {
        const auto q = normal<float>({2, H, N, D}, 5);
        tensor<float> o({2, H, N, E});
        attention(q, cache, o, causal{});
        for (index_t b = 0; b < 2; ++b) {
            tensor<float> row({1, H, N, E});
            row.each([&](index_t, index_t h, index_t n, index_t e) { row(0, h, n, e) = o(b, h, n, e); });
            EXPECT_TRUE(within_rule<float>(row, by_definition<float>(cache, b, q),
                                           by_definition<double>(cache, b, q), allow))
                << N << " queries, sequence " << b;
        }
    }
}

TEST(quantised_attention, bytes_by_token) { expect_attention(int8_per_token{}, int8_per_token{}, {}); }
TEST(quantised_attention, products_in_integers) {
    // Queries and weights of 16 bits: where they differ from floats, a logit is off by the rounding of D products.
    const allowance sixteen_bits{2, 0x1p-13};
    expect_attention(int8_integer{}, int8_integer{}, {}, sixteen_bits);
    expect_attention(int8_integer{}, int8_per_token{}, {.keys = true}, sixteen_bits);
    expect_attention(int8_per_token{}, int8_integer{}, {.values = true}, sixteen_bits);
}
TEST(quantised_attention, queries_that_are_not_finite_give_nan_in_integers_too) {
    quantised_cache<int8_integer> cache({1, G, D, E});
    cache.append(normal<float>({1, G, 70, D}, 1), normal<float>({1, G, 70, E}, 2));
    auto q = normal<float>({1, H, 1, D}, 5);
    q(0, 1, 0, 3) = NAN;
    tensor<float> o({1, H, 1, E});
    attention(q, cache, o);
    o.each([&](index_t, index_t h, index_t, index_t e) { EXPECT_EQ(std::isnan(o(0, h, 0, e)), h == 1) << h << ", " << e; });
}
TEST(quantised_attention, keys_by_channel_and_values_by_token) {
    expect_attention(int8_per_channel{16}, int8_per_token{}, {});
    expect_attention(int8_per_channel{16}, int8_per_token{}, {.keys = true, .values = true});
}
TEST(quantised_attention, groups_of_four_bits) {
    expect_attention(int4_per_group<32>{}, int4_per_group<32>{}, {});
    expect_attention(int4_per_group<32>{}, int4_per_group<32>{}, {.keys = true, .values = true});
}
TEST(quantised_attention, groups_of_bytes_and_values_by_channel) {
    expect_attention(int8_per_group<64>{}, int8_per_channel{7}, {.keys = false, .values = true});
}

}  // namespace
