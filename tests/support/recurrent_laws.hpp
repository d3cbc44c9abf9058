// Laws of bits that every recurrence keeps, over run(data, on{...} or nothing) -> o (B, Ho, N, E).
#pragma once

#include <heed/core/threads.hpp>

#include "recurs.hpp"

namespace test {

/// No row of the output feels a later token, whatever that holds: large numbers, NaN or infinities, and shut gates.
template <class Run>
void feels_no_suffix(const recurrence_data<float>& x, const Run& run) {
    const index_t N = x.s.N;
    const auto before_it = run(x);
    for (index_t t : {1, 5, 15, 16, 17, 33, 64, 99})
        for (double poison : {1e4, std::nan(""), double(INFINITY)}) {
            if (t >= N) continue;
            auto y = x;
            const auto spoil = [&](tensor<float>& p, double by) {
                const index_t first = t * (p.shape()[2] / N);  // a token may have several rows
                p.each([&](index_t b, index_t h, index_t n, index_t d) {
                    if (n >= first) p(b, h, n, d) = static_cast<float>(by);
                });
            };
            for (auto* p : {&y.q, &y.k, &y.v, &y.beta, &y.a, &y.b, &y.angle}) spoil(*p, poison);
            for (auto* p : {&y.token, &y.channel, &y.column}) spoil(*p, poison > 0 ? -poison : poison);
            const auto after_it = run(y);
            before_it.each([&](index_t b, index_t h, index_t n, index_t e) {
                if (n < t) {
                    ASSERT_EQ(before_it(b, h, n, e), after_it(b, h, n, e))
                        << "t " << t << " row " << n << " poison " << poison;
                }
            });
        }
}

/// The bits of one thread are those of any executor.
template <class Run>
void same_for_any_executor(const recurrence_data<float>& x, const Run& run) {
    const auto alone = run(x);
    for (index_t n : {1, 2, 3, 8}) {
        threads pool(n);
        EXPECT_TRUE(same_values(alone, run(x, on{pool}))) << n << " threads";
    }
    executor_adapter backwards(5, [](index_t n, task_ref f) {
        for (index_t i = n; i-- > 0;) f(i);
    });
    EXPECT_TRUE(same_values(alone, run(x, on{backwards})));
}

/// call(data, o, on{...} or nothing), an operator, keeps both laws.
template <class Call>
void operator_keeps_its_bits(const recurrence_sizes& sizes, const Call& call) {
    const recurrence_data<float> x(sizes);
    const auto run = [&](const recurrence_data<float>& d, const auto&... context) {
        tensor<float> o({d.s.B, d.s.Ho(), d.s.N, d.s.E});
        call(d, o, context...);
        return o;
    };
    feels_no_suffix(x, run);
    same_for_any_executor(x, run);
}

/// recurrence with the policies that each f(data) makes.
template <class... F>
auto recurring(const F&... policies) {
    return [=](const recurrence_data<float>& d, const auto&... context) {
        tensor<float> o({d.s.B, d.s.Ho(), d.s.N, d.s.E});
        recurrence(d.q, d.k, d.v, o, policies(d)..., context...);
        return o;
    };
}

}  // namespace test
