// Lanes: measurements that are timed in turn, so that what the machine does meanwhile meets all of them.
#pragma once

#include <optional>

#include "machine.hpp"
#include "measurement.hpp"

namespace bench {

/// What bounds a measurement: that rate of the machine is measured before and after each of its calls.
enum class bound { arithmetic, memory };

/// A measurement and its times, round by round. Wrong ones, and their rivals, have none: all ratios are NaN.
class lane {
public:
    lane(const measurement& what, bound by);

    const prepared& what() const { return ready_; }
    /// Its rate over that of the machine, the median of the rounds.
    double of_bound() const;
    /// Of one call, the median of the rounds.
    double seconds() const;

private:
    friend std::vector<lane> compare(const std::vector<measurement>&, double, int, bound);
    friend double time_ratio(const lane&, const lane&);

    double time(int clock);
    void round(int clock);
    double machine_rate();
    void print() const;

    std::string name_;
    int threads_;
    bound by_;
    prepared ready_;
    std::optional<read_stream> stream_;
    std::ptrdiff_t calls_ = 1;  // of one round: enough for the clock
    std::vector<double> seconds_, machine_;
};

/// Times all measurements for so many rounds, and as many more as the seconds allow, and prints a line each.
std::vector<lane> compare(const std::vector<measurement>& all, double seconds, int least_rounds,
                          bound by = bound::arithmetic);

/// Median of time(a) / time(b) over the rounds.
double time_ratio(const lane& a, const lane& b);

}  // namespace bench
