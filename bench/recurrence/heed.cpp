// heed's recurrences: the form it chooses, and each form.
#include "contestants.hpp"

namespace bench {
namespace {

/// Low-rank updates have the recurrent form only.
template <class Policy>
constexpr bool in_blocks = true;
template <class S>
constexpr bool in_blocks<low_rank<S>> = false;

template <class Form>
prepared form_of(const recurrence_task& task, const Form& form) {
    constexpr bool blocks = std::is_same_v<Form, chunked> || std::is_same_v<Form, parallel>;
    const auto x = sequence_of(task);
    const auto pool = std::make_shared<threads>(task.threads);
    job run;
    if (task.op == "mamba2")
        run = [=] { run_mamba2(*x, form, on{*pool}); };
    else
        with_policies(task.op, *x, [&](const auto&... policies) {
            if constexpr (!blocks || (in_blocks<std::remove_cvref_t<decltype(policies)>> && ...))
                run = [=] { recurrence(x->q, x->k, x->v, x->o, policies..., form, on{*pool}); };
            else
                throw std::invalid_argument("no such form");
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
