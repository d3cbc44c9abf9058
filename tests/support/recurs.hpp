// Recurrences by the engine against their definition: outputs and final states, within the rule for values.
#pragma once

#include "compare.hpp"
#include "naive_chunks.hpp"
#include "recurrence_data.hpp"

namespace test {

/// Outputs and the state after them; z, where there is one, is the state's last column.
template <class T, class S>
struct recurred {
    tensor<T> o;
    tensor<S> state;
};

template <class T, class S>
testing::AssertionResult same_values(const recurred<T, S>& a, const recurred<T, S>& b) {
    auto same = same_values(a.o, b.o);
    return same ? same_values(a.state, b.state) : same;
}

/// A state to begin with, z included: (sequences, Hs, rows, E + 1).
template <class S>
tensor<S> beginning(index_t sequences, index_t Hs, index_t rows, index_t E) {
    auto s = normal<S>({sequences, Hs, rows, E + 1}, 99);
    s.each([&](index_t b, index_t h, index_t d, index_t e) {
        if (e == E) s(b, h, d, e) = std::abs(s(b, h, d, e));
    });
    return s;
}

/// What run(q, k, v, o, state) makes from the state `from`.
template <class T, class S, class Run>
recurred<T, S> run_from(const tensor<S>& from, const tensor<T>& q, const tensor<T>& k, const tensor<T>& v,
                        const Run& run) {
    const auto [sequences, Hs, rows, columns] = from.shape();
    const index_t E = v.shape()[3];
    state<S> carried(sequences, Hs, rows, E);
    const auto S_ = carried.values();
    const auto z = carried.key_sums();
    from.each([&](index_t b, index_t h, index_t d, index_t e) {
        e < E ? S_(b, h, d, e) = from(b, h, d, e) : z(b, h, d) = from(b, h, d, e);
    });
    recurred<T, S> r{tensor<T>({q.shape()[0], std::max(q.shape()[1], Hs), q.shape()[2], E}), tensor<S>(from.shape())};
    run(q.v(), k.v(), v.v(), r.o.v(), carried);
    r.state.each(
        [&](index_t b, index_t h, index_t d, index_t e) { r.state(b, h, d, e) = e < E ? S_(b, h, d, e) : z(b, h, d); });
    return r;
}

/// The engine, from the state `from`.
template <class T, class S, class... P>
recurred<T, S> recur_from(const tensor<S>& from, const tensor<T>& q, const tensor<T>& k, const tensor<T>& v,
                          const P&... policies) {
    return run_from(from, q, k, v, [&](auto q_, auto k_, auto v_, auto o, state<S>& carried) {
        recurrence(q_, k_, v_, o, policies..., carried);
    });
}

/// The naive loops a kernel is measured by.
struct token_by_token {
    template <class Real, class... Views>
    void operator()(const ref::recurrence_options<Real>& with, const auto& state, const Views&... operands) const {
        ref::naive_recurrence<Real>(operands..., with, state);
    }
};
struct in_chunks {
    index_t tokens;
    template <class Real, class... Views>
    void operator()(const ref::recurrence_options<Real>& with, const auto& state, const Views&... operands) const {
        naive_chunks<Real>(operands..., with, state, tokens);
    }
};

/// run(q, k, v, o, state), from some state, against the definition with make(Real{}).
template <class Naive, class T, class Make, class Run>
testing::AssertionResult runs_by(const Naive& naive, const tensor<T>& q, const tensor<T>& k, const tensor<T>& v,
                                 Make make, const Run& run) {
    using S = accumulator<T>;
    using R = definition_of<S>;
    const auto exactly = make(R{});
    const index_t Hs = std::max(k.shape()[1], v.shape()[1]), E = v.shape()[3];
    const index_t sequences = exactly.offsets.empty() ? q.shape()[0] : static_cast<index_t>(exactly.offsets.size()) - 1;
    const index_t F = exactly.key_features
                          ? static_cast<index_t>(
                                exactly.key_features(std::vector<R>(static_cast<std::size_t>(q.shape()[3])), 0).size())
                          : q.shape()[3];
    const auto from = beginning<S>(sequences, Hs, exactly.phase ? 2 * F : F, E);
    const auto got = run_from(from, q, k, v, run);

    const auto cut = [&](auto& s) { return slice(s.v(), 3, {0, exactly.normalised ? E + 1 : E}); };
    tensor<R> o(got.o.shape()), s(from.shape());
    tensor<T> naive_o(got.o.shape());
    tensor<S> naive_s = from;
    s.each([&](index_t b, index_t h, index_t d, index_t e) { s(b, h, d, e) = from(b, h, d, e); });
    ref::naive_recurrence<R>(q.v(), k.v(), v.v(), o.v(), exactly, cut(s));
    naive(make(S{}), cut(naive_s), q.v(), k.v(), v.v(), naive_o.v());
    auto held = within_rule<S>(got.o, naive_o, o);
    if (!held) return held << " (o)";
    held = within_rule<S>(got.state, naive_s, s);
    return held ? held : held << " (state)";
}

/// The engine with policies in place of run.
template <class Naive, class T, class Make, class... P>
testing::AssertionResult recurs_by(const Naive& naive, const tensor<T>& q, const tensor<T>& k, const tensor<T>& v,
                                   Make make, const P&... policies) {
    return runs_by(naive, q, k, v, make, [&](auto q_, auto k_, auto v_, auto o, auto& carried) {
        recurrence(q_, k_, v_, o, policies..., carried);
    });
}

template <class T, class Make, class... P>
testing::AssertionResult recurs(const tensor<T>& q, const tensor<T>& k, const tensor<T>& v, Make make,
                                const P&... policies) {
    return recurs_by(token_by_token{}, q, k, v, make, policies...);
}
template <class T, class... P>
testing::AssertionResult recurs(const recurrence_data<T>& x, unsigned parts, const P&... policies) {
    return recurs(x.q, x.k, x.v, x.defined(parts), policies...);
}

}  // namespace test
