// Parts that rotate their queries differently: with one place for all they are rotary attention, cut into parts or not.
#include <heed/heed.hpp>

#include "compare.hpp"
#include "random.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

constexpr index_t B = 2, H = 2, N = 7, M = 40, D = 12, E = 5;

struct problem {
    tensor<float> q = normal<float>({B, H, N, D}, 1), k = normal<float>({B, 1, M, D}, 2),
                  v = normal<float>({B, 1, M, E}, 3), o{extents<4>{B, H, N, E}};
};

/// Queries rotated to place(i), over the keys as they are.
template <class Place, class... P>
tensor<float> at_places(const problem& x, const Place& place, const P&... policies) {
    tensor<float> turned(x.q.shape()), o(x.o.shape());
    std::vector<index_t> ids;
    for (index_t b = 0; b < B; ++b)
        for (index_t n = 0; n < N; ++n) ids.push_back(place(M - N + n));
    rotary(x.q, turned, theta{500}, positions{dense(ids.data(), {B, N})});
    attention(turned, x.k, x.v, o, causal{}, policies...);
    return o;
}

TEST(rotated_parts, one_place_for_all_is_rotary_attention) {
    problem x;
    const view_source<float, float> source{x.k.v(), x.v.v()};
    const auto own = [](index_t i) { return i; };
    std::vector<double> sums(number(B * H * N)), wanted(sums);
    const auto want = at_places(x, own, scale{0.4}, lse{dense(wanted.data(), {B, H, N})});
    for (index_t cut : {0, 13, 40}) {
        auto parts = detail::parts_of<default_arch>("op", x.q.v(), source, x.o.v(), theta{500}, scale{0.4},
                                                    lse{dense(sums.data(), {B, H, N})});
        EXPECT_EQ(parts.end(), M);
        parts.add(source, causal{} & first{cut}, own);
        if (cut < M) parts.add(source, causal{} & between{cut, M}, own);
        parts.deliver();
        EXPECT_TRUE(all_near(x.o, want, 1e-6)) << cut;
        for (std::size_t i = 0; i < sums.size(); ++i) EXPECT_NEAR(sums[i], wanted[i], 1e-6);
    }
}

TEST(rotated_parts, a_part_turns_the_queries_as_it_is_told) {
    problem x;
    const view_source<float, float> source{x.k.v(), x.v.v()};
    const auto half = [](index_t i) { return i / 2; };
    auto parts = detail::parts_of<default_arch>("op", x.q.v(), source, x.o.v(), theta{500});
    parts.add(source, causal{}, half);
    parts.deliver();
    EXPECT_TRUE(all_near(x.o, at_places(x, half), 1e-6));
}

TEST(rotated_parts, queries_before_the_first_key_are_refused) {
    problem x;
    const view_source<float, float> source{x.k.v(), x.v.v()};
    refuses<argument_error>(
        [&] { detail::parts_of<default_arch>("op", x.q.v(), source, x.o.v(), theta{500}, offset{-2}); },
        "op: the first query stands at -2, before the first key");
}

}  // namespace
