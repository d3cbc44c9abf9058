// heed_test: LABELS threads
// Laws of the kinds of recurrence that have fewer users: constant, complex and value decays, several delta steps a
// token. Bits for any suffix, neighbours, executor and scratch, and values at adversarial gates.
#include "recurrent_laws.hpp"

using namespace test;

namespace {

constexpr auto head = [](const auto& d) { return d.head_gate(); };
constexpr auto turn = [](const auto& d) { return d.complex_gate(); };
constexpr auto column = [](const auto& d) { return d.value_gate(); };
constexpr auto token = [](const auto& d) { return d.token_gate(); };
constexpr auto erase = [](const auto& d) { return d.delta_update(); };
constexpr auto steps = [](const auto& d) { return d.householder_update(); };

/// f(data, run) for every kind; data of two update rows a token where the kind has them.
template <class F>
void each_kind(recurrence_sizes s, const F& f) {
    const recurrence_data<float> x(s);
    s.steps = 2;
    const recurrence_data<float> two(s);
    const auto named = [&](const char* name, const auto& data, const auto& run) {
        SCOPED_TRACE(name);
        f(data, run);
    };
    named("head decay", x, recurring(head));
    named("complex decay", x, recurring(turn));
    named("value decay", x, recurring(column));
    named("delta by values", x, recurring(column, erase));
    named("householder", two, recurring(token, steps));
}

TEST(recurrence_rare_kinds, suffix) {
    each_kind({1, 2, 2, 2, 100, 9, 17}, [](const auto& x, const auto& run) { feels_no_suffix(x, run); });
}

TEST(recurrence_rare_kinds, executors) {
    for (const auto& s : {recurrence_sizes{1, 1, 1, 1, 50, 9, 100}, recurrence_sizes{2, 4, 2, 2, 50, 9, 40, 1, 2}}) {
        SCOPED_TRACE(testing::Message() << s);
        each_kind(s, [](const auto& x, const auto& run) { same_for_any_executor(x, run); });
    }
}

TEST(recurrence_rare_kinds, neighbours) {
    each_kind({3, 2, 2, 2, 50, 9, 40, 1, 2}, [](const auto& x, const auto& run) {
        const auto all = run(x);
        for (index_t b = 0; b < 3; ++b)
            for (index_t h = 0; h < 2; ++h) {
                const auto part = [&](const tensor<float>& t) {
                    return copied(slice(slice(t.v(), 0, {b, b + 1}), 1, {h, h + 1}));
                };
                recurrence_data<float> one = x;
                one.s.B = one.s.Hq = one.s.Hk = one.s.Hv = one.s.gates = 1;
                for (auto* t : {&one.q, &one.k, &one.v, &one.token, &one.channel, &one.column, &one.angle, &one.beta})
                    *t = part(*t);
                one.head = {x.head[static_cast<std::size_t>(h)]};
                EXPECT_TRUE(same_values(run(one), part(all)));
            }
    });
}

TEST(recurrence_rare_kinds, scratch_of_any_contents) {
    each_kind({2, 4, 2, 2, 50, 9, 40, 1, 2}, [](const auto& x, const auto& run) {
        const auto o = run(x);
        threads pool(2);
        for (unsigned char poison : {0x00, 0xff, 0x7f}) {
            std::vector<std::byte> memory(std::size_t(1) << 20, std::byte{poison});
            arena scratch{std::span<std::byte>(memory)};
            EXPECT_TRUE(same_values(run(x, on{pool, scratch}), o));
        }
    });
}

constexpr double inf = std::numeric_limits<double>::infinity();

TEST(recurrence_rare_kinds, constant_decays_of_any_size) {
    for (double log : {0.0, -1e-6, -1.0, -20.0, -88.0, -1e4, -inf}) {
        SCOPED_TRACE(log);
        recurrence_data<float> x({1, 2, 2, 2, 70, 12, 17, 1, 2});
        x.head = {static_cast<float>(log), -0.25f};
        EXPECT_TRUE(recurs(x, by_head, x.head_gate()));
        EXPECT_TRUE(recurs(x, by_head, x.head_gate(), chunked{32}));
        EXPECT_TRUE(recurs(x, by_head | delta, x.head_gate(), x.delta_update(), recurrent{}));
    }
}

TEST(recurrence_rare_kinds, gates_of_any_size_before_steps_that_erase) {
    using pattern_of_tokens = double (*)(index_t);
    const pattern_of_tokens patterns[] = {
        [](index_t n) { return n % 2 ? -1e4 : 0.0; },
        [](index_t n) { return n % 7 == 3 ? -inf : -0.1; },
        [](index_t n) { return n % 2 ? -88.0 : -1e-6; },
        [](index_t) { return -20.0; },
    };
    for (const auto pattern : patterns) {
        recurrence_data<float> x({1, 2, 2, 2, 40, 12, 17, 2, 1});
        for (auto* g : {&x.token, &x.column})
            g->each([&](index_t b, index_t h, index_t n, index_t d) {
                (*g)(b, h, n, d) = static_cast<float>(pattern(n + (d == 2)));
            });
        EXPECT_TRUE(recurs(x, delta | by_token, x.householder_update(), x.token_gate()));
        EXPECT_TRUE(recurs(x, delta | by_value, x.householder_update(), x.value_gate()));
    }
}

}  // namespace
