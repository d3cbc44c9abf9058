// heed_test: BUSY LABELS sanitize
#include <heed/policy/masks.hpp>

#include "mask_laws.hpp"

namespace {

using namespace heed;
using test::exactness;
using test::obeys_laws;
using test::same_set;
using test::scene;

constexpr index_t N = 60;
const std::vector<index_t> documents{0, 12, 13, 31, 60};

index_t doc(index_t i) {
    for (std::size_t d = 0; d + 1 < documents.size(); ++d)
        if (i < documents[d + 1]) return static_cast<index_t>(d);
    return -1;
}

/// The mask obeys the laws and has exactly the pairs of the predicate.
template <class Mask, class Predicate>
void is(const Mask& mask, const Predicate& predicate, const std::string& name) {
    obeys_laws(mask, exactness::right, name);
    same_set(mask, predicate, N, N, name);
    same_set(mask, predicate, 25, N, name);
}

TEST(mask_patterns, the_fourteen) {
    is(patterns::full(), [](const where&) { return true; }, "full");
    is(patterns::causal(), [](const where& w) { return w.j <= w.i; }, "causal");
    is(patterns::full_document(documents), [](const where& w) { return doc(w.i) == doc(w.j); }, "full document");
    is(patterns::full_long_document(documents), [](const where& w) { return doc(w.i) == doc(w.j); }, "long document");
    is(patterns::causal_document(documents), [](const where& w) { return doc(w.i) == doc(w.j) && w.j <= w.i; },
       "causal document");
    is(patterns::causal_long_document(documents), [](const where& w) { return doc(w.i) == doc(w.j) && w.j <= w.i; },
       "causal long document");
    is(patterns::share_question(documents),
       [](const where& w) { return w.j <= w.i && (doc(w.i) == doc(w.j) || doc(w.j) == 0); }, "share question");
    is(patterns::causal_blockwise(documents),
       [](const where& w) { return w.j <= w.i && (doc(w.i) == doc(w.j) || doc(w.i) == 3); }, "causal blockwise");
    is(patterns::prefix_lm(20), [](const where& w) { return w.j <= w.i || (w.i < 20 && w.j < 20); }, "prefix-LM");
    is(patterns::prefix_lm_document(documents, 5),
       [](const where& w) {
           const index_t start = documents[static_cast<std::size_t>(doc(w.i))];
           return doc(w.i) == doc(w.j) && (w.j <= w.i || (w.i < start + 5 && w.j < start + 5));
       },
       "prefix-LM document");
    is(patterns::sliding_window(7, 3), [](const where& w) { return w.i - 7 <= w.j && w.j <= w.i + 3; }, "sliding");
    is(patterns::causal_sliding_window(7), [](const where& w) { return w.i - 7 <= w.j && w.j <= w.i; },
       "causal sliding");
    is(patterns::global_sliding_window(4, 6),
       [](const where& w) { return w.i < 4 || w.j < 4 || std::abs(w.i - w.j) <= 6; }, "global sliding");
    is(patterns::block_causal_document(documents, 6),
       [](const where& w) { return doc(w.i) == doc(w.j) && w.j / 6 <= w.i / 6; }, "block-causal document");
}

TEST(mask_patterns, limits_of_the_fourteen) {
    const std::vector<index_t> one{0, N}, none{0};
    same_set(patterns::full_document(one), everything{}, N, N, "one document");
    same_set(patterns::share_question(one), causal{}, N, N, "only a question");
    same_set(patterns::causal_blockwise(one), causal{}, N, N, "only the last block");
    same_set(patterns::prefix_lm_document(documents, N), patterns::full_document(documents), N, N, "a long prefix");
    same_set(patterns::prefix_lm_document(documents, 0), patterns::causal_document(documents), N, N, "no prefix");
    same_set(patterns::block_causal_document(one, 1), causal{}, N, N, "blocks of one token");
    EXPECT_EQ(area(patterns::full_document(none), 1, 1, N, N), 0);
    EXPECT_EQ(area(patterns::prefix_lm(20), 1, 1, N, N), N * (N + 1) / 2 + 20 * 19 / 2);
    EXPECT_EQ(area(patterns::sliding_window(-1, -1), 1, 1, N, N), N * N);
}

// An area is counted from its outline: these have 10^8 pairs.
TEST(mask_patterns, areas_at_length) {
    const index_t n = 16384;
    std::vector<index_t> packed{0};
    while (packed.back() < n) packed.push_back(std::min(n, packed.back() + 100 + packed.back() % 977));
    index_t in_documents = 0, causal_in_documents = 0;
    for (std::size_t d = 1; d < packed.size(); ++d) {
        const index_t size = packed[d] - packed[d - 1];
        in_documents += size * size;
        causal_in_documents += size * (size + 1) / 2;
    }
    EXPECT_EQ(area(patterns::full_document(packed), 1, 1, n, n), in_documents);
    EXPECT_EQ(area(patterns::causal_document(packed), 1, 1, n, n), causal_in_documents);
    EXPECT_EQ(area(patterns::share_question(packed), 1, 1, n, n),
              causal_in_documents + packed[1] * (n - packed[1]));
    const index_t last = n - packed[packed.size() - 2];
    EXPECT_EQ(area(patterns::causal_blockwise(packed), 1, 1, n, n), causal_in_documents + last * (n - last));
    EXPECT_EQ(area(patterns::global_sliding_window(16, 256), 1, 1, n, n),
              n * 513 - 256 * 257 + 2 * [&] {  // beyond the window: keys 0..15 of rows further than 256 from them
                  index_t sum = 0;
                  for (index_t j = 0; j < 16; ++j) sum += n - (j + 257);
                  return sum;
              }());
}

TEST(mask_patterns, longformer) {
    const std::vector<index_t> tokens{0, 1, 30};
    const auto is_global = [&](index_t i) { return std::binary_search(tokens.begin(), tokens.end(), i); };
    is(longformer(3, 2, tokens),
       [&](const where& w) {
           return is_global(w.i) || is_global(w.j) || (std::abs(w.i - w.j) <= 6 && (w.i - w.j) % 2 == 0);
       },
       "longformer");
    const std::vector<index_t> none;
    same_set(longformer(N, 1, none), everything{}, N, N, "a wide window");
    std::vector<index_t> all(N);
    for (index_t i = 0; i < N; ++i) all[static_cast<std::size_t>(i)] = i;
    same_set(longformer(0, 1, all), everything{}, N, N, "all tokens global");
    // A dilation splits the sequence into that many interleaved windows.
    const auto wide = draw(longformer(3, 4, none), N, N), narrow = draw(window{3}, N / 4, N / 4);
    for (std::size_t i = 0; i < N; ++i)
        for (std::size_t j = 0; j < N; ++j)
            EXPECT_EQ(wide[i][j], i % 4 == j % 4 && narrow[i / 4][j / 4]);
}

TEST(mask_patterns, ee_mllm) {
    const index_t visual = 37;
    is(ee_mllm(visual), [&](const where& w) { return w.i >= visual ? w.j <= w.i : w.j == w.i; }, "self");
    is(ee_mllm(visual, false), [&](const where& w) { return w.i >= visual && w.j <= w.i; }, "skip");
    same_set(ee_mllm(0), causal{}, N, N, "no visual tokens");
    bool text[N] = {};
    for (index_t i = visual; i < N; ++i) text[i] = true;
    same_set(ee_mllm(std::span<const bool>(text)), ee_mllm(visual), N, N, "by token type");
    // The row's headline: 2304 visual and 128 text tokens.
    EXPECT_EQ(area(ee_mllm(2304), 1, 1, 2432, 2432), 303168 + 2304);
    EXPECT_EQ(area(causal{}, 1, 1, 2432, 2432), 2958528);
}

TEST(mask_patterns, song) {
    using enum song::strategy;
    using enum song::stream;
    for (auto stream : {vocals, accompaniment}) {
        same_set(song{both_ways, stream}, causal{}, N, N, "both ways");
        same_set(song{song::strategy::none, stream}, nothing{}, N, N, "none");
    }
    same_set(song{accompaniment_to_vocals, vocals}, everything{}, N, N, "vocals see all");
    same_set(song{accompaniment_to_vocals, accompaniment}, nothing{}, N, N, "accompaniment sees none");
    same_set(song{vocals_to_accompaniment, vocals}, nothing{}, N, N, "vocals see none");
    same_set(song{vocals_to_accompaniment, accompaniment}, everything{}, N, N, "accompaniment sees all");
    obeys_laws(song{both_ways, vocals}, exactness::exact, "song");
}

TEST(mask_patterns, star) {
    const index_t b = 10;
    is(star(b), [&](const where& w) { return w.j <= w.i && (w.j / b == w.i / b || w.j / b == 0); }, "star");
    is(star(b, 45), [&](const where& w) { return w.j <= w.i && (w.i >= 45 || w.j / b == w.i / b || w.j < b); },
       "star with queries");
    same_set(star(N), causal{}, N, N, "one block");
    same_set(star(N / 2), causal{}, N, N, "two blocks");
    same_set(star(b, no_key, 0), causal{} & chunk{b}, N, N, "no anchor");
    for (index_t n : {1, 4, 32})
        EXPECT_EQ(2 * area(star(64), 1, 1, n * 64, n * 64), n * 64 * 65 + 2 * (n - 1) * 64 * 64) << n;
}

TEST(mask_patterns, transducer) {
    is(transducer(5, 2), [](const where& w) { return w.i - 5 <= w.j && w.j <= w.i + 2; }, "transducer");
    same_set(transducer(-1, -1), everything{}, N, N, "no limits");
    same_set(transducer(5, 0), causal{} & window{5}, N, N, "streaming");
    // k layers look k times as far, both ways.
    auto reach = draw(transducer(5, 2), N, N);
    const auto once = reach;
    for (index_t layers = 2; layers <= 3; ++layers) {
        auto further = reach;
        for (std::size_t i = 0; i < N; ++i)
            for (std::size_t k = 0; k < N; ++k)
                for (std::size_t j = 0; j < N && reach[i][k]; ++j) further[i][j] = further[i][j] || once[k][j];
        reach = further;
        EXPECT_EQ(reach, draw(transducer(5 * layers, 2 * layers), N, N));
    }
}

TEST(mask_patterns, parallel_context) {
    const std::vector<index_t> pieces{4, 14, 30, 50};
    const auto piece = [&](index_t i) {
        return std::upper_bound(pieces.begin(), pieces.end(), i) - pieces.begin() - 1;  // -1 prefix, 3 query part
    };
    is(parallel_context(pieces),
       [&](const where& w) { return w.j <= w.i && (w.j < 4 || w.i >= 50 || piece(w.i) == piece(w.j)); },
       "parallel context");
    const std::vector<index_t> one{4, 50};
    same_set(parallel_context(one), causal{}, N, N, "one piece");
}

// Random compositions: every tree of & and | of masks obeys the laws.
TEST(mask_patterns, random_compositions) {
    std::mt19937 random(11);
    const auto below = [&](index_t n) { return static_cast<index_t>(random() % static_cast<unsigned>(n)); };
    for (int trial = 0; trial < 12; ++trial) {
        const index_t w = below(20), c = 1 + below(30), g = below(10), l = 1 + below(20);
        const scene at{1 + below(90), 1 + below(90), below(60) - 30};
        const std::string name = "trial " + std::to_string(trial);
        obeys_laws((causal{} & (window{w} | global{g})) | chunk{c}, at, exactness::right, name);
        obeys_laws((document(documents) | first{g}) & (strided{l} | prefix{c}), at, exactness::right, name);
        obeys_laws(document(documents, causal{} & (dilated{w, l} | window{1})) | global{g}, at, exactness::right, name);
        obeys_laws((chunk{c} & window{w}) & causal{}, at, exactness::exact, name);
        obeys_laws((chunk{c} | chunk{l}) & (queries_from{g} | window{2}), at, exactness::right, name);
        obeys_laws([l](const where& p) { return (p.i * 7 + p.j) % l == 0; } & (window{w} | first{g}), at,
                   exactness::right, name);
    }
}

}  // namespace
