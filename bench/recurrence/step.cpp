// Decoding: one token of every head at a time, from states that are already there.
#include "contestants.hpp"

namespace bench {

measurement step_measured(const recurrence_task& task) {
    recurrence_task one = task;
    one.N = 1;
    const std::string name = "recurrence/step." + one.op + one.name("f32").substr(11 + one.op.size()) + "/heed";
    return {name, one.threads, [one] {
                const auto x = sequence_of(one);
                const auto pool = std::make_shared<threads>(one.threads);
                const auto s = std::make_shared<state<float>>(1, one.H, one.rows(), one.E);
                prepared ready;
                if (one.op == "mamba2")
                    ready = judged_recurrence(one, x, [=] { run_mamba2(*x, *s, recurrent{}, on{*pool}); });
                else
                    with_policies(one.op, *x, [&](const auto&... policies) {
                        ready = judged_recurrence(one, x,
                                                  [=] { step(*s, x->q, x->k, x->v, x->o, policies..., on{*pool}); });
                    });
                ready.bytes = static_cast<double>(sizeof(float) * static_cast<std::size_t>(one.H * one.rows() * one.E));
                return ready;
            }};
}

}  // namespace bench
