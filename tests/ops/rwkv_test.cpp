// heed_test: LABELS sanitize
// RWKV-6 and RWKV-7, DPLR and IPLR: against their definition, token by token, and where one equals another.
#include <heed/ops/deltanet.hpp>
#include <heed/ops/kda.hpp>
#include <heed/ops/rwkv6.hpp>
#include <heed/ops/rwkv7.hpp>

#include "recurs.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

using one = float;
using in = view<const one>;
using out = view<one>;

const recurrence_sizes shapes[] = {
    {1, 1, 1, 1, 0, 8, 8},
    {1, 1, 1, 1, 1, 8, 8},
    {2, 4, 4, 4, 33, 9, 17, 1, 4},
    {1, 2, 2, 2, 40, 64, 64, 1, 1},
};

auto token(in x, index_t n) { return slice(x, 2, {n, n + 1}); }

/// An operator from a state, whole, and token by token; what defines it, and whether its scale is 1.
struct mixer {
    const char* name;
    unsigned parts;
    bool plain_scale;
    std::function<void(const recurrence_data<one>& x, in q, in k, in v, out o, state<one>& s)> run;
    std::function<void(const recurrence_data<one>& x, index_t n, in q, in k, in v, out o, state<one>& s)> step;
};

const mixer mixers[] = {
    {"rwkv6", by_channel | with_bonus, true,
     [](const auto& x, in q, in k, in v, out o, auto& s) {
         rwkv6(q, k, v, o, x.channel.v(), x.bonus_view(), s, recurrent{});
     },
     [](const auto& x, index_t n, in q, in k, in v, out o, auto& s) {
         rwkv6_step(s, q, k, v, o, token(x.channel.v(), n), x.bonus_view());
     }},
    {"rwkv7", by_channel | ranked, true,
     [](const auto& x, in q, in k, in v, out o, auto& s) { rwkv7(q, k, v, o, x.channel.v(), x.b.v(), x.a.v(), s); },
     [](const auto& x, index_t n, in q, in k, in v, out o, auto& s) {
         rwkv7_step(s, q, k, v, o, token(x.channel.v(), n), token(x.b.v(), n), token(x.a.v(), n));
     }},
    {"dplr", by_channel | ranked, false,
     [](const auto& x, in q, in k, in v, out o, auto& s) { dplr(q, k, v, o, x.b.v(), x.a.v(), x.channel.v(), s); },
     [](const auto& x, index_t n, in q, in k, in v, out o, auto& s) {
         dplr_step(s, q, k, v, o, token(x.b.v(), n), token(x.a.v(), n), token(x.channel.v(), n));
     }},
    {"iplr", ranked, false,
     [](const auto& x, in q, in k, in v, out o, auto& s) { iplr(q, k, v, o, x.b.v(), x.a.v(), s); },
     [](const auto& x, index_t n, in q, in k, in v, out o, auto& s) {
         iplr_step(s, q, k, v, o, token(x.b.v(), n), token(x.a.v(), n));
     }},
};

template <class F>
void each_case(F&& f) {
    for (const mixer& m : mixers)
        for (const auto& s : shapes) {
            SCOPED_TRACE(testing::Message() << m.name << ": " << s);
            f(m, recurrence_data<one>(s, 11));
        }
}

TEST(rwkv, keep_to_their_definitions) {
    each_case([](const mixer& m, const auto& x) {
        const auto make = [&](auto real) {
            auto with = x.defined(m.parts)(real);
            if (m.plain_scale) with.scale = 1;
            return with;
        };
        EXPECT_TRUE(runs_by(token_by_token{}, x.q, x.k, x.v, make,
                            [&](in q, in k, in v, out o, auto& s) { m.run(x, q, k, v, o, s); }));
    });
}

