// Retention against its definition, its block, and its limits.
#include <heed/core/threads.hpp>
#include <heed/ops/retention.hpp>

#include "recurrent_op.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

auto defined(double limit_of_gamma = -1) {
    return [=](auto real) {
        using R = decltype(real);
        ref::recurrence_options<R> with;
        with.key_decay = [=](index_t, index_t h, index_t, index_t) {
            return limit_of_gamma >= 0 ? std::log(static_cast<R>(limit_of_gamma))
                                       : std::log1p(-std::exp2(R(-5) - static_cast<R>(h)));
        };
        return with;
    };
}

TEST(retention, is_the_definition) {
    for (const recurrence_sizes& s : {recurrence_sizes{1, 1, 1, 1, 0, 8, 8},
                                      {1, 3, 3, 3, 1, 8, 16},
                                      {2, 4, 2, 2, 67, 17, 9},
                                      {1, 2, 2, 2, 65, 16, 32}}) {
        SCOPED_TRACE(testing::Message() << s);
        const recurrence_data<float> x(s);
        tensor<float> o({s.B, s.Ho(), s.N, s.E}), p(o.shape());
        retention(x.q, x.k, x.v, o);
        EXPECT_TRUE(is_recurrence(o, x.q, x.k, x.v, defined()));
        retention(x.q, x.k, x.v, p, parallel{});
        EXPECT_TRUE(all_near(o, p, 1e-5));
        retention(x.q, x.k, x.v, p, chunked{32});
        EXPECT_TRUE(all_near(o, p, 1e-5));
    }
}

TEST(retention, one_token_after_the_other) {
    const recurrence_data<float> x({2, 4, 2, 2, 37, 9, 5});
    tensor<float> whole({2, 4, 37, 5});
    retention(x.q, x.k, x.v, whole);
    state<float> s(2, 2, 9, 5);
    EXPECT_TRUE(goes_on(whole, [&](range n, auto o) { retention(part(x.q, n), part(x.k, n), part(x.v, n), o, s); }));
}

TEST(retention, gammas_are_exact_and_heads_may_be_cut) {
    const recurrence_data<float> x({1, 4, 4, 4, 50, 9, 5});
    tensor<float> whole(x.v.shape()), cut({1, 2, 50, 5});
    for (index_t h = 0; h < 16; ++h)
        EXPECT_NEAR(std::exp(retention_decay{}.log(h)), 1 - std::pow(2.0, -5 - double(h)), 1e-15);
    EXPECT_NEAR(std::log(0.5) / retention_decay{}.log(0), 21.8, 0.1) << "the half-life of head 0";
    retention(x.q, x.k, x.v, whole);
    const auto last = [](const tensor<float>& t) { return slice(t.v(), 1, {2, 4}); };
    retention(last(x.q), last(x.k), last(x.v), cut, retention_decay{2});
    EXPECT_TRUE(same_values(cut, copied(last(whole))));
    refuses<argument_error>([&] { retention(x.q, x.k, x.v, whole, retention_decay{-1}); },
                            "recurrence: retention_decay begins with head -1, the least is 0");
}

TEST(retention, without_decay_is_a_plain_sum_and_forgetting_all_keeps_the_own_value) {
    const recurrence_data<float> x({1, 2, 2, 2, 30, 9, 5});
    tensor<float> o(x.v.shape());
    retention(x.q, x.k, x.v, o, no_decay{});
    EXPECT_TRUE(is_recurrence(o, x.q, x.k, x.v, defined(1)));
    const std::vector<float> all(2, -std::numeric_limits<float>::infinity());
    retention(x.q, x.k, x.v, o, head_decay{all}, scale{1});
    o.each([&](index_t b, index_t h, index_t n, index_t e) {
        float qk = 0;
        for (index_t d = 0; d < 9; ++d) qk += x.q(b, h, n, d) * x.k(b, h, n, d);
        ASSERT_NEAR(o(b, h, n, e), qk * x.v(b, h, n, e), 1e-5);
    });
}

TEST(retention, angles_end_at_one_over_the_base) {
    const retention_angles angles;
    EXPECT_EQ(angles.frequency(0, 64), 1);
    EXPECT_NEAR(angles.frequency(31, 64), 1e-4, 1e-16);
    EXPECT_NEAR(angles.frequency(7, 64), std::pow(10000.0, -7.0 / 31), 1e-15);
    EXPECT_EQ(angles.frequency(0, 2), 1);
}

