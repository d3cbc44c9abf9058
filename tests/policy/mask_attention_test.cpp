// The engine under every mask, against the definition. Masks stand behind any_mask: one engine is compiled.
#include <heed/heed.hpp>

#include "any_mask.hpp"
#include "compare.hpp"
#include "random.hpp"

using namespace test;

namespace {

struct named_mask {
    const char* name;
    any_mask mask;
};

constexpr index_t H = 2;

const std::vector<index_t> offsets{0, 12, 13, 31, 60, 126};
const std::vector<index_t> tokens{0, 3, 40, 127};
const std::vector<index_t> dilations{2, 5};
const std::vector<mask_slice> parts{{{0, 40}, {0, 90}, slice_kind::causal}, {{40, 45}, {3, 12}},
                                    {{45, 130}, {10, 110}, slice_kind::bicausal},
                                    {{131, 300}, {20, 200}, slice_kind::inverse_causal}};

std::vector<named_mask> masks_by_position() {
    return {
        {"everything", everything{}},
        {"nothing", nothing{}},
        {"causal", causal{}},
        {"window", window{20, 9}},
        {"window ahead", window{3, -1}},
        {"chunk", chunk{50}},
        {"block_causal", block_causal{32}},
        {"prefix", causal{} | prefix{60}},
        {"prefix alone", prefix{60}},
        {"sinks and window", causal{} & (window{16} | first{4})},
        {"global", global{5} | window{11}},
        {"global tokens", global_tokens{tokens} | (causal{} & window{7})},
        {"dilated", dilated{6, 3}},
        {"dilated per head", dilated{6, dilations}},
        {"strided", strided{16}},
        {"every", every{16}},
        {"fixed", fixed{32, 4, 2}},
        {"summary", summary{32, 4, 2}},
        {"lambda", [](const where& w) { return (w.i * 3 + w.j + w.h) % 5 == 0; }},
        {"a third of the lambda", causal{} & [](const where& w) { return (w.i * 3 + w.j) % 5 == 0; }},
    };
}

std::vector<named_mask> masks_by_pattern() {
    return {
        {"share question", patterns::share_question(offsets)},
        {"causal blockwise", patterns::causal_blockwise(offsets)},
        {"prefix-LM document", patterns::prefix_lm_document(offsets, 9)},
        {"block-causal document", patterns::block_causal_document(offsets, 8)},
        {"full document", patterns::full_document(offsets)},
        {"causal document", patterns::causal_document(offsets)},
        {"longformer", longformer(4, 3, tokens)},
        {"ee_mllm", ee_mllm(70)},
        {"ee_mllm, skip", ee_mllm(70, false)},
        {"song", song{song::strategy::both_ways, song::stream::vocals}},
        {"star", star(32, 110)},
        {"transducer", transducer(12, 3)},
        {"slices", slices(parts)},
        {"parallel context", parallel_context(std::span(offsets).subspan(1))},
    };
}

/// One mask at one place against the definition, and lse of rows that see nothing.
void check(const named_mask& x, index_t B, index_t N, index_t M, index_t shift) {
    SCOPED_TRACE(std::string(x.name) + " N " + std::to_string(N) + " M " + std::to_string(M) + " offset " +
                 std::to_string(shift));
    const auto q = normal<float>({B, H, N, 5}, 1), k = normal<float>({B, 1, M, 5}, 2), v = normal<float>({B, 1, M, 3}, 3);
    auto o = constant<float>({B, H, N, 3}, 7);
    attention(q, k, v, o, x.mask, offset{shift});
    EXPECT_TRUE(attends(o, q, k, v, [&](auto real) {
        ref::options<decltype(real)> with;
        with.offset = shift;
        with.visible = [&](index_t b, index_t h, index_t row, index_t i, index_t j) {
            return x.mask.allows({b, h, row, i, j});
        };
        return with;
    }));
}

void check_everywhere(const std::vector<named_mask>& masks) {
    for (const auto& x : masks) {
        for (index_t n : {1, 7, 47, 48, 49, 130}) check(x, 1, n, n < 126 ? 126 + n : n, n < 126 ? 126 : 0);
        for (index_t m : {127, 128, 129, 300}) check(x, 1, 49, m, m - 49);
        check(x, 1, 130, 130, -20);
        check(x, 1, 60, 300, 0);
    }
}

TEST(mask_attention, by_position) { check_everywhere(masks_by_position()); }
TEST(mask_attention, by_pattern) { check_everywhere(masks_by_pattern()); }

TEST(mask_attention, by_data) {
    const index_t B = 2, N = 49, M = 129, shift = 80;
    const counter_random random(5);
    std::vector<index_t> valid{100, 0}, last(static_cast<std::size_t>(H * M));
    std::vector<token_type> types(static_cast<std::size_t>(M));
    for (index_t h = 0; h < H; ++h) {
        for (std::size_t j = 0; j < types.size(); ++j)
            types[j] = static_cast<token_type>(random.uniform(number(h * 1000) + j) * 3);
        token_lifetimes(types, 9, std::span(last).subspan(static_cast<std::size_t>(h * M), types.size()));
    }
    std::vector<unsigned char> seen(static_cast<std::size_t>(H * N * M)), kept(H * 4 * 9);
    for (std::size_t x = 0; x < seen.size(); ++x) seen[x] = random.uniform(x) < 0.3;
    for (std::size_t x = 0; x < kept.size(); ++x) kept[x] = random.uniform(x) < 0.4;
    const block_lists lists(dense(kept.data(), {H, 4, 9}));
    for (const named_mask& x : std::vector<named_mask>{
             {"lengths", lengths{valid}},
             {"causal lengths", causal{} & lengths{valid}},
             {"lifetime", lifetime{dense(last.data(), {1, H, M})}},
             {"boolean", boolean(dense(seen.data(), {1, H, N, M}))},
             {"boolean of keys", boolean(dense(seen.data(), {1, 1, 1, M}))},
             {"boolean with fewer keys", boolean(dense(seen.data(), {1, 1, N, M - 20}))},
             {"boolean and causal", boolean(dense(seen.data(), {1, H, N, M})) & causal{}},
             {"block list", block_list(16, 16, lists.starts, lists.blocks, H)}})
        check(x, B, N, M, shift);
}

TEST(mask_attention, additive_hides_and_adds) {
    const index_t B = 2, N = 49, M = 129;
    const auto q = normal<float>({B, H, N, 5}, 1), k = normal<float>({B, 1, M, 5}, 2), v = normal<float>({B, 1, M, 3}, 3);
    auto table = normal<float>({B, H, N, M}, 4);
    const counter_random random(6);
    index_t at = 0;
    table.each([&](index_t b, index_t h, index_t n, index_t j) {
        if (n == 11 || random.uniform(number(at++)) < 0.4) table(b, h, n, j) = -INFINITY;
    });
    tensor<float> o({B, H, N, 3});
    attention(q, k, v, o, additive(table.v()) & causal{});
    const auto want = [&](auto real) {
        ref::options<decltype(real)> with;
        with.visible = [](index_t, index_t, index_t, index_t i, index_t j) { return j <= i; };
        with.bias = [&](index_t b, index_t h, index_t row, index_t, index_t j) {
            return static_cast<decltype(real)>(table(b, h, row, j));
        };
        return with;
    };
    EXPECT_TRUE(attends(o, q, k, v, want));
    for (index_t e = 0; e < 3; ++e) EXPECT_EQ(o(1, 1, 11, e), 0);
    // One table for all heads, its rows apart.
    const auto shared = slice(slice(table.v(), 0, {1, 2}), 1, {0, 1});
    attention(q, k, v, o, additive(shared) & causal{});
    EXPECT_TRUE(attends(o, q, k, v, [&](auto real) {
        auto with = want(real);
        with.bias = [&](index_t, index_t, index_t row, index_t, index_t j) {
            return static_cast<decltype(real)>(table(1, 0, row, j));
        };
        return with;
    }));
}

}  // namespace
