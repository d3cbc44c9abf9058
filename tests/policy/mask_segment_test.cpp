// heed_test: BUSY LABELS sanitize
#include <heed/policy/masks.hpp>

#include "mask_laws.hpp"

namespace {

using namespace heed;
using test::exactness;
using test::obeys_laws;
using test::same_set;
using test::scene;

using offsets = std::vector<index_t>;

index_t document_of(const offsets& o, index_t i) {
    for (std::size_t d = 0; d + 1 < o.size(); ++d)
        if (o[d] <= i && i < o[d + 1]) return static_cast<index_t>(d);
    return -1;
}

const offsets packings[] = {{0, 50},         {0, 7, 19, 20, 50},       {3, 10, 10, 10, 40}, {0, 0, 1, 2, 3, 4, 5, 6, 50},
                            {0, 25, 50, 50}, {0, 10, 20, 30, 40, 200}, {5},                 {0}};

TEST(mask_segment, document_laws) {
    for (const offsets& o : packings) {
        obeys_laws(document(o), exactness::exact, "document");
        obeys_laws(document(o, causal{}), exactness::exact, "causal document");
        obeys_laws(document(o, window{3}), exactness::exact, "window document");
        obeys_laws(document(o, chunk{8}), exactness::exact, "chunked document");
        obeys_laws(document(o, prefix{4}), exactness::exact, "prefix document");
        obeys_laws(document(o, causal{} | prefix{9}), exactness::exact_next, "prefix-LM document");
        obeys_laws(document(o, dilated{3, 3}), exactness::exact_next, "dilated document");
        obeys_laws(document(o, [](const where& w) { return (w.i + w.j) % 3 == 0; }), exactness::right, "lambda");
        obeys_laws(document(o) & causal{}, exactness::right, "document and causal");
        obeys_laws(document(o) | first{4}, exactness::exact_next, "document or first");
    }
}

TEST(mask_segment, document_by_definition) {
    for (const offsets& o : packings) {
        const auto same = [o](const where& w) {
            return document_of(o, w.i) >= 0 && document_of(o, w.i) == document_of(o, w.j);
        };
        for (index_t n : {50, 20}) {
            same_set(document(o), same, n, 50, "same document");
            same_set(document(o, causal{}), causal{} & same, n, 50, "causal document");
            // Positions inside count from the document's start.
            same_set(document(o, chunk{8}), [&](const where& w) {
                if (!same(w)) return false;
                const index_t start = o[static_cast<std::size_t>(document_of(o, w.i))];
                return (w.i - start) / 8 == (w.j - start) / 8;
            }, n, 50, "chunks from the start");
        }
    }
    const offsets whole{0, 50};
    same_set(document(whole, causal{}), causal{}, 50, 50, "one document");
}

TEST(mask_segment, document_area) {
    const offsets o{0, 100, 250, 1000};
    EXPECT_EQ(area(document(o), 1, 1, 1000, 1000), 100 * 100 + 150 * 150 + 750 * 750);
    EXPECT_EQ(area(document(o, causal{}), 2, 3, 1000, 1000), 6 * (100 * 101 + 150 * 151 + 750 * 751) / 2);
}

TEST(mask_segment, lengths) {
    const std::vector<index_t> valid{0, 5, 40};
    obeys_laws(lengths{valid}, {20, 40, 20, 3, 2}, exactness::exact, "lengths");
    obeys_laws(lengths{valid} & causal{}, {20, 40, 20, 3, 2}, exactness::exact, "causal lengths");
    EXPECT_EQ(area(lengths{valid}, 3, 2, 10, 40), 2 * 10 * 45);
}

TEST(mask_segment, marked_queries) {
    const bool marks[] = {true, false, true, true, false, false, true};
    obeys_laws(queries_where{marks}, exactness::exact, "marks");
    obeys_laws(queries_where{marks} & causal{}, exactness::exact, "causal marks");
}

TEST(mask_segment, marked_keys) {
    std::mt19937 random(9);
    std::vector<unsigned char> marks(2 * 3 * 60);
    for (auto& m : marks) m = random() % 3 == 0;
    const auto of_heads = dense(marks.data(), {2, 3, 60}), shared = dense(marks.data(), {1, 1, 60});
    for (const scene& at : {scene{20, 60, 40, 2, 3}, scene{20, 90, 70, 2, 3}, scene{20, 30, 10, 2, 3}})
        for (bool marked : {true, false}) {
            obeys_laws(keys_where{of_heads, marked}, at, exactness::exact, "marked keys");
            obeys_laws(keys_where{shared, marked} & causal{}, at, exactness::right, "causal marked keys");
        }
    same_set(keys_where{shared} | keys_where{shared, false}, everything{}, 10, 80, "each key is one or the other");
    same_set(keys_where{shared} & keys_where{shared, false}, nothing{}, 10, 80, "and not both");
    same_set(keys_where{shared} & between{60, 80}, nothing{}, 10, 80, "keys beyond are not marked");
    EXPECT_THROW(detail::check_policy(keys_where{of_heads}, "op", {2, 4, 5, 60}), shape_error);
    EXPECT_NO_THROW(detail::check_policy(keys_where{shared}, "op", {2, 4, 5, 6}));
}

TEST(mask_segment, lifetime_laws) {
    std::mt19937 random(7);
    for (index_t reach : {0, 3, 30}) {
        for (const scene& at : {scene{67, 67, 0, 2, 4}, scene{20, 90, 70, 2, 4}, scene{90, 50, -40, 2, 4}}) {
            std::vector<token_type> types(static_cast<std::size_t>(at.M));
            std::vector<index_t> last(static_cast<std::size_t>(4 * at.M));
            for (int x = 0; x < 4; ++x) {
                for (auto& t : types) t = static_cast<token_type>(random() % 10 == 0 ? 0 : 1 + random() % 2);
                token_lifetimes(types, reach, std::span(last).subspan(static_cast<std::size_t>(x * at.M), types.size()));
            }
            obeys_laws(lifetime{dense(last.data(), {2, 2, at.M}), 2}, at, exactness::exact, "lifetime");
            obeys_laws(lifetime{dense(last.data(), {1, 4, at.M}), 1}, at, exactness::exact, "lifetime, any batch");
            obeys_laws(lifetime{dense(last.data(), {1, 1, at.M}), 4}, at, exactness::exact, "lifetime, shared");
        }
    }
}

TEST(mask_segment, token_types_by_definition) {
    const index_t n = 60, reach = 5;
    std::mt19937 random(3);
    std::vector<token_type> types(n);
    for (auto& t : types) t = static_cast<token_type>(random() % 3);
    std::vector<index_t> last(n);
    token_lifetimes(types, reach, last);
    const lifetime mask{dense(last.data(), {1, 1, n})};
    const auto definition = [&](const where& w) {
        if (w.j > w.i) return false;
        const token_type type = types[static_cast<std::size_t>(w.j)];
        if (type == token_type::global) return true;
        if (type == token_type::window) return w.i <= w.j + reach;
        for (index_t g = w.j + 1; g < w.i; ++g)  // no global token strictly between: that one still sees it
            if (types[static_cast<std::size_t>(g)] == token_type::global) return false;
        return true;
    };
    same_set(mask, definition, n, n, "token types");
    index_t pairs = 0;
    for (index_t j = 0; j < n; ++j) pairs += std::min(last[static_cast<std::size_t>(j)], n - 1) - j + 1;
    EXPECT_EQ(area(mask, 1, 1, n, n), pairs);
    const auto all_of = [&](token_type t) {
        std::fill(types.begin(), types.end(), t);
        token_lifetimes(types, reach, last);
        return draw(mask, n, n);
    };
    EXPECT_EQ(all_of(token_type::global), draw(causal{}, n, n));
    EXPECT_EQ(all_of(token_type::window), draw(causal{} & window{reach}, n, n));
    EXPECT_EQ(all_of(token_type::local), draw(causal{}, n, n));
}

TEST(mask_segment, says_what_is_wrong) {
    const extents_of_scores s{2, 4, 10, 10};
    const auto message = [&](const auto& mask) -> std::string {
        try {
            heed::detail::check_policy(mask, "attention", s);
        } catch (const std::invalid_argument& e) {
            return e.what();
        }
        return "";
    };
    const offsets unordered{0, 5, 3}, beyond{0, 11}, negative{-1, 3}, good{0, 5, 10};
    EXPECT_EQ(message(document(unordered)), "attention: document: offset 3 stands after 5, they must not decrease");
    EXPECT_EQ(message(document(beyond)), "attention: document: the last offset is 11, k has 10 keys");
    EXPECT_NE(message(document(negative)), "");
    EXPECT_NE(message(document(offsets{})), "");
    EXPECT_EQ(message(document(good, chunk{0})), "attention: chunk has size 0, the least is 1");
    EXPECT_EQ(message(document(good)), "");
    const offsets three{1, 2, 3}, long_one{1, 11};
    EXPECT_EQ(message(lengths{three}), "attention: lengths holds 3 counts, q has batch 2");
    EXPECT_EQ(message(lengths{long_one}), "attention: lengths: a batch has 11 keys, k has 10");
    std::vector<index_t> last(40, 9);
    EXPECT_EQ(message(lifetime{dense(last.data(), {2, 2, 10}), 2}), "");
    EXPECT_EQ(message(lifetime{dense(last.data(), {2, 2, 10}), 1}),
              "attention: lifetime has 2 heads of 1 query heads each, q has 4");
    EXPECT_EQ(message(lifetime{dense(last.data(), {2, 2, 9}), 2}), "attention: lifetime has 9 keys, k has 10");
}

}  // namespace
