// heed_test: LABELS threads
// A recurrence cut into parts against its definition, against the one piece, and its state.
#include <heed/core/threads.hpp>
#include <heed/ops/lasp.hpp>
#include <heed/ops/retention.hpp>
#include <heed/policy/feature_gate.hpp>

#include "recurs.hpp"
#include "refuses.hpp"

namespace {

using namespace heed;
using namespace test;

const recurrence_sizes sizes{2, 4, 2, 2, 37, 9, 19, 1, 2};
const std::vector<std::vector<index_t>> all_cuts{{0, 37}, {0, 17, 37}, {0, 1, 5, 37}, {0, 0, 16, 16, 32, 37}};

/// Every way to cut gives the recurrence within its rule for values, from a state and with the state after it.
template <class... P>
void cut_alike(const recurrence_data<float>& x, unsigned parts, bool normalised, const P&... policies) {
    const auto make = [&](auto real) {
        auto with = x.defined(parts)(real);
        with.normalised = normalised;
        return with;
    };
    const auto from = beginning<float>(2, 2, 9, 19);
    const extents<4> width{2, 2, 9, normalised ? 20 : 19};
    tensor<double> exact({2, 4, 37, 19}), exact_state(width);
    tensor<float> naive({2, 4, 37, 19}), naive_state(width);
    exact_state.each([&](index_t b, index_t h, index_t d, index_t e) {
        exact_state(b, h, d, e) = naive_state(b, h, d, e) = from(b, h, d, e);
    });
    ref::naive_recurrence<double>(x.q.v(), x.k.v(), x.v.v(), exact.v(), make(0.0), exact_state.v());
    ref::naive_recurrence<float>(x.q.v(), x.k.v(), x.v.v(), naive.v(), make(0.0f), naive_state.v());
    for (const auto& cuts : all_cuts) {
        SCOPED_TRACE(testing::PrintToString(cuts));
        state<float> s(2, 2, 9, 19);
        from.each([&](index_t b, index_t h, index_t d, index_t e) {
            (e < 19 ? s.values()(b, h, d, e) : s.key_sums()(b, h, d)) = from(b, h, d, e);
        });
        auto again = s;
        tensor<float> o({2, 4, 37, 19}), o2({2, 4, 37, 19}), after(width);
        lasp(x.q, x.k, x.v, o, std::span<const index_t>(cuts), s, policies...);
        EXPECT_TRUE(within_rule<float>(o, naive, exact));
        after.each([&](index_t b, index_t h, index_t d, index_t e) {
            after(b, h, d, e) = e < 19 ? s.values()(b, h, d, e) : s.key_sums()(b, h, d);
        });
        EXPECT_TRUE(within_rule<float>(after, naive_state, exact_state));
        threads pool(3);
        lasp(x.q, x.k, x.v, o2, std::span<const index_t>(cuts), again, on{pool}, policies...);
        EXPECT_TRUE(same_values(o, o2)) << "threads changed bits";
    }
}

recurrence_data<float> positive_data() {
    recurrence_data<float> x(sizes);
    for (auto* t : {&x.q, &x.k})
        t->each([&](index_t b, index_t h, index_t n, index_t d) { (*t)(b, h, n, d) = std::abs((*t)(b, h, n, d)); });
    return x;
}

TEST(lasp, is_the_recurrence_however_it_is_cut) {
    const recurrence_data<float> x(sizes);
    cut_alike(x, plain, false);
    cut_alike(x, by_head, false, x.head_gate());
    cut_alike(x, by_token, false, x.token_gate());
    cut_alike(x, by_channel, false, x.channel_gate());
    cut_alike(x, by_token | before, false, x.token_gate(), read_before{});
    const auto positive = positive_data();
    cut_alike(positive, plain, true, sum_of_keys{});
    cut_alike(positive, by_token, true, positive.token_gate(), sum_of_keys{});
}

TEST(lasp, maps_rows_as_one_piece_does) {
    const recurrence_data<float> x(sizes);
    const auto cut_as_one = [&](index_t rows, const auto&... policies) {
        tensor<float> o({2, 4, 37, 19}), one(o.shape());
        state<float> whole(2, 2, rows, 19), s = whole;
        recurrence(x.q, x.k, x.v, one, whole, policies...);
        for (const auto& cuts : all_cuts) {
            s.clear();
            lasp(x.q, x.k, x.v, o, std::span<const index_t>(cuts), s, policies...);
            EXPECT_TRUE(all_near(o, one, 2e-5));
            EXPECT_TRUE(all_near(copied(s.values()), copied(whole.values()), 2e-5));
        }
    };
    cut_as_one(9, elu_plus_one{}, sum_of_keys{}, x.token_gate());
    cut_as_one(18, cosformer_features{40}, sum_of_keys{1});  // positions go on from part to part
    cut_as_one(9, gated_features{exp_features{}, numbers(x.token)}, x.channel_gate());
}

TEST(lasp, of_retention_is_retention) {
    const recurrence_data<float> x(sizes);
    tensor<float> o({2, 4, 37, 19}), one(o.shape());
    state<float> s(2, 2, 9, 19), cut = s;
    retention(x.q, x.k, x.v, one, retention_decay(1), s);
    for (const auto& cuts : all_cuts) {
        cut.clear();
        lasp(x.q, x.k, x.v, o, std::span<const index_t>(cuts), retention_decay(1), cut);
        EXPECT_TRUE(all_near(o, one, 2e-5));
        EXPECT_TRUE(all_near(copied(cut.values()), copied(s.values()), 2e-5));
    }
}

TEST(lasp, normalises_heads) {
    const recurrence_data<float> x(sizes);
    tensor<float> o({2, 4, 37, 19}), one(o.shape());
    retention(x.q, x.k, x.v, one, centred{1e-3});
    lasp(x.q, x.k, x.v, o, 3, retention_decay{}, centred{1e-3});
    EXPECT_TRUE(all_near(o, one, 2e-4));
}

TEST(lasp, forgets_everything_where_a_gate_is_shut) {
    recurrence_data<float> x(sizes);
    x.token(0, 0, 20, 0) = -std::numeric_limits<float>::infinity();
    tensor<float> o({2, 4, 37, 19}), one({2, 4, 37, 19});
    recurrence(x.q, x.k, x.v, one, x.token_gate());
    for (index_t parts : {1, 2, 3, 5}) {
        lasp(x.q, x.k, x.v, o, parts, x.token_gate());
        EXPECT_TRUE(all_near(o, one, 2e-5)) << parts;
    }
}

TEST(lasp, is_causal_to_the_bit) {
    recurrence_data<float> x(sizes);
    tensor<float> before({2, 4, 37, 19}), after({2, 4, 37, 19});
    lasp(x.q, x.k, x.v, before, 3, x.token_gate());
    const float nan = std::numeric_limits<float>::quiet_NaN();
    for (index_t b = 0; b < 2; ++b)
        for (index_t h = 0; h < 2; ++h)
            for (index_t n = 30; n < 37; ++n) x.k(b, h, n, 3) = x.v(b, h, n, 2) = nan;
    lasp(x.q, x.k, x.v, after, 3, x.token_gate());
    EXPECT_TRUE(same_values(copied(slice(before.v(), 2, {0, 30})), copied(slice(after.v(), 2, {0, 30}))));
}

TEST(lasp, refuses) {
    const recurrence_data<float> x(sizes);
    tensor<float> o({2, 4, 37, 19});
    const std::vector<index_t> shorter{0, 36}, falling{0, 9, 8, 37};
    refuses<argument_error>([&] { lasp(x.q, x.k, x.v, o, std::span<const index_t>(shorter)); },
                            "do not go from 0 to the 37");
    refuses<argument_error>([&] { lasp(x.q, x.k, x.v, o, std::span<const index_t>(falling)); },
                            "cuts fall from 9 to 8");
    refuses<argument_error>([&] { lasp(x.q, x.k, x.v, o, 0); }, "0 parts");
    refuses<shape_error>([&] { lasp(x.q, x.k, x.v, slice(o.v(), 2, {0, 36}), 2); }, "lasp");
    o.each(
        [&](index_t b, index_t h, index_t n, index_t e) { EXPECT_TRUE(std::isnan(o(b, h, n, e))) << "was written"; });
}

}  // namespace
