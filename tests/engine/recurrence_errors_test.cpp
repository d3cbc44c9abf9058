// Malformed calls say what is wrong with which numbers, before anything is written; empty extents are valid.
#include "recurs.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

/// A sound call, of which each test spoils something; nothing may be written then.
struct call {
    tensor<float> q{{2, 4, 5, 6}}, k{{2, 2, 5, 6}}, v{{2, 2, 5, 3}}, o{{2, 4, 5, 3}};
    tensor<float> one{{2, 2, 5, 1}}, row{{2, 2, 5, 6}}, column{{2, 2, 5, 3}};
    call() {
        for (auto* x : {&q, &k, &v, &one, &row, &column}) x->fill([](index_t) { return -0.5; });
        o.fill([](index_t) { return 7; });
    }
    template <class Error = shape_error, class... P>
    void refused(const std::string& words, P&&... policies) {
        refuses<Error>([&] { recurrence(q, k, v, o, policies...); }, words);
        o.each([&](index_t b, index_t h, index_t n, index_t e) { ASSERT_EQ(o(b, h, n, e), 7); });
    }
};

TEST(recurrence_errors, operands) {
    call c;
    c.k = tensor<float>({3, 2, 5, 6}), c.refused("recurrence: k has batch 3, q has 2"), c = {};
    c.k = tensor<float>({2, 2, 4, 6}), c.refused("recurrence: k has tokens 4, q has 5"), c = {};
    c.v = tensor<float>({2, 2, 4, 3}), c.refused("recurrence: v has tokens 4, k has 5"), c = {};
    c.k = tensor<float>({2, 2, 5, 7}), c.refused("recurrence: k has width 7, q has 6"), c = {};
    c.v = tensor<float>({2, 3, 5, 3}), c.refused("recurrence: k has 2 heads"), c = {};
    c.q = tensor<float>({2, 3, 5, 6}), c.refused("recurrence: q has 3 heads"), c = {};
    c.v = tensor<float>({2, 2, 5, 4}), c.refused("recurrence: o has width 3, v has 4"), c = {};
    auto o = c.o.v();
    o.shape[1] = 2;
    refuses<shape_error>([&] { recurrence(c.q, c.k, c.v, o); }, "o has heads 2");
    o = c.o.v();
    o.strides[2] = 0;
    refuses<shape_error>([&] { recurrence(c.q, c.k, c.v, o); }, "o has stride 0 on axis 2 of extent 5");
    refuses<shape_error>([&] { recurrence(c.q, c.k, c.v, slice(c.q.v(), 3, {0, 3})); }, "o overlaps q");
    auto negative = c.q.v();
    negative.shape[2] = -1;
    refuses<shape_error>([&] { recurrence(negative, c.k, c.v, c.o); }, "negative: -1");
}

TEST(recurrence_errors, gates) {
    call c;
    const auto cut = [](const tensor<float>& x, std::size_t axis, range r) { return slice(x.v(), axis, r); };
    c.refused("channel_decay has batch 1, q has 2", channel_decay{cut(c.row, 0, {0, 1})});
    c.refused("channel_decay has 4 tokens", channel_decay{cut(c.row, 2, {0, 4})});
    c.refused("channel_decay has 5 key channels, the state has 6", channel_decay{cut(c.row, 3, {0, 5})});
    c.refused("value_decay has 6 value channels, the state has 3", value_decay{c.row.v()});
    const tensor<float> three({2, 3, 5, 1});
    c.refused("token_decay has 3 heads, which do not divide the 2 of the state", token_decay{numbers(three)});
    c.refused("delta_rule's beta has 3 heads, which do not divide the 2 of the state", delta_rule{numbers(three)});
    const std::vector<float> heads(3, -1.0f);
    c.refused("head_decay has 3 heads, which do not divide the 2 of the state", head_decay{heads});
    c.refused("low_rank's b has width 3", low_rank{c.row.v(), c.column.v()});
    c.refused("complex_decay's phase has 3 key channels, the state has 6", complex_decay{c.row.v(), c.column.v()});
    c.refused("k has tokens 5, q, times the factors, has 10", householder{numbers(c.one), 2});
    c.refused<argument_error>("householder has 0 factors, the least is 1", householder{numbers(c.one), 0});
    const float u[6] = {};
    c.refused("bonus has width 2, the state has 6 rows", bonus{dense(u, {2, 2})});
    c.refused("bonus has 3 heads, which do not divide the 2 of the state", bonus{dense(u, {3, 2})});
}