/// Scores of rotated rows depend on distances only.
TEST(retention, may_begin_at_any_position) {
    const recurrence_data<double> x({1, 2, 2, 2, 30, 12, 5});
    const auto from = [&](index_t first) {
        auto q = x.q, k = x.k;
        rotary(q, q, interleaved{}, retention_angles{}, offset{first});
        rotary(k, k, interleaved{}, retention_angles{}, offset{first});
        tensor<double> o(x.v.shape());
        retention(q, k, x.v, o);
        return o;
    };
    EXPECT_TRUE(all_near(from(0), from(1000), 1e-10));
}

TEST(rms_norm, of_heads_and_across_them) {
    const auto x = normal<float>({2, 3, 7, 5}, 1, 3, layout::strided());
    const std::vector<float> gain{1, 2, 3, 4, 5};
    tensor<float> o(x.shape());
    for (bool across : {false, true}) {
        rms_norm(x, o, rms{1e-3, across, gain});
        tensor<float> want(x.shape());
        want.each([&](index_t b, index_t h, index_t n, index_t e) {
            double sum = 0;
            for (index_t g = across ? 0 : h; g < (across ? 3 : h + 1); ++g)
                for (index_t c = 0; c < 5; ++c) sum += std::pow(double(x(b, g, n, c)), 2);
            want(b, h, n, e) =
                static_cast<float>(x(b, h, n, e) / std::sqrt(sum / (across ? 15 : 5) + 1e-3) * double(e + 1));
        });
        EXPECT_TRUE(all_near(o, want, 1e-5));
    }
    auto same = x;
    rms_norm(x, o);
    rms_norm(same, same);
    EXPECT_TRUE(same_values(same, o));
    refuses<shape_error>(
        [&] {
            rms_norm(x, tensor<float>({2, 3, 7, 4}));
        },
        "rms_norm: channel extent of o is 4, of x 5");
    refuses<shape_error>(
        [&] {
            rms_norm(x, o, rms{0, false, std::span(gain).first(4)});
        },
        "rms_norm: there are 4 gains, rows have 5 channels in 3 heads");
    refuses<argument_error>([&] { rms_norm(x, o, rms{-1}); }, "rms_norm: eps is -1, the least is 0");
}

template <class R>
std::vector<R> normal_row(std::vector<R> x, bool subtracts, R eps, const std::vector<float>& gain,
                          const std::vector<float>& shift, index_t first) {
    R mean = 0, squares = 0;
    const R n = static_cast<R>(x.size());
    for (R one : x) mean += subtracts ? one / n : R(0);
    for (R one : x) squares += (one - mean) * (one - mean) / n;
    for (std::size_t i = 0; i < x.size(); ++i) {
        const std::size_t at = (static_cast<std::size_t>(first) + i) % gain.size();
        x[i] = (x[i] - mean) / std::sqrt(squares + eps) * static_cast<R>(gain[at]) + static_cast<R>(shift[at]);
    }
    return x;
}

TEST(layer_norm, of_heads_and_across_them) {
    const index_t H = 3, E = 150;
    auto x = normal<float>({2, H, 7, E}, 1, 3, layout::strided());
    x.each([&](index_t b, index_t h, index_t n, index_t e) { x(b, h, n, e) += 50; });
    std::vector<float> gain, shift;
    for (index_t e = 0; e < H * E; ++e)
        gain.push_back(1.0f + 0.01f * static_cast<float>(e)), shift.push_back(static_cast<float>(e % 7));
    tensor<float> o(x.shape());
    for (bool across : {false, true}) {
        layer_norm(x, o, centred{1e-3, across, gain, shift});
        for (index_t b = 0; b < 2; ++b)
            for (index_t n = 0; n < 7; ++n)
                for (index_t h = 0; h < H; h += across ? H : 1) {
                    std::vector<double> row;
                    for (index_t g = h; g < h + (across ? H : 1); ++g)
                        for (index_t e = 0; e < E; ++e) row.push_back(x(b, g, n, e));
                    row = normal_row(row, true, 1e-3, gain, shift, h * E);
                    for (std::size_t i = 0; i < row.size(); ++i)
                        ASSERT_NEAR(o(b, h + static_cast<index_t>(i) / E, n, static_cast<index_t>(i) % E), row[i],
                                    2e-4);
                }
    }
    refuses<shape_error>(
        [&] {
            layer_norm(x, o, centred{0, false, gain, std::span(shift).first(4)});
        },
        "layer_norm: there are 4 shifts, rows have 150 channels in 3 heads");
}

