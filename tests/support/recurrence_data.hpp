// Operands and gates of recurrences, the policies over them, and their definitions.
#pragma once

#include <heed/engine/recurrence.hpp>
#include <heed/policy/score.hpp>
#include <heed/ref/recurrence.hpp>

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

}  // namespace test
