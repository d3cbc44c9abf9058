// Who computes a recurrence: heed's forms, plain loops, Eigen.
#pragma once

#include "task.hpp"

namespace bench {

struct recurrence_contestant {
    std::string name;
    std::function<prepared(const recurrence_task&)> prepare;
};
std::vector<recurrence_contestant> heed_recurrences(), rival_recurrences();
const std::vector<recurrence_contestant>& recurrence_contestants();

/// One step of decoding: a token of every head, from states that are already there. The bytes are those of the states.
measurement step_measured(const recurrence_task& task);

}  // namespace bench
