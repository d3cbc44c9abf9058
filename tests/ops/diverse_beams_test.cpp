// heed_test: LABELS sanitize
// Diverse beam search against beam search by sorting, its limits, and errors.
#include <algorithm>
#include <heed/ops/diverse_beams.hpp>
#include <map>

#include "random.hpp"
#include "refuses.hpp"

namespace {

using namespace heed;
using test::refuses;
using sequence = std::vector<index_t>;
constexpr double inf = std::numeric_limits<double>::infinity();

/// A language model: log p(y | prefix) from a hash of the prefix.
std::vector<double> next_token(const sequence& prefix, index_t V) {
    std::uint64_t seed = 7;
    for (index_t y : prefix) seed = seed * 1000003 + static_cast<std::uint64_t>(y) + 1;
    std::vector<double> x(static_cast<std::size_t>(V));
    double sum = 0;
    for (std::size_t y = 0; y < x.size(); ++y) sum += std::exp(x[y] = counter_random(seed).normal(y));
    for (double& l : x) l -= std::log(sum);
    return x;
}

struct search {
    index_t V, groups;
    double strength;
    std::vector<beam> beams;
    std::vector<sequence> texts;

    search(index_t B, index_t vocabulary, index_t of_groups, double by)
        : V(vocabulary),
          groups(of_groups),
          strength(by),
          beams(first_beams(B, of_groups)),
          texts(static_cast<std::size_t>(B)) {}

