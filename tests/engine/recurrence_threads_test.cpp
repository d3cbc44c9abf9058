// heed_test: LABELS threads
// Bits: the same for any executor.
#include <heed/core/threads.hpp>

#include "recurs.hpp"

using namespace test;

namespace {

TEST(recurrence_threads, executors) {
    for (const auto& s : {recurrence_sizes{1, 1, 1, 1, 50, 9, 100}, recurrence_sizes{2, 4, 2, 2, 50, 9, 40, 1, 2}}) {
        SCOPED_TRACE(testing::Message() << s);
        const recurrence_data<float> x(s);
        const auto from = beginning<float>(s.B, s.Hs(), s.D, s.E);
        const auto check = [&](const auto&... p) {
            const auto alone = recur_from(from, x.q, x.k, x.v, p...);
            for (index_t n : {1, 2, 3, 8}) {
                threads pool(n);
                EXPECT_TRUE(same_values(alone, recur_from(from, x.q, x.k, x.v, p..., on{pool}))) << n << " threads";
            }
            executor_adapter backwards(5, [](index_t n, task_ref f) {
                for (index_t i = n; i-- > 0;) f(i);
            });
            EXPECT_TRUE(same_values(alone, recur_from(from, x.q, x.k, x.v, p..., on{backwards})));
        };
        check(x.token_gate());
        check(x.token_gate(), chunked{32});
        check(x.channel_gate(), x.delta_update(), chunked{16});
        check(x.token_gate(), elu_plus_one{}, sum_of_keys{});
    }
}

}  // namespace
