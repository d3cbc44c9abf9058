// heed_test: LABELS sanitize
// Log-linear attention against its definition, in blocks and token by token, and the limits in which it is a
// recurrence.
#include <heed/core/threads.hpp>
#include <heed/ops/log_linear_attention.hpp>
#include <heed/ref/log_linear_attention.hpp>

#include "recurs.hpp"
#include "refuses.hpp"

namespace {

using namespace heed;
using namespace test;

recurrence_sizes sized(index_t N, index_t D = 9, index_t E = 19) { return {2, 1, 1, 2, N, D, E, 1, 2}; }

struct data : recurrence_data<float> {
    tensor<float> scales;
    explicit data(const recurrence_sizes& sizes)
        : recurrence_data<float>(sizes), scales(uniform<float>({sizes.B, sizes.Ho(), sizes.N, 9}, 20, 0, 1)) {}
    tensor<float> out() const { return tensor<float>({s.B, s.Ho(), s.N, s.E}); }
};

template <class... P>
tensor<float> attended(const data& x, const P&... policies) {
    auto o = x.out();
    log_linear_attention(x.q, x.k, x.v, x.scales, o, policies...);
    return o;
}

/// In blocks of every length the value rule holds; the naive loops are those of the definition.
template <class... P>
void defined(const data& x, unsigned parts, const P&... policies) {
    tensor<double> exact(x.out().shape());
    tensor<float> naive(exact.shape());
    ref::log_linear_attention<double>(x.q.v(), x.k.v(), x.v.v(), x.scales.v(), exact.v(), x.defined(parts)(0.0));
    ref::log_linear_attention<float>(x.q.v(), x.k.v(), x.v.v(), x.scales.v(), naive.v(), x.defined(parts)(0.0f));
    for (index_t C : {1, 2, 16, 32, 64})
        EXPECT_TRUE(within_rule<float>(attended(x, chunked{C}, policies...), naive, exact))
            << x.s << " in blocks of " << C;
}

TEST(log_linear_attention, on_mamba_2_is_the_definition) {
    for (index_t N : {0, 1, 2, 7, 16, 17, 64, 100}) {
        const data x(sized(N));
        defined(x, by_token, x.token_gate());
    }
    const data x(sized(37, 16, 16));
    defined(x, by_head, x.head_gate());
}

TEST(log_linear_attention, on_gated_delta_nets_is_the_definition) {
    for (index_t N : {1, 2, 7, 16, 17, 64, 100}) {
        const data x(sized(N));
        defined(x, by_token | delta, x.token_gate(), x.delta_update());
    }
}

TEST(log_linear_attention, of_several_queries_a_state_is_the_definition) {
    auto sizes = sized(77);
    sizes.Hq = 6;
    data x(sizes);
    defined(x, plain);
    defined(x, by_token, x.token_gate());
    defined(x, by_token | delta, x.token_gate(), x.delta_update());
    x.scales.fill([](index_t) { return 1; });
    auto o = x.out();
    recurrence(x.q, x.k, x.v, o, x.token_gate(), scale{1});
    EXPECT_TRUE(all_near(attended(x, x.token_gate()), o, 2e-5));
    log_linear_state<float> s(2, 6, 9, 19);
    refuses<shape_error>([&] { log_linear_attention(s, x.q, x.k, x.v, x.scales, o); },
                         "the state is of (2, 6, 9, 19), the call of (2, 2, 9, 19)");
}

TEST(log_linear_attention, with_every_scale_1_is_the_recurrence) {
    data x(sized(83));
    x.scales.fill([](index_t) { return 1; });
    auto o = x.out();
    recurrence(x.q, x.k, x.v, o, x.token_gate(), scale{1});
    EXPECT_TRUE(all_near(attended(x, x.token_gate()), o, 2e-5));
    recurrence(x.q, x.k, x.v, o, x.token_gate(), x.delta_update(), scale{1});
    EXPECT_TRUE(all_near(attended(x, x.token_gate(), x.delta_update()), o, 2e-5));
}

/// S_t = S_{t-1} + k_t v_t^T: nothing decays, nothing is erased.
TEST(log_linear_attention, without_decays_is_the_definition_and_with_every_scale_1_linear_attention) {
    data x(sized(83));
    defined(x, plain);
    x.scales.fill([](index_t) { return 1; });
    auto o = x.out();
    recurrence(x.q, x.k, x.v, o, scale{1});
    EXPECT_TRUE(all_near(attended(x), o, 2e-5));
    const std::vector<float> none{0, 0};
    EXPECT_TRUE(all_near(attended(x, head_decay{none}), o, 2e-5));
}

TEST(log_linear_attention, of_level_0_alone_is_the_token_itself) {
    data x(sized(37));
    x.scales.each([&](index_t b, index_t h, index_t n, index_t l) {
        if (l > 0) x.scales(b, h, n, l) = 0;
    });
    auto own = x.out();
    own.each([&](index_t b, index_t h, index_t n, index_t e) {
        float product = 0;
        for (index_t d = 0; d < x.s.D; ++d) product += x.q(b, 0, n, d) * x.k(b, 0, n, d);
        own(b, h, n, e) = x.scales(b, h, n, 0) * product * x.v(b, h, n, e);
    });
    EXPECT_TRUE(all_near(attended(x, x.token_gate()), own, 1e-5));
}

TEST(log_linear_attention, continues_where_it_stopped) {
    const data x(sized(77));
    const auto whole = attended(x, x.token_gate(), x.delta_update());
    for (index_t call : {1, 3, 32}) {
        log_linear_state<float> s(2, 2, 9, 19);
        auto o = x.out();
        for (index_t t = 0; t < 77; t += call) {
            const range r{t, std::min<index_t>(t + call, 77)};
            const auto at = [&](const auto& of) { return slice(of.v(), 2, r); };
            log_linear_attention(s, at(x.q), at(x.k), at(x.v), at(x.scales), slice(o.v(), 2, r),
                                 token_decay{slice(numbers(x.token), 2, r)}, delta_rule{slice(numbers(x.beta), 2, r)});
        }
        EXPECT_TRUE(all_near(o, whole, 2e-5)) << call;
        EXPECT_EQ(s.tokens(), 77);
        for (index_t bit = 0; bit < 7; ++bit) EXPECT_EQ(s.holds(bit), (77 >> bit & 1) != 0);
    }
}

TEST(log_linear_attention, forgets_everything_where_a_gate_is_shut_and_is_causal_to_the_bit) {
    data x(sized(40));
    x.token(0, 0, 20, 0) = -std::numeric_limits<float>::infinity();
    defined(x, by_token, x.token_gate());
    defined(x, by_token | delta, x.token_gate(), x.delta_update());
    for (bool erases : {false, true}) {
        const auto run = [&](const data& y) {
            return erases ? attended(y, y.token_gate(), y.delta_update()) : attended(y, y.token_gate());
        };
        data y = x;
        const auto before = run(y);
        for (index_t n = 27; n < 40; ++n) y.k(0, 0, n, 3) = y.v(1, 1, n, 2) = std::numeric_limits<float>::quiet_NaN();
        const auto after = run(y);
        EXPECT_TRUE(same_values(copied(slice(before.v(), 2, {0, 27})), copied(slice(after.v(), 2, {0, 27}))));
    }
}

TEST(log_linear_attention, has_the_same_bits_on_any_number_of_threads) {
    const data x(sized(77));
    threads pool(3);
    EXPECT_TRUE(same_values(attended(x, x.token_gate()), attended(x, x.token_gate(), on{pool})));
    EXPECT_TRUE(same_values(attended(x, x.delta_update()), attended(x, x.delta_update(), on{pool})));
}

TEST(log_linear_attention, refuses_before_it_writes) {
    const data x(sized(37));
    auto o = x.out();
    refuses<argument_error>([&] { log_linear_attention(x.q, x.k, x.v, x.scales, o, chunked{24}); },
                            "blocks of 24 tokens");
    refuses<shape_error>(
        [&] {
            log_linear_attention(x.q, x.k, x.v, slice(x.scales.v(), 3, {0, 6}), o);
        },
        "there are 6 scales a token, token 36 has 7 levels");
    refuses<shape_error>(
        [&] {
            log_linear_attention(x.q, x.k, x.v, heads(o.v().data, {2, 2, 37, 7}), o);
        },
        "o overlaps the scales in memory");
    log_linear_state<float> narrow(2, 2, 8, 19);
    refuses<shape_error>([&] { log_linear_attention(narrow, x.q, x.k, x.v, x.scales, o); },
                         "the state is of (2, 2, 8, 19)");
    o.each(
        [&](index_t b, index_t h, index_t n, index_t e) { EXPECT_TRUE(std::isnan(o(b, h, n, e))) << "was written"; });
    EXPECT_EQ(narrow.tokens(), 0);
}

TEST(log_linear_attention, of_sequences_side_by_side_and_backwards) {
    recurrence_sizes s = sized(60);
    s.B = 1;
    const data x(s);
    const std::vector<index_t> offsets{0, 7, 7, 40, 60};
    auto all = attended(x, x.token_gate(), x.delta_update(), packed{offsets}), one = x.out();
    const auto over = [&](const auto& cut) {
        log_linear_attention(cut(x.q.v()), cut(x.k.v()), cut(x.v.v()), cut(x.scales.v()), cut(one.v()),
                             token_decay{cut(numbers(x.token))}, delta_rule{cut(numbers(x.beta))});
    };
    for (std::size_t i = 1; i < offsets.size(); ++i)
        over([&](const auto& y) { return slice(y, 2, {offsets[i - 1], offsets[i]}); });
    EXPECT_TRUE(same_values(all, one));
    over([](const auto& y) { return flipped(y, 2); });
    const auto backwards_by = [&](auto real) {
        using R = decltype(real);
        tensor<R> o(one.shape());
        auto turned = x;
        for (auto* t : {&turned.q, &turned.k, &turned.v, &turned.token, &turned.beta, &turned.scales})
            *t = copied(flipped(t->v(), 2));
        ref::log_linear_attention<R>(turned.q.v(), turned.k.v(), turned.v.v(), turned.scales.v(), flipped(o.v(), 2),
                                     turned.defined(by_token | delta)(R{}));
        return o;
    };
    EXPECT_TRUE(within_rule<float>(one, backwards_by(0.0f), backwards_by(0.0)));
    const auto untouched = one;
    const auto few = slice(x.scales.v(), 3, {0, 5});  // too few for the sequence of 33 tokens, the third
    refuses<shape_error>([&] { log_linear_attention(x.q, x.k, x.v, few, one, x.token_gate(), packed{offsets}); },
                         "there are 5 scales a token");
    EXPECT_TRUE(same_values(one, untouched));
    refuses<shape_error>(
        [&] {
            log_linear_attention(x.q, slice(x.k.v(), 2, {0, 59}), x.v, x.scales, one, packed{offsets});
        },
        "k has tokens 59, q has 60");
}

}  // namespace
