#include "lanes.hpp"

#include <algorithm>
#include <cstdio>
#include <limits>

#include "clock.hpp"
#include "reporter.hpp"

namespace bench {
namespace {

constexpr int wall = 2;  // the clock that any number of threads can be timed by

double median(std::vector<double> x) {
    if (x.empty()) return std::numeric_limits<double>::quiet_NaN();
    std::sort(x.begin(), x.end());
    const std::size_t half = x.size() / 2;
    return x.size() % 2 ? x[half] : (x[half - 1] + x[half]) / 2;
}

}  // namespace

lane::lane(const measurement& what, bound by)
    : name_(what.name), threads_(what.threads), by_(by), ready_(what.ready()) {
    if (by == bound::memory) stream_.emplace(static_cast<std::ptrdiff_t>(ready_.bytes), threads_);
}

double lane::of_bound() const {
    const double amount = by_ == bound::memory ? ready_.bytes : ready_.flops;
    std::vector<double> all;
    for (std::size_t r = 0; r < seconds_.size(); ++r) all.push_back(amount / seconds_[r] / machine_[r]);
    return median(all);
}

double lane::seconds() const { return median(seconds_); }

double lane::time(int clock) {
    const double start = now(clock);
    for (std::ptrdiff_t c = 0; c < calls_; ++c) ready_.run();
    return (now(clock) - start) / static_cast<double>(calls_);
}

double lane::machine_rate() { return stream_ ? stream_->rate() : fma_rate<float>(threads_, 0.002, 3); }

void lane::round(int clock) {
    const double before = machine_rate();
    seconds_.push_back(time(clock));
    // A peak is what was reached; bandwidth is shared with whoever is on the machine, before and after.
    const double after = machine_rate();
    machine_.push_back(stream_ ? (before + after) / 2 : std::max(before, after));
}

void lane::print() const {
    rates r = rates_of(ready_, threads_, median(seconds_));
    (stream_ ? r.of_bandwidth : r.of_peak) = of_bound();
    print_row("", r, ready_.column("error"), name_.c_str());
}

std::vector<lane> compare(const std::vector<measurement>& all, double seconds, int least_rounds, bound by) {
    std::vector<lane> lanes;
    int clock = 1;
    bool wrong = false;
    for (const measurement& what : all) {
        const lane& x = lanes.emplace_back(what, by);
        clock = std::max(clock, x.threads_);
        wrong |= !x.ready_.wrong.empty();
        if (!x.ready_.wrong.empty()) std::printf("%s  %s\n", x.ready_.wrong.c_str(), x.name_.c_str());
    }
    if (wrong) return lanes;
    for (lane& x : lanes)
        x.calls_ = std::clamp<std::ptrdiff_t>(static_cast<std::ptrdiff_t>(0.01 / x.time(clock)), 1, 10000);
    const double start = now(wall);
    for (int round = 0; round < 41; ++round) {
        if (round >= least_rounds && now(wall) - start > seconds) break;
        for (std::size_t at = 0; at < lanes.size(); ++at)
            lanes[round % 2 ? lanes.size() - 1 - at : at].round(clock);  // back and forth: a drift cancels
    }
    for (const lane& x : lanes) x.print();
    return lanes;
}

double time_ratio(const lane& a, const lane& b) {
    std::vector<double> all;
    for (std::size_t r = 0; r < a.seconds_.size(); ++r) all.push_back(a.seconds_[r] / b.seconds_[r]);
    return median(all);
}

}  // namespace bench