TEST(rwkv, a_step_is_a_token_of_a_sequence) {
    each_case([](const mixer& m, const auto& x) {
        const auto from = beginning<one>(x.s.B, x.s.Hs(), x.s.D, x.s.E);
        const auto whole =
            run_from(from, x.q, x.k, x.v, [&](in q, in k, in v, out o, auto& s) { m.run(x, q, k, v, o, s); });
        const auto stepped = run_from(from, x.q, x.k, x.v, [&](in q, in k, in v, out o, auto& s) {
            for (index_t n = 0; n < x.s.N; ++n) {
                m.step(x, n, token(q, n), token(k, n), token(v, n), slice(o, 2, {n, n + 1}), s);
            }
        });
        EXPECT_TRUE(same_values(whole, stepped));
    });
}

struct rwkv_limits : testing::Test {
    recurrence_data<one> x{{1, 2, 2, 2, 50, 12, 9, 1, 2}, 3};
    tensor<one> a{{1, 2, 50, 12}}, o{x.v.shape()}, other{x.v.shape()};
    static constexpr double near = 2e-6;

    /// a = -exp(g) beta k: what makes b = k the delta rule after a decay by g.
    void erase_after(const tensor<one>& g) {
        a.each([&](index_t b, index_t h, index_t n, index_t d) {
            a(b, h, n, d) = -std::exp(g(b, h, n, d)) * x.beta(b, h, n, 0) * x.k(b, h, n, d);
        });
        x.v.each([&](index_t b, index_t h, index_t n, index_t e) {
            weighted_v(b, h, n, e) = x.beta(b, h, n, 0) * x.v(b, h, n, e);
        });
    }
    tensor<one> weighted_v{x.v.shape()};
};

TEST_F(rwkv_limits, a_low_rank_part_along_the_key_is_the_delta_rule) {
    erase_after(constant<one>(a.shape(), 0));
    iplr(x.q, x.k, weighted_v, o, std::as_const(a).v(), std::as_const(x.k).v());
    deltanet(x.q, x.k, x.v, other, numbers(x.beta));
    EXPECT_TRUE(all_near(o, other, near));
    erase_after(x.channel);
    dplr(x.q, x.k, weighted_v, o, std::as_const(a).v(), std::as_const(x.k).v(), x.channel.v());
    kda(x.q, x.k, x.v, other, x.channel.v(), numbers(x.beta));
    EXPECT_TRUE(all_near(o, other, near));
}

TEST_F(rwkv_limits, without_a_low_rank_part_rwkv7_is_gated_linear_attention) {
    const auto none = constant<one>(a.shape(), 0);
    rwkv7(x.q, x.k, x.v, o, x.channel.v(), none.v(), none.v());
    recurrence(x.q, x.k, x.v, other, x.channel_gate(), scale{1});
    EXPECT_TRUE(all_near(o, other, near));
}

TEST_F(rwkv_limits, a_bonus_of_1_without_decay_makes_rwkv6_linear_attention) {
    x.u.fill([](index_t) { return 1; });
    const auto none = constant<one>(a.shape(), 0);
    rwkv6(x.q, x.k, x.v, o, none.v(), x.bonus_view());
    recurrence(x.q, x.k, x.v, other, scale{1});
    EXPECT_TRUE(all_near(o, other, 10 * near));
    rwkv6(x.q, x.k, x.v, o, none.v(), x.bonus_view(), scale{0.5});
    recurrence(x.q, x.k, x.v, other, scale{0.5});
    EXPECT_TRUE(all_near(o, other, 10 * near));
}

TEST_F(rwkv_limits, what_does_not_fit_is_refused) {
    const auto narrow = slice(x.channel.v(), 3, {0, 11});
    refuses<shape_error>([&] { rwkv6(x.q, x.k, x.v, o, narrow, x.bonus_view()); }, "channel_decay has 11 key channels");
    refuses<shape_error>(
        [&] {
            rwkv6(x.q, x.k, x.v, o, x.channel.v(), slice(x.bonus_view(), 1, {0, 3}));
        },
        "bonus has width 3, the state has 12");
    refuses<shape_error>([&] { iplr(x.q, x.k, x.v, o, narrow, narrow); }, "low_rank's a has width 11");
}

}  // namespace
