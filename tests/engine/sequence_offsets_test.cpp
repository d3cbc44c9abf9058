// heed_test: LABELS sanitize
// A padded batch whose sequences stand at offsets of their own: the definition's values, and the bits each sequence has
// alone.
#include <heed/heed.hpp>

#include "any_mask.hpp"
#include "compare.hpp"
#include "random.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

constexpr index_t B = 4, H = 2, D = 5, E = 3;
const std::vector<float> slopes{0.3f, 0.01f};

struct batch {
    tensor<float> q, k, v;
    batch(index_t N, index_t M)
        : q(normal<float>({B, H, N, D}, 1)), k(normal<float>({B, 1, M, D}, 2)), v(normal<float>({B, 1, M, E}, 3)) {}
};

/// The one engine of this file, by the offsets of all sequences.
void attend(view<const float> q, view<const float> k, view<const float> v, view<float> o, const any_mask& mask,
            view<float, 3> sums, const std::vector<index_t>& offsets) {
    attention(q, k, v, o, mask, alibi{slopes}, lse{sums}, sequence_offsets{offsets});
}

TEST(sequence_offsets, of_a_padded_batch) {
    for (auto [N, M] : {std::pair<index_t, index_t>{1, 130}, {7, 60}, {40, 90}, {131, 131}, {3, 1100}}) {
        SCOPED_TRACE("N " + std::to_string(N) + " M " + std::to_string(M));
        batch x(N, M);
        const std::vector<index_t> counts{M, 0, M / 3, M - 1};
        std::vector<index_t> offsets;
        for (index_t n : counts) offsets.push_back(n - N);
        for (auto* padded : {&x.k, &x.v})
            padded->each([&](index_t b, index_t g, index_t j, index_t d) {
                if (j >= counts[static_cast<std::size_t>(b)]) (*padded)(b, g, j, d) = NAN;
            });
        for (const any_mask& inner : {any_mask(causal{}), any_mask(causal{} & (window{20} | first{2})),
                                      any_mask(window{9, 4})}) {
            const any_mask mask = inner & lengths{counts};
            tensor<float> o({B, H, N, E}), sums({B, H, N, 1});
            attend(x.q, x.k, x.v, o, mask, flat(sums), offsets);
            EXPECT_TRUE(attends(o, x.q, x.k, x.v, [&](auto real) {
                using Real = decltype(real);
                ref::options<Real> with;
                with.sequence_offsets = offsets;
                with.visible = [&](index_t b, index_t h, index_t row, index_t i, index_t j) {
                    return mask.allows({b, h, row, i, j});
                };
                with.score = [](Real s, index_t, index_t h, index_t, index_t i, index_t j) {
                    return s - Real(slopes[static_cast<std::size_t>(h)]) * static_cast<Real>(std::abs(i - j));
                };
                return with;
            }));
            for (index_t b = 0; b < B; ++b) {
                const auto at = static_cast<std::size_t>(b);
                const range one{b, b + 1};
                const std::vector<index_t> count{counts[at]};
                tensor<float> alone({1, H, N, E}), its_sums({1, H, N, 1});
                attend(slice(x.q.v(), 0, one), slice(x.k.v(), 0, one), slice(x.v.v(), 0, one), alone,
                       inner & lengths{count}, flat(its_sums), {offsets[at]});
                EXPECT_TRUE(same_values(alone, copied(slice(o.v(), 0, one)))) << b;
                EXPECT_TRUE(same_values(its_sums, copied(slice(sums.v(), 0, one)))) << b;
            }
        }
    }
}

// One number for all is offset{}.
TEST(sequence_offsets, all_alike_are_one_offset) {
    batch x(40, 90);
    for (index_t n : {0, 50, -13}) {
        tensor<float> o({B, H, 40, E}), same(o), sums({B, H, 40, 1});
        attend(x.q, x.k, x.v, o, causal{}, flat(sums), std::vector<index_t>(B, n));
        attention(x.q, x.k, x.v, same, any_mask(causal{}), alibi{slopes}, lse{flat(sums)}, offset{n});
        EXPECT_TRUE(same_values(o, same)) << n;
    }
}

TEST(sequence_offsets, refuses_what_does_not_fit) {
    batch x(7, 60);
    tensor<float> o({B, H, 7, E}), sums({B, H, 7, 1});
    refuses<shape_error>([&] { attend(x.q, x.k, x.v, o, causal{}, flat(sums), {1, 2, 3}); },
                         "attention: sequence_offsets holds 3 numbers, q has batch 4");
    EXPECT_TRUE(same_values(o, tensor<float>({B, H, 7, E})));
}

}  // namespace
