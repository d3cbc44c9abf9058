// The clock of the suite.
#pragma once

#include <time.h>

#include <chrono>

namespace bench {

/// Seconds. Work on one thread is timed by what that thread was given, so that a neighbour on the machine shows less;
/// work on more by the clock on the wall.
inline double now(int threads) {
#ifdef CLOCK_THREAD_CPUTIME_ID
    if (threads == 1) {
        timespec t;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
    }
#endif
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace bench
