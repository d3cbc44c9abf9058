// Attention sorting's loop, and AttnRank's order against brute force.
#include <algorithm>
#include <heed/ops/attention_sorting.hpp>
#include <heed/ops/attn_rank.hpp>
#include <heed/ops/segments.hpp>

#include "random.hpp"
#include "refuses.hpp"

namespace {

using namespace heed;
using test::refuses;
using test::tensor;
using orders = std::vector<index_t>;

TEST(attention_sorting, ascends_by_mass_and_stops_when_the_order_stays) {
    const std::vector<double> mass_of{0.3, 0.1, 0.5, 0.1};  // by document, wherever it stands
    int reads = 0;
    const auto read = [&](std::span<const index_t> order) {
        ++reads;
        std::vector<double> masses;
        for (index_t d : order) masses.push_back(mass_of[static_cast<std::size_t>(d)]);
        return masses;
    };
    EXPECT_EQ(attention_sorting(4, 5, read), (orders{1, 3, 0, 2}));
    EXPECT_EQ(reads, 2);
    EXPECT_EQ(attention_sorting(4, 1, read), (orders{1, 3, 0, 2}));
    EXPECT_EQ(attention_sorting(4, 0, read), (orders{0, 1, 2, 3}));
    EXPECT_EQ(reads, 3);
}

TEST(attention_sorting, ties_keep_the_order_they_are_in) {
    const auto equal = [](std::span<const index_t> order) { return std::vector<double>(order.size(), 0.25); };
    EXPECT_EQ(attention_sorting(4, 3, equal), (orders{0, 1, 2, 3}));
    EXPECT_EQ(attention_sorting(0, 3, equal), orders{});
    EXPECT_EQ(attention_sorting(1, 3, equal), orders{0});
    // Masses by place, not by document: every round moves the first document to the end, until rounds run out.
    const auto recency = [](std::span<const index_t>) { return std::vector<double>{2, 0, 1}; };
    EXPECT_EQ(attention_sorting(3, 1, recency), (orders{1, 2, 0}));
    EXPECT_EQ(attention_sorting(3, 2, recency), (orders{2, 0, 1}));
}

TEST(attention_sorting, a_planted_document_ends_next_to_the_question) {
    constexpr index_t documents = 5, length = 8, M = documents * length + 1, D = 6, planted = 1;
    const auto keys = test::normal<float>({documents, 1, length, D}, 1, 0.3);
    const auto question = test::constant<float>({1, 2, 1, D}, 1);
    const std::vector<index_t> cuts{0, 8, 16, 24, 32, 40, M};
    index_t reads = 0;
    const auto read = [&](std::span<const index_t> order) {
        ++reads;
        auto k = test::constant<float>({1, 1, M, D}, 0);
        for (index_t p = 0; p < documents; ++p)
            for (index_t j = 0; j < length; ++j)
                for (index_t d = 0; d < D; ++d) {
                    const index_t document = order[static_cast<std::size_t>(p)];
                    k(0, 0, p * length + j, d) = keys(document, 0, j, d) + (document == planted && j == 3 ? 2.f : 0.f);
                }
        tensor<float> o({1, 2, 1, D}), mass({1, 2, 1, documents + 1});
        segment_attention(question, k, k, o, cuts, mass, causal{});
        mean_mass mean(documents + 1);
        mean.add(mass.v());
        auto masses = mean.mean();
        EXPECT_NEAR(std::accumulate(masses.begin(), masses.end(), 0.0), 1, 1e-6);
        masses.pop_back();  // the question's own
        return masses;
    };
    const auto once = attention_sorting(documents, 1, read);
    EXPECT_EQ(once.back(), planted);
    EXPECT_EQ(attention_sorting(documents, 10, read), once);
    EXPECT_EQ(reads, 3);  // the second round of the second call found nothing to move
}

TEST(attention_sorting, bad_arguments_are_named) {
    const auto of = [](std::vector<double> masses) { return [masses](std::span<const index_t>) { return masses; }; };
    refuses<argument_error>([&] { attention_sorting(-1, 1, of({})); }, "attention_sorting: there are -1 documents");
    refuses<argument_error>([&] { attention_sorting(1, -1, of({1})); }, "there are -1 rounds");
    refuses<shape_error>([&] { attention_sorting(2, 1, of({1})); }, "there are 1 masses and 2 documents");
    refuses<argument_error>([&] { attention_sorting(1, 1, of({std::nan("")})); }, "attention_sorting: a mass is");
    refuses<shape_error>(
        [] {
            attn_rank(std::vector<double>{1}, std::vector<double>{1, 2});
        },
        "attn_rank: there are 1 places and 2 documents");
    refuses<argument_error>([] { attn_rank(std::vector<double>{1}, std::vector<double>{INFINITY}); },
                            "attn_rank: a relevance is");
}

TEST(attn_rank, puts_the_best_where_most_attention_goes) {
    EXPECT_EQ(attn_rank(std::vector<double>{0.4, 0.1, 0.2, 0.3}, std::vector<double>{1, 7, 5, 3}),
              (orders{1, 0, 3, 2}));
    EXPECT_EQ(attn_rank(std::vector<double>{1, 1, 1}, std::vector<double>{2, 2, 2}), (orders{0, 1, 2}));
    EXPECT_EQ(attn_rank({}, {}), orders{});
}

TEST(attn_rank, maximises_relevance_times_mass) {
    const counter_random random(5);
    for (std::uint64_t trial = 0; trial < 30; ++trial)
        for (std::size_t n = 1; n <= 6; ++n) {
            std::vector<double> profile(n), relevance(n);
            for (std::size_t p = 0; p < n; ++p) {  // coarse, so that there are ties
                profile[p] = static_cast<double>(random.integer(trial * 100 + p, 0, 5));
                relevance[p] = static_cast<double>(random.integer(trial * 100 + 50 + p, -2, 3));
            }
            const auto value = [&](const orders& order) {
                double sum = 0;
                for (std::size_t p = 0; p < n; ++p) sum += profile[p] * relevance[static_cast<std::size_t>(order[p])];
                return sum;
            };
            orders all(n);
            std::iota(all.begin(), all.end(), index_t(0));
            const auto got = attn_rank(profile, relevance);
            auto sorted = got;
            std::sort(sorted.begin(), sorted.end());
            ASSERT_EQ(sorted, all) << "a permutation";
            double best = value(all);
            do best = std::max(best, value(all));
            while (std::next_permutation(all.begin(), all.end()));
            EXPECT_EQ(value(got), best);
        }
}

}  // namespace
