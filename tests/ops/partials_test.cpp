// What operators that attend in parts stand on: parts over disjoint keys merge to attention over all of them.
#include <heed/heed.hpp>

#include "compare.hpp"
#include "random.hpp"
#include "refuses.hpp"

using namespace test;
using namespace heed::detail;

namespace {

constexpr index_t B = 2, H = 4, G = 2, N = 5, M = 60, D = 8, E = 6;

struct problem {
    tensor<float> q = normal<float>({B, H, N, D}, 1), k = normal<float>({B, G, M, D}, 2),
                  v = normal<float>({B, G, M, E}, 3);
    view_source<float, float> source() const { return {k.v(), v.v()}; }
};

TEST(partials, an_empty_one_changes_nothing) {
    owned_partial<float> none({B, H, N, E}), some({B, H, N, E}), whole({B, H, N, E});
    for (auto* part : {&none, &some}) {
        EXPECT_EQ(part->o().shape, (extents<4>{B, H, N, E}));
        EXPECT_EQ(part->lse().shape, (extents<3>{B, H, N}));
        each_row({B, H, N, E}, [&](index_t b, index_t h, index_t n) {
            EXPECT_EQ(part->lse()(b, h, n), -std::numeric_limits<double>::infinity());
            for (index_t e = 0; e < E; ++e) EXPECT_EQ(part->o()(b, h, n, e), 0.f);
        });
    }
    const problem x;
    attend_part<default_arch>(x.q.v(), x.source(), some, everything{}, std::tuple{}, causal{});
    merge(whole.all(), some.all(), none.all());
    EXPECT_TRUE(same_values(copied(some.o()), copied(whole.o())));
}

TEST(partials, parts_over_disjoint_keys_are_attention) {
    const problem x;
    tensor<float> o({B, H, N, E}), want(o.shape());
    std::vector<double> sums(number(B * H * N)), wanted(sums);
    const auto asked = lse{dense(sums.data(), {B, H, N})};
    attention(x.q, x.source(), want, causal{} & window{40}, softcap{3}, lse{dense(wanted.data(), {B, H, N})});
    for (const auto& [first, second] :
         {std::pair<range, range>{{0, 20}, {20, M}}, {{0, 0}, {0, M}}, {{0, M}, {M, M}}}) {
        owned_partial<float> whole(o.shape()), part(o.shape());
        const auto over = [&](owned_partial<float>& to, const range& keys) {
            attend_part<default_arch>(x.q.v(), x.source(), to, between{keys.first, keys.last}, std::tuple{},
                                      causal{} & window{40}, softcap{3}, asked);
        };
        over(whole, first), over(part, second);
        merge(whole.all(), whole.all(), part.all());
        deliver(whole, o.v(), std::tuple{asked});
        EXPECT_TRUE(all_near(o, want, 1e-6));
        for (std::size_t i = 0; i < sums.size(); ++i) EXPECT_NEAR(sums[i], wanted[i], 1e-6);
    }
}

TEST(partials, rows_stand_where_the_offset_says) {
    const problem x;
    const tensor<float> o({B, H, N, E});
    const auto of = operands_of(x.q.v(), x.source(), o.v());
    EXPECT_EQ(first_position(of, 1), M - N);
    EXPECT_EQ(first_position(of, 1, causal{}, offset{7}), 7);
    const auto kept = policies_of<role_list<roles::scale, roles::offset>>(causal{}, offset{7}, softcap{2}, scale{3});
    EXPECT_EQ(std::tuple_size_v<decltype(kept)>, 2u);
    EXPECT_EQ(std::get<0>(kept).n, 7);
}

TEST(partials, cuts_do_not_decrease) {
    check_ascending("op", "cut", std::vector<index_t>{0, 3, 3, 9});
    refuses<argument_error>(
        [] {
            check_ascending("op", "cut", std::vector<index_t>{0, 4, 3});
        },
        "op: cut 3 stands after 4, they must not decrease");
}

}  // namespace
