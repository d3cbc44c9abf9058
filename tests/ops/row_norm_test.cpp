// Norms and gates of rows at widths around the pieces they are met in, against their definition in double precision.
#include <heed/core/threads.hpp>
#include <heed/ops/row_norm.hpp>

#include "compare.hpp"
#include "random.hpp"

using namespace test;

namespace {

constexpr index_t B = 2, H = 3, N = 4;
const index_t widths[] = {1, 31, 127, 128, 129, 300};

template <class Real, class T>
tensor<Real> normed(const tensor<T>& x, const std::vector<float>& gain, bool across) {
    const index_t E = x.shape()[3];
    tensor<Real> out(x.shape());
    x.each([&](index_t b, index_t h, index_t n, index_t e) {
        Real sum = 0;
        for (index_t other = across ? 0 : h; other < (across ? H : h + 1); ++other)
            for (index_t c = 0; c < E; ++c) {
                const auto y = static_cast<Real>(x(b, other, n, c));
                sum += y * y;
            }
        const Real mean = sum / static_cast<Real>(across ? H * E : E);
        const auto at = number(std::ssize(gain) == E ? e : h * E + e);
        out(b, h, n, e) = static_cast<Real>(x(b, h, n, e)) / std::sqrt(mean + Real(1e-3)) *
                          (gain.empty() ? Real(1) : static_cast<Real>(gain[at]));
    });
    return out;
}

template <class T>
void expect_norms(const layout& l) {
    for (index_t E : widths)
        for (bool across : {false, true})
            for (index_t gains : {index_t(0), E, H * E}) {
                const auto x = normal<T>({B, H, N, E}, 1, 2, l);
                std::vector<float> gain;
                for (index_t i = 0; i < gains; ++i) gain.push_back(static_cast<float>(1 + i % 7));
                tensor<T> o(x.shape(), l), same = x;
                rms_norm(x, o, rms{1e-3, across, gain});
                ASSERT_TRUE(within_rule<T>(o, normed<accumulator<T>>(x, gain, across), normed<double>(x, gain, across)))
                    << E << " channels, " << gains << " gains";
                rms_norm(same, same, rms{1e-3, across, gain});
                ASSERT_TRUE(same_values(same, o));
            }
}
TEST(row_norm, rows_of_any_width) { expect_norms<float>({}); }
TEST(row_norm, rows_of_halves_with_strides) { expect_norms<bf16>(layout::strided()); }

TEST(row_norm, gates_of_any_width) {
    for (index_t E : widths) {
        const auto x = normal<float>({B, H, N, E}, 1), g = normal<float>({B, H, N, E}, 2, 3, layout::tokens());
        tensor<float> o(x.shape()), p(x.shape());
        silu_gate(x, g, o);
        gelu_gate(x, g, p);
        x.each([&](index_t b, index_t h, index_t n, index_t e) {
            const double a = x(b, h, n, e), y = g(b, h, n, e), root = std::sqrt(2 / 3.14159265358979323846);
            ASSERT_NEAR(o(b, h, n, e), a * y / (1 + std::exp(-y)), 2e-6 * (1 + std::abs(a * y)));
            ASSERT_NEAR(p(b, h, n, e), a * y / 2 * (1 + std::tanh(root * (y + 0.044715 * y * y * y))),
                        2e-6 * (1 + std::abs(a * y)));
        });
    }
}

TEST(row_norm, bits_do_not_depend_on_threads) {
    threads pool(3);
    serial alone;
    const auto x = normal<float>({2, 3, 70, 129}, 1), g = normal<float>(x.shape(), 2);
    const auto same = [&](const auto& run) {
        tensor<float> one(x.shape()), many(x.shape());
        run(one, on(alone));
        run(many, on(pool));
        EXPECT_TRUE(same_values(one, many));
    };
    for (bool across : {false, true}) {
        same([&](auto& o, const auto& with) { rms_norm(x, o, rms{1e-6, across}, with); });
        same([&](auto& o, const auto& with) { layer_norm(x, o, centred{1e-6, across}, with); });
    }
    same([&](auto& o, const auto& with) { silu_gate(x, g, o, with); });
    same([&](auto& o, const auto& with) { gelu_gate(x, g, o, with); });
    tensor<float> none({2, 0, 5, 4});
    rms_norm(none, none, rms{1e-6, true});
}

}  // namespace
