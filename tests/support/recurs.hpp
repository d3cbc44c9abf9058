// Recurrences by the engine against their definition: outputs and final states, within the rule for values.
#pragma once

#include <heed/engine/recurrence.hpp>
#include <heed/policy/score.hpp>
#include <heed/ref/recurrence.hpp>

#include "compare.hpp"
#include "naive_chunks.hpp"
#include "random.hpp"

namespace test {

template <class T>
view<const T, 3> numbers(const tensor<T>& x) {
    const auto v = x.v();
    return {v.data, {v.shape[0], v.shape[1], v.shape[2]}, {v.strides[0], v.strides[1], v.strides[2]}};
}

/// Every row over its length, as the keys of delta rules are.
template <class T>
tensor<T> unit_rows(tensor<T> x) {
    const auto [B, H, N, D] = x.shape();
    for (index_t row = 0; row < B * H * N; ++row) {
        const index_t b = row / N / H, h = row / N % H, n = row % N;
        double sum = 1e-30;
        for (index_t d = 0; d < D; ++d) sum += std::pow(static_cast<double>(x(b, h, n, d)), 2);
        for (index_t d = 0; d < D; ++d)
            x(b, h, n, d) = static_cast<T>(static_cast<double>(x(b, h, n, d)) / std::sqrt(sum));
    }
    return x;
}

/// What of a recurrence_data a recurrence uses, for its definition.
enum : unsigned {
    plain = 0,
    by_head = 1,
    by_token = 2,
    by_channel = 4,
    by_value = 8,
    turning = 16,
    delta = 32,
    ranked = 64,
    before = 128,
    with_bonus = 256,
    backwards = 512,
    all_at_once = 1024,
};

struct recurrence_sizes {
    index_t B, Hq, Hk, Hv, N, D, E;
    index_t steps = 1, gates = 1;  // update rows of a token, heads of gates
    index_t Hs() const { return std::max(Hk, Hv); }
    index_t Ho() const { return std::max(Hq, Hs()); }
    friend std::ostream& operator<<(std::ostream& to, const recurrence_sizes& s) {
        return to << "B" << s.B << " H" << s.Hq << "," << s.Hk << "," << s.Hv << " N" << s.N << " D" << s.D << " E"
                  << s.E << " steps" << s.steps;
    }
};

/// Operands and gates of every kind; policies and definitions over them.
template <class T>
struct recurrence_data {
    recurrence_sizes s;
    tensor<T> q, k, v, token, channel, column, angle, beta, a, b, u;
    std::vector<T> head;

    explicit recurrence_data(const recurrence_sizes& size, std::uint64_t seed = 1, const layout& l = {})
        : s(size),
          q(normal<T>({s.B, s.Hq, s.N, s.D}, seed, 1, l)),
          k(unit_rows(normal<T>({s.B, s.Hk, s.N * s.steps, s.D}, seed + 1, 1, l))),
          v(normal<T>({s.B, s.Hv, s.N * s.steps, s.E}, seed + 2, 1, l)),
          token(uniform<T>({s.B, s.gates, s.N, 1}, seed + 3, -1, 0, l)),
          channel(uniform<T>({s.B, s.gates, s.N, s.D}, seed + 4, -1, 0, l)),
          column(uniform<T>({s.B, s.gates, s.N, s.E}, seed + 5, -1, 0, l)),
          angle(uniform<T>({s.B, s.gates, s.N, s.D}, seed + 6, -3, 3, l)),
          beta(uniform<T>({s.B, s.gates, s.N * s.steps, 1}, seed + 7, 0, 2, l)),
          a(normal<T>({s.B, s.gates, s.N, s.D}, seed + 8, 0.3 / std::sqrt(static_cast<double>(s.D) + 1), l)),
          b(normal<T>({s.B, s.gates, s.N, s.D}, seed + 9, 0.3, l)),
          u(normal<T>({1, s.gates, 1, s.D}, seed + 10)) {
        for (index_t h = 0; h < s.gates; ++h) head.push_back(static_cast<T>(-0.3 / static_cast<double>(h + 1)));
    }
    view<const T, 2> bonus_view() const { return {u.v().data, {s.gates, s.D}, {u.v().strides[1], u.v().strides[3]}}; }

    auto head_gate() const { return head_decay{head}; }
    auto token_gate() const { return token_decay{numbers(token)}; }
    auto channel_gate() const { return channel_decay{channel.v()}; }
    auto value_gate() const { return value_decay{column.v()}; }
    auto complex_gate() const { return complex_decay{channel.v(), angle.v()}; }
    auto delta_update() const { return delta_rule{numbers(beta)}; }
    auto low_rank_update() const { return low_rank{a.v(), b.v()}; }
    auto householder_update() const { return householder{numbers(beta), s.steps}; }
    auto bonus_read() const { return bonus{bonus_view()}; }

    /// The options of the definition, by the arithmetic of their argument.
    auto defined(unsigned parts) const {
        return [this, parts](auto real) {
            using R = decltype(real);
            const index_t Hs = s.Hs();
            ref::recurrence_options<R> with;
            if (parts & by_head)
                with.key_decay = [this, Hs](index_t, index_t h, index_t, index_t) {
                    return static_cast<R>(head[static_cast<std::size_t>(h * s.gates / Hs)]);
                };
            if (parts & by_token) with.key_decay = ref::gate_of<R>(token.v(), Hs);
            if (parts & (by_channel | turning)) with.key_decay = ref::gate_of<R>(channel.v(), Hs);
            if (parts & turning) with.phase = ref::gate_of<R>(angle.v(), Hs);
            if (parts & by_value) with.value_decay = ref::gate_of<R>(column.v(), Hs);
            if (parts & delta) with.beta = ref::gate_of<R>(beta.v(), Hs);
            if (parts & ranked) with.a = ref::gate_of<R>(a.v(), Hs), with.b = ref::gate_of<R>(b.v(), Hs);
            if (parts & with_bonus)
                with.bonus = [this, Hs](index_t h, index_t d) { return static_cast<R>(u(0, h * s.gates / Hs, 0, d)); };
            with.read_before = parts & before;
            with.reversed = parts & backwards;
            with.non_causal = parts & all_at_once;
            return with;
        };
    }
};

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
