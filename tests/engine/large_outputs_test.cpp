// heed_test: LABELS threads
// Outputs too large for the caches are stored around them if they are whole lines: the bits are those of outputs that
// cannot be, since they lie across lines, and nothing beside them is touched.
#include <gtest/gtest.h>

#include <cstring>
#include <heed/core/random.hpp>
#include <heed/core/threads.hpp>
#include <heed/engine/recurrence.hpp>
#include <heed/ops/causal_conv.hpp>
#include <heed/ops/ema.hpp>
#include <heed/ops/hgrn.hpp>
#include <heed/ops/selective_scan.hpp>

namespace {

using namespace heed;

/// Numbers in [low, high), of some shape, whose first element starts a line.
class numbers_of {
public:
    explicit numbers_of(index_t n, double low = -1, double high = 1) : memory_(static_cast<std::size_t>(n) * sizeof(float)) {
        const counter_random random(static_cast<std::uint64_t>(n), 7);
        for (index_t i = 0; i < n; ++i)
            data()[i] = static_cast<float>(low + (high - low) * random.uniform(static_cast<std::uint64_t>(i)));
    }
    float* data() const { return reinterpret_cast<float*>(memory_.data()); }

private:
    arena memory_;
};

/// run(o) fills o of that shape; once in whole lines, once across lines, between numbers that stay.
template <std::size_t Rank, class Run>
void expect_the_same(const extents<Rank>& shape, const Run& run) {
    constexpr index_t beside = 16, shift = 3;
    const view<float, Rank> none{nullptr, shape, dense_strides(shape)};
    const index_t n = none.size();
    const numbers_of memory(n + 2 * beside), shifted(n + 2 * beside), before(n + 2 * beside);
    const view<float, Rank> o{memory.data() + beside, shape, none.strides};
    const view<float, Rank> across{shifted.data() + shift, shape, none.strides};
    ASSERT_TRUE(outweighs_caches(o));
    ASSERT_FALSE(outweighs_caches(across));
    run(o), run(across);
    const auto bytes = [](index_t count) { return static_cast<std::size_t>(count) * sizeof(float); };
    EXPECT_EQ(std::memcmp(o.data, across.data, bytes(n)), 0);
    const auto kept = [&](const numbers_of& in, index_t first) {
        return std::memcmp(in.data(), before.data(), bytes(first)) == 0 &&
               std::memcmp(in.data() + first + n, before.data() + first + n, bytes(2 * beside - first)) == 0;
    };
    EXPECT_TRUE(kept(memory, beside));
    EXPECT_TRUE(kept(shifted, shift));
}

constexpr index_t N = 4096, C = 2048;
const extents<3> sequence{1, N, C};
view<const float, 3> sequence_at(const numbers_of& x) { return {x.data(), sequence, dense_strides(sequence)}; }
view<const float, 2> columns_at(const numbers_of& x, index_t S) { return {x.data(), {C, S}, {S, 1}}; }

TEST(large_outputs, scans) {
    threads pool(2);
    const numbers_of x(N * C), g(N * C, -1, 0), taps(C * 4), p(C);
    expect_the_same(sequence, [&](const auto& o) { hgrn(sequence_at(x), sequence_at(g), o, on{pool}); });
    expect_the_same(sequence, [&](const auto& o) { causal_conv(sequence_at(x), columns_at(taps, 4), o, on{pool}); });
    const auto one = columns_at(p, 1), four = columns_at(taps, 4);
    expect_the_same(sequence, [&](const auto& o) { ema(sequence_at(x), ema_parameters{one, one, one, one}, o, on{pool}); });
    expect_the_same(sequence, [&](const auto& o) {
        ema(sequence_at(x), ema_parameters{four, four, four, four}, o, silu_output{}, on{pool});
    });
}

TEST(large_outputs, selective_scan) {
    threads pool(2);
    constexpr index_t S = 2;
    const numbers_of u(N * C), delta(N * C, 0, 1), decay(C * S, -1, 0), in(N * S), out(N * S);
    const view<const float, 3> b{in.data(), {1, N, S}, {N * S, S, 1}}, c{out.data(), {1, N, S}, {N * S, S, 1}};
    expect_the_same(sequence, [&](const auto& o) {
        selective_scan(sequence_at(u), sequence_at(delta), columns_at(decay, S), b, c, o, on{pool});
    });
}

TEST(large_outputs, recurrences) {
    threads pool(2);
    constexpr index_t tokens = 1 << 15, width = 256, D = 16;
    const extents<4> key{1, 1, tokens, D}, value{1, 1, tokens, width};
    const numbers_of q(tokens * D), k(tokens * D, 0, 0.3), v(tokens * width), g(tokens, -1, 0), beta(tokens, 0, 1);
    const auto at = [](const numbers_of& x, const extents<4>& shape) {
        return view<const float>{x.data(), shape, dense_strides(shape)};
    };
    const view<const float, 3> gates{g.data(), {1, 1, tokens}, {tokens, tokens, 1}},
        strengths{beta.data(), {1, 1, tokens}, {tokens, tokens, 1}};
    const auto check = [&](const auto&... policies) {
        expect_the_same(value, [&](const auto& o) {
            recurrence(at(q, key), at(k, key), at(v, value), o, policies..., on{pool});
        });
    };
    check(token_decay{gates});
    check(token_decay{gates}, delta_rule{strengths});
    check(token_decay{gates}, delta_rule{strengths}, chunked{64});
}

}  // namespace
