// heed_test: LABELS sanitize
// A weighted update weighs the keys of a recurrence, and with them its sums of keys: as keys weighted before do, bit by
// bit.
#include "recurs.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

struct weighted_updates : testing::Test {
    recurrence_data<float> x{{2, 4, 2, 4, 50, 16, 17, 1, 2}, 3};
    tensor<float> weighted{{2, 4, 50, 16}};
    weighted_update<float> gate{numbers(x.beta)};  // of [0, 2], two heads over four states

    void SetUp() override {
        weighted.each([&](index_t b, index_t h, index_t n, index_t d) {
            weighted(b, h, n, d) = x.k(b, h / 2, n, d) * x.beta(b, h / 2, n, 0);
        });
    }
    void expect_alike(const auto&... policies) {
        const auto from = beginning<float>(2, 4, 16, 17);
        EXPECT_TRUE(same_values(recur_from(from, x.q, x.k, x.v, gate, policies...),
                                recur_from(from, x.q, weighted, x.v, policies...)));
    }
};

TEST_F(weighted_updates, weigh_keys_in_any_form) {
    expect_alike(x.token_gate());
    expect_alike(x.token_gate(), chunked{32});
    expect_alike(x.channel_gate(), recurrent{}, reversed{});
}

TEST_F(weighted_updates, weigh_what_normalisers_and_bonuses_read) {
    expect_alike(sum_of_keys{1, true});
    expect_alike(x.bonus_read());
}

TEST_F(weighted_updates, must_fit) {
    tensor<float> o({2, 4, 50, 17});
    const auto refused = [&](const view<const float, 3>& weights, const char* words) {
        refuses<shape_error>([&] { recurrence(x.q, x.k, x.v, o, weighted_update{weights}); }, words);
    };
    refused(slice(gate.weights, 2, {0, 49}), "weighted_update has 49 tokens, k has 50");
    refused(slice(gate.weights, 0, {0, 1}), "weighted_update has batch 1, q has 2");
    refused(slice(gate.weights, 1, {0, 0}), "weighted_update has 0 heads");
}

}  // namespace
