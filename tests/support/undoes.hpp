// Tokens undone by a rollback against the tokens that remain, stepped one by one.
#pragma once

#include <heed/engine/rollback.hpp>

#include "recurs.hpp"

namespace test {

inline const recurrence_sizes sizes{2, 4, 2, 4, 12, 9, 19};

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

}  // namespace test
