// What is measured: problems and who takes part, in the order of the table.
#pragma once

#include <string_view>
#include <vector>

#include "../contestants/contestant.hpp"

namespace bench {

struct suite_row {
    problem what;
    const contestant* by;

    std::string name() const { return what.name() + "/" + by->name; }
};

/// Everything; hours of a patient machine would be spent without the limits each contestant has.
std::vector<suite_row> full_suite();
/// The same questions in fewer points: minutes.
std::vector<suite_row> short_suite();

/// A contestant by name; null where it was not built.
const contestant* find_contestant(std::string_view name);

}  // namespace bench
