// heed_test: AS_USED
// Bits: the same for any batch neighbours and any scratch; no token feels its suffix.
#include "recurrent_laws.hpp"

using namespace test;

namespace {

template <class T, class F>
void each_kind(const recurrence_data<T>& x, F&& f) {
    const auto named = [&](const char* name, const auto&... policies) {
        SCOPED_TRACE(name);
        f(policies...);
    };
    named("additive");
    named("additive, chunks of 32", chunked{32});
    named("token decay", x.token_gate());
    named("token decay, chunks of 48", x.token_gate(), chunked{48});
    named("channel decay", x.channel_gate());
    named("bonus", x.channel_gate(), x.bonus_read());
    named("gated delta", x.delta_update(), x.token_gate());
    named("gated delta, chunks of 16", x.delta_update(), x.token_gate(), chunked{16});
    named("delta by channels", x.delta_update(), x.channel_gate());
    named("low rank", x.low_rank_update(), x.channel_gate());
    named("normalised", x.token_gate(), elu_plus_one{}, sum_of_keys{});
    named("normalised, chunks of 32", x.token_gate(), elu_plus_one{}, sum_of_keys{}, chunked{32});
}

TEST(recurrence_invariance, neighbours) {
    const recurrence_data<float> x({3, 2, 2, 2, 50, 9, 40, 1, 2});
    const auto from = beginning<float>(3, 2, 9, 40);
    const auto check = [&](const auto& run) {
        const auto all = run(from, x);
        for (index_t b = 0; b < 3; ++b)
            for (index_t h = 0; h < 2; ++h) {
                const auto part = [&](const tensor<float>& t) {
                    return copied(slice(slice(t.v(), 0, {b, b + 1}), 1, {h, h + 1}));
                };
                recurrence_data<float> one = x;
                for (auto* t : {&one.q, &one.k, &one.v, &one.token, &one.channel, &one.beta}) *t = part(*t);
                const auto got = run(part(from), one);
                EXPECT_TRUE(same_values(got.o, part(all.o)));
                EXPECT_TRUE(same_values(got.state, part(all.state)));
            }
    };
    check([](const auto& s, const auto& d) { return recur_from(s, d.q, d.k, d.v, d.token_gate()); });
    check(
        [](const auto& s, const auto& d) { return recur_from(s, d.q, d.k, d.v, d.channel_gate(), d.delta_update()); });
    check([](const auto& s, const auto& d) {
        return recur_from(s, d.q, d.k, d.v, d.channel_gate(), d.delta_update(), chunked{32});
    });
}

TEST(recurrence_invariance, suffix) {
    const recurrence_data<float> x({1, 2, 2, 2, 100, 9, 17});
    const auto check = [&](const auto& run) { feels_no_suffix(x, run); };
    const auto with = [](const auto&... policies) { return recurring(policies...); };
    const auto token = [](const auto& d) { return d.token_gate(); };
    const auto channel = [](const auto& d) { return d.channel_gate(); };
    const auto update = [](const auto& d) { return d.delta_update(); };
    const auto rank = [](const auto& d) { return d.low_rank_update(); };
    const auto chunks = [](const auto&) { return chunked{48}; };
    const auto own = [](const auto& d) { return d.bonus_read(); };
    const auto phi = [](const auto&) { return elu_plus_one{}; };
    const auto sum = [](const auto&) { return sum_of_keys{}; };
    check(with());
    check(with(token));
    check(with(token, chunks));
    check(with(channel));
    check(with(channel, chunks));
    check(with(channel, own));
    check(with(channel, own, chunks));
    check(with(chunks));
    check(with(update, token));
    check(with(update, token, chunks));
    check(with(update, channel));
    check(with(update, channel, chunks));
    check(with(rank, channel));
    check(with(token, phi, sum));
    check(with(token, phi, sum, chunks));
}

TEST(recurrence_invariance, an_arena_of_the_size_asked_for_is_enough_and_its_contents_do_not_matter) {
    const recurrence_data<float> x({2, 4, 2, 2, 50, 9, 40, 1, 2});
    each_kind(x, [&](const auto&... p) {
        tensor<float> o({2, 4, 50, 40}), mine(o.shape());
        recurrence(x.q, x.k, x.v, o, p...);
        threads pool(2);
        const std::size_t need = recurrence_scratch(x.q, x.k, x.v, mine, p..., on{pool});
        for (unsigned char poison : {0x00, 0xff, 0x7f}) {
            std::vector<std::byte> memory(need + arena::alignment, std::byte{poison});
            arena scratch{std::span<std::byte>(memory)};
            recurrence(x.q, x.k, x.v, mine, p..., on{pool, scratch});
            EXPECT_TRUE(same_values(mine, o));
        }
        std::vector<std::byte> memory(need / 2);
        arena small{std::span<std::byte>(memory)};
        EXPECT_THROW(recurrence(x.q, x.k, x.v, mine, p..., on{pool, small}), argument_error);
    });
}

}  // namespace
