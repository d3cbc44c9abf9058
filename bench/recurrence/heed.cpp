// heed's recurrences: the form it chooses, and each form.
#include "contestants.hpp"

namespace bench {
namespace {

template <class Form>
prepared form_of(const recurrence_task& task, const Form& form) {
    const auto x = sequence_of(task);
    const auto pool = std::make_shared<threads>(task.threads);
    job run;
    if (task.op == "mamba2")
        run = [=] { run_mamba2(*x, form, on{*pool}); };
    else
        with_policies(task.op, *x, [&](const auto&... policies) {
            run = [=] { recurrence(x->q, x->k, x->v, x->o, policies..., form, on{*pool}); };
        });
    return judged_recurrence(task, x, run);
}

}  // namespace

std::vector<recurrence_contestant> heed_recurrences() {
    return {{"heed", [](const recurrence_task& t) { return form_of(t, fastest_form{}); }},
            {"heed.recurrent", [](const recurrence_task& t) { return form_of(t, recurrent{}); }},
            {"heed.chunked", [](const recurrence_task& t) { return form_of(t, chunked{64}); }},
            {"heed.parallel", [](const recurrence_task& t) { return form_of(t, parallel{}); }}};
}

}  // namespace bench
