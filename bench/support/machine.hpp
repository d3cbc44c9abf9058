// What this machine can do: the FMA peak and the read bandwidth, measured here and now.
#pragma once

#include <heed/core/context.hpp>
#include <heed/core/threads.hpp>

namespace bench {

/// Multiply-adds in registers on so many threads at once, best of a few short windows: flops per second.
template <class T>
double fma_rate(int threads, double seconds_per_window, int windows);

/// Reads a buffer once, each thread a part of its own, by nothing but loads; two buffers in turn, so that as much else was
/// read meanwhile as before a measurement beside it, and a large cache holds neither or both.
class read_stream {
public:
    read_stream(heed::index_t bytes, int threads);
    /// Of a pass, or of those of a millisecond: bytes per second.
    double rate();

private:
    heed::threads pool_;
    heed::index_t stretch_;  // floats that one thread reads from one place on
    heed::index_t half_ = 0;  // the buffer that is next
    heed::arena memory_;
};

/// Rates of the process, measured once: the median of the best few windows, since the clock drifts and others share it.
struct machine {
    static constexpr int most_threads = 2;
    double f32[most_threads + 1] = {};  // flops per second, by threads
    double f64[most_threads + 1] = {};
    double bandwidth[most_threads + 1] = {};  // bytes per second, a buffer larger than the last cache
};
const machine& this_machine();

}  // namespace bench