TEST(recurrence_errors, decays_above_0) {
    call c;
    c.one(1, 1, 4, 0) = c.row(1, 1, 4, 5) = c.column(1, 1, 4, 2) = 0.25;
    c.refused<argument_error>("token_decay has a log decay of 0.25, the most is 0", token_decay{numbers(c.one)});
    c.refused<argument_error>("channel_decay has a log decay of 0.25, the most is 0", channel_decay{c.row.v()});
    c.refused<argument_error>("value_decay has a log decay of 0.25, the most is 0", value_decay{c.column.v()});
    c.refused<argument_error>("complex_decay's magnitude has a log decay of 0.25, the most is 0",
                              complex_decay{c.row.v(), c.row.v()});
    const std::vector<float> heads{0, 0.5f};
    c.refused<argument_error>("head_decay has a log decay of 0.5, the most is 0", head_decay{heads});
}

TEST(recurrence_errors, states) {
    call c;
    const auto check = [&](state<float> s, const std::string& words) {
        const state<float> kept = s;
        c.refused(words, s);
        EXPECT_TRUE(same_values(copied(s.values()), copied(kept.values())));
    };
    check({1, 2, 6, 3}, "the state has 1 sequences, the call needs 2");
    check({2, 4, 6, 3}, "the state has 4 heads, the call needs 2");
    check({2, 2, 5, 3}, "the state has 5 rows, the call needs 6");
    check({2, 2, 6, 4}, "the state has 4 columns, the call needs 3");
    refuses<shape_error>([] { state<float>(1, -2, 3, 4); }, "state: extent -2 is negative");
    state<float> s(2, 2, 6, 3);
    refuses<shape_error>([&] { s.assign(c.q.v()); }, "state: assigned (2, 4, 5, 6), is (2, 2, 6, 3)");
    state<float> other(2, 2, 6, 4);
    refuses<shape_error>([&] { step(other, c.q.v(), c.k.v(), c.v.v(), c.o.v()); }, "step: the state has 4 columns");
}

TEST(recurrence_errors, packing_and_forms) {
    call c;
    const std::vector<index_t> whole{0, 5};
    c.refused("packed sequences are in one batch entry, q has 2", packed{whole});
    const auto first = [](const tensor<float>& x) { return slice(x.v(), 0, {0, 1}); };
    const auto refused = [&](const std::vector<index_t>& offsets, const std::string& words) {
        try {
            recurrence(first(c.q), first(c.k), first(c.v), slice(c.o.v(), 0, {0, 1}), packed{offsets});
            ADD_FAILURE() << "no error with: " << words;
        } catch (const std::invalid_argument& e) {
            EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what();
        }
    };
    refused({}, "packed offsets do not begin with 0");
    refused({1, 5}, "packed offsets do not begin with 0");
    refused({0, 4, 3, 5}, "packed offsets fall from 4 to 3");
    refused({0, 4}, "packed offsets end at 4, there are 5 tokens");
    c.refused<argument_error>("chunked has 0 tokens, the least is 1", chunked{0});
}

TEST(recurrence_errors, empty_extents_are_valid) {
    for (recurrence_sizes s : {recurrence_sizes{0, 2, 2, 2, 3, 4, 5}, recurrence_sizes{2, 2, 2, 2, 0, 4, 5},
                               recurrence_sizes{2, 2, 2, 2, 3, 4, 0}, recurrence_sizes{2, 2, 2, 2, 30, 0, 5}}) {
        SCOPED_TRACE(testing::Message() << s);
        const recurrence_data<float> x(s);
        EXPECT_TRUE(recurs(x, by_channel, x.channel_gate()));
        EXPECT_TRUE(recurs(x, by_channel, x.channel_gate(), chunked{16}));
        EXPECT_TRUE(recurs(x, by_token | delta, x.token_gate(), x.delta_update()));
    }
    const tensor<float> none({2, 0, 3, 4});
    tensor<float> o({2, 0, 3, 4});
    recurrence(none, none, none, o);
}

TEST(recurrence_errors, what_has_no_elements_needs_no_memory) {
    const recurrence_data<float> x({2, 2, 2, 2, 30, 4, 5});
    const view<float> nothing = heads(static_cast<float*>(nullptr), {2, 2, 30, 0});
    const view<const float> no_rows(nothing);
    state<float> no_columns(2, 2, 4, 0), s(2, 2, 0, 5);
    recurrence(x.q.v(), x.k.v(), no_rows, nothing, x.channel_gate(), no_columns);
    recurrence(x.q.v(), x.k.v(), no_rows, nothing, value_decay{no_rows}, chunked{16}, rms{});
    tensor<float> o({2, 2, 30, 5});
    recurrence(no_rows, no_rows, x.v.v(), o, low_rank{no_rows, no_rows}, channel_decay{no_rows}, s);
    o.each([&](index_t b, index_t h, index_t n, index_t e) { EXPECT_EQ(o(b, h, n, e), 0); });
}

}  // namespace
