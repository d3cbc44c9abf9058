// The families of the suite: attention, decode, ... A family is a folder, which adds measurements and bars.
#pragma once

#include "bars.hpp"
#include "measurement.hpp"

namespace bench {

enum class length { brief, whole };  // minutes; about an hour

struct family {
    const char* name;
    std::vector<measurement> (*rows)(length);
    std::vector<bar_group> (*bars)();
};
std::span<const family> families();

/// All rows, in the order of the table; each name once.
std::vector<measurement> suite(length);

/// Measures and prints the groups of bars whose family/name contains the filter; 0 if every bar is met, 1 if not.
int print_bars(std::string_view filter);

}  // namespace bench