TEST(retention, normalises_heads) {
    for (const recurrence_sizes& s :
         {recurrence_sizes{1, 1, 1, 1, 1, 8, 1}, {2, 4, 2, 2, 67, 17, 9}, {1, 2, 2, 2, 40, 16, 32}}) {
        SCOPED_TRACE(testing::Message() << s);
        const recurrence_data<float> x(s);
        std::vector<float> gain, shift;
        for (index_t e = 0; e < s.Ho() * s.E; ++e)
            gain.push_back(1.0f + static_cast<float>(e % 5)), shift.push_back(0.5f);
        const std::vector<float> none(gain.size(), 0);
        tensor<float> o({s.B, s.Ho(), s.N, s.E});
        const auto normed = [&](bool subtracts, const std::vector<float>& plus) {
            return [&, subtracts](auto real) {
                using R = decltype(real);
                auto with = defined()(real);
                with.norm = [&, subtracts](std::vector<R> row, index_t h) {
                    return normal_row<R>(std::move(row), subtracts, R(1e-3), gain, plus, h * s.E);
                };
                return with;
            };
        };
        retention(x.q, x.k, x.v, o, rms{1e-3, false, gain});
        EXPECT_TRUE(is_recurrence(o, x.q, x.k, x.v, normed(false, none)));
        retention(x.q, x.k, x.v, o, centred{1e-3, false, gain, shift}, chunked{16});
        EXPECT_TRUE(is_recurrence(o, x.q, x.k, x.v, normed(true, shift)));
        tensor<float> alone(o.shape()), after(o.shape());
        threads pool(4);
        retention(x.q, x.k, x.v, alone, centred{1e-3, false, gain, shift}, chunked{16}, on{pool});
        EXPECT_TRUE(same_values(alone, o));
        retention(x.q, x.k, x.v, after);
        layer_norm(after, after, centred{1e-3, false, gain, shift});
        EXPECT_TRUE(all_near(after, o, 1e-4));
        refuses<argument_error>(
            [&] {
                retention(x.q, x.k, x.v, o, centred{1e-3, true});
            },
            "recurrence: a norm across heads is to follow the call");
        refuses<shape_error>(
            [&] {
                retention(x.q, x.k, x.v, o, rms{1e-3, false, std::vector<float>(7)});
            },
            "recurrence: there are 7 gains, rows have");
    }
}

TEST(silu_gate, multiplies) {
    const auto x = normal<float>({2, 3, 7, 5}, 1), g = normal<float>({2, 3, 7, 5}, 2, 20);
    tensor<float> o(x.shape());
    silu_gate(x, g, o);
    o.each([&](index_t b, index_t h, index_t n, index_t e) {
        const double y = g(b, h, n, e), want = x(b, h, n, e) * y / (1 + std::exp(-y));
        ASSERT_NEAR(o(b, h, n, e), want, 1e-6 * std::abs(want) + 1e-12);
    });
    refuses<shape_error>(
        [&] {
            silu_gate(x, tensor<float>({2, 3, 6, 5}), o);
        },
        "silu_gate: token extent of o is 7, of g 6");
}

TEST(gelu_gate, multiplies) {
    const auto x = normal<float>({2, 3, 7, 5}, 1), g = normal<float>({2, 3, 7, 5}, 2, 3);
    tensor<float> o(x.shape());
    gelu_gate(x, g, o);
    o.each([&](index_t b, index_t h, index_t n, index_t e) {
        ASSERT_NEAR(o(b, h, n, e), x(b, h, n, e) * gelu_tanh(double(g(b, h, n, e))), 1e-6);
    });
    refuses<shape_error>([&] { gelu_gate(x, g, tensor<float>({2, 3, 7, 4})); }, "gelu_gate: channel extent of o is 4");
}

/// What is left of a row after the norm does not depend on factors of the row: the stabilisers of other codes are
/// invisible.
TEST(retention, factors_of_rows_vanish_in_the_norm) {
    const recurrence_data<double> x({1, 2, 2, 2, 30, 12, 5});
    auto q = x.q;
    q.each([&](index_t b, index_t h, index_t n, index_t d) { q(b, h, n, d) *= 1 + double(n); });
    tensor<double> o(x.v.shape()), larger(x.v.shape());
    retention(x.q, x.k, x.v, o);
    retention(q, x.k, x.v, larger);
    rms_norm(o, o, rms{0});
    rms_norm(larger, larger, rms{0});
    EXPECT_TRUE(all_near(o, larger, 1e-12));
}

}  // namespace
