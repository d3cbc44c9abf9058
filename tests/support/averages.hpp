// The moving average in front of Mega and SeqBoat, by its definition: forward, and from the other end if it is wanted.
#pragma once

#include <heed/ops/ema.hpp>
#include <heed/ref/modes.hpp>

#include "sequence.hpp"

namespace test {

/// alpha, delta, beta and gamma, (1, 1, C, S) each.
using ema_tensors = std::array<tensor<float>, 4>;

inline ema_tensors random_average(index_t C, index_t S, std::uint64_t seed) {
    ema_tensors p;
    for (auto& t : p) t = normal<float>({1, 1, C, S}, seed++);
    return p;
}
inline ema_parameters<float> parameters_of(const ema_tensors& p) {
    return {matrix(p[0]), matrix(p[1]), matrix(p[2]), matrix(p[3])};
}

/// silu of the averages of x (B, 1, N, C) and omega x.
inline tensor<double> averaged(const tensor<float>& x, const ema_tensors& ahead, const ema_tensors* back,
                               const tensor<float>& omega) {
    const auto u = in<double>(x);
    const index_t S = ahead[0].shape()[3];
    tensor<double> m(x.shape());
    m.fill([](index_t) { return 0; });
    for (const ema_tensors* p : {&ahead, back}) {
        if (!p) continue;
        tensor<double> part(x.shape());
        ref::diagonal_ssm<double, double>(
            seq(u), seq(part), S,
            [&](index_t c, index_t n) {
                const auto at = [&](int i) {
                    return static_cast<double>((*p)[static_cast<std::size_t>(i)](0, 0, c, n));
                };
                return ref::ema_mode<double>(at(0), at(1), at(2), at(3), S);
            },
            [&](index_t c) { return p == back ? 0.0 : static_cast<double>(omega(0, 0, 0, c)); }, {}, false,
            {{}, p == back});
        m.each([&](index_t b, index_t h, index_t n, index_t c) { m(b, h, n, c) += part(b, h, n, c); });
    }
    m.each([&](index_t b, index_t h, index_t n, index_t c) { m(b, h, n, c) *= ref::sigmoid(m(b, h, n, c)); });
    return m;
}

}  // namespace test
