// A contestant on a problem as a measurement.
#pragma once

#include "contestants/contestant.hpp"

namespace bench {

/// Made ready, the contestant has run once on an output full of NaN, which was compared with the definition.
measurement measured(const problem& what, const contestant& by);

/// heed on a problem.
inline measurement measured(const problem& what) { return measured(what, contestants().front()); }

}  // namespace bench
