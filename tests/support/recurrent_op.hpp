// Operators over the recurrence: outputs against the definition, and token by token against the whole.
#pragma once

#include "recurs.hpp"

namespace test {

/// The output of an operator, against the definition with make(Real{}).
template <class T, class Make>
testing::AssertionResult is_recurrence(const tensor<T>& got, const tensor<T>& q, const tensor<T>& k, const tensor<T>& v,
                                       Make make) {
    using R = definition_of<T>;
    tensor<R> exact(got.shape());
    tensor<T> naive(got.shape());
    ref::naive_recurrence<R>(q.v(), k.v(), v.v(), exact.v(), make(R{}));
    ref::naive_recurrence<T>(q.v(), k.v(), v.v(), naive.v(), make(T{}));
    return within_rule<T>(got, naive, exact);
}

/// run(tokens, o) on pieces of a sequence of N tokens, one after the other, with a state of its own to go on from,
/// gives `whole`, to within `by`.
template <class T, class Run>
testing::AssertionResult goes_on(const tensor<T>& whole, const Run& run, double by = 1e-5,
                                 std::vector<index_t> cuts = {0, 1, 2, 3, 20, 21}) {
    tensor<T> all(whole.shape());
    const index_t N = whole.shape()[2];
    while (cuts.back() < N) cuts.push_back(cuts.back() + 1);
    for (std::size_t i = 0; i + 1 < cuts.size() && cuts[i] < N; ++i) {
        const range tokens{cuts[i], std::min(cuts[i + 1], N)};
        run(tokens, slice(all.v(), 2, tokens));
    }
    return all_near(all, whole, by);
}

/// Some tokens of a tensor, or of numbers (b, h, n).
template <class T>
view<const T> part(const tensor<T>& x, range tokens) {
    return slice(x.v(), 2, tokens);
}
template <class T>
view<const T, 3> part_of_numbers(const tensor<T>& x, range tokens) {
    return slice(numbers(x), 2, tokens);
}

/// phi applied to rows, as the definition wants it: f(row) gives the features.
template <class R, class F>
void map_both(ref::recurrence_options<R>& with, const F& f) {
    with.query_features = [f](std::vector<R> x, index_t) { return f(std::move(x)); };
    with.key_features = with.query_features;
}

}  // namespace test