    void step() {
        std::vector<double> log_p;
        for (const auto& text : texts) {
            const auto x = next_token(text, V);
            log_p.insert(log_p.end(), x.begin(), x.end());
        }
        beams =
            diverse_beam_step(dense(log_p.data(), {static_cast<index_t>(texts.size()), V}), beams, groups, strength);
        std::vector<sequence> next;
        const auto parents = parents_of(beams);
        for (std::size_t b = 0; b < beams.size(); ++b) {
            next.push_back(texts[static_cast<std::size_t>(parents[b])]);
            next.back().push_back(beams[b].token);
        }
        texts = next;
    }
    std::vector<sequence> group(index_t g) const {
        const auto each = static_cast<std::ptrdiff_t>(texts.size()) / groups;
        return {texts.begin() + g * each, texts.begin() + (g + 1) * each};
    }
};

/// Beam search by the book: all continuations of the kept texts, sorted.
std::vector<sequence> by_sorting(std::size_t B, index_t V, int steps) {
    std::vector<std::pair<double, sequence>> kept{{0, {}}};
    for (int t = 0; t < steps; ++t) {
        std::vector<std::pair<double, sequence>> all;
        for (const auto& [score, text] : kept) {
            const auto x = next_token(text, V);
            for (index_t y = 0; y < V; ++y) {
                auto longer = text;
                longer.push_back(y);
                all.emplace_back(score + x[static_cast<std::size_t>(y)], longer);
            }
        }
        std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
        all.resize(std::min(all.size(), B));
        kept = all;
    }
    std::vector<sequence> out;
    for (const auto& [score, text] : kept) out.push_back(text);
    return out;
}

TEST(diverse_beams, one_group_is_beam_search) {
    for (auto [B, V] : std::vector<std::array<index_t, 2>>{{1, 5}, {3, 5}, {4, 50}, {5, 2}}) {
        search s(B, V, 1, 0.7);
        for (int t = 1; t <= 6; ++t) {
            s.step();
            const auto want = by_sorting(static_cast<std::size_t>(B), V, t);
            const std::vector<sequence> got(s.texts.begin(),
                                            s.texts.begin() + static_cast<std::ptrdiff_t>(want.size()));
            EXPECT_EQ(got, want) << B << " beams, step " << t;
            for (std::size_t b = 0; b < s.beams.size(); ++b) {  // fewer continuations than beams: the rest is dead
                EXPECT_EQ(s.beams[b].score == -inf, b >= want.size());
                double sum = 0;
                for (std::size_t n = 0; n < s.texts[b].size() && b < want.size(); ++n)
                    sum += next_token(sequence(s.texts[b].begin(), s.texts[b].begin() + static_cast<std::ptrdiff_t>(n)),
                                      V)[static_cast<std::size_t>(s.texts[b][n])];
                EXPECT_TRUE(b >= want.size() || std::abs(s.beams[b].log_probability - sum) < 1e-12);
            }
        }
    }
}

TEST(diverse_beams, without_strength_all_groups_are_beam_search) {
    search s(6, 9, 3, 0);
    for (int t = 1; t <= 5; ++t) {
        s.step();
        for (index_t g = 0; g < 3; ++g) EXPECT_EQ(s.group(g), by_sorting(2, 9, t)) << g;
    }
}

TEST(diverse_beams, great_strength_keeps_groups_apart) {
    search s(6, 9, 3, 1e6);
    for (int t = 1; t <= 5; ++t) {
        s.step();
        std::map<index_t, index_t> group_of;  // of a token at this step
        for (std::size_t b = 0; b < 6; ++b) {
            const auto g = static_cast<index_t>(b / 2);
            const auto [at, is_new] = group_of.emplace(s.beams[b].token, g);
            EXPECT_TRUE(is_new || at->second == g) << "token " << s.beams[b].token << " in two groups at step " << t;
        }
    }
    EXPECT_EQ(s.group(0), by_sorting(2, 9, 5)) << "nothing restrains the first group";
}

TEST(diverse_beams, penalties_count_every_choice_of_the_groups_before) {
    // Two beams in the first group both take token 1; it then costs the second group twice the strength.
    const std::vector<double> log_p{-9, -1, -8, -9, -2, -8, -3, -1, -2, -3, -1.5, -2};
    const std::vector<beam> alive(4);
    const auto next = [&](double strength) {
        return diverse_beam_step(dense(log_p.data(), {4, 3}), alive, 2, strength);
    };
    const auto tokens = [](const std::vector<beam>& beams) {
        std::vector<std::array<index_t, 2>> out;
        for (const beam& x : beams) out.push_back({x.parent, x.token});
        return out;
    };
    using pairs = std::vector<std::array<index_t, 2>>;
    EXPECT_EQ(tokens(next(0.2)), (pairs{{0, 1}, {1, 1}, {2, 1}, {3, 1}}));
    EXPECT_EQ(tokens(next(0.3)), (pairs{{0, 1}, {1, 1}, {2, 1}, {2, 2}}));  // -1.6, then -2 before -2.1
    EXPECT_EQ(tokens(next(0.6)), (pairs{{0, 1}, {1, 1}, {2, 2}, {3, 2}}));
    const auto beams = next(0.3);
    EXPECT_DOUBLE_EQ(beams[2].score, -1.6);
    EXPECT_DOUBLE_EQ(beams[2].log_probability, -1);
}

TEST(diverse_beams, dead_beams_are_not_continued_and_cost_nobody) {
    const std::vector<double> log_p{-1, -2, -3, -1, -2, -3, -1, -2, -3, -1, -2, -3};
    std::vector<beam> alive(4);
    alive[1].score = alive[0].score = -inf;
    const auto next = diverse_beam_step(dense(log_p.data(), {4, 3}), alive, 2, 5);
    EXPECT_EQ(next[0].score, -inf);
    EXPECT_EQ(next[1].score, -inf);
    EXPECT_EQ(next[2].score, -1) << "what dead beams chose was not chosen";
    EXPECT_EQ(next[3].score, -1);
}

TEST(diverse_beams, ties_and_storage) {
    const auto zero = test::constant<bf16>({1, 1, 2, 4}, 0);
    const std::vector<beam> alive(2);
    const auto next = diverse_beam_step(view<const bf16, 2>{zero.v().data, {2, 4}, {4, 1}}, alive, 1, 1);
    EXPECT_EQ(next[0].parent, 0);
    EXPECT_EQ(next[0].token, 0);
    EXPECT_EQ(next[1].parent, 0);
    EXPECT_EQ(next[1].token, 1);
    EXPECT_TRUE(diverse_beam_step(view<const float, 2>{nullptr, {0, 3}, {3, 1}}, {}, 2, 1).empty());
}

TEST(diverse_beams, bad_arguments_are_named) {
    std::vector<float> log_p(12);
    const std::vector<beam> alive(4);
    const auto with = [&](index_t V, std::size_t beams, index_t groups, double strength) {
        return [&, V, beams, groups, strength] {
            diverse_beam_step(dense(log_p.data(), {4, V}), std::span(alive).first(beams), groups, strength);
        };
    };
    refuses<shape_error>(with(3, 3, 2, 1), "diverse_beam_step: there are 3 beams, log_p has 4");
    refuses<shape_error>(with(0, 4, 2, 1), "the vocabulary has 0 tokens");
    refuses<argument_error>(with(3, 4, 3, 1), "diverse_beam_step: 4 beams do not make 3 groups");
    refuses<argument_error>(with(3, 4, 0, 1), "4 beams do not make 0 groups");
    refuses<argument_error>(with(3, 4, 2, -1), "strength is -1, the least is 0");
    refuses<argument_error>(with(3, 4, 2, inf), "strength is inf");
    refuses<argument_error>([] { first_beams(3, 2); }, "first_beams: 3 beams do not make 2 groups");
    log_p[7] = std::nanf("");
    refuses<argument_error>(with(3, 4, 2, 1), "beam 2 has no number for token 1");
}

}  // namespace
