// Masks of systems that run step by step, and give what one call over everything gives: two streams that attend to each
// other [49], and frames with some look-ahead [71].
#include <heed/heed.hpp>

#include "any_mask.hpp"
#include "compare.hpp"
#include "random.hpp"

using namespace test;

namespace {

constexpr index_t H = 2, D = 5;

/// The one engine of this file; row 0 stands at `position`.
void attend(view<const float> q, view<const float> k, view<const float> v, view<float> o, const any_mask& mask,
            index_t position) {
    attention(q, k, v, o, mask, offset{position});
}

template <class Real>
ref::options<Real> defined(const any_mask& mask, index_t position = 0) {
    ref::options<Real> with;
    with.offset = position;
    with.visible = [mask](index_t b, index_t h, index_t row, index_t i, index_t j) {
        return mask.allows({b, h, row, i, j});
    };
    return with;
}

testing::AssertionResult is_defined(const tensor<float>& o, const tensor<float>& q, const tensor<float>& k,
                                    const tensor<float>& v, const any_mask& mask) {
    return attends(o, q, k, v, [&](auto real) { return defined<decltype(real)>(mask); });
}

/// Queries, keys and values of a stream.
struct stream {
    tensor<float> q, k, v;
    stream(index_t N, std::uint64_t seed)
        : q(normal<float>({1, H, N, D}, seed)), k(normal<float>({1, H, N, D}, seed + 1)),
          v(normal<float>({1, H, N, D}, seed + 2)) {}
    index_t tokens() const { return q.shape()[2]; }
};

/// Bidirectional cross-attention: what each stream takes from the other.
struct crossed {
    tensor<float> vocals, accompaniment;

