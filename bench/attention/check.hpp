// A contestant is timed only where its result is right.
#pragma once

#include <string>

#include "operands.hpp"

namespace bench {

/// Compares o with the definition in double precision, all heads of a sample of rows. Empty if right, else what is
/// wrong.
std::string difference_from_definition(const problem& p, const operands& x);

}  // namespace bench
