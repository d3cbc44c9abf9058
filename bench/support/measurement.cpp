#include "measurement.hpp"

#include <algorithm>

#include "machine.hpp"

namespace bench {

rates rates_of(const prepared& what, int threads, double seconds) {
    const machine& m = this_machine();
    const int t = std::min(threads, machine::most_threads);
    const double flops = what.flops / seconds, bytes = what.bytes / seconds;
    return {seconds, flops, flops / (what.in_double ? m.f64[t] : m.f32[t]), bytes, bytes / m.bandwidth[t]};
}

}  // namespace bench
