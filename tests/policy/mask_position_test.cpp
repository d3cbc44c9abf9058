// heed_test: BUSY LABELS sanitize
#include <heed/policy/masks.hpp>

#include "mask_laws.hpp"

namespace {

using namespace heed;
using test::exactness;
using test::obeys_laws;
using test::same_set;

TEST(mask_position, intervals_are_exact) {
    obeys_laws(everything{}, exactness::exact, "everything");
    obeys_laws(nothing{}, exactness::exact, "nothing");
    obeys_laws(causal{}, exactness::exact, "causal");
    for (index_t w : {0, 1, 5, 64}) obeys_laws(window{w}, exactness::exact, "window");
    obeys_laws(window{4, -1}, exactness::exact, "window ahead");
    obeys_laws(window{-1, 3}, exactness::exact, "window back");
    for (index_t c : {1, 2, 7, 16, 200}) {
        obeys_laws(chunk{c}, exactness::exact, "chunk");
        obeys_laws(block_causal{c}, exactness::exact, "block_causal");
    }
    for (index_t from : {-3, 0, 5, 64})
        for (index_t size : {-1, 0, 1, 17, 300}) obeys_laws(between{from, from + size}, exactness::exact, "between");
    for (index_t back : {-3, 0, 1, 20}) {
        obeys_laws(earlier{causal{}, back}, exactness::exact, "earlier causal");
        obeys_laws(earlier{chunk{7}, back}, exactness::exact, "earlier chunk");
    }
    for (index_t p : {0, 1, 13, 300}) {
        obeys_laws(prefix{p}, exactness::exact, "prefix");
        obeys_laws(first{p}, exactness::exact, "first");
        obeys_laws(queries_from{p}, exactness::exact, "queries_from");
        obeys_laws(global{p}, exactness::exact_next, "global");
    }
}

TEST(mask_position, global_tokens) {
    const std::vector<index_t> none, some{0, 3, 4, 5, 17, 18, 39, 66}, all = [] {
        std::vector<index_t> v(200);
        for (index_t i = 0; i < 200; ++i) v[static_cast<std::size_t>(i)] = i - 50;
        return v;
    }();
    for (const auto* tokens : {&none, &some, &all})
        obeys_laws(global_tokens{*tokens}, exactness::exact_next, "global_tokens");
    const std::vector<index_t> five{0, 1, 2, 3, 4};
    same_set(global_tokens{five}, global{5}, 30, 30, "first tokens");
    same_set(global_tokens{all}, everything{}, 30, 30, "all tokens");
}

TEST(mask_position, limits) {
    same_set(chunk{64}, everything{}, 40, 40, "one chunk");
    same_set(chunk{1}, window{0}, 40, 40, "chunks of one token");
    same_set(causal{} & chunk{40}, causal{}, 40, 40, "causal chunk");
    same_set(causal{} | prefix{40}, everything{}, 40, 40, "the prefix is everything");
    same_set(causal{} | prefix{1}, causal{}, 40, 40, "a prefix of one token");
    same_set(block_causal{1}, causal{}, 40, 40, "blocks of one token");
    same_set(window{-1, 0}, causal{}, 30, 40, "open to the back");
    same_set(window{-1, -1}, everything{}, 30, 40, "open to both sides");
    same_set(between{0, 7}, first{7}, 30, 40, "from the first key");
    same_set(between{9, 9}, nothing{}, 30, 40, "an empty stretch");
    same_set(between{0, 11} | between{11, 40}, everything{}, 30, 40, "stretches that meet");
    same_set(
        earlier{causal{}, 5}, window{-1, 0} & [](const where& w) { return w.i - w.j >= 5; }, 30, 40, "five back");
    same_set(
        earlier{chunk{7}, 7}, [](const where& w) { return w.i / 7 == w.j / 7 + 1; }, 30, 40, "the chunk before");
    same_set(
        earlier{block_causal{7}, 14}, [](const where& w) { return w.i / 7 > w.j / 7 + 1; }, 30, 40, "older chunks");
    same_set(causal{} & window{3}, window{3, 0}, 30, 40, "causal window");
    same_set(causal{} & window{3}, recent{4}, 30, 40, "recent counts itself");
}

TEST(mask_position, says_what_is_wrong) {
    const extents_of_scores s{1, 2, 10, 10};
    const auto message = [&](const auto& mask) -> std::string {
        try {
            heed::detail::check_policy(mask, "attention", s);
        } catch (const argument_error& e) {
            return e.what();
        }
        return "";
    };
    EXPECT_EQ(message(chunk{0}), "attention: chunk has size 0, the least is 1");
    EXPECT_EQ(message(causal{} & chunk{-1}), "attention: chunk has size -1, the least is 1");
    EXPECT_EQ(message(causal{} | prefix{-2}), "attention: prefix is -2, the least is 0");
    EXPECT_EQ(message(global{-1}), "attention: global is -1, the least is 0");
    const std::vector<index_t> bad{3, 3};
    EXPECT_EQ(message(global_tokens{bad}), "attention: global_tokens: position 3 stands after 3, they must ascend");
    EXPECT_EQ(message(dilated{2, 0}), "attention: dilated has dilation 0, the least is 1");
    EXPECT_EQ(message(strided{0}), "attention: every has stride 0, the least is 1");
    EXPECT_EQ(message(fixed{4, 3, 2}), "attention: summary: 2 turns of 3 cells do not fit a block of 4");
    EXPECT_EQ(message(chunk{4} & window{3}), "");
}

}  // namespace
