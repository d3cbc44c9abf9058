// Layers and mixers made of several calls keep to their scratch, and refuse outputs that overlap what they read.
#include <heed/ops/gated_memory.hpp>
#include <heed/ops/mega.hpp>
#include <heed/ops/multi_head_convolution.hpp>
#include <heed/ops/seqboat.hpp>
#include <heed/ops/vq_attention.hpp>

#include "averages.hpp"
#include "keeps_to_scratch.hpp"
#include "refuses.hpp"
#include "sequence.hpp"

namespace {

using namespace heed;
using test::keeps_to_scratch;
using test::matrix;
using test::refuses;
using test::seq;
using test::tensor;
using test::vec;

constexpr index_t B = 2, N = 37, C = 6, Z = 4, H = 5, S = 3;

struct nothing {};
nothing none() { return {}; }

tensor<float> rows(index_t n, index_t c, std::uint64_t seed) { return test::normal<float>({1, 1, n, c}, seed, 0.5); }

struct inputs {
    test::ema_tensors p = test::random_average(C, S, 20), back = test::random_average(C, S, 30);
    tensor<float> x = test::normal<float>({B, 1, N, C}, 1), res = test::normal<float>({B, 1, N, C}, 2);
    tensor<float> z[4] = {rows(1, Z, 11), rows(1, Z, 12), rows(1, Z, 13), rows(1, Z, 14)};
    tensor<float> h[2] = {rows(1, H, 15), rows(H, C, 16)}, c[2] = {rows(1, C, 17), rows(1, C, 18)};
};

struct mega_layer : inputs {
    static constexpr index_t width = 2 * C + Z + H;
    tensor<float> w = rows(C, width, 3), b = rows(1, width, 4), wv = rows(C, H, 5);
    mega_parameters<float> parameters() const {
        return {test::parameters_of(p),
                vec(c[0]),
                matrix(w),
                vec(b),
                matrix(wv),
                vec(h[0]),
                vec(z[0]),
                vec(z[1]),
                vec(z[2]),
                vec(z[3]),
                matrix(h[1]),
                vec(c[1]),
                test::parameters_of(back)};
    }
};

TEST(scratch, is_all_that_mega_needs) {
    const mega_layer l;
    const auto call = [&](const auto&... policies) {
        return [&, policies...](auto&, auto& y, const auto& context) {
            mega(seq(l.x), seq(l.res), l.parameters(), seq(y), policies..., context);
        };
    };
    keeps_to_scratch("softmax", {B, 1, N, C}, none, call(causal{}));
    keeps_to_scratch("laplace", {B, 1, N, C}, none, call(chunk{8}, laplace{}));
}

TEST(mega, overlaps_are_refused) {
    mega_layer l;
    tensor<float> y(l.x.shape());
    mega(seq(l.x), seq(l.res), l.parameters(), seq(y));
    auto over = seq(l.res), over_x = seq(l.x);
    over.data += 1, over_x.data += C;
    refuses<shape_error>([&] { mega(seq(l.x), seq(l.res), l.parameters(), over); }, "mega: y overlaps the residual");
    refuses<shape_error>([&] { mega(seq(l.x), seq(l.res), l.parameters(), over_x); }, "mega: y overlaps x");
    mega(seq(l.x), seq(l.res), l.parameters(), seq(l.res));
    EXPECT_TRUE(test::same_values(l.res, y));
}

struct boat : inputs {
    tensor<float> w = rows(C, C + 2, 3), b = rows(1, C + 2, 4), w2 = rows(C, Z + 2 * H, 5), b2 = rows(1, Z + 2 * H, 6);
    seqboat_parameters<float> parameters() const {
        return {test::parameters_of(p),
                vec(c[0]),
                matrix(w),
                vec(b),
                matrix(w2),
                vec(b2),
                vec(z[0]),
                vec(z[1]),
                vec(z[2]),
                vec(z[3]),
                matrix(h[1]),
                vec(c[1]),
                1.5,
                test::parameters_of(back)};
    }
};

TEST(scratch, is_all_that_seqboat_needs) {
    for (float threshold : {-2.0f, 0.0f, 1e4f}) {  // nearly all tokens active, half of them, none
        boat l;
        l.b(0, 0, 0, 0) = threshold;
        const auto call = [&](const auto&... policies) {
            return [&, policies...](auto&, auto& y, const auto& context) {
                seqboat(seq(l.x), seq(l.res), l.parameters(), active_window{3}, seq(y), policies..., context);
            };
        };
        keeps_to_scratch("squared", {B, 1, N, C}, none, call(), true);  // it returns a vector
        keeps_to_scratch("softmax", {B, 1, N, C}, none, call(softmax{}), true);
    }
}

TEST(scratch, is_all_that_streams_need) {
    mega_layer l;
    boat s;
    auto ahead = l.parameters();
    auto through = s.parameters();
    ahead.back = through.back = {{}, {}, {}, {}};
    const auto rooms = [] {
        mega_state<float> state(B, C, S, Z, H, 16);
        state.reserve(N);
        return state;
    };
    keeps_to_scratch("mega", {B, 1, N, C}, rooms, [&](auto& state, auto& y, const auto& context) {
        mega(state, seq(l.x), seq(l.res), ahead, seq(y), context);
    });
    keeps_to_scratch(
        "seqboat", {B, 1, N, C}, [] { return seqboat_state<float>(B, C, S, Z, H, 3); },
        [&](auto& state, auto& y, const auto& context) {
            seqboat(state, seq(s.x), seq(s.res), through, seq(y), context);
        },
        true);  // it returns a vector
}

TEST(seqboat, overlaps_are_refused) {
    boat l;
    tensor<float> y(l.x.shape());
    const auto run = [&](const auto& to) { seqboat(seq(l.x), seq(l.res), l.parameters(), active_window{3}, to); };
    run(seq(y));
    auto over = seq(l.res);
    over.data += C;
    refuses<shape_error>([&] { run(over); }, "seqboat: y overlaps the residual");
    refuses<shape_error>([&] { run(seq(l.x)); }, "seqboat: y overlaps x");
    run(seq(l.res));
    EXPECT_TRUE(test::same_values(l.res, y));
}

struct memory : inputs {
    tensor<float> slots = rows(9, C, 3), taps = rows(C, 4, 4), g = test::normal<float>({B, 1, N, C}, 5);
    tensor<float> state = test::normal<float>({B, 1, C, 3}, 6);
    template <class Y, class... P>
    void run(const view<Y, 3>& y, const P&... policies) const {
        gated_memory(seq(x), matrix(slots), matrix(taps), seq(g), seq(res), y, conv_bias{vec(c[0])}, policies...);
    }
};

TEST(scratch, is_all_that_a_gated_memory_needs) {
    const memory m;
    keeps_to_scratch(
        "with state", {B, 1, N, C}, [&] { return m.state; },
        [&](auto& state, auto& y, const auto& context) { m.run(seq(y), carry{seq(state)}, context); });
}

TEST(gated_memory, overlaps_are_refused) {
    memory m;
    tensor<float> y(m.x.shape());
    m.run(seq(y));
    for (tensor<float>* in : {&m.x, &m.g, &m.res}) {
        auto over = seq(*in);
        over.data += 1;
        refuses<shape_error>([&] { m.run(over); }, "gated_memory: out overlaps");
        auto state = seq(*in);
        state.shape = {B, C, 3}, state.strides = {C * 3, 3, 1};
        refuses<shape_error>([&] { m.run(seq(y), carry{state}); }, "gated_memory: the carried state overlaps");
        const memory before = m;
        m.run(seq(*in));
        EXPECT_TRUE(test::same_values(*in, y));
        m = before;
    }
    view<float, 3> slots{m.slots.v().data, {B, N, C}, {1, 1, 1}};
    refuses<shape_error>([&] { m.run(slots); }, "gated_memory: out overlaps the memory");
}

TEST(scratch, is_all_that_a_multi_head_convolution_needs) {
    for (index_t E : {3, 8, 9}) {
        const auto q = test::normal<float>({B, 2, N, 3}, 1), k = test::normal<float>({B, 2, N, 3}, 2);
        const auto v = test::normal<float>({B, 2, N, E}, 3), taps = test::normal<float>({1, 1, 2, 100}, 4);
        keeps_to_scratch(
            "filters", v.shape(), none,
            [&](auto&, auto& o, const auto& context) { multi_head_convolution(q, k, v, matrix(taps), o, context); },
            true);  // filters
    }
}

TEST(scratch, is_all_that_quantised_keys_need) {
    constexpr index_t heads = 3, codes = 11, D = 6;
    const auto q = test::normal<float>({B, heads, N, D}, 1), k = test::normal<float>(q.shape(), 2);
    const auto v = test::normal<float>({B, heads, N, 5}, 3), book = test::normal<float>({heads, 1, codes, D}, 4);
    std::vector<index_t> at(B * heads * N);
    const auto code = dense(at.data(), {B, heads, N});
    vq_codes(k.v(), seq(book), code);
    const view<const index_t, 3> known = code;
    keeps_to_scratch("all", v.shape(), none, [&](auto&, auto& o, const auto& context) {
        vq_attention(q.v(), seq(book), known, v.v(), o.v(), context);
    });
    for (index_t L : {1, 3, 8, 30, 100})
        keeps_to_scratch("causal", v.shape(), none, [&](auto&, auto& o, const auto& context) {
            causal_vq_attention(q.v(), seq(book), known, v.v(), o.v(), L, identity{}, context);
        });
    keeps_to_scratch(
        "stream", v.shape(), [] { return vq_state<float>(B, heads, codes, D, 5, 8); },
        [&](auto& state, auto& o, const auto& context) {
            causal_vq_attention(state, q.v(), seq(book), known, v.v(), o.v(), identity{}, context);
        });
    auto over = v;
    refuses<shape_error>([&] { causal_vq_attention(q.v(), seq(book), known, over.v(), over.v(), 3); },
                         "causal_vq_attention: o overlaps an input");
}

}  // namespace
