// heed_test: LABELS sanitize
// Undoing tokens: the state is that of the tokens that remain, stepped one by one, to the bit. And a state written
// without being read, and read without being written.
#include "refuses.hpp"
#include "undoes.hpp"

namespace {

using namespace heed;
using namespace test;

TEST(rollback, leaves_the_bits_of_the_tokens_that_remain) {
    const recurrence_data<float> x(sizes);
    undoes(x, [](range, const auto& f) { f(elu_plus_one{}, sum_of_keys{}); });
    undoes(x, [&](range, const auto& f) { f(x.head_gate(), scale{0.5}); });
    undoes(x, [&](range r, const auto& f) { f(token_decay{cut(numbers(x.token), r)}, read_before{}); });
    undoes(x, [&](range r, const auto& f) {
        f(delta_rule{cut(numbers(x.beta), r)}, token_decay{cut(numbers(x.token), r)});
    });
}

TEST(rollback, keeps_rows_of_gates) {
    const recurrence_data<float> x(sizes);
    undoes(x, [&](range r, const auto& f) {
        f(low_rank{cut(x.a.v(), r), cut(x.b.v(), r)}, channel_decay{cut(x.channel.v(), r)});
    });
    undoes(
        x,
        [&](range r, const auto& f) {
            f(complex_decay{cut(x.channel.v(), r), cut(x.angle.v(), r)});
        },
        2 * sizes.D);
    auto two = sizes;
    two.steps = 2;
    const recurrence_data<float> y(two);
    undoes(
        y,
        [&](range r, const auto& f) {
            f(householder{cut(numbers(y.beta), {2 * r.first, 2 * r.last}), 2}, value_decay{cut(y.column.v(), r)});
        },
        sizes.D, 2);
}

TEST(rollback, of_a_state_without_rows_or_columns) {
    for (const auto& [D, E] : {std::pair<index_t, index_t>{0, 19}, {9, 0}}) {
        auto shape = sizes;
        shape.D = D, shape.E = E;
        const recurrence_data<float> x(shape);
        undoes(x, [&](range r, const auto& f) { f(channel_decay{cut(x.channel.v(), r)}); }, D);
        undoes(x, [&](range r, const auto& f) { f(value_decay{cut(x.column.v(), r)}); }, D);
        undoes(x, [&](range r, const auto& f) { f(low_rank{cut(x.a.v(), r), cut(x.b.v(), r)}); }, D);
    }
}

TEST(rollback, refuses) {
    const recurrence_data<float> x(sizes);
    const state<float> s(2, 4, 9, 19);
    const auto k = slice(x.k.v(), 2, {0, 1}), v = slice(x.v.v(), 2, {0, 1});
    rollback undo(s, 3, k, v);
    tensor<float> o({2, 4, 1, 19});
    undo.step(slice(x.q.v(), 2, {0, 1}), k, v, o);
    refuses<argument_error>([&] { undo.undo(2); }, "rollback: 2 tokens are to be undone, 1 can be");
    const std::vector<index_t> too_many{0, 2}, one{1};
    refuses<argument_error>([&] { undo.undo(too_many); }, "rollback: 2 tokens are to be undone, 1 can be");
    refuses<shape_error>([&] { undo.undo(one); }, "rollback: there are 1 numbers of tokens, 2 sequences");
    refuses<argument_error>([&] { rollback bad(s, -1, k, v); }, "-1 tokens are to be kept");
    refuses<shape_error>(
        [&] {
            undo.step(slice(x.q.v(), 3, {0, 8}), slice(k, 3, {0, 8}), v, o);
        },
        "an operand has extent 8 on axis 3, was made for 9");
    EXPECT_EQ(undo.undoable(), 1);
}

TEST(absorb_and_recall, are_the_halves_of_a_recurrence) {
    auto shape = sizes;
    shape.Hv = 2, shape.N = 37;
    const recurrence_data<float> x(shape);
    const auto check = [&](auto order, const auto& whole_by, const auto& writes, const auto& reads) {
        state<float> whole(2, 2, 9, 19), half = whole;
        tensor<float> o({2, 4, 37, 19}), last({2, 4, 37, 19});
        std::apply([&](const auto&... p) { recurrence(x.q.v(), x.k.v(), x.v.v(), o.v(), whole, order, p...); },
                   whole_by);
        std::apply([&](const auto&... p) { absorb(half, x.k.v(), x.v.v(), p...); }, writes);
        EXPECT_TRUE(all_near(values_of(whole), values_of(half), 1e-5));
        const auto before = values_of(half);
        std::apply([&](const auto&... p) { recall(half, x.q.v(), last.v(), p...); }, reads);
        if (std::is_same_v<decltype(order), non_causal>) {
            EXPECT_TRUE(all_near(o, last, 2e-5));
        }
        EXPECT_TRUE(same_values(before, values_of(half)));
    };
    const std::tuple<> nothing;
    const std::tuple mapped(elu_plus_one{});
    const std::tuple normed(elu_plus_one{}, sum_of_keys{});
    check(non_causal{}, std::tuple(x.token_gate()), std::tuple(x.token_gate()), nothing);
    check(non_causal{}, normed, normed, normed);
    check(non_causal{}, std::tuple(x.delta_update(), scale{2}), std::tuple(x.delta_update()), std::tuple(scale{2}));
    const std::tuple delta_in_chunks(x.delta_update(), x.token_gate(), chunked{16});
    const std::tuple in_chunks(x.token_gate(), chunked{32});
    check(causal_order{}, in_chunks, in_chunks, mapped);
    check(non_causal{}, in_chunks, in_chunks, nothing);
    check(causal_order{}, delta_in_chunks, delta_in_chunks, mapped);
}

TEST(absorb_and_recall, of_complex_states) {
    auto shape = sizes;
    shape.N = 37, shape.D = 10;
    recurrence_data<float> x(shape);
    const auto reads_what_was_written = [&](index_t rows, const auto& gate, const auto&... features) {
        state<float> whole(2, 4, rows, 19), half = whole;
        tensor<float> o({2, 4, 37, 19}), last({2, 4, 37, 19});
        recurrence(x.q.v(), x.k.v(), x.v.v(), o.v(), whole, non_causal{}, gate, scale{2}, features...);
        absorb(half, x.k.v(), x.v.v(), gate, features...);
        if constexpr (sizeof...(features) > 0)
            recall(half, x.q.v(), last.v(), scale{2}, features...);
        else
            recall(half, x.q.v(), last.v(), scale{2}, complex_state{});
        EXPECT_TRUE(all_near(values_of(whole), values_of(half), 1e-5));
        EXPECT_TRUE(all_near(o, last, 2e-5));
    };
    reads_what_was_written(20, x.complex_gate());
    const auto channel = slice(x.channel.v(), 3, {0, 5}), angle = slice(x.angle.v(), 3, {0, 5});
    reads_what_was_written(10, complex_decay{channel, angle}, complex_rows{});
    const state<float> real(2, 4, 10, 19);
    tensor<float> o({2, 4, 37, 19});
    refuses<shape_error>([&] { recall(real, x.q.v(), o.v(), complex_state{}); },
                         "recall: the state has 10 rows, the call needs 20");
}

}  // namespace
