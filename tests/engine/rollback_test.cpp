// heed_test: LABELS sanitize
// Undoing tokens: the state is that of the tokens that remain, stepped one by one, to the bit. And a state written
// without being read, and read without being written.
#include <heed/engine/rollback.hpp>
#include <heed/policy/feature_gate.hpp>

#include "recurs.hpp"
#include "refuses.hpp"

namespace {

using namespace heed;
using namespace test;

const recurrence_sizes sizes{2, 4, 2, 4, 12, 9, 19};

template <class T>
tensor<T> values_of(const state<T>& s) {
    const index_t E = s.shape()[3];
    tensor<T> t({s.shape()[0], s.shape()[1], s.shape()[2], E + 1});
    t.each([&](index_t b, index_t h, index_t d, index_t e) {
        t(b, h, d, e) = e < E ? s.values()(b, h, d, e) : s.key_sums()(b, h, d);
    });
    return t;
}

/// The tokens [from, to) of what has rows on axis 2.
template <class S, std::size_t Rank>
view<const S, Rank> cut(view<const S, Rank> x, range r) {
    return slice(x, 2, r);
}

/// For rings of r tokens and calls of `call` tokens: n tokens undone after every call leave the bits of single steps.
/// at(tokens) gives the policies of these tokens.
template <class Make>
void undoes(const recurrence_data<float>& x, const Make& at, index_t state_rows = sizes.D, index_t steps = 1) {
    const index_t N = x.s.N, Hs = x.s.Hs(), E = x.s.E;
    tensor<float> o({x.s.B, x.s.Ho(), N, E});
    const auto keys = [&](range r) { return slice(x.k.v(), 2, {r.first * steps, r.last * steps}); };
    const auto values = [&](range r) { return slice(x.v.v(), 2, {r.first * steps, r.last * steps}); };
    const auto rows = [&](auto v, range r) { return slice(v, 2, r); };
    state<float> fresh(x.s.B, Hs, state_rows, E);
    std::vector<tensor<float>> after{values_of(fresh)};  // of single steps
    state<float> one = fresh;
    for (index_t t = 0; t < N; ++t) {
        const range r{t, t + 1};
        at(r, [&](const auto&... p) { step(one, rows(x.q.v(), r), keys(r), values(r), rows(o.v(), r), p...); });
        after.push_back(values_of(one));
    }
    for (index_t r = 0; r <= 5; ++r)
        for (index_t n = 0; n <= r; ++n)
            for (index_t call : {1, 3}) {
                SCOPED_TRACE(testing::Message() << "ring " << r << ", undone " << n << ", tokens a call " << call);
                at(range{0, 1}, [&](const auto&... like) {
                    rollback undo(fresh, r, keys({0, 1}), values({0, 1}), like...);
                    index_t t = 0;
                    for (int round = 0; t + call <= N && round < 6; ++round) {
                        const range tokens{t, t + call};
                        at(tokens, [&](const auto&... p) {
                            undo.step(rows(x.q.v(), tokens), keys(tokens), values(tokens), rows(o.v(), tokens), p...);
                        });
                        t += call;
                        if (n > undo.undoable()) continue;
                        undo.undo(n);
                        t -= n;
                        if (call == 1 || n > 0) {
                            EXPECT_TRUE(same_values(values_of(undo.now()), after[static_cast<std::size_t>(t)])) << t;
                        }
                    }
                });
            }
}

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

TEST(rollback, keeps_what_feature_maps_know_of_tokens) {
    const recurrence_data<float> x(sizes);
    const auto gate = uniform<float>({2, 2, 12, 1}, 20, -2, 0), weight = uniform<float>({2, 4, 12, 1}, 21, -1, 2);
    const auto gates = [&](range r) { return cut(numbers(gate), r); };
    undoes(x, [&](range r, const auto& f) { f(gated_features{elu_plus_one{}, gates(r)}, sum_of_keys{}); });
    undoes(x, [&](range r, const auto& f) { f(weighted_update{cut(numbers(weight), r)}, x.head_gate()); });
    undoes(
        x, [&](range r, const auto& f) { f(cosformer_features(12, r.first), sum_of_keys{}); }, 2 * sizes.D);
    undoes(
        x,
        [&](range r, const auto& f) {
            f(gated_features{cosformer_features(12, r.first), gates(r)}, token_decay{cut(numbers(x.token), r)});
        },
        2 * sizes.D);
    auto two = sizes;
    two.steps = 2;
    const recurrence_data<float> y(two);
    undoes(
        y,
        [&](range r, const auto& f) {
            const householder update(cut(numbers(y.beta), {2 * r.first, 2 * r.last}), 2);
            f(gated_features{relu_features{}, gates(r)}, update);
        },
        sizes.D, 2);
}

/// Sequences of a batch keep numbers of their own of the two tokens they are given: each has the state of those it
/// kept, to the bit. make(data, r, f) calls f with the policies of the tokens r of data.
template <class Make>
void undoes_each(const recurrence_data<float>& x, const Make& make) {
    auto y = x;  // what comes next of each sequence
    const auto next_of = [&](index_t b, index_t t) {
        const auto bring = [&](tensor<float>& to, const tensor<float>& from) {
            to.each([&](index_t c, index_t h, index_t n, index_t d) {
                if (c == b && n < 2) to(b, h, n, d) = from(b, h, t + n, d);
            });
        };
        bring(y.q, x.q), bring(y.k, x.k), bring(y.v, x.v), bring(y.token, x.token), bring(y.beta, x.beta);
    };
    tensor<float> o({2, 4, 2, x.s.E});
    const auto stepped = [&](range r, const auto& f) {
        const auto of = [&](auto& t) { return slice(t.v(), 2, r); };
        make(y, r, [&](const auto&... p) { f(of(y.q), of(y.k), of(y.v), of(o), p...); });
    };
    const state<float> fresh(2, 4, x.s.D, x.s.E);
    std::vector<tensor<float>> after;  // of single steps
    state<float> one = fresh;
    for (index_t t = 0; t + 1 < x.s.N; ++t) {
        after.push_back(values_of(one));
        next_of(0, t), next_of(1, t);
        stepped({0, 1}, [&](const auto&... operands) { step(one, operands...); });
    }
    const auto run = [&](const std::vector<index_t>& refused) {
        SCOPED_TRACE(testing::PrintToString(refused));
        stepped({0, 2}, [&](const auto&, auto k, auto v, auto, const auto&... like) {
            rollback undo(fresh, 5, k, v, like...);
            index_t at[] = {0, 0};
            const auto expect = [&](index_t s, index_t tokens) {
                const auto of = [&](const tensor<float>& t) { return copied(slice(t.v(), 0, {s, s + 1})); };
                const auto got = of(values_of(undo.now())), wanted = of(after[static_cast<std::size_t>(tokens)]);
                const bool replayed = refused[static_cast<std::size_t>(s)] > 0;  // else by two tokens a step
                EXPECT_TRUE(replayed ? same_values(got, wanted) : all_near(got, wanted, 1e-5));
            };
            for (int round = 0; round < 5; ++round) {
                next_of(0, at[0]), next_of(1, at[1]);
                stepped({0, 2}, [&](const auto&... operands) { undo.step(operands...); });
                const index_t before = undo.undoable();
                undo.undo(refused);
                EXPECT_EQ(undo.undoable(), before - std::max(refused[0], refused[1]));
                for (index_t s : {0, 1}) expect(s, at[s] += 2 - refused[static_cast<std::size_t>(s)]);
            }
            const index_t rest = undo.undoable();
            undo.undo(rest);
            for (index_t s : {0, 1}) expect(s, at[s] - rest);
        });
    };
    for (index_t a = 0; a <= 2; ++a)
        for (index_t b = 0; b <= 2; ++b) run({a, b});
}

TEST(rollback, of_each_sequence_by_itself) {
    const recurrence_data<float> x(sizes);
    undoes_each(x, [](const auto& y, range r, const auto& f) {
        f(delta_rule{cut(numbers(y.beta), r)}, token_decay{cut(numbers(y.token), r)});
    });
    undoes_each(x, [](const auto& y, range r, const auto& f) {
        f(gated_features{elu_plus_one{}, cut(numbers(y.token), r)}, sum_of_keys{});
    });
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

}  // namespace
