// heed_test: BUSY LABELS sanitize
#include <heed/policy/masks.hpp>

#include "mask_laws.hpp"
#include "refuses.hpp"

namespace {

using namespace heed;
using test::exactness;
using test::obeys_laws;
using test::same_set;
using test::scene;
using enum heed::slice_kind;
using list = std::vector<mask_slice>;

constexpr index_t N = 60;
const std::vector<index_t> documents{0, 12, 13, 31, 60};

/// The slice by its definition: i and j counted from its corner.
bool in_slice(const mask_slice& s, const where& w) {
    const index_t i = w.i - s.q_range.first, j = w.j - s.k_range.first;
    const index_t a = s.q_range.size(), b = s.k_range.size();
    if (i < 0 || i >= a || j < 0 || j >= b) return false;
    const bool upper = j <= i + (b - a), lower = j >= i;
    return s.kind == full ? true : s.kind == causal ? upper : s.kind == inverse_causal ? lower : upper && lower;
}

/// Visible pairs of a slice that lies within N x N, told by its sides alone.
index_t slice_area(const mask_slice& s) {
    const index_t a = s.q_range.size(), b = s.k_range.size(), short_side = std::min(a, b);
    if (s.kind == full) return a * b;
    if (s.kind == bicausal) return a * std::max<index_t>(0, b - a + 1);
    return short_side * (b - short_side) + short_side * (short_side + 1) / 2;
}

index_t popcount(const slices& mask) {
    index_t sum = 0;
    for (const auto& row : draw(mask, N, N)) sum += std::count(row.begin(), row.end(), true);
    return sum;
}

/// The slice cut below its row `at`, into slices with the same pairs: a triangle keeps its corner.
list cut_rows(const mask_slice& s, index_t at) {
    mask_slice above = s, below = s;
    above.q_range.last = below.q_range.first = at;
    const index_t rows_above = above.q_range.size(), rows_below = below.q_range.size();
    if (s.kind == causal || s.kind == bicausal)
        above.k_range.last = std::max(s.k_range.first, s.k_range.last - rows_below);
    if (s.kind == inverse_causal || s.kind == bicausal)
        below.k_range.first = std::min(s.k_range.last, s.k_range.first + rows_above);
    return {above, below};
}

TEST(mask_slice, every_kind_by_definition) {
    for (slice_kind kind : {full, causal, inverse_causal, bicausal})
        for (const auto& [q_range, k_range] : std::vector<std::pair<range, range>>{
                 {{3, 20}, {5, 40}}, {{3, 40}, {5, 20}}, {{10, 27}, {30, 47}}, {{7, 8}, {9, 10}}, {{7, 7}, {9, 20}},
                 {{7, 20}, {9, 9}}, {{0, N}, {0, N}}, {{-9, 30}, {20, 45}}, {{30, 900}, {2, 700}}}) {
            const mask_slice s{q_range, k_range, kind};
            const std::string name = "kind " + std::to_string(static_cast<int>(kind));
            same_set(s, [&](const where& w) { return in_slice(s, w); }, N, N, name);
            same_set(s, [&](const where& w) { return in_slice(s, w); }, 25, N, name);
            obeys_laws(s, exactness::exact, name);
            const list one{s};
            same_set(slices(one), s, N, N, name);
            obeys_laws(slices(one), exactness::exact, name);
            if (q_range.first >= 0 && q_range.last <= N) EXPECT_EQ(area(s, 1, 1, N, N), slice_area(s)) << name;
        }
}

/// A list of disjoint slices has the pairs of a mask told otherwise, as many as its slices have together.
template <class Mask>
void lists(const Mask& mask, const list& parts, const std::string& name) {
    same_set(slices(parts), mask, N, N, name);
    obeys_laws(slices(parts), exactness::exact_next, name);
    obeys_laws(slices(parts) & window{20, 3}, exactness::right, name);
    index_t sum = 0;
    for (const mask_slice& s : parts) sum += slice_area(s);
    EXPECT_EQ(popcount(slices(parts)), sum) << name;
    EXPECT_EQ(area(slices(parts), 1, 1, N, N), sum) << name;

    list pieces;
    for (const mask_slice& s : parts) {
        const list cut = cut_rows(s, s.q_range.first + s.q_range.size() / 3);
        pieces.insert(pieces.end(), cut.begin(), cut.end());
    }
    same_set(slices(pieces), slices(parts), N, N, name + ", cut");
    EXPECT_EQ(area(slices(pieces), 1, 1, N, N), sum) << name << ", cut";
    std::reverse(pieces.begin(), pieces.end());
    same_set(slices(pieces), slices(parts), N, N, name + ", backwards");
}

TEST(mask_slice, patterns_as_lists) {
    lists(everything{}, {{{0, N}, {0, N}}}, "full");
    lists(heed::causal{}, {{{0, N}, {0, N}, causal}}, "causal");
    lists(window{7, 0}, {{{0, 7}, {0, 7}, causal}, {{7, N}, {0, N}, bicausal}}, "causal window");
    lists(window{9, 9}, {{{0, 9}, {0, 18}, causal}, {{9, N - 9}, {0, N}, bicausal},
                         {{N - 9, N}, {N - 18, N}, inverse_causal}}, "window");
    lists(patterns::prefix_lm(20), {{{0, 20}, {0, 20}}, {{20, N}, {0, N}, causal}}, "prefix-LM");

    list full_document, causal_document, share_question, causal_blockwise, prefix_document;
    for (std::size_t d = 0; d + 1 < documents.size(); ++d) {
        const range self{documents[d], documents[d + 1]}, short_prefix{self.first, std::min(self.first + 5, self.last)};
        const bool last = d + 2 == documents.size();
        full_document.push_back({self, self});
        causal_document.push_back({self, self, causal});
        share_question.push_back({self, self, causal});
        if (d > 0) share_question.push_back({self, {0, documents[1]}});
        causal_blockwise.push_back({self, {last ? 0 : self.first, self.last}, causal});
        prefix_document.push_back({short_prefix, short_prefix});
        prefix_document.push_back({{short_prefix.last, self.last}, self, causal});
    }
    lists(patterns::full_document(documents), full_document, "full document");
    lists(patterns::causal_document(documents), causal_document, "causal document");
    lists(patterns::share_question(documents), share_question, "share question");
    lists(patterns::causal_blockwise(documents), causal_blockwise, "causal blockwise");
    lists(patterns::prefix_lm_document(documents, 5), prefix_document, "prefix-LM document");
}

// The same pairs whatever the slices are cut into and however often they are named.
TEST(mask_slice, union_of_any_slices) {
    std::mt19937 random(3);
    const auto below = [&](index_t n) { return static_cast<index_t>(random() % static_cast<unsigned>(n)); };
    for (int trial = 0; trial < 20; ++trial) {
        list parts, pieces;
        for (index_t s = 1 + below(5); s-- > 0;) {
            const index_t i = below(N), j = below(N);
            parts.push_back({{i, i + below(N - i + 1)}, {j, j + below(N - j + 1)}, static_cast<slice_kind>(below(4))});
            const mask_slice& whole = parts.back();
            pieces.push_back(whole);
            for (const mask_slice& p : cut_rows(whole, i + below(whole.q_range.size() + 1))) pieces.push_back(p);
        }
        const auto any = [&](const where& w) {
            return std::any_of(parts.begin(), parts.end(), [&](const mask_slice& s) { return in_slice(s, w); });
        };
        same_set(slices(parts), any, N, N, "union");
        same_set(slices(pieces), any, N, N, "union of pieces");
        const scene at{1 + below(90), 1 + below(90), below(60) - 30};
        obeys_laws(slices(parts), at, exactness::exact_next, "union");
        obeys_laws(slices(pieces) | heed::causal{}, at, exactness::right, "union of pieces, or causal");
        // A | of slices is the same set.
        if (parts.size() > 1) {
            const list two(parts.begin(), parts.begin() + 2);
            same_set(two[0] | two[1], slices(two), N, N, "two by |");
        }
    }
    same_set(slices(list{}), nothing{}, N, N, "no slices");
}

TEST(mask_slice, says_what_is_wrong) {
    const auto checked = [](const list& parts) {
        heed::detail::check_policy(slices(parts), "attention", {1, 2, 10, 10});
    };
    checked({{{-3, 20}, {0, 99}}, {{5, 5}, {7, 7}, bicausal}});
    test::refuses<argument_error>([&] { checked({{{0, 4}, {0, 4}}, {{4, 3}, {0, 4}}}); },
                                  "attention: a slice of the mask has queries from 4 to 3");
    test::refuses<argument_error>([&] { checked({{{0, 4}, {5, 4}}}); },
                                  "attention: a slice of the mask has keys from 5 to 4");
    test::refuses<argument_error>([&] { checked({{{0, 4}, {-1, 4}}}); },
                                  "attention: a slice of the mask has keys from -1 to 4");
}

}  // namespace
