// The table of bars: what heed promises on this machine, and what it does.
#pragma once

namespace bench {

/// Measures and prints; 0 if every bar is met, 1 if not.
int print_bars();

}  // namespace bench