    crossed(const stream& a, const stream& b, song::strategy flow) : vocals(a.q.shape()), accompaniment(b.q.shape()) {
        attend(a.q, b.k, b.v, vocals, song{flow, song::stream::vocals}, 0);
        attend(b.q, a.k, a.v, accompaniment, song{flow, song::stream::accompaniment}, 0);
    }
};

constexpr auto all_strategies = {song::strategy::both_ways, song::strategy::accompaniment_to_vocals,
                                 song::strategy::vocals_to_accompaniment, song::strategy::none};

TEST(mask_stepwise, streams_swapped_swap_what_they_take) {
    for (index_t N : {1, 7, 60, 131}) {
        const stream a(N, 1), b(N, 11);
        using enum song::strategy;
        for (auto [one, mirrored] : {std::pair{both_ways, both_ways}, {none, none},
                                     {accompaniment_to_vocals, vocals_to_accompaniment},
                                     {vocals_to_accompaniment, accompaniment_to_vocals}}) {
            const crossed straight(a, b, one), swapped(b, a, mirrored);
            EXPECT_TRUE(same_values(straight.vocals, swapped.accompaniment)) << N;
            EXPECT_TRUE(same_values(straight.accompaniment, swapped.vocals)) << N;
        }
        const crossed apart(a, b, none);
        EXPECT_TRUE(same_values(apart.vocals, constant<float>(a.q.shape(), 0))) << N;
        EXPECT_TRUE(same_values(apart.accompaniment, constant<float>(a.q.shape(), 0))) << N;
    }
}

TEST(mask_stepwise, both_ways_is_causal_in_both_streams) {
    const index_t N = 131, t = 70;
    const stream a(N, 1), b(N, 11);
    stream later = b;
    for (auto* x : {&later.q, &later.k, &later.v})
        for (index_t h = 0; h < H; ++h)
            for (index_t d = 0; d < D; ++d) (*x)(0, h, t, d) = NAN;
    const crossed before(a, b, song::strategy::both_ways), after(a, later, song::strategy::both_ways);
    const auto head = [&](const tensor<float>& x) { return copied(slice(x.v(), 2, {0, t})); };
    EXPECT_TRUE(same_values(head(before.vocals), head(after.vocals)));
    EXPECT_TRUE(same_values(head(before.accompaniment), head(after.accompaniment)));
    EXPECT_TRUE(std::isnan(after.vocals(0, 0, t, 0)));
}

// A token a step over what both streams hold by then; the stream that is seen whole stands still.
TEST(mask_stepwise, streams_decoded_together_are_those_of_one_call) {
    const index_t N = 67;
    const stream a(N, 1), b(N, 11);
    for (song::strategy flow : all_strategies) {
        const bool grows = flow == song::strategy::both_ways;
        const auto decoded = [&](const stream& own, const stream& other, song::stream which) {
            tensor<float> o(own.q.shape());
            for (index_t t = 0; t < N; ++t) {
                const range now{t, t + 1}, held{0, grows ? t + 1 : N};
                attend(slice(own.q.v(), 2, now), slice(other.k.v(), 2, held), slice(other.v.v(), 2, held),
                       slice(o.v(), 2, now), song{flow, which}, t);
            }
            return o;
        };
        for (song::stream which : {song::stream::vocals, song::stream::accompaniment}) {
            const stream &own = which == song::stream::vocals ? a : b, &other = which == song::stream::vocals ? b : a;
            const crossed whole(a, b, flow);
            const auto& prefilled = which == song::stream::vocals ? whole.vocals : whole.accompaniment;
            const song mask{flow, which};
            EXPECT_TRUE(is_defined(prefilled, own.q, other.k, other.v, mask));
            EXPECT_TRUE(is_defined(decoded(own, other, which), own.q, other.k, other.v, mask));
        }
    }
}

// Row t of a layer leaves once frame t + R of its input is there, and sees frames t - L to t + R alone; frames that
// have not come are poison. k layers lag behind by k R frames.
TEST(mask_stepwise, frames_with_look_ahead_are_those_of_one_call) {
    const index_t T = 75, layers = 3;
    for (auto [L, R] : {std::pair<index_t, index_t>{9, 2}, {4, 0}, {0, 3}, {20, 70}, {80, 80}}) {
        SCOPED_TRACE("left " + std::to_string(L) + " right " + std::to_string(R));
        const auto frames = normal<float>({1, H, T, D}, 3);
        std::vector<tensor<float>> x(layers + 1, tensor<float>(frames.shape()));  // the input, and each layer's rows
        std::vector<index_t> there(layers + 1, 0);
        for (index_t arrived = 1; arrived <= T; ++arrived) {
            for (index_t h = 0; h < H; ++h)
                for (index_t d = 0; d < D; ++d) x[0](0, h, arrived - 1, d) = frames(0, h, arrived - 1, d);
            there[0] = arrived;
            for (std::size_t l = 1; l < x.size(); ++l)
                for (index_t& t = there[l]; t < T && std::min(t + R + 1, T) <= there[l - 1]; ++t) {
                    const range seen{std::max<index_t>(0, t - L), std::min(t + R + 1, T)}, now{t, t + 1};
                    const view<const float> in = x[l - 1].v(), ring = slice(in, 2, seen);
                    attend(slice(in, 2, now), ring, ring, slice(x[l].v(), 2, now), transducer(L, R), t - seen.first);
                }
            for (index_t l = 1; l <= layers && arrived < T; ++l)
                EXPECT_EQ(there[static_cast<std::size_t>(l)], std::max<index_t>(0, arrived - l * R)) << arrived;
        }
        for (std::size_t l = 1; l < x.size(); ++l) {
            EXPECT_TRUE(is_defined(x[l], x[l - 1], x[l - 1], x[l - 1], transducer(L, R))) << "streamed, layer " << l;
            tensor<float> whole(frames.shape());
            attend(x[l - 1], x[l - 1], x[l - 1], whole, transducer(L, R), 0);
            EXPECT_TRUE(is_defined(whole, x[l - 1], x[l - 1], x[l - 1], transducer(L, R))) << "one call, layer " << l;
        }
    }
}

}  // namespace
