// Who computes a recurrence: heed's forms, plain loops, Eigen; and who computes what is made of several.
#pragma once

#include "task.hpp"

namespace bench {

struct recurrence_contestant {
    std::string name;
    std::function<prepared(const recurrence_task&)> prepare;
};
std::vector<recurrence_contestant> heed_recurrences(), rival_recurrences();
const std::vector<recurrence_contestant>& recurrence_contestants();

/// An operator that is more than a recurrence, by heed or by its definition in float ("naive").
struct composite {
    std::string op, by;
    std::function<prepared(const recurrence_task&)> prepare;
};
const std::vector<composite>& composites();

/// One step of decoding: a token of every head, from states that are already there. The bytes are those of the states.
measurement step_measured(const recurrence_task& task);

}  // namespace bench
