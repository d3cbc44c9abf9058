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

/// Everything: about an hour. Contestants drop out where a point would cost too much time or memory (see able).
std::vector<suite_row> full_suite();
/// The same questions in fewer points: minutes.
std::vector<suite_row> short_suite();

/// A contestant by name; null where it was not built.
const contestant* find_contestant(std::string_view name);

}  // namespace bench
