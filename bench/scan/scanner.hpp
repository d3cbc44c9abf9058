// A scanner: an operator that carries a state along the tokens, by heed or a rival. One short file for each kind.
#pragma once

#include <heed/heed.hpp>

#include "../support/measurement.hpp"

namespace bench {

using namespace heed;

struct scan_shape {
    index_t N = 0, C = 0, S = 1;  // tokens, channels, states of a channel
    int threads = 1;

    std::string name() const {  // n:N/c:C/s:S/threads:T
        return "n:" + std::to_string(N) + "/c:" + std::to_string(C) + "/s:" + std::to_string(S) +
               "/threads:" + std::to_string(threads);
    }
};

struct scanner {
    std::string op, dtype, by;
    std::function<prepared(const scan_shape&)> prepare;
};
const std::vector<scanner>& scanners();

/// scan/<op>/<dtype>/<shape>/<by>; std::out_of_range where there is none.
measurement measured(const scanner& by, const scan_shape& s);
measurement measured(const std::string& op, const std::string& dtype, const scan_shape& s,
                     const std::string& by = "heed");

/// (1, N, C) of S, numbers in [low, high).
template <class S>
class sequence_of {
public:
    sequence_of(index_t N, index_t C, std::uint64_t seed, double low, double high)
        : N_(N), C_(C), memory_(static_cast<std::size_t>(N * C)) {
        const counter_random random(seed);
        for (std::size_t i = 0; i < memory_.size(); ++i)
            memory_[i] = static_cast<S>(low + (high - low) * random.uniform(i));
    }
    sequence_of(index_t N, index_t C) : N_(N), C_(C), memory_(static_cast<std::size_t>(N * C)) {}

    view<S, 3> v() { return dense(memory_.data(), {1, N_, C_}); }
    view<const S, 3> v() const { return dense(memory_.data(), {1, N_, C_}); }
    view<const S, 2> rows() const { return dense(memory_.data(), {N_, C_}); }
    view<const S, 1> row() const { return dense(memory_.data(), {N_ * C_}); }
    std::span<const std::byte> bytes() const { return std::as_bytes(std::span(memory_)); }
    /// In double, for the definition.
    sequence_of<double> exactly() const {
        sequence_of<double> x(N_, C_);
        const auto to = x.v();
        for (index_t i = 0; i < N_ * C_; ++i) to.data[i] = static_cast<double>(memory_[static_cast<std::size_t>(i)]);
        return x;
    }
    /// max |this - exact| / max |exact|
    double error(const sequence_of<double>& exact) const {
        double most = 0, largest = 0;
        for (index_t i = 0; i < N_ * C_; ++i) {
            const double want = exact.v().data[i];
            const double off = std::abs(static_cast<double>(memory_[static_cast<std::size_t>(i)]) - want);
            if (std::isnan(off)) return off;
            most = std::max(most, off);
            largest = std::max(largest, std::abs(want));
        }
        return most / largest;
    }

private:
    index_t N_, C_;
    aligned_vector<S> memory_;
};

/// Bounds of the error: roundings of sums of a few hundred terms; of the output to S.
template <class S>
constexpr double scan_tolerance = std::is_same_v<S, float> ? 1e-5
                                  : std::is_same_v<S, f16> ? 1e-3
                                                           : 8e-3;

/// Runs a job once and judges what it wrote to y, which lives as long as the job.
template <class S>
prepared judged(const sequence_of<S>& y, const sequence_of<double>& exact, job run, double flops, double bytes,
                double tolerance = scan_tolerance<S>) {
    run();
    const double error = y.error(exact);
    return {.run = std::move(run),
            .wrong = error <= tolerance ? "" : "wrong: off by " + std::to_string(error) + " of the largest",
            .flops = flops,
            .bytes = bytes,
            .columns = {{"error", error}},
            .output = y.bytes()};
}

}  // namespace bench
