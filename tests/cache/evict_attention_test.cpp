// Rules of eviction through caches: the statistic from a call, what the rule keeps, and attention over what is kept
// against the definition under the mask it amounts to.
#include <heed/heed.hpp>

#include "any_mask.hpp"
#include "compare.hpp"
#include "defined.hpp"
#include "random.hpp"

using namespace test;

namespace {

using list = std::vector<index_t>;

constexpr index_t B = 2, H = 4, G = 2, D = 24, E = 36, group = H / G;

struct operands {
    tensor<float> q, k, v;
    explicit operands(index_t M)
        : q(normal<float>({B, H, M, D}, 1, 2)), k(normal<float>({B, G, M, D}, 2)), v(normal<float>({B, G, M, E}, 3)) {}
    static view<const float> rows(const tensor<float>& x, range tokens) { return slice(x.v(), 2, tokens); }
    template <class Cache>
    void append(Cache& cache, range tokens) const {
        cache.append(rows(k, tokens), rows(v, tokens));
    }
    /// The definition where (b, h, i, j) are seen.
    template <class Visible>
    testing::AssertionResult is(const tensor<float>& o, const tensor<float>& queries, const Visible& visible) const {
        return attends(o, queries, k, v, [&](auto real) {
            ref::options<decltype(real)> with;
            with.visible = [&](index_t b, index_t h, index_t, index_t i, index_t j) { return visible(b, h, i, j); };
            return with;
        });
    }
};

template <class Cache>
tensor<float> attend(const tensor<float>& q, const Cache& cache, const any_mask& mask = causal{}) {
    tensor<float> o({B, H, q.shape()[2], E});
    attention(q, cache, o, mask);
    return o;
}

/// The mass that every key received in a call over `cache`, summed over groups; (B, G, M).
template <class Cache>
std::vector<float> mass_of(const tensor<float>& q, const Cache& cache, const std::vector<double>& weights,
                           const any_mask& mask) {
    const index_t M = cache.size();
    std::vector<float> mass(number(B * H * M)), sums(number(B * G * M));
    tensor<float> o({B, H, q.shape()[2], E});
    attention(q, cache, o, mask, weighted_mass{dense(mass.data(), {B, H, M}), weights});
    group_mass(dense(mass.data(), {B, H, M}), dense(sums.data(), {B, G, M}));
    return sums;
}
/// The same by the definition.
std::vector<double> defined_mass(const operands& x, const tensor<float>& q, const std::vector<double>& weights,
                                 bool causal) {
    const index_t N = q.shape()[2], M = x.k.shape()[2];
    const auto wide = [](const tensor<float>& y) {
        tensor<double> out(y.shape());
        out.each([&](index_t b, index_t h, index_t n, index_t d) { out(b, h, n, d) = y(b, h, n, d); });
        return out;
    };
    const defined run(wide(q), wide(x.k), wide(x.v), causal ? causally() : ref::options<double>{});
    std::vector<double> sums(number(B * G * M));
    run.p.each([&](index_t b, index_t h, index_t n, index_t j) {
        sums[number((b * G + h / group) * M + j)] += weights[number(n)] * run.p(b, h, n, j);
    });
    EXPECT_EQ(static_cast<index_t>(weights.size()), N);
    return sums;
}
std::span<const float> head(const std::vector<float>& sums, index_t b, index_t g) {
    const std::size_t M = sums.size() / number(B * G);
    return {sums.data() + number(b * G + g) * M, M};
}

/// Keys of low norm [41]: over floats and bytes, under a mask that knows positions; a share of 1 leaves every bit.
template <class Cache>
void expect_low_norm(const Cache& full) {
    const auto q = normal<float>({B, H, 20, D}, 5), one = normal<float>({B, H, 1, D}, 6);
    const any_mask near = causal{} & window{60};
    Cache pruned = full;
    const low_norm all{.share = 1, .prune_after = 0}, some{.share = 0.4, .prune_after = 0, .recent = 3};
    for (index_t b = 0; b < B; ++b)
        for (index_t g = 0; g < G; ++g) pruned.keep(b, g, all.kept(pruned, b, g));
    for (const auto* queries : {&q, &one}) EXPECT_TRUE(same_values(attend(*queries, pruned), attend(*queries, full)));
    std::vector<list> kept;
    for (index_t b = 0; b < B; ++b)
        for (index_t g = 0; g < G; ++g) {
            kept.push_back(some.kept(full, b, g));
            EXPECT_EQ(kept.back().size(), 40u);
            pruned.keep(b, g, kept.back());
        }
    const any_mask hiding = [&](const where& w) {
        const list& of = kept[number(w.b * G + w.h / group)];
        return w.j <= w.i && w.i - 60 <= w.j && std::binary_search(of.begin(), of.end(), w.j);
    };
    for (const auto* queries : {&q, &one})
        EXPECT_TRUE(all_near(attend(*queries, pruned, near), attend(*queries, full, hiding), 2e-6));
}
TEST(eviction, of_high_norms) {
    const operands x(100);
    contiguous_cache<float> cache({B, G, D, E});
    quantised_cache<int8_per_token> bytes({B, G, D, E}, {}, {}, {.keys = true, .values = true});
    x.append(cache, {0, 100}), x.append(bytes, {0, 100});
    expect_low_norm(cache);
    expect_low_norm(bytes);
}

TEST(key_norms, of_pages_and_of_bytes) {
    const operands x(100);
    paged_cache<float> pages({B, G, D, E}, 16, 20);
    for (index_t j = 0; j < 100; j += 10) x.append(pages, {j, j + 10});
    quantised_cache<int8_per_channel, int8_per_token> bytes({B, G, D, E}, {7});
    quantised_cache<int4_per_group<32>> turned({B, G, D, E}, {}, {}, {.keys = true});
    x.append(bytes, {0, 100}), x.append(turned, {0, 100});
    for (index_t b = 0; b < B; ++b)
        for (index_t g = 0; g < G; ++g) {
            const auto of_pages = key_norms(pages, b, g), of_bytes = key_norms(bytes, b, g),
                       of_turned = key_norms(turned, b, g);
            ASSERT_EQ(of_turned.size(), 100u);
            for (index_t j = 0; j < 100; ++j) {
                const auto norm = [&](auto&& at) {
                    double sum = 0;
                    for (index_t d = 0; d < D; ++d) sum += std::pow(static_cast<double>(at(d)), 2);
                    return std::sqrt(sum);
                };
                const double given = norm([&](index_t d) { return x.k(b, g, j, d); });
                EXPECT_NEAR(of_pages[number(j)], given, 1e-6 * given);
                EXPECT_NEAR(of_bytes[number(j)], norm([&](index_t d) { return bytes.run(b, g, j).k.number(0, d); }),
                            1e-6 * given);
                // The transform keeps norms: what differs is the rounding to four bits.
                EXPECT_NEAR(of_turned[number(j)], norm([&](index_t d) { return turned.run(b, g, j).k.number(0, d); }),
                            1e-6 * given);
                EXPECT_NEAR(of_turned[number(j)], given, 0.2 * given);
            }
        }
}

/// Token types [75], other ones in every head: what the loop gives is what the mask gives a prefill.
struct living {
    const std::vector<std::vector<token_type>>& types;  // (B, G) of all tokens
    index_t reach;
    list kept(const contiguous_cache<float>& cache, index_t b, index_t g) const {
        const index_t* const at = cache.positions(b, g);
        list positions;
        std::vector<token_type> held;
        for (index_t j = 0; j < cache.keys(b, g); ++j) {
            positions.push_back(at ? at[j] : j);
            held.push_back(types[number(b * G + g)][number(positions.back())]);
        }
        return keep_living(held, positions, reach, cache.end(b));
    }
};
TEST(eviction, by_token_types_is_the_mask_of_lifetimes) {
    const index_t M = 70;
    const operands x(M);
    const counter_random random(3);
    std::uint64_t draws = 0;
    for (index_t reach : {0, 5}) {
        std::vector<std::vector<token_type>> types;
        list last(number(B * G * M));
        for (index_t t = 0; t < B * G; ++t) {
            auto& of = types.emplace_back();
            for (index_t j = 0; j < M; ++j) {
                const index_t face = random.integer(draws++, 0, 4);
                of.push_back(face == 0 ? token_type::global : face == 1 ? token_type::window : token_type::local);
            }
            token_lifetimes(of, reach, std::span(last).subspan(number(t * M), number(M)));
        }
        const lifetime mask(dense(static_cast<const index_t*>(last.data()), {B, G, M}), group);
        contiguous_cache<float> cache({B, G, D, E});
        evicting run(cache, living{types, reach});
        tensor<float> decoded({B, H, M, E}), prefilled({B, H, M, E});
        for (index_t i = 0; i < M; ++i)
            run.step(x.rows(x.q, {i, i + 1}), x.rows(x.k, {i, i + 1}), x.rows(x.v, {i, i + 1}),
                     slice(decoded.v(), 2, {i, i + 1}), any_mask(causal{}));
        attention(x.q, x.k, x.v, prefilled, any_mask(mask));
        const auto visible = [&](index_t b, index_t h, index_t i, index_t j) {
            return j <= i && i <= last[number((b * G + h / group) * M + j)];
        };
        EXPECT_TRUE(x.is(decoded, x.q, visible)) << reach;
        EXPECT_TRUE(x.is(prefilled, x.q, visible)) << reach;
        EXPECT_LT(cache.keys(0, 0) + cache.keys(1, 1), M);
    }
}

/// SnapKV and Ada-SnapKV [65]: the last queries of a prompt vote, later ones see what was kept, and all that follows.
TEST(eviction, by_the_last_queries_of_a_prompt) {
    const index_t M = 90, prompt = 80, window = 8;
    const operands x(M);
    const auto asking = copied(x.rows(x.q, {0, prompt}));
    operands begun = x;
    begun.k = copied(x.rows(x.k, {0, prompt})), begun.v = copied(x.rows(x.v, {0, prompt}));
    const snap_kv rule{.budget = 25, .window = window, .kernel = 5};
    for (double share : {1.0, 0.2}) {
        contiguous_cache<float> cache({B, G, D, E});
        x.append(cache, {0, prompt});
        const auto votes = last_rows(prompt, window);
        const auto sums = mass_of(asking, cache, votes, causal{});
        const auto want = defined_mass(begun, asking, votes, true);
        for (std::size_t j = 0; j < want.size(); ++j) ASSERT_NEAR(sums[j], want[j], 1e-5);
        std::vector<list> kept;
        for (index_t b = 0; b < B; ++b) {
            const auto of_sequence = [&](const auto& all) { return dense(all.data() + b * G * prompt, {G, prompt}); };
            const auto of = rule.kept(of_sequence(sums), share);
            EXPECT_EQ(of, rule.kept(of_sequence(want), share));
            std::size_t held = 0;
            for (index_t g = 0; g < G; ++g) {
                cache.keep(b, g, of[number(g)]);
                kept.push_back(of[number(g)]);
                held += of[number(g)].size();
                if (share == 1) EXPECT_EQ(of[number(g)], rule.kept(head(sums, b, g)));
            }
            EXPECT_EQ(held, number(G) * 25);
        }
        x.append(cache, {prompt, M});
        for (index_t N : {1, 10}) {
            const auto later = copied(x.rows(x.q, {M - N, M}));
            EXPECT_TRUE(x.is(attend(later, cache), later, [&](index_t b, index_t h, index_t i, index_t j) {
                const list& of = kept[number(b * G + h / group)];
                return j <= i && (j >= prompt || std::binary_search(of.begin(), of.end(), j));
            })) << share;
        }
    }
}

/// Visual tokens [11]: no causal mask, the answer's queries vote, and a run over the tokens that stay has their rows of
/// the whole run where the others are hidden. Nothing pruned, nothing changes.
TEST(eviction, of_visual_tokens) {
    const index_t M = 75, first_answer = 60;
    const operands x(M);
    const auto visual = std::make_unique<bool[]>(number(M));
    index_t images = 0;
    for (index_t j = 0; j < M; ++j) images += visual[number(j)] = 10 <= j && j < 50;
    std::vector<double> answers(number(M));
    for (index_t i = first_answer; i < M; ++i) answers[number(i)] = 1.0 / static_cast<double>(H * (M - first_answer));
    contiguous_cache<float> whole({B, G, D, E});
    x.append(whole, {0, M});
    const any_mask all(everything{});
    const auto sums = mass_of(x.q, whole, answers, all);
    const auto want = defined_mass(x, x.q, answers, false);
    for (double rho : {0.0, 0.5, 1.0}) {
        contiguous_cache<float> cache = whole;
        std::vector<list> kept;
        for (index_t b = 0; b < B; ++b) {
            std::vector<double> importance(number(M)),
                defined(number(M));  // of all heads: tokens go, not keys of a head
            for (index_t g = 0; g < G; ++g)
                for (std::size_t j = 0; j < importance.size(); ++j) {
                    importance[j] += static_cast<double>(head(sums, b, g)[j]);
                    defined[j] += want[number(b * G + g) * importance.size() + j];
                }
            double total = 0;
            for (double m : importance) total += m;
            EXPECT_NEAR(total, 1, 1e-5);
            const std::span<const bool> marks(visual.get(), number(M));
            kept.push_back(keep_visual(importance, marks, visual_budget(images, rho)));
            EXPECT_EQ(kept.back(), keep_visual(defined, marks, visual_budget(images, rho)));
            EXPECT_EQ(kept.back().size(), number(M - images + visual_budget(images, rho)));
            for (index_t g = 0; g < G; ++g) cache.keep(b, g, kept.back());
        }
        const auto o = attend(x.q, cache, all);
        if (rho == 0) EXPECT_TRUE(same_values(o, attend(x.q, whole, all)));
        EXPECT_TRUE(x.is(o, x.q, [&](index_t b, index_t, index_t, index_t j) {
            return std::binary_search(kept[number(b)].begin(), kept[number(b)].end(), j);
        })) << rho;
    }
}

}  // namespace
