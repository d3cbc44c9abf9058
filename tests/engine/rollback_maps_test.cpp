// Undoing tokens of feature maps that know their tokens, of weighted updates, and of each sequence by itself.
#include <heed/policy/feature_gate.hpp>

#include "undoes.hpp"

namespace {

using namespace heed;
using namespace test;

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

}  // namespace
